//! Bodies between nodes: what one asks another, what it is answered, and what it is told.
//!
//! Role: the types that whoever forwards and whoever owns speak in, and their bytes. The transport
//! carries bodies without looking at them; the frame round them has a version of its own. A decision
//! travels without its plan, which is immutable in each version and known to every node by its id.
//! What cannot be read is an error, never a panic, and claims no memory beyond a multiple of the cap.

mod rows;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use uuid::Uuid;
use weir_config::limits::{APPEND_ROWS_MAX, PEER_BODY_BYTES_MAX};
use weir_core::meter::{Check, Decision, Mode, PlanOf, QuotaView, RateView, Reason, Violated};
use weir_core::ownership::Owner;
use weir_core::plan::Plan;
use weir_core::units::{Micros, PlanId, ReservationId, ShardId, Span, SubscriptionId};
use weir_store::rows::LedgerRow;

use self::wire::{AskV1, OwnerV1, ReplyV1, RowV1, TellV1};
use super::CodecError;
use crate::outcome::{RecordError, Recorded, Undecided};

/// Version of what is asked.
const ASK_VERSION: u8 = 1;
/// Version of what is answered.
const REPLY_VERSION: u8 = 1;
/// Version of what is told.
const TELL_VERSION: u8 = 1;

/// Rows of one [`Ask::Record`], as many as the owner writes in one transaction.
pub const RECORD_ROWS_MAX: usize = APPEND_ROWS_MAX;

/// Shards of one [`Tell::Owners`]; whoever tells of more tells several times.
pub const OWNERS_MAX: usize = 16_384;

/// Longest time that whoever passes an ask on waits for its answer.
pub const PASS_WITHIN_MAX: Duration = Duration::from_mins(1);

/// Bytes that a body may claim in memory: texts as they came, the rest at its size in memory.
const DECODED_BYTES_MAX: usize = 2 * PEER_BODY_BYTES_MAX;

/// Bytes of a row on the wire beside its texts, at most: its numbers are at their longest 167.
const ROW_BYTES: usize = 176;
/// Bytes of a body before its first row or shard: version, kind and count.
const HEAD_BYTES: usize = 16;
/// Bytes round a body that is passed on, at most.
const PASS_BYTES: usize = 48;
/// Bytes of a shard and its owner on the wire, at most.
const OWNER_BYTES: usize = 32;

/// Bytes of one [`Ask::Record`], so that it can be passed on.
const RECORD_BYTES_MAX: usize = PEER_BODY_BYTES_MAX - PASS_BYTES;

// The most of each kind fits the body, and is not refused for what it claims.
const _: () = assert!(HEAD_BYTES + OWNERS_MAX * OWNER_BYTES <= PEER_BODY_BYTES_MAX);
const _: () = assert!(PEER_BODY_BYTES_MAX + OWNERS_MAX * size_of::<OwnerV1>() <= DECODED_BYTES_MAX);
const _: () =
    assert!(PEER_BODY_BYTES_MAX + RECORD_ROWS_MAX * size_of::<RowV1<'_>>() <= DECODED_BYTES_MAX);

/// What one node asks another, which answers with a [`Reply`].
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most are checks, the large ones")]
pub enum Ask {
    /// May this pass? `degraded` is not sent: it is the owner that finds its store away.
    Check {
        /// Who asks for it.
        subscription: SubscriptionId,
        /// The question.
        check: Check,
    },
    /// Where does everything stand?
    Usage {
        /// Of whom.
        subscription: SubscriptionId,
    },
    /// Write these; their `seq` is not sent, since the owner assigns it.
    Record {
        /// At most [`RECORD_ROWS_MAX`]; see [`record_chunks`].
        rows: Vec<LedgerRow>,
    },
    /// Follow this, then answer [`Reply::Done`].
    Changed(Change),
    /// Ask this of another node, to which the one that asks has no link.
    Pass {
        /// Of whom.
        to: Uuid,
        /// How long that may take; whole milliseconds, at most [`PASS_WITHIN_MAX`].
        within: Duration,
        /// An ask in bytes; whoever passes it on does not look at it.
        body: Vec<u8>,
    },
}

/// What was changed in the database, and is to be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A plan has a new version, or is no more.
    Plan(PlanId),
    /// A subscription.
    Subscription(SubscriptionId),
    /// The subscription key of this hash.
    Key([u8; 32]),
    /// The bearer token of this hash.
    Token([u8; 32]),
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "most are decisions, the large ones")]
pub enum Reply {
    /// To a check.
    Decided(Standing),
    /// To a question for usage.
    Used {
        /// Every number as it stands.
        standing: Standing,
        /// When it was read.
        at: Micros,
    },
    /// There is no decision. [`Undecided::NotHere`] travels as [`Reply::NotHere`] of nobody.
    Undecided(Undecided),
    /// What became of each row, in their order.
    Recorded(Vec<Recorded>),
    /// Why the rows were not taken.
    NotRecorded(RecordError),
    /// The asked is not the owner; the incarnation that is, if known.
    NotHere(Option<Uuid>),
    /// It is followed.
    Done,
    /// The ask could not be decoded.
    Unreadable,
    /// What the other node answered, in bytes.
    Passed(Vec<u8>),
    /// The other node has certainly not seen it.
    NotPassed,
    /// The other node may have done it.
    NoAnswer,
}

/// A decision without its plan, which the asking node looks up by id and version.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The plan it was made under.
    pub plan: PlanId,
    /// Which version of it.
    pub plan_version: u32,
    /// Whether the request may pass.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// How firmly.
    pub mode: Mode,
    /// Whether it is charged beyond the limit.
    pub overage: bool,
    /// What refused.
    pub violated: Violated,
    /// How long to wait before it could pass; zero when it did.
    pub retry_after: Span,
    /// The name of its hold.
    pub reservation: Option<ReservationId>,
    /// Every quota, in the order of the plan.
    pub quotas: SmallVec<[QuotaView; 2]>,
    /// Every rate limit that the request matches.
    pub rates: SmallVec<[RateView; 2]>,
}

impl Standing {
    /// What of a decision is sent.
    pub fn of(decision: &Decision) -> Self {
        Self {
            plan: decision.plan.id,
            plan_version: decision.plan.version,
            allowed: decision.allowed,
            reason: decision.reason,
            mode: decision.mode,
            overage: decision.overage,
            violated: decision.violated,
            retry_after: decision.retry_after,
            reservation: decision.reservation,
            quotas: decision.quotas.clone(),
            rates: decision.rates.clone(),
        }
    }

    /// The decision again, with the plan of that id and version.
    pub fn into_decision(self, plan: Arc<Plan>) -> Decision {
        debug_assert_eq!((plan.id, plan.version), (self.plan, self.plan_version), "another plan");
        Decision {
            allowed: self.allowed,
            reason: self.reason,
            mode: self.mode,
            overage: self.overage,
            violated: self.violated,
            retry_after: self.retry_after,
            reservation: self.reservation,
            quotas: self.quotas,
            rates: self.rates,
            plan: PlanOf::Plan(plan),
        }
    }
}

/// What one node tells another, which does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Who owns these shards now, as the database said; at most [`OWNERS_MAX`].
    Owners(Vec<(ShardId, Owner)>),
}

/// An ask as bytes. The transport refuses a body above the cap; rows are kept below it by
/// [`record_chunks`].
pub fn encode_ask(ask: &Ask) -> Vec<u8> {
    super::encode(ASK_VERSION, &AskV1::from(ask))
}

/// An ask from bytes.
///
/// # Errors
/// [`CodecError`] when the version is unknown, or the bytes are too many, too few or no ask.
pub fn decode_ask(bytes: &[u8]) -> Result<Ask, CodecError> {
    let wire: AskV1<'_> = decode("ask", ASK_VERSION, bytes)?;
    wire.into_ask().ok_or_else(|| damaged("ask"))
}

/// A reply as bytes.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    super::encode(REPLY_VERSION, &ReplyV1::from(reply))
}

/// A reply from bytes.
///
/// # Errors
/// As for [`decode_ask`].
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, CodecError> {
    let wire: ReplyV1 = decode("reply", REPLY_VERSION, bytes)?;
    wire.into_reply().ok_or_else(|| damaged("reply"))
}

/// A tell as bytes.
pub fn encode_tell(tell: &Tell) -> Vec<u8> {
    super::encode(TELL_VERSION, &TellV1::from(tell))
}

/// A tell from bytes.
///
/// # Errors
/// As for [`decode_ask`].
pub fn decode_tell(bytes: &[u8]) -> Result<Tell, CodecError> {
    let wire: TellV1 = decode("tell", TELL_VERSION, bytes)?;
    wire.into_tell().ok_or_else(|| damaged("tell"))
}

/// Rows in as many parts as it takes for each to be one [`Ask::Record`], in their order; no part is
/// empty. A row that alone is above the cap, which the limits of its fields rule out, is alone in its
/// part, and the transport refuses it.
pub fn record_chunks(rows: Vec<LedgerRow>) -> Vec<Vec<LedgerRow>> {
    let mut chunks: Vec<Vec<LedgerRow>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let more = rows::bytes_at_most(&row);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < RECORD_ROWS_MAX && bytes + more <= RECORD_BYTES_MAX => {
                chunk.push(row);
                bytes += more;
            }
            _ => {
                chunks.push(vec![row]);
                bytes = HEAD_BYTES + more;
            }
        }
    }
    chunks
}

fn decode<T: bincode::Decode<()>>(
    what: &'static str,
    version: u8,
    bytes: &[u8],
) -> Result<T, CodecError> {
    super::decode_capped::<_, DECODED_BYTES_MAX>(what, version, PEER_BODY_BYTES_MAX, bytes)
}

/// Bytes that can be read and mean nothing.
const fn damaged(what: &'static str) -> CodecError {
    CodecError::Damaged { what, source: None }
}
