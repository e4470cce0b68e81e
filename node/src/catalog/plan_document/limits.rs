//! The `limits` of a subscription: quotas of its plan that it is held to differently.
//!
//! Role: `{"requests":5000,"tokens":null}` ⇄ [`LimitOverride`]s. Whether the plan has such a quota
//! is not asked: plans change under their subscriptions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::plan::{Fault, QUOTAS_MAX};
use weir_core::terms::LimitOverride;
use weir_core::units::Units;

use super::convert::{Faults, is_plain_name};
use super::escaped;
use super::leaf::Given;

/// Limits by quota name; `null` = unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = std::collections::BTreeMap<String, Option<u64>>)]
pub struct LimitsDocument(pub BTreeMap<String, Given<Option<Units>>>);

impl LimitsDocument {
    /// The overrides, in order of their names. `pointer` is where the object stands in the request
    /// (`/limits`).
    pub fn into_overrides(self, pointer: &str) -> Result<Vec<LimitOverride>, Vec<Fault>> {
        let mut faults = Faults::default();
        if self.0.len() > QUOTAS_MAX {
            faults.add(pointer.to_owned(), "too_many", format!("at most {QUOTAS_MAX}"));
            return faults.into_result(Vec::new());
        }
        let mut overrides = Vec::with_capacity(self.0.len());
        for (quota, limit) in self.0 {
            let at = format!("{pointer}/{}", escaped(&quota));
            if !is_plain_name(&quota) {
                let detail = "a quota's name: 1 to 64 letters, digits, '-', '_' or '.'";
                faults.add(at.clone(), "invalid_name", detail);
            }
            if let Some(limit) = faults.take(at, limit) {
                overrides.push(LimitOverride { quota, limit });
            }
        }
        faults.into_result(overrides)
    }

    /// The document of `overrides`.
    pub fn render(overrides: &[LimitOverride]) -> Self {
        Self(overrides.iter().map(|o| (o.quota.clone(), Given::Valid(o.limit))).collect())
    }
}
