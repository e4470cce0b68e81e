//! Rows of money: charges, the accounts of periods, and the leases of jobs.
//!
//! Role: the plain family of types of the billing tables, as `rows` is for the others. Amounts are
//! text, integers of a currency's smallest unit: they may be longer than 64 bits, and the databases
//! never calculate with them.

use uuid::Uuid;
use weir_core::units::{Micros, PlanId, SubscriptionId};

use crate::rows::OutboxRow;
use crate::{Loaded, Reach};

/// A job in the hands of one boot (`job_leases`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLease {
    /// Its name.
    pub job: String,
    /// Who has it.
    pub holder: Uuid,
    /// Grows whenever it is taken.
    pub token: i64,
}

/// Life of a period's account. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum PeriodStatus {
    /// Not closed: the clock tells whether it runs or is in its grace.
    Open = 0,
    /// Its amount stands.
    Closed = 2,
}

/// A quota's period (`billing_periods`). What runs may not have a row, or one without its units.
#[derive(Clone, Debug, PartialEq)]
pub struct PeriodRow {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Name of the quota.
    pub quota: String,
    /// Its meter.
    pub meter: String,
    /// Start, inclusive.
    pub start: Micros,
    /// End, exclusive.
    pub end: Micros,
    /// Units counted, as far as checkpoints told.
    pub used: i64,
    /// Limit at its end.
    pub quota_limit: Option<i64>,
    /// The plan at its end.
    pub plan: PlanId,
    /// Its version.
    pub plan_version: i32,
    /// Whether it is closed.
    pub status: PeriodStatus,
    /// JSON, once it is closed.
    pub usage_snapshot: Option<String>,
    /// Number of charges.
    pub charges: i32,
    /// Their sum, in smallest units.
    pub charged: String,
    /// Overage units that they are for.
    pub charged_units: i64,
    /// Of the charges, ISO 4217.
    pub currency: Option<String>,
    /// What it was closed and since corrected with.
    pub booked_used: i64,
    /// When it was closed.
    pub closed_at: Option<Micros>,
}

/// Units of a period by the terms that they were used under (`billing_segments`).
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentRow {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Name of the quota.
    pub quota: String,
    /// Start of the period.
    pub start: Micros,
    /// When the terms went; [`Micros::MAX`] = not before the period's end.
    pub until: Micros,
    /// Units.
    pub used: i64,
    /// Where overage starts by the terms.
    pub overage_from: Option<i64>,
    /// The plan.
    pub plan: PlanId,
    /// Its version.
    pub plan_version: i32,
    /// Name of the quota in it.
    pub priced_as: String,
}

/// What billing starts from.
#[derive(Clone, Debug)]
pub struct BillingState {
    /// Catalogue, checkpoint and the ledger after it.
    pub loaded: Loaded,
    /// Periods that are not closed, or changed since.
    pub periods: Vec<PeriodRow>,
    /// Their parts, in order of time.
    pub segments: Vec<SegmentRow>,
}

/// What a charge is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum ChargeKind {
    /// Growth of a period's overage.
    Overage = 0,
    /// Of a period that was closed before.
    Correction = 1,
}

impl ChargeKind {
    /// From the stored number.
    pub const fn from_i16(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Overage),
            1 => Some(Self::Correction),
            _ => None,
        }
    }
}

/// A charge (`charges`). Append-only.
#[derive(Clone, Debug, PartialEq)]
pub struct ChargeRow {
    /// Identity, UUIDv7.
    pub id: Uuid,
    /// Whose.
    pub subscription: SubscriptionId,
    /// Name of the quota.
    pub quota: String,
    /// Its meter.
    pub meter: String,
    /// Start of the period that it stands on.
    pub start: Micros,
    /// Its end.
    pub end: Micros,
    /// Which one of the period that it charges, from 1.
    pub number: i32,
    /// What it is.
    pub kind: ChargeKind,
    /// Smallest units; negative when it is given back.
    pub amount: String,
    /// ISO 4217.
    pub currency: String,
    /// Overage units that it adds; of a correction, units counted more.
    pub units: i64,
    /// For people.
    pub description: String,
    /// The closed period that it corrects: start and end.
    pub corrects: Option<(Micros, Micros)>,
    /// When.
    pub created_at: Micros,
    /// Names it wherever it is computed.
    pub idempotency_key: String,
}

/// All that one step of billing changes.
#[derive(Clone, Debug, Default)]
pub struct BillingChange {
    /// The lease holds until then.
    pub lease_until: Micros,
    /// Accounts as they are afterwards; `used`, limit and plan count only where there is no row.
    pub periods: Vec<PeriodRow>,
    /// Charges, each already counted in its account.
    pub charges: Vec<ChargeRow>,
    /// Messages.
    pub outbox: Vec<OutboxRow>,
}

/// Filter of [`Store::list_charges`](crate::Store::list_charges).
#[derive(Clone, Debug, Default)]
pub struct ChargeFilter {
    /// What the caller may see.
    pub reach: Reach,
    /// Only of this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only of this kind.
    pub kind: Option<i16>,
    /// Only on, or correcting, the period of this quota that starts then.
    pub period: Option<(String, Micros)>,
    /// Only ids before this one.
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// Filter of [`Store::list_periods`](crate::Store::list_periods).
#[derive(Clone, Debug)]
pub struct PeriodFilter {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Only this one.
    pub only: Option<(String, Micros)>,
    /// Only those after this one in the order of the list.
    pub after: Option<(Micros, String)>,
    /// At most this many.
    pub limit: u32,
}
