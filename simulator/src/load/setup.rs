//! Makes a run's own plans and subscriptions, so that its ledger begins empty.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};

use super::options::{Options, Rate};
use super::scenario::{PlanKind, Workload};
use super::table::Subscription;
use crate::Error;
use crate::api::{self, Api, NewSubscription};
use crate::numbers::{count, float, whole};
use crate::progress::Progress;

/// A hard limit that no run reaches, so that the exact path of hard plans is measured, not the
/// shortcut of unlimited ones.
pub(super) const ROOMY_LIMIT: u64 = 1_000_000_000_000;
/// Requests a second assumed for a closed loop without a baseline, to choose the small quota.
const ASSUMED_PER_SECOND: f64 = 5_000.0;
/// Decisions a second as a part of `/livez`, assumed for the same purpose: the lowest ratio the
/// design accepts, halved so that quotas are crossed on a slow server, too.
const ASSUMED_RATIO: f64 = 0.35;
/// Holds must outlive the run, or units that a lost answer still holds would come back and be
/// admitted again: right, but not what `admitted ≤ limit` in the client's books can tell apart.
const HOLD_MARGIN: Duration = Duration::from_mins(1);

/// The plans of a run.
#[derive(Debug, Clone)]
pub(super) struct Plans {
    roomy: String,
    tight: Option<String>,
    tight_limit: u64,
}

impl Plans {
    fn id(&self, kind: PlanKind) -> &str {
        match (kind, &self.tight) {
            (PlanKind::Tight, Some(id)) => id,
            _ => &self.roomy,
        }
    }

    /// The hard limit of a plan.
    pub(super) fn limit(&self, kind: PlanKind) -> u64 {
        match kind {
            PlanKind::Tight => self.tight_limit,
            PlanKind::Roomy => ROOMY_LIMIT,
        }
    }
}

/// The small quota: half of what a subscription is expected to ask for.
pub(super) fn tight_limit(options: &Options, baseline_per_second: Option<f64>) -> u64 {
    if let Some(limit) = options.limit {
        return limit;
    }
    let per_second = match options.rate {
        Rate::PerSecond(rate) => rate,
        Rate::Max => baseline_per_second.map_or(ASSUMED_PER_SECOND, |rate| rate * ASSUMED_RATIO),
    };
    let expected =
        per_second * options.duration.as_secs_f64() / float(count(options.subscriptions));
    whole(expected / 2.0).max(1)
}

/// Creates the plans that the workload needs.
pub(super) async fn make_plans(
    api: &mut Api,
    run: &str,
    options: &Options,
    tight_limit: u64,
) -> Result<Plans, Error> {
    let hold = options.duration + options.flush.settle + HOLD_MARGIN;
    let workload = Workload::new(options.scenario);
    let needs_tight =
        (0..options.subscriptions).any(|index| workload.plan_of(index) == PlanKind::Tight);
    let roomy = api.create_plan(&plan(&format!("{run} roomy"), ROOMY_LIMIT, hold)).await?.id;
    let tight = if needs_tight {
        Some(api.create_plan(&plan(&format!("{run} tight"), tight_limit, hold)).await?.id)
    } else {
        None
    };
    Ok(Plans { roomy, tight, tight_limit })
}

/// A hard monthly quota whose period begins with the subscription, so that no run crosses a period's
/// end; it refuses when nobody can decide, so that "never over" holds without exception.
fn plan(name: &str, limit: u64, hold: Duration) -> Value {
    json!({
        "name": name,
        "currency": "USD",
        "quota": {
            "limit": limit, "every": "P1M", "anchor": "subscription", "enforcement": "hard",
        },
        "holdTtl": format!("{}s", hold.as_secs()),
        "failPolicy": "closed",
    })
}

/// Makes subscriptions for one run.
pub(super) struct Maker<'a> {
    pub(super) run: &'a str,
    pub(super) options: &'a Options,
    pub(super) plans: &'a Plans,
}

impl Maker<'_> {
    /// Makes subscription number `index`. Returns it with its key, which later only its owner knows.
    pub(super) async fn make(
        &self,
        api: &mut Api,
        index: usize,
    ) -> Result<(Subscription, String), Error> {
        let kind = Workload::new(self.options.scenario).plan_of(index);
        let external_id = format!("{}/{index}", self.run);
        let wanted = NewSubscription {
            plan_id: self.plans.id(kind),
            external_id: &external_id,
            tenant: &self.options.tenant,
            key: None,
            metadata: json!({ "weirSimRun": self.run, "scenario": self.options.scenario }),
        };
        let created = api.create_subscription(&wanted).await?;
        let key = created.key.ok_or_else(|| Error::Refused {
            operation: "POST /api/v1/subscriptions".to_owned(),
            status: 201,
            hint: " but without the subscription's key",
            detail: String::new(),
        })?;
        let gateway = &self.options.access.gateway;
        let limit = self.plans.limit(kind);
        let made = Subscription::new(created.id, external_id, limit, &key, gateway)?;
        Ok((made, key))
    }

    /// Makes them all; with `warm` each is touched once.
    pub(super) async fn make_all(&self, apis: &mut [Api]) -> Result<Vec<Subscription>, Error> {
        let total = count(self.options.subscriptions);
        let progress = Progress::begin("set-up", total, self.options.quiet);
        let progress = std::cell::RefCell::new(progress);
        let made = Cell::new(0_u64);
        let all = api::for_each(apis, self.options.subscriptions, async |api, index| {
            let (subscription, key) = self.make(api, index).await?;
            if self.options.warm {
                api.peek(&key).await?;
            }
            made.set(made.get() + 1);
            progress.borrow_mut().at(made.get(), || "subscriptions".to_owned());
            Ok(subscription)
        })
        .await?;
        progress.into_inner().end(&format!("{total} subscriptions made ({})", self.run));
        Ok(all)
    }
}
