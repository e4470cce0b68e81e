//! Billing: what it reads in one snapshot, what it writes in one transaction, and who may.
//!
//! Every write begins with its job's lease: the row is locked, so writers of one job follow each other,
//! and whoever lost it changes nothing. An account is changed only from the number of charges that the
//! change was computed from; with the unique key of each charge that makes it impossible to charge the
//! same growth twice, whatever runs twice.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row as _, query, query_scalar};
use uuid::Uuid;
use weir_core::units::{Micros, PlanId, Seq, ShardId, SubscriptionId};

use super::decode::{self, Columns};
use super::subscriptions::push_reach;
use super::{Conn, Db, load, page, push_among};
use crate::Page;
use crate::billing::{
    BillingChange, BillingState, ChargeFilter, ChargeKind, ChargeRow, JobLease, PeriodFilter,
    PeriodRow, PeriodStatus, SegmentRow,
};
use crate::failure::Failure;
use crate::number::{self, unsigned};
use crate::rows::OutboxRow;

const PERIOD_COLUMNS: &str = "p.subscription_id, p.quota, p.meter, p.period_start, p.period_end, \
     p.used, p.quota_limit, p.plan_id, p.plan_version, p.status, p.usage_snapshot, p.charges, \
     p.charged, p.charged_units, p.currency, p.booked_used, p.closed_at";
const CHARGE_COLUMNS: &str = "h.id, h.subscription_id, h.quota, h.meter, h.period_start, \
     h.period_end, h.number, h.kind, h.amount, h.currency, h.units, h.description, \
     h.corrects_start, h.corrects_end, h.created_at, h.idempotency_key";

/// Takes a job that nobody has.
pub(super) async fn take(
    connection: &mut Conn,
    job: &str,
    holder: Uuid,
    now: Micros,
    until: Micros,
) -> Result<Option<JobLease>, Failure> {
    let statement = "INSERT INTO job_leases AS l (job, holder, token, until_at) \
         VALUES ($1, $2, 1, $4) ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, \
         token = l.token + 1, until_at = excluded.until_at WHERE l.until_at <= $3 RETURNING token";
    let token = query_scalar::<Db, i64>(statement)
        .bind(job)
        .bind(holder)
        .bind(now.get())
        .bind(until.get())
        .fetch_optional(connection)
        .await?;
    Ok(token.map(|token| JobLease { job: job.to_owned(), holder, token }))
}

/// Prolongs a lease and locks it; `false` when it is another's.
pub(super) async fn keep(
    connection: &mut Conn,
    lease: &JobLease,
    until: Micros,
) -> Result<bool, Failure> {
    let done =
        query("UPDATE job_leases SET until_at = $4 WHERE job = $1 AND holder = $2 AND token = $3")
            .bind(&lease.job)
            .bind(lease.holder)
            .bind(lease.token)
            .bind(until.get())
            .execute(connection)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Subscriptions after this one, deleted ones too.
pub(super) async fn ids(
    connection: &mut Conn,
    after: Option<SubscriptionId>,
    limit: u32,
) -> Result<Vec<SubscriptionId>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT s.id FROM api_subscriptions s");
    if let Some(after) = after {
        select.push(" WHERE s.id > ").push_bind(after.uuid());
    }
    select.push(" ORDER BY s.id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(connection).await?;
    rows.iter().map(|row| Ok(SubscriptionId::from_uuid(row.try_get(0)?))).collect()
}

/// State, unsettled periods and their parts. Runs inside a snapshot.
pub(super) async fn states(
    connection: &mut Conn,
    ids: &[(SubscriptionId, ShardId)],
    named: &[(String, Micros)],
) -> Result<Vec<BillingState>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let counted = counted(connection).await?;
    let position = |shard| counted.get(&shard).copied().unwrap_or_default();
    let wanted: Vec<_> = ids.iter().map(|&(id, shard)| (id, shard, position(shard))).collect();
    let loaded = load::load(connection, &wanted).await?;
    let mut periods: HashMap<SubscriptionId, Vec<PeriodRow>> = HashMap::new();
    for row in unsettled(connection, ids, named).await? {
        periods.entry(row.subscription).or_default().push(row);
    }
    let mut segments: HashMap<SubscriptionId, Vec<SegmentRow>> = HashMap::new();
    for row in segments_of_unsettled(connection, ids, named).await? {
        segments.entry(row.subscription).or_default().push(row);
    }
    let state = |loaded: crate::Loaded| BillingState {
        periods: periods.remove(&loaded.subscription.id).unwrap_or_default(),
        segments: segments.remove(&loaded.subscription.id).unwrap_or_default(),
        loaded,
    };
    Ok(loaded.into_iter().map(state).collect())
}

/// How far each shard's ledger is in checkpoints.
async fn counted(connection: &mut Conn) -> Result<HashMap<ShardId, Seq>, Failure> {
    let rows = query("SELECT shard_id, counted FROM shard_progress").fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        Ok((number::shard_id(columns.take()?)?, Seq(unsigned(columns.take()?)?)))
    })
    .map(|pairs| pairs.into_iter().collect())
}

/// Periods that are not closed, changed since, or are asked for by name.
fn push_wanted(select: &mut QueryBuilder<Db>, named: &[(String, Micros)]) {
    select.push(" AND (p.status < 2 OR p.used <> p.booked_used");
    for (quota, start) in named {
        select.push(" OR (p.quota = ").push_bind(quota.clone());
        select.push(" AND p.period_start = ").push_bind(start.get()).push(")");
    }
    select.push(")");
}

async fn unsettled(
    connection: &mut Conn,
    ids: &[(SubscriptionId, ShardId)],
    named: &[(String, Micros)],
) -> Result<Vec<PeriodRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT ");
    select.push(PERIOD_COLUMNS).push(" FROM billing_periods p WHERE p.subscription_id");
    push_among(&mut select, ids.iter().map(|(id, _)| id.uuid()));
    push_wanted(&mut select, named);
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, period)
}

async fn segments_of_unsettled(
    connection: &mut Conn,
    ids: &[(SubscriptionId, ShardId)],
    named: &[(String, Micros)],
) -> Result<Vec<SegmentRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(
        "SELECT g.subscription_id, g.quota, g.period_start, g.until_at, g.used, g.overage_from, \
         g.plan_id, g.plan_version, g.priced_as FROM billing_segments g \
         JOIN billing_periods p ON p.subscription_id = g.subscription_id AND p.quota = g.quota \
         AND p.period_start = g.period_start WHERE p.subscription_id",
    );
    push_among(&mut select, ids.iter().map(|(id, _)| id.uuid()));
    push_wanted(&mut select, named);
    select.push(" ORDER BY g.period_start, g.until_at");
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        Ok(SegmentRow {
            subscription: SubscriptionId::from_uuid(columns.take()?),
            quota: columns.take()?,
            start: columns.take().map(Micros::from_micros)?,
            until: columns.take().map(Micros::from_micros)?,
            used: columns.take()?,
            overage_from: columns.take()?,
            plan: PlanId::from_uuid(columns.take()?),
            plan_version: columns.take()?,
            priced_as: columns.take()?,
        })
    })
}

/// Charges, accounts and messages, all or nothing.
pub(super) async fn write(
    connection: &mut Conn,
    lease: &JobLease,
    change: &BillingChange,
) -> Result<(), Failure> {
    if !keep(connection, lease, change.lease_until).await? {
        return Err(Failure::Conflict("job"));
    }
    for row in &change.periods {
        let added = change.charges.iter().filter(|charge| is_on(charge, row)).count();
        account(connection, row, i32::try_from(added).unwrap_or(i32::MAX)).await?;
    }
    for row in &change.charges {
        insert_charge(connection, row).await?;
    }
    for row in &change.outbox {
        enqueue(connection, row).await?;
    }
    Ok(())
}

/// Whether a charge is counted in this account: a correction is, in that of the period it corrects.
fn is_on(charge: &ChargeRow, row: &PeriodRow) -> bool {
    let start = charge.corrects.map_or(charge.start, |(start, _)| start);
    (charge.subscription, charge.quota.as_str(), start)
        == (row.subscription, row.quota.as_str(), row.start)
}

/// Sets an account that stands at the number of charges before these.
async fn account(connection: &mut Conn, row: &PeriodRow, added: i32) -> Result<(), Failure> {
    let statement = "INSERT INTO billing_periods AS p (subscription_id, quota, meter, \
         period_start, period_end, used, quota_limit, plan_id, plan_version, status, \
         usage_snapshot, charges, charged, charged_units, currency, booked_used, closed_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         ON CONFLICT (subscription_id, quota, period_start) DO UPDATE SET \
         status = excluded.status, usage_snapshot = excluded.usage_snapshot, \
         charges = excluded.charges, charged = excluded.charged, \
         charged_units = excluded.charged_units, currency = excluded.currency, \
         booked_used = excluded.booked_used, closed_at = excluded.closed_at \
         WHERE p.charges = excluded.charges - $17";
    let done = query(statement)
        .bind(row.subscription.uuid())
        .bind(&row.quota)
        .bind(&row.meter)
        .bind(row.start.get())
        .bind(row.end.get())
        .bind(row.quota_limit)
        .bind(row.plan.uuid())
        .bind(row.plan_version)
        .bind(row.status as i16)
        .bind(&row.usage_snapshot)
        .bind(row.charges)
        .bind(&row.charged)
        .bind(row.charged_units)
        .bind(&row.currency)
        .bind(row.booked_used)
        .bind(row.closed_at.map(Micros::get))
        .bind(added)
        .execute(connection)
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Failure::Conflict("charges")) }
}

async fn insert_charge(connection: &mut Conn, row: &ChargeRow) -> Result<(), Failure> {
    let statement = "INSERT INTO charges (id, subscription_id, quota, meter, period_start, \
         period_end, number, kind, amount, currency, units, description, corrects_start, \
         corrects_end, created_at, idempotency_key) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    query(statement)
        .bind(row.id)
        .bind(row.subscription.uuid())
        .bind(&row.quota)
        .bind(&row.meter)
        .bind(row.start.get())
        .bind(row.end.get())
        .bind(row.number)
        .bind(row.kind as i16)
        .bind(&row.amount)
        .bind(&row.currency)
        .bind(row.units)
        .bind(&row.description)
        .bind(row.corrects.map(|(start, _)| start.get()))
        .bind(row.corrects.map(|(_, end)| end.get()))
        .bind(row.created_at.get())
        .bind(&row.idempotency_key)
        .execute(connection)
        .await
        .map_err(|error| Failure::on_unique(error, "charges"))?;
    Ok(())
}

async fn enqueue(connection: &mut Conn, row: &OutboxRow) -> Result<(), Failure> {
    let statement = "INSERT INTO event_queue (id, subscription_id, kind, priority, \
         idempotency_key, payload, created_at, next_attempt_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (idempotency_key) DO NOTHING";
    query(statement)
        .bind(row.id)
        .bind(row.subscription.uuid())
        .bind(&row.kind)
        .bind(row.priority)
        .bind(&row.idempotency_key)
        .bind(&row.payload)
        .bind(row.created_at.get())
        .bind(row.created_at.get())
        .execute(connection)
        .await?;
    Ok(())
}

/// A page of charges, newest first.
pub(super) async fn list_charges(
    connection: &mut Conn,
    filter: &ChargeFilter,
) -> Result<Page<ChargeRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT ");
    select.push(CHARGE_COLUMNS);
    select.push(" FROM charges h JOIN api_subscriptions s ON s.id = h.subscription_id WHERE TRUE");
    push_reach(&mut select, &filter.reach);
    if let Some(subscription) = filter.subscription {
        select.push(" AND h.subscription_id = ").push_bind(subscription.uuid());
    }
    if let Some(kind) = filter.kind {
        select.push(" AND h.kind = ").push_bind(kind);
    }
    if let Some((quota, start)) = &filter.period {
        select.push(" AND h.quota = ").push_bind(quota.clone());
        select.push(" AND (h.period_start = ").push_bind(start.get());
        select.push(" OR h.corrects_start = ").push_bind(start.get()).push(")");
    }
    if let Some(before) = filter.before {
        select.push(" AND h.id < ").push_bind(before);
    }
    select.push(" ORDER BY h.id DESC LIMIT ").push_bind(page::fetch(filter.limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, charge)?, filter.limit))
}

/// A page of periods, latest first.
pub(super) async fn list_periods(
    connection: &mut Conn,
    filter: &PeriodFilter,
) -> Result<Page<PeriodRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT ");
    select.push(PERIOD_COLUMNS).push(" FROM billing_periods p WHERE p.subscription_id = ");
    select.push_bind(filter.subscription.uuid());
    if let Some((quota, start)) = &filter.only {
        select.push(" AND p.quota = ").push_bind(quota.clone());
        select.push(" AND p.period_start = ").push_bind(start.get());
    }
    if let Some((start, quota)) = &filter.after {
        select.push(" AND (p.period_start < ").push_bind(start.get());
        select.push(" OR (p.period_start = ").push_bind(start.get());
        select.push(" AND p.quota > ").push_bind(quota.clone()).push("))");
    }
    select.push(" ORDER BY p.period_start DESC, p.quota LIMIT ");
    select.push_bind(page::fetch(filter.limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, period)?, filter.limit))
}

fn period(columns: &mut Columns<'_>) -> Result<PeriodRow, Failure> {
    Ok(PeriodRow {
        subscription: SubscriptionId::from_uuid(columns.take()?),
        quota: columns.take()?,
        meter: columns.take()?,
        start: columns.take().map(Micros::from_micros)?,
        end: columns.take().map(Micros::from_micros)?,
        used: columns.take()?,
        quota_limit: columns.take()?,
        plan: PlanId::from_uuid(columns.take()?),
        plan_version: columns.take()?,
        status: match columns.take::<i16>()? {
            2 => PeriodStatus::Closed,
            _ => PeriodStatus::Open,
        },
        usage_snapshot: columns.take()?,
        charges: columns.take()?,
        charged: columns.take()?,
        charged_units: columns.take()?,
        currency: columns.take()?,
        booked_used: columns.take()?,
        closed_at: columns.take::<Option<i64>>()?.map(Micros::from_micros),
    })
}

fn charge(columns: &mut Columns<'_>) -> Result<ChargeRow, Failure> {
    Ok(ChargeRow {
        id: columns.take()?,
        subscription: SubscriptionId::from_uuid(columns.take()?),
        quota: columns.take()?,
        meter: columns.take()?,
        start: columns.take().map(Micros::from_micros)?,
        end: columns.take().map(Micros::from_micros)?,
        number: columns.take()?,
        kind: ChargeKind::from_i16(columns.take()?)
            .ok_or_else(|| Failure::Damaged("a charge of no known kind".to_owned()))?,
        amount: columns.take()?,
        currency: columns.take()?,
        units: columns.take()?,
        description: columns.take()?,
        corrects: {
            let start: Option<i64> = columns.take()?;
            let end: Option<i64> = columns.take()?;
            start.zip(end).map(|(a, b)| (Micros::from_micros(a), Micros::from_micros(b)))
        },
        created_at: columns.take().map(Micros::from_micros)?,
        idempotency_key: columns.take()?,
    })
}
