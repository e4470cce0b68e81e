//! The shapes of a plan document: what OpenAPI shows, what serde reads and writes.
//!
//! Role: data only. Every scalar that can be wrong is a [`Given`]; meaning is [`super::convert`]'s.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use weir_core::calendar::{Anchor, Every};
use weir_core::plan::{Bill, ChargeOn, FailPolicy};
use weir_core::rate::Algorithm;
use weir_core::units::{Span, Units};

use super::leaf::{Flaw, Given, HoldTtl, Leaf, Percent};

/// A plan, as a request gives it and an answer shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanDocument {
    /// Display name, 1 to 200 characters.
    #[schema(example = "pro")]
    pub name: String,
    /// ISO 4217 code; `USD` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Charged every billing period, a decimal string; `"0"` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30.00")]
    pub base_fee: Option<Given<Decimal>>,
    /// Billing period; that of the first quota by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<PeriodDocument>,
    /// Short for `quotas` with one entry. In answers: the first quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaDocument>,
    /// Allowances, in the order that decisions list them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Vec<QuotaDocument>>,
    /// Rate limits, in the order that decisions list them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimitDocument>>,
    /// What requests cost; the first rule that matches decides, 1 unit where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<Vec<CostDocument>>,
    /// Overage of the first quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage: Option<OverageDocument>,
    /// Warning thresholds of the first quota, ascending percentages; 80, 90, 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u16>>, example = json!([80, 90, 100]))]
    pub warn_at: Option<Vec<Given<Percent>>>,
    /// Which responses are charged; `all` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BillWord>)]
    pub bill: Option<Given<BillWord>>,
    /// What charges; `event` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ChargeOnWord>)]
    pub charge_on: Option<Given<ChargeOnWord>>,
    /// How long an unsettled hold stands, 1 s to 24 h; `60s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60s")]
    pub hold_ttl: Option<Given<HoldTtl>>,
    /// What a check gets when the store is away and the escrow used up; `open` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FailPolicyWord>)]
    pub fail_policy: Option<Given<FailPolicyWord>>,
    /// Decide and count but refuse nothing; `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<bool>,
}

/// A repeating period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeriodDocument {
    /// Its length, a duration from one second up; `P1M` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "P1M")]
    pub every: Option<Given<Every>>,
    /// `calendar` (the default), `subscription` or an RFC 3339 timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "calendar")]
    pub anchor: Option<Given<Anchor>>,
}

/// One counter's allowance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaDocument {
    /// Unique in the plan; the meter by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is counted; `requests` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// Units a period; `null` = unlimited.
    #[schema(
        value_type = Option<u64>,
        required = true,
        example = 10000,
        maximum = 9_007_199_254_740_991_i64
    )]
    pub limit: Given<Option<Units>>,
    /// Period length, a duration from one second up; `P1M` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "P1M")]
    pub every: Option<Given<Every>>,
    /// `calendar` (the default), `subscription` or an RFC 3339 timestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "calendar")]
    pub anchor: Option<Given<Anchor>>,
    /// What happens at the limit; `hard` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<EnforcementWord>)]
    pub enforcement: Option<Given<EnforcementWord>>,
    /// Where even the overage of a soft quota ends; nowhere by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub hard_cap: Option<Given<Units>>,
    /// Price beyond the included units; free by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage: Option<OverageDocument>,
    /// Ascending percentages at which a notice leaves; 80, 90, 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u16>>)]
    pub warn_at: Option<Vec<Given<Percent>>>,
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitDocument {
    /// Unique in the plan; the window by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is counted; `requests` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// Units a window, from 1.
    #[schema(value_type = u64, example = 50)]
    pub limit: Given<Units>,
    /// Length of the window, a duration from 1 ms to 366 days.
    #[schema(value_type = String, example = "PT1S")]
    pub window: Given<Span>,
    /// How it counts; `token_bucket` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmWord>)]
    pub algorithm: Option<Given<AlgorithmWord>>,
    /// Units at once, for a token bucket only; its limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub burst: Option<Given<Units>>,
    /// Only requests with this method; any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests to this path, exact or with one `*` at the end; any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What matching requests cost on the meter `requests`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CostDocument {
    /// Only requests with this method; any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests to this path, exact or with one `*` at the end; any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Units.
    #[schema(value_type = u64, example = 5)]
    pub units: Given<Units>,
}

/// How overage becomes money. Which fields belong to which model is checked on conversion, because
/// a tagged union would hide the place of an error from the reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverageDocument {
    /// The price model.
    #[schema(value_type = ModelWord)]
    pub model: Given<ModelWord>,
    /// Price of one unit, for `per_unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unit_price: Option<Given<Decimal>>,
    /// Tiers over overage units counted from 1, for `graduated` and `volume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierDocument>>,
    /// Units a package, from 1, for `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub size: Option<Given<Units>>,
    /// Price of a package, for `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub price: Option<Given<Decimal>>,
    /// Units after which overage starts; the quota's limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub included: Option<Given<Units>>,
    /// Most that a period's overage may cost; nothing holds it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "50.00")]
    pub cap: Option<Given<Decimal>>,
}

/// A tier of a price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierDocument {
    /// Last overage unit of the tier; left out (or `null`) in the last tier, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, example = 1000)]
    pub up_to: Option<Given<Units>>,
    /// Price of one unit; may be left out beside a `flatFee`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0.01")]
    pub unit_price: Option<Given<Decimal>>,
    /// Charged once when the tier is entered; `"0"` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub flat_fee: Option<Given<Decimal>>,
}

/// An enum of words, and how each is spelt. The spelling is a `tt` because the schema's derive does
/// not see through the group that a `literal` comes in, and would publish the Rust names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:tt),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl Leaf for $name {
            fn read(value: &Value) -> Result<Self, Flaw> {
                match value.as_str() {
                    $(Some($text) => Ok(Self::$variant),)+
                    found => {
                        let code = if found.is_some() { "invalid_value" } else { "invalid_type" };
                        Err(Flaw::new(code, concat!("one of" $(, " ", $text)+)))
                    }
                }
            }

            fn write(&self) -> Value {
                match self {
                    $(Self::$variant => $text.into(),)+
                }
            }
        }
    };
}

/// Words that stand for the variants of a domain enum one to one.
macro_rules! means {
    ($word:ident, $domain:ident { $($variant:ident),+ }) => {
        impl From<$word> for $domain {
            fn from(word: $word) -> Self {
                match word { $($word::$variant => Self::$variant),+ }
            }
        }

        impl From<$domain> for $word {
            fn from(domain: $domain) -> Self {
                match domain { $($domain::$variant => Self::$variant),+ }
            }
        }
    };
}

words! {
    /// What happens at the limit.
    EnforcementWord {
        /// Nothing passes.
        Hard = "hard",
        /// Overage, up to `hardCap`.
        Soft = "soft",
    }
}

words! {
    /// How a rate limit counts.
    AlgorithmWord {
        /// A bucket refilled evenly.
        TokenBucket = "token_bucket",
        /// Two windows, weighted.
        SlidingWindow = "sliding_window",
        /// One aligned window.
        FixedWindow = "fixed_window",
    }
}
means!(AlgorithmWord, Algorithm { TokenBucket, SlidingWindow, FixedWindow });

words! {
    /// How overage is priced.
    ModelWord {
        /// Every unit the same.
        PerUnit = "per_unit",
        /// Each unit by its tier.
        Graduated = "graduated",
        /// All units by the tier of the total.
        Volume = "volume",
        /// In packages.
        Package = "package",
    }
}

words! {
    /// Which responses are charged.
    BillWord {
        /// All.
        All = "all",
        /// Status below 400.
        Success = "success",
        /// Status below 500.
        Non5xx = "non_5xx",
    }
}
means!(BillWord, Bill { All, Success, Non5xx });

words! {
    /// What charges.
    ChargeOnWord {
        /// Usage events.
        Event = "event",
        /// The check itself.
        Check = "check",
    }
}
means!(ChargeOnWord, ChargeOn { Event, Check });

words! {
    /// What a check gets when nothing can be made durable.
    FailPolicyWord {
        /// Allowed, marked degraded.
        Open = "open",
        /// No decision.
        Closed = "closed",
    }
}
means!(FailPolicyWord, FailPolicy { Open, Closed });
