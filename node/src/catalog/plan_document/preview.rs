//! The body of `POST /api/v1/plans/preview`: a plan, and how much of it would be used.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;
use weir_config::limits::QUANTITIES_MAX;
use weir_core::plan::{Fault, Plan, REQUESTS};
use weir_core::units::{PlanId, Units};

use super::convert::{Faults, is_plain_name};
use super::document::PlanDocument;
use super::escaped;
use super::leaf::Given;
use super::update::PlanUpdate;

/// A longer name of a meter is not told back.
const METER_BYTES_SHOWN: usize = 256;
const NO_METER: &str = "a meter: 1 to 64 letters, digits, '-', '_' or '.'";

/// What would a billing period cost?
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviewDocument {
    /// The plan. One that was read may be sent as it is: what is read-only in it is ignored.
    #[schema(value_type = PlanDocument)]
    plan: PlanUpdate,
    /// Units used on the meter `requests`.
    #[serde(default)]
    #[schema(value_type = Option<u64>, example = 10_001, maximum = 9_007_199_254_740_991_i64)]
    units: Option<Given<Units>>,
    /// Units used by meter; `requests` here, or `units`, not both. A meter that the plan does not
    /// name costs nothing.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, u64>>, example = json!({"tokens": 743}))]
    quantities: Option<BTreeMap<String, Given<Units>>>,
}

/// A plan, and what is used of each meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previewed {
    /// The plan.
    pub plan: Plan,
    used: BTreeMap<String, Units>,
}

impl Previewed {
    /// Units used on a meter.
    pub fn used(&self, meter: &str) -> Units {
        self.used.get(meter).copied().unwrap_or_default()
    }
}

impl PreviewDocument {
    /// What is to be priced, or all that is wrong with the document.
    pub fn into_previewed(self, id: PlanId) -> Result<Previewed, Vec<Fault>> {
        let Self { plan, units, quantities } = self;
        let mut faults = Faults::default();
        let plan = plan.plan.into_plan(id, 1).map_err(|found| {
            for fault in found {
                faults.add(format!("/plan{}", fault.pointer), fault.code, fault.detail);
            }
        });
        let used = read_used(&mut faults, units, quantities.unwrap_or_default());
        // Without a plan there is a fault.
        match plan {
            Ok(plan) => faults.into_result(Previewed { plan, used }),
            Err(()) => Err(faults.into_list()),
        }
    }
}

fn read_used(
    faults: &mut Faults,
    units: Option<Given<Units>>,
    quantities: BTreeMap<String, Given<Units>>,
) -> BTreeMap<String, Units> {
    if quantities.len() > QUANTITIES_MAX {
        faults.add("/quantities".into(), "too_many", format!("at most {QUANTITIES_MAX}"));
        return BTreeMap::new();
    }
    let is_empty = units.is_none() && quantities.is_empty();
    let is_doubled = units.is_some() && quantities.contains_key(REQUESTS);
    let mut used = BTreeMap::new();
    for (meter, given) in quantities {
        if meter.len() > METER_BYTES_SHOWN {
            // Somebody's megabytes are not sent back.
            faults.add("/quantities".into(), "invalid_name", NO_METER);
            continue;
        }
        let pointer = format!("/quantities/{}", escaped(&meter));
        if !is_plain_name(&meter) {
            faults.add(pointer, "invalid_name", NO_METER);
        } else if let Some(units) = faults.take(pointer, given) {
            used.insert(meter, units);
        }
    }
    if is_empty {
        faults.add("/units".into(), "missing_field", "how much is used: this, or `quantities`");
    } else if is_doubled {
        let detail = "either this or `quantities.requests`, not both";
        faults.add("/units".into(), "conflict", detail);
    }
    if let Some(units) = faults.take_optional("/units".into(), units) {
        used.insert(REQUESTS.to_owned(), units);
    }
    used
}
