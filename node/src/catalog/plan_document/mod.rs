//! Plans as people write them: the JSON of `/api/v1/plans`, and back.
//!
//! Role: the only place where a plan document becomes a [`Plan`] and a plan becomes a document.
//! Callers: the HTTP layer (create, replace, preview, answers) and the catalogue, which stores the
//! canonical document. Pure: no I/O, no clock.
//!
//! ```text
//!   bytes ──read──▶ PlanDocument ──into_plan──▶ Plan (valid by construction)
//!                        ▲                        │
//!                        └────────render──────────┘        parse(render(p)) == p
//! ```
//!
//! # What is told when it is wrong
//! - Not JSON: [`PlanError::Malformed`], with line and column.
//! - JSON of another shape (an unknown, missing or doubled field, an object where a list belongs):
//!   one [`Fault`] with the pointer of the place; reading stops there.
//! - Values (numbers out of range, words, durations, money, rules that span fields): every fault at
//!   once, each with its pointer, up to [`FAULTS_MAX`].
//!
//! # What is accepted
//! Counts are JSON integers from 0 to 2^53 − 1 (`1.0` and `1e3` are not). Money is a decimal string
//! with at most [`MONEY_PLACES_MAX`] places, from 0 to 10^12; a JSON integer is taken as well, a
//! JSON fraction never, because it has passed through a binary float. Durations are ISO 8601 or
//! humane text.
//!
//! # Defaults
//! | field | default | | field | default |
//! |---|---|---|---|---|
//! | `currency` | `USD` | | quota `meter` | `requests` |
//! | `baseFee` | `0` | | quota, rate `name` | its meter; its window (`PT1S`) |
//! | `quota`, `quotas` | none: unlimited | | quota `every`, `anchor` | `P1M`, `calendar` |
//! | `period` | the first quota's, else `P1M` calendar | | quota `enforcement` | `hard` |
//! | `warnAt` | 80, 90, 100 | | rate `algorithm`, `burst` | `token_bucket`, its limit |
//! | `bill`, `chargeOn` | `all`, `event` | | `overage.included` | the quota's limit |
//! | `holdTtl`, `failPolicy` | `60s`, `open` | | tier `unitPrice` with a `flatFee` | `0` |
//!
//! A quota's `limit` has no default: it says `null` when it means unlimited.
//!
//! # The short form
//! `quota` stands for a list of one; `overage` and `warnAt` beside it are that quota's. Answers show
//! both forms (`quotas`, and `quota`, `overage`, `warnAt` of the first one), so both may come back
//! in: they must then say the same, or the fault is `conflict`. Without any quota `warnAt` is
//! checked and otherwise means nothing, `overage` is a fault.

mod convert;
mod document;
mod leaf;
mod limits;
mod overage;
mod preview;
mod render;
mod update;

#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use weir_core::plan::{Fault, Plan};
use weir_core::units::PlanId;

pub use convert::{FAULTS_MAX, NAME_BYTES_MAX, is_plain_name};
pub use document::{
    AlgorithmWord, BillWord, ChargeOnWord, CostDocument, EnforcementWord, FailPolicyWord,
    ModelWord, OverageDocument, PeriodDocument, PlanDocument, QuotaDocument, RateLimitDocument,
    TierDocument,
};
pub use leaf::{Flaw, Given, HoldTtl, Leaf, MONEY_PLACES_MAX, Percent};
pub use limits::LimitsDocument;
pub use preview::{PreviewDocument, Previewed};
pub use render::render;
pub use update::{Effective, PlanUpdate};

/// Why a document is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The bytes are not JSON.
    #[error("not JSON: {detail} (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1; 0 before the first character.
        column: usize,
        /// What the parser met.
        detail: String,
    },
    /// The JSON is no valid plan; at least one fault.
    #[error("the document has {} fault(s)", .0.len())]
    Invalid(Vec<Fault>),
}

/// Reads a plan document and makes the plan of it.
pub fn parse(json: &[u8], id: PlanId, version: u32) -> Result<Plan, PlanError> {
    read::<PlanDocument>(json)?.into_plan(id, version).map_err(PlanError::Invalid)
}

/// Reads any request body of this family, telling where it has the wrong shape.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, PlanError> {
    // A derived reader takes an array for an object, its values by their place.
    if json.trim_ascii_start().first() == Some(&b'[') {
        let fault = Fault::new("", "invalid_type", "expected an object, not an array");
        return Err(PlanError::Invalid(vec![fault]));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer_of(error.path());
        from_json(&error.into_inner(), pointer)
    })?;
    deserializer.end().map_err(|error| from_json(&error, String::new()))?;
    Ok(value)
}

fn from_json(error: &serde_json::Error, mut pointer: String) -> PlanError {
    let (line, column) = (error.line(), error.column());
    let mut detail = error.to_string();
    if let Some(position) = detail.rfind(" at line ") {
        detail.truncate(position);
    }
    if !error.is_data() {
        return PlanError::Malformed { line, column, detail };
    }
    // The parser speaks in sentences only; these beginnings are serde's, and a test holds them.
    let (code, names_field) = if detail.starts_with("unknown field `") {
        ("unknown_field", true)
    } else if detail.starts_with("missing field `") {
        ("missing_field", true)
    } else if detail.starts_with("duplicate field `") {
        ("duplicate_field", true)
    } else {
        ("invalid_type", false)
    };
    if names_field && let Some(field) = detail.split('`').nth(1) {
        let below = format!("/{}", escaped(field));
        if !pointer.ends_with(&below) {
            pointer.push_str(&below);
        }
    }
    PlanError::Invalid(vec![Fault::new(pointer, code, detail)])
}

fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&escaped(key)),
            Segment::Enum { variant } => pointer.push_str(variant),
            // A field whose name was not read yet: the pointer ends at its object.
            Segment::Unknown => {
                pointer.pop();
            }
        }
    }
    pointer
}

/// A key as a JSON pointer writes it (RFC 6901 §3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
