//! The wire family of bodies between nodes, first version.
//!
//! Role: domain ⇄ wire, nothing else. The order of variants and fields is the layout: a change is a
//! new family beside this one. What is encoded borrows its texts; what a conversion back refuses
//! (`None`) could be read and means nothing.

use std::borrow::Cow;
use std::time::Duration;

use bincode::{Decode, Encode};
use uuid::Uuid;
use weir_core::meter::{Check, Mode, QuotaView, RateView, Reason, Violated};
use weir_core::ownership::Owner;
use weir_core::units::{
    Epoch, Micros, PlanId, ReservationId, ShardId, Span, SubscriptionId, Units,
};

pub(super) use super::rows::RowV1;
use super::{Ask, Change, OWNERS_MAX, PASS_WITHIN_MAX, RECORD_ROWS_MAX, Reply, Standing, Tell};
use crate::codec::numbers::Numbered;
use crate::outcome::{RecordError, Recorded, Undecided};

#[derive(Encode, Decode)]
pub(super) enum AskV1<'a> {
    Check(u128, CheckV1<'a>),
    Usage(u128),
    Record(Vec<RowV1<'a>>),
    Changed(ChangeV1),
    Pass(u128, u32, Cow<'a, [u8]>),
}

#[derive(Encode, Decode)]
pub(super) struct CheckV1<'a> {
    cost: Option<u64>,
    others: Vec<(Cow<'a, str>, u64)>,
    method: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    request_id: Option<u128>,
    reserve: Option<u128>,
}

#[derive(Encode, Decode)]
pub(super) enum ChangeV1 {
    Plan(u128),
    Subscription(u128),
    Key([u8; 32]),
    Token([u8; 32]),
}

#[derive(Encode, Decode)]
pub(super) enum ReplyV1 {
    Decided(StandingV1),
    Used(StandingV1, i64),
    Undecided(u8),
    Recorded(Vec<u8>),
    NotRecorded(u8),
    NotHere(Option<u128>),
    Done,
    Unreadable,
    Passed(Vec<u8>),
    NotPassed,
    NoAnswer,
}

#[derive(Encode, Decode)]
pub(super) struct StandingV1 {
    plan: u128,
    plan_version: u32,
    allowed: bool,
    reason: u8,
    mode: u8,
    overage: bool,
    violated_quotas: u16,
    violated_rates: u32,
    retry_after: i64,
    reservation: Option<u128>,
    quotas: Vec<QuotaV1>,
    rates: Vec<RateV1>,
}

#[derive(Encode, Decode)]
struct QuotaV1 {
    limit: Option<u64>,
    used: u64,
    pending: u64,
    period_start: i64,
    reset_at: i64,
    overage_from: Option<u64>,
    overage_floor: u64,
}

#[derive(Encode, Decode)]
struct RateV1 {
    index: u16,
    remaining: u64,
    reset_at: i64,
}

#[derive(Encode, Decode)]
pub(super) enum TellV1 {
    Owners(Vec<OwnerV1>),
}

#[derive(Encode, Decode)]
pub(super) struct OwnerV1 {
    shard: u16,
    incarnation: Option<u128>,
    epoch: u64,
}

impl<'a> From<&'a Ask> for AskV1<'a> {
    fn from(ask: &'a Ask) -> Self {
        match ask {
            Ask::Check { subscription, check } => {
                Self::Check(subscription.uuid().as_u128(), check.into())
            }
            Ask::Usage { subscription } => Self::Usage(subscription.uuid().as_u128()),
            Ask::Record { rows } => Self::Record(rows.iter().map(Into::into).collect()),
            Ask::Changed(change) => Self::Changed((*change).into()),
            Ask::Pass { to, within, body } => {
                let within = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
                Self::Pass(to.as_u128(), within, Cow::Borrowed(body))
            }
        }
    }
}

impl AskV1<'_> {
    pub(super) fn into_ask(self) -> Option<Ask> {
        Some(match self {
            Self::Check(id, check) => {
                Ask::Check { subscription: subscription(id), check: check.into_check()? }
            }
            Self::Usage(id) => Ask::Usage { subscription: subscription(id) },
            Self::Record(rows) if rows.len() > RECORD_ROWS_MAX => return None,
            Self::Record(rows) => {
                Ask::Record { rows: rows.into_iter().map(RowV1::into_row).collect::<Option<_>>()? }
            }
            Self::Changed(change) => Ask::Changed(change.into()),
            Self::Pass(to, within, body) => Ask::Pass {
                to: Uuid::from_u128(to),
                within: Duration::from_millis(within.into()).min(PASS_WITHIN_MAX),
                body: body.into_owned(),
            },
        })
    }
}

impl<'a> From<&'a Check> for CheckV1<'a> {
    fn from(check: &'a Check) -> Self {
        let others = check.others.iter();
        Self {
            cost: check.cost.map(Units::get),
            others: others.map(|(name, units)| (Cow::Borrowed(&**name), units.get())).collect(),
            method: check.method.as_deref().map(Cow::Borrowed),
            path: check.path.as_deref().map(Cow::Borrowed),
            request_id: check.request_id,
            reserve: check.reserve.map(|id| id.uuid().as_u128()),
        }
    }
}

impl CheckV1<'_> {
    fn into_check(self) -> Option<Check> {
        let boxed = |text: Cow<'_, str>| text.into_owned().into_boxed_str();
        let others = self.others.into_iter();
        Some(Check {
            cost: optional_units(self.cost)?,
            others: others
                .map(|(name, count)| Some((boxed(name), Units::new(count)?)))
                .collect::<Option<_>>()?,
            method: self.method.map(boxed),
            path: self.path.map(boxed),
            request_id: self.request_id,
            reserve: self.reserve.map(reservation),
            degraded: false,
        })
    }
}

impl From<Change> for ChangeV1 {
    fn from(change: Change) -> Self {
        match change {
            Change::Plan(id) => Self::Plan(id.uuid().as_u128()),
            Change::Subscription(id) => Self::Subscription(id.uuid().as_u128()),
            Change::Key(hash) => Self::Key(hash),
            Change::Token(hash) => Self::Token(hash),
        }
    }
}

impl From<ChangeV1> for Change {
    fn from(wire: ChangeV1) -> Self {
        match wire {
            ChangeV1::Plan(id) => Self::Plan(PlanId::from_uuid(Uuid::from_u128(id))),
            ChangeV1::Subscription(id) => Self::Subscription(subscription(id)),
            ChangeV1::Key(hash) => Self::Key(hash),
            ChangeV1::Token(hash) => Self::Token(hash),
        }
    }
}

impl From<&Reply> for ReplyV1 {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Decided(standing) => Self::Decided(standing.into()),
            Reply::Used { standing, at } => Self::Used(standing.into(), at.get()),
            Reply::Undecided(reason) => (*reason).into(),
            Reply::Recorded(rows) => Self::Recorded(rows.iter().map(|row| row.number()).collect()),
            Reply::NotRecorded(error) => Self::NotRecorded(error.number()),
            Reply::NotHere(owner) => Self::NotHere(owner.map(|id| id.as_u128())),
            Reply::Done => Self::Done,
            Reply::Unreadable => Self::Unreadable,
            Reply::Passed(body) => Self::Passed(body.clone()),
            Reply::NotPassed => Self::NotPassed,
            Reply::NoAnswer => Self::NoAnswer,
        }
    }
}

impl From<Undecided> for ReplyV1 {
    fn from(reason: Undecided) -> Self {
        Self::Undecided(match reason {
            Undecided::Busy => 1,
            Undecided::StoreAway => 2,
            Undecided::NotFound => 3,
            Undecided::NotLoaded => 4,
            Undecided::Failed => 5,
            Undecided::NotHere => return Self::NotHere(None),
        })
    }
}

const fn undecided(number: u8) -> Option<Undecided> {
    match number {
        1 => Some(Undecided::Busy),
        2 => Some(Undecided::StoreAway),
        3 => Some(Undecided::NotFound),
        4 => Some(Undecided::NotLoaded),
        5 => Some(Undecided::Failed),
        _ => None,
    }
}

impl ReplyV1 {
    pub(super) fn into_reply(self) -> Option<Reply> {
        Some(match self {
            Self::Decided(standing) => Reply::Decided(standing.into_standing()?),
            Self::Used(standing, at) => {
                Reply::Used { standing: standing.into_standing()?, at: Micros::from_micros(at) }
            }
            Self::Undecided(number) => Reply::Undecided(undecided(number)?),
            Self::Recorded(rows) if rows.len() > RECORD_ROWS_MAX => return None,
            Self::Recorded(rows) => {
                let rows = rows.into_iter().map(Recorded::from_number);
                Reply::Recorded(rows.collect::<Option<_>>()?)
            }
            Self::NotRecorded(number) => Reply::NotRecorded(RecordError::from_number(number)?),
            Self::NotHere(owner) => Reply::NotHere(owner.map(Uuid::from_u128)),
            Self::Done => Reply::Done,
            Self::Unreadable => Reply::Unreadable,
            Self::Passed(body) => Reply::Passed(body),
            Self::NotPassed => Reply::NotPassed,
            Self::NoAnswer => Reply::NoAnswer,
        })
    }
}

impl From<&Standing> for StandingV1 {
    fn from(standing: &Standing) -> Self {
        Self {
            plan: standing.plan.uuid().as_u128(),
            plan_version: standing.plan_version,
            allowed: standing.allowed,
            reason: standing.reason.number(),
            mode: standing.mode.number(),
            overage: standing.overage,
            violated_quotas: standing.violated.quotas,
            violated_rates: standing.violated.rates,
            retry_after: standing.retry_after.get(),
            reservation: standing.reservation.map(|id| id.uuid().as_u128()),
            quotas: standing.quotas.iter().map(Into::into).collect(),
            rates: standing.rates.iter().map(Into::into).collect(),
        }
    }
}

impl StandingV1 {
    fn into_standing(self) -> Option<Standing> {
        Some(Standing {
            plan: PlanId::from_uuid(Uuid::from_u128(self.plan)),
            plan_version: self.plan_version,
            allowed: self.allowed,
            reason: Reason::from_number(self.reason)?,
            mode: Mode::from_number(self.mode)?,
            overage: self.overage,
            violated: Violated { quotas: self.violated_quotas, rates: self.violated_rates },
            retry_after: (self.retry_after >= 0).then(|| Span::from_micros(self.retry_after))?,
            reservation: self.reservation.map(reservation),
            quotas: self.quotas.iter().map(QuotaV1::view).collect::<Option<_>>()?,
            rates: self.rates.iter().map(RateV1::view).collect::<Option<_>>()?,
        })
    }
}

impl From<&QuotaView> for QuotaV1 {
    fn from(view: &QuotaView) -> Self {
        Self {
            limit: view.limit.map(Units::get),
            used: view.used.get(),
            pending: view.pending.get(),
            period_start: view.period_start.get(),
            reset_at: view.reset_at.get(),
            overage_from: view.overage_from.map(Units::get),
            overage_floor: view.overage_floor.get(),
        }
    }
}

impl QuotaV1 {
    fn view(&self) -> Option<QuotaView> {
        Some(QuotaView {
            limit: optional_units(self.limit)?,
            used: Units::new(self.used)?,
            pending: Units::new(self.pending)?,
            period_start: Micros::from_micros(self.period_start),
            reset_at: Micros::from_micros(self.reset_at),
            overage_from: optional_units(self.overage_from)?,
            overage_floor: Units::new(self.overage_floor)?,
        })
    }
}

impl From<&RateView> for RateV1 {
    fn from(view: &RateView) -> Self {
        let RateView { index, remaining, reset_at } = *view;
        Self { index, remaining: remaining.get(), reset_at: reset_at.get() }
    }
}

impl RateV1 {
    fn view(&self) -> Option<RateView> {
        let (index, reset_at) = (self.index, Micros::from_micros(self.reset_at));
        Some(RateView { index, remaining: Units::new(self.remaining)?, reset_at })
    }
}

impl From<&Tell> for TellV1 {
    fn from(tell: &Tell) -> Self {
        let Tell::Owners(owners) = tell;
        let owners = owners.iter().map(|(shard, owner)| OwnerV1 {
            shard: shard.0,
            incarnation: owner.incarnation.map(|id| id.as_u128()),
            epoch: owner.epoch.0,
        });
        Self::Owners(owners.collect())
    }
}

impl TellV1 {
    pub(super) fn into_tell(self) -> Option<Tell> {
        let Self::Owners(owners) = self;
        let owner = |wire: OwnerV1| {
            let incarnation = wire.incarnation.map(Uuid::from_u128);
            (ShardId(wire.shard), Owner { incarnation, epoch: Epoch(wire.epoch) })
        };
        (owners.len() <= OWNERS_MAX).then(|| Tell::Owners(owners.into_iter().map(owner).collect()))
    }
}

const fn subscription(id: u128) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(id))
}

const fn reservation(id: u128) -> ReservationId {
    ReservationId::from_uuid(Uuid::from_u128(id))
}

/// `None` when there is a count and it is too large; a count that is absent is in range.
#[allow(clippy::option_option, reason = "the outer one says whether the inner one is a count")]
fn optional_units(count: Option<u64>) -> Option<Option<Units>> {
    match count {
        None => Some(None),
        Some(count) => Units::new(count).map(Some),
    }
}
