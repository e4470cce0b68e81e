//! From priced periods to what is to be written: charges, accounts, messages. Pure.
//!
//! ```text
//!   stage     overage job            rollover job
//!   open      charges growth         –
//!   grace     charges growth         –
//!   over      charges growth         charges growth, snapshot, closes, tells
//!   closed    –                      a correction on the open period, if units changed since
//! ```

use serde_json::{Value, json};
use uuid::Uuid;
use weir_core::rating::{
    Amount, Booked, Charge, Charged, Currency, Line, LinePrice, Stage, correction,
};
use weir_core::units::{Micros, Span, Units};
use weir_store::billing::{BillingChange, ChargeKind, ChargeRow, PeriodRow, PeriodStatus};
use weir_store::rows::{OutboxRow, SubscriptionRow};

use super::price::Priced;
use super::{Job, ReckonError, Report};
use crate::clock::rfc3339;

/// Charges leave before warnings.
const CHARGE_PRIORITY: i16 = 0;
/// Reports of periods leave after warnings.
const CLOSED_PRIORITY: i16 = 20;

/// When a change is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Micros,
    pub(super) grace: Span,
    /// The lease lasts until then.
    pub(super) until: Micros,
}

/// What is to be written of one subscription.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) rows: BillingChange,
    pub(super) closed: u64,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.periods.is_empty()
    }

    pub(super) fn charges(&self) -> u64 {
        self.rows.charges.len() as u64
    }

    /// Counts what was written.
    pub(super) fn add_to(&self, report: &mut Report) {
        report.closed += self.closed;
        for charge in &self.rows.charges {
            report.charges += 1;
            report.corrections += u64::from(charge.kind == ChargeKind::Correction);
            let amount = Amount::from_minor(charge.amount.parse().unwrap_or_default());
            let sum = report.charged.entry(charge.currency.clone()).or_default();
            *sum = *sum + amount;
        }
    }
}

/// What a job writes of a subscription.
pub(super) fn of(
    job: Job,
    owner: &SubscriptionRow,
    accounts: &[Priced],
    moment: Moment,
) -> Result<Change, ReckonError> {
    let mut change = Change::default();
    change.rows.lease_until = moment.until;
    for priced in accounts {
        let is_over = Stage::of(&priced.period(), moment.grace, moment.now) == Stage::Closed;
        match (job, priced.account.row.status) {
            (Job::Overage, PeriodStatus::Open) => {
                if let Some(charge) = priced.charged.next(priced.rated.amount) {
                    let row = grown(priced, charge);
                    change.push_charge(owner, priced, charge, moment.now);
                    change.rows.periods.push(row);
                }
            }
            (Job::Rollover, PeriodStatus::Open) if is_over && !priced.account.runs => {
                change.close(owner, priced, moment.now);
            }
            (Job::Rollover, PeriodStatus::Closed) => {
                change.correct(owner, priced, accounts, moment.now)?;
            }
            _ => {}
        }
    }
    Ok(change)
}

impl Change {
    fn push_charge(
        &mut self,
        owner: &SubscriptionRow,
        priced: &Priced,
        charge: Charge,
        now: Micros,
    ) {
        let units = overage_units(priced) - priced.account.row.charged_units;
        let (quota, row) = (&priced.account.row.quota, &priced.account.row);
        let description = format!("Overage of {quota}, {} to {}", day(row.start), day(row.end));
        let charge = ChargeRow {
            kind: ChargeKind::Overage,
            start: row.start,
            end: row.end,
            units,
            description,
            corrects: None,
            ..charge_row(owner, priced, charge, now)
        };
        self.rows.outbox.push(charge_message(owner, priced, &charge));
        self.rows.charges.push(charge);
    }

    fn close(&mut self, owner: &SubscriptionRow, priced: &Priced, now: Micros) {
        let growth = priced.charged.next(priced.rated.amount);
        let mut row = priced.account.row.clone();
        if let Some(charge) = growth {
            row = grown(priced, charge);
            self.push_charge(owner, priced, charge, now);
        }
        row.status = PeriodStatus::Closed;
        row.closed_at = Some(now);
        row.currency = Some(priced.currency.clone());
        row.booked_used = signed(priced.account.used);
        row.charged_units = overage_units(priced);
        let snapshot = snapshot(priced);
        row.usage_snapshot = Some(snapshot.to_string());
        self.rows.outbox.push(closed_message(owner, priced, snapshot, now));
        self.rows.periods.push(row);
        self.closed += 1;
    }

    /// What came after a period was closed stands on the period that is open now.
    fn correct(
        &mut self,
        owner: &SubscriptionRow,
        priced: &Priced,
        accounts: &[Priced],
        now: Micros,
    ) -> Result<(), ReckonError> {
        let row = &priced.account.row;
        let units = |number: u64| Units::clamped(number);
        let booked = u64::try_from(row.booked_used).unwrap_or_default();
        let booked = Booked { used: units(booked), amount: priced.charged.amount };
        let stands = Booked { used: units(priced.account.used), amount: priced.rated.amount };
        let Some(line) = correction(priced.period(), booked, stands) else { return Ok(()) };
        let runs = |other: &&Priced| other.account.runs;
        let named = |other: &&Priced| other.account.row.quota == row.quota;
        let open = accounts.iter().filter(runs).find(named);
        let open = open.or_else(|| accounts.iter().find(runs)).ok_or_else(|| {
            ReckonError::Damaged("no period is open that a correction could stand on".to_owned())
        })?;
        let charge = Charge { number: priced.charged.count.saturating_add(1), amount: line.amount };
        let written = ChargeRow {
            kind: ChargeKind::Correction,
            start: open.account.row.start,
            end: open.account.row.end,
            units: line.units,
            description: format!(
                "Correction of {}, {} to {}",
                row.quota,
                day(row.start),
                day(row.end)
            ),
            corrects: Some((line.corrects.start, line.corrects.end)),
            ..charge_row(owner, priced, charge, now)
        };
        if !line.amount.is_zero() {
            self.rows.outbox.push(charge_message(owner, priced, &written));
        }
        self.rows.charges.push(written);
        let account = PeriodRow {
            booked_used: signed(priced.account.used),
            charged_units: overage_units(priced),
            ..grown(priced, charge)
        };
        self.rows.periods.push(account);
        Ok(())
    }
}

/// The account with one charge more.
fn grown(priced: &Priced, charge: Charge) -> PeriodRow {
    let Charged { count, amount } = priced.charged.with(charge);
    PeriodRow {
        charges: i32::try_from(count).unwrap_or(i32::MAX),
        charged: amount.minor().to_string(),
        charged_units: overage_units(priced),
        currency: Some(priced.currency.clone()),
        ..priced.account.row.clone()
    }
}

/// What all charges have in common; period, kind and words are the caller's.
fn charge_row(owner: &SubscriptionRow, priced: &Priced, charge: Charge, now: Micros) -> ChargeRow {
    let row = &priced.account.row;
    ChargeRow {
        id: Uuid::now_v7(),
        subscription: owner.id,
        quota: row.quota.clone(),
        meter: row.meter.clone(),
        start: row.start,
        end: row.end,
        number: i32::try_from(charge.number).unwrap_or(i32::MAX),
        kind: ChargeKind::Overage,
        amount: charge.amount.minor().to_string(),
        currency: priced.currency.clone(),
        units: 0,
        description: String::new(),
        corrects: None,
        created_at: now,
        idempotency_key: charge.key(owner.id, &row.quota, &priced.period()),
    }
}

fn charge_message(owner: &SubscriptionRow, priced: &Priced, charge: &ChargeRow) -> OutboxRow {
    let amount = Amount::from_minor(charge.amount.parse().unwrap_or_default());
    let bounds =
        |(start, end): (Micros, Micros)| json!({"start": rfc3339(start), "end": rfc3339(end)});
    let payload = json!({
        "subscriptionId": owner.id.to_string(),
        "userEmail": owner.user_email,
        "apiId": owner.api_id,
        "chargeId": charge.id.to_string(),
        "kind": kind(charge.kind),
        "quota": charge.quota,
        "meter": charge.meter,
        "number": charge.number,
        "units": charge.units,
        "amount": priced.text(amount),
        "currency": charge.currency,
        "description": charge.description,
        "period": bounds((charge.start, charge.end)),
        "corrects": charge.corrects.map(bounds),
        "idempotencyKey": charge.idempotency_key,
    });
    OutboxRow {
        id: Uuid::now_v7(),
        subscription: owner.id,
        kind: "overage_charge".to_owned(),
        priority: CHARGE_PRIORITY,
        idempotency_key: charge.idempotency_key.clone(),
        payload: payload.to_string(),
        created_at: charge.created_at,
    }
}

fn closed_message(
    owner: &SubscriptionRow,
    priced: &Priced,
    snapshot: Value,
    now: Micros,
) -> OutboxRow {
    let row = &priced.account.row;
    let mut payload = snapshot;
    payload["subscriptionId"] = owner.id.to_string().into();
    payload["userEmail"] = json!(owner.user_email);
    payload["apiId"] = json!(owner.api_id);
    OutboxRow {
        id: Uuid::now_v7(),
        subscription: owner.id,
        kind: "billing_period_closed".to_owned(),
        priority: CLOSED_PRIORITY,
        idempotency_key: format!("closed/{}/{}/{}", owner.id, row.quota, row.start.get()),
        payload: payload.to_string(),
        created_at: now,
    }
}

/// What a period was closed with. Read back by the edge, so a field here is part of the contract.
fn snapshot(priced: &Priced) -> Value {
    let row = &priced.account.row;
    let fee: Amount = priced.fees.iter().map(|fee| fee.amount).sum();
    let fees: Vec<Value> = priced
        .fees
        .iter()
        .map(|fee| {
            json!({"planId": fee.plan.to_string(), "planVersion": fee.version,
                "from": rfc3339(fee.from), "until": rfc3339(fee.until),
                "amount": priced.text(fee.amount)})
        })
        .collect();
    let parts: Vec<Value> = priced
        .account
        .parts
        .iter()
        .map(|part| {
            json!({"planId": part.by.plan.to_string(), "planVersion": part.by.version,
                "quota": &*part.by.quota, "overageFrom": part.by.overage_from.map(Units::get),
                "used": part.used})
        })
        .collect();
    json!({
        "quota": row.quota,
        "meter": row.meter,
        "period": {"start": rfc3339(row.start), "end": rfc3339(row.end)},
        "used": priced.account.used,
        "limit": row.quota_limit,
        "planId": row.plan.to_string(),
        "planVersion": row.plan_version,
        "overageUnits": priced.rated.overage_units.get(),
        "amount": priced.text(priced.rated.amount),
        "currency": priced.currency,
        "capped": priced.rated.is_capped,
        "lines": lines(priced),
        "baseFee": priced.text(fee),
        "baseFees": fees,
        "total": priced.text(fee + priced.rated.amount),
        "terms": parts,
    })
}

/// The lines of a period's overage as JSON.
pub fn lines(priced: &Priced) -> Vec<Value> {
    let currency = Currency::of(&priced.currency);
    priced.rated.lines.iter().map(|line| line_of(priced, line, currency)).collect()
}

fn line_of(priced: &Priced, line: &Line, currency: Currency) -> Value {
    let by = priced.account.parts.get(line.segment).map(|part| &part.by);
    let mut value = json!({
        "tier": line.tier,
        "units": line.units.get(),
        "amount": currency.text(line.amount),
        "planId": by.map(|by| by.plan.to_string()),
        "planVersion": by.map(|by| by.version),
    });
    match line.price {
        LinePrice::Unit { unit_price, flat_fee } => {
            value["unitPrice"] = unit_price.to_string().into();
            if !flat_fee.is_zero() {
                value["flatFee"] = flat_fee.to_string().into();
            }
        }
        LinePrice::Package { packages, size, price } => {
            value["packages"] = packages.get().into();
            value["packageSize"] = size.get().into();
            value["packagePrice"] = price.to_string().into();
        }
    }
    value
}

/// The contract's word for a kind of charge.
pub const fn kind(kind: ChargeKind) -> &'static str {
    match kind {
        ChargeKind::Overage => "overage",
        ChargeKind::Correction => "correction",
    }
}

fn overage_units(priced: &Priced) -> i64 {
    signed(priced.rated.overage_units.get())
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// The day of a moment in UTC, for a description.
fn day(at: Micros) -> String {
    rfc3339(at).chars().take(10).collect()
}
