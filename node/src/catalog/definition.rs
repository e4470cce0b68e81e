//! A subscription's row and plan as the terms its meter runs under.

use std::sync::Arc;

use weir_core::calendar::Zone;
use weir_core::plan::Plan;
use weir_core::terms::{LimitOverride, Terms};
use weir_core::units::{Micros, PlanId, SubscriptionId, Units};
use weir_store::Store;
use weir_store::rows::{SubscriptionRow, SubscriptionStatus};

use super::{Catalog, PlanLookupError};

const MICROS_PER_MILLI: i64 = 1_000;

/// What an actor must know of its subscription.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Whose.
    pub id: SubscriptionId,
    /// Address for notices.
    pub user_email: Option<String>,
    /// Which API.
    pub api_id: Option<String>,
    /// Terms in force.
    pub terms: Arc<Terms>,
    /// Terms that wait for the billing period's end.
    pub next: Option<Arc<Terms>>,
    /// Refused for now.
    pub suspended: bool,
    /// Gone.
    pub deleted: bool,
    /// Revision of the row it was made from; of two, the later one counts.
    pub revision: i64,
}

impl Definition {
    /// The plan in force.
    pub fn plan(&self) -> PlanId {
        self.terms.plan.id
    }

    /// The plan that waits, if another one does.
    pub fn next_plan(&self) -> Option<PlanId> {
        self.next.as_ref().map(|next| next.plan.id)
    }
}

/// When a version was made, and whether its subscriptions finish their period first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issue {
    at_period_end: bool,
    created_at: Micros,
}

impl Issue {
    /// Who was there before the version may finish its period; who came later has it from the start.
    /// A subscription's time is in whole milliseconds, so the version's is compared as such.
    fn lets_finish(self, row: &SubscriptionRow) -> bool {
        let millis = self.created_at.get().div_euclid(MICROS_PER_MILLI);
        self.at_period_end && row.created_at.get().div_euclid(MICROS_PER_MILLI) < millis
    }
}

impl Catalog {
    /// Builds the definition of a row, as of now. `running` is the plan version that a resident or a
    /// snapshot runs under: none before it comes back, whatever two nodes' clocks say.
    pub async fn define(
        &self,
        row: &SubscriptionRow,
        newest_version: u32,
        running: Option<u32>,
    ) -> Result<Definition, PlanLookupError> {
        let (first, later) = self.versions(row, newest_version, running).await?;
        let made_at = if first.version > 1 {
            self.issue(row.plan, first.version).await?.created_at
        } else {
            row.created_at
        };
        let (plan, since, waiting) = in_force(row, first, made_at, later, self.clock.now());
        let next = match row.next_plan {
            Some(id) => Some(terms_of(row, self.newest_plan(id).await?)),
            None => waiting.map(|waiting| terms_of(row, waiting.plan).waiting_until(waiting.until)),
        };
        Ok(Definition {
            id: row.id,
            user_email: row.user_email.clone(),
            api_id: row.api_id.clone(),
            // A move to another plan or a limit of its own is a change of the row.
            terms: Arc::new(terms_of(row, plan).holding_since(since.max(row.updated_at))),
            next: next.map(Arc::new),
            suspended: row.status == SubscriptionStatus::Suspended,
            deleted: row.status == SubscriptionStatus::Deleted,
            revision: row.revision,
        })
    }

    /// The newest version that was in force from the moment it was made, or that is known to run; and
    /// those since, oldest first, each of which lets the subscription finish a period.
    async fn versions(
        &self,
        row: &SubscriptionRow,
        newest: u32,
        running: Option<u32>,
    ) -> Result<(Arc<Plan>, Vec<Made>), PlanLookupError> {
        let mut later = Vec::new();
        let mut version = newest;
        // The first version has none before it to finish under.
        while version > 1 && Some(version) != running {
            let issue = self.issue(row.plan, version).await?;
            if !issue.lets_finish(row) {
                break;
            }
            let plan = self.plan(row.plan, version).await?;
            later.push(Made { plan, at: issue.created_at });
            version -= 1;
        }
        later.reverse();
        Ok((self.plan(row.plan, version).await?, later))
    }

    async fn issue(&self, id: PlanId, version: u32) -> Result<Issue, PlanLookupError> {
        if let Some(issue) = self.issues.get(self.clock.now(), &(id, version)) {
            return Ok(issue);
        }
        let stored = i32::try_from(version).map_err(|_| PlanLookupError::NotFound)?;
        let store: &dyn Store = &*self.store;
        let row = store.find_plan(id, Some(stored)).await.map_err(PlanLookupError::Store)?;
        let row = row.ok_or(PlanLookupError::NotFound)?;
        let issue = Issue { at_period_end: row.at_period_end, created_at: row.created_at };
        // Versions never change, so no generation is needed.
        self.issues.insert(self.clock.now(), (id, version), issue);
        Ok(issue)
    }
}

/// A version that lets its subscriptions finish their period.
struct Made {
    plan: Arc<Plan>,
    at: Micros,
}

/// A version that is not in force yet.
struct Waiting {
    plan: Arc<Plan>,
    until: Micros,
}

/// Plays the versions in the order they were made: each waits for the end of the billing period that
/// ran then, and overtakes one that still waited. No snapshot is needed, so that a subscription which
/// was never loaded moves when its neighbours do. Told too is since when the version in force holds.
fn in_force(
    row: &SubscriptionRow,
    first: Arc<Plan>,
    made_at: Micros,
    later: Vec<Made>,
    now: Micros,
) -> (Arc<Plan>, Micros, Option<Waiting>) {
    let (mut plan, mut since) = (first, made_at);
    let mut waiting: Option<Waiting> = None;
    for made in later {
        if let Some(due) = waiting.take_if(|waiting| waiting.until <= made.at) {
            (plan, since) = (due.plan, due.until);
        }
        let until = terms_of(row, plan.clone()).billing.period_at(made.at).end;
        waiting = Some(Waiting { plan: made.plan, until });
    }
    if let Some(due) = waiting.take_if(|waiting| waiting.until <= now) {
        (plan, since) = (due.plan, due.until);
    }
    (plan, since, waiting)
}

fn terms_of(row: &SubscriptionRow, plan: Arc<Plan>) -> Terms {
    // Both columns are validated when they are written; a damaged one falls back to the plan's own
    // terms in UTC rather than taking the subscription down.
    let zone = Zone::parse(&row.time_zone).unwrap_or_else(|_| Zone::utc());
    let overrides = limits_of(&row.limits);
    Terms::new(plan, &zone, row.started_at, row.ends_at, &overrides)
}

fn limits_of(json: &str) -> Vec<LimitOverride> {
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).unwrap_or_default();
    map.into_iter()
        .filter_map(|(quota, limit)| match limit {
            serde_json::Value::Null => Some(LimitOverride { quota, limit: None }),
            limit => Some(LimitOverride { quota, limit: Some(Units::new(limit.as_u64()?)?) }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use uuid::Uuid;
    use weir_core::units::Span;
    use weir_store::rows::{AuditRow, PlanRow};
    use weir_store::sqlite::{SqliteOptions, SqliteStore};

    use super::*;
    use crate::clock::Clock;

    const PLAN: PlanId = PlanId::from_uuid(Uuid::from_u128(1));

    /// So long before now.
    fn ago(now: Micros, days: i64) -> Micros {
        now.minus(Span::from_seconds(days * 86_400))
    }

    fn subscription(made: Micros) -> SubscriptionRow {
        SubscriptionRow {
            id: SubscriptionId::from_uuid(Uuid::from_u128(9)),
            plan: PLAN,
            next_plan: None,
            external_id: None,
            tenant: "default".to_owned(),
            api_id: None,
            user_email: None,
            time_zone: "UTC".to_owned(),
            status: SubscriptionStatus::Active,
            started_at: made,
            ends_at: None,
            webhook_url: None,
            limits: "{}".to_owned(),
            metadata: "{}".to_owned(),
            created_at: made,
            updated_at: made,
            revision: 1,
            requests_used: 0,
        }
    }

    /// A catalogue whose plan has versions made so many days ago, waiting or not, for periods of so
    /// many days.
    async fn catalog(now: Micros, versions: &[(i64, bool, u32)]) -> Catalog {
        let store = SqliteStore::open(&SqliteOptions::memory()).await.unwrap();
        for (version, &(days, at_period_end, length)) in (1..).zip(versions) {
            let row = PlanRow {
                id: PLAN,
                version,
                name: "p".to_owned(),
                config: format!(
                    r#"{{"name":"p","quotas":[{{"name":"requests","limit":{version},
                    "every":"P{length}D","anchor":"subscription"}}]}}"#
                ),
                at_period_end,
                created_at: ago(now, days),
            };
            let entry = AuditRow {
                id: Uuid::now_v7(),
                at: now,
                actor: "test".to_owned(),
                action: "plan.update".to_owned(),
                target_kind: "plan".to_owned(),
                target_id: PLAN.to_string(),
                tenant: None,
                before: None,
                after: None,
                reason: None,
            };
            let made = match version {
                1 => store.insert_plan(&row, &entry).await,
                _ => store.insert_plan_version(&row, &entry).await,
            };
            made.unwrap();
        }
        let shards = NonZeroU16::new(1).unwrap();
        Catalog::new(Arc::new(store), Arc::new(Clock::start()), shards, None)
    }

    /// Versions; what is known to run; version in force, and the one that waits with the days until
    /// it comes. The subscription was made 45 days ago, so its periods of ten days end in five.
    type Story = (&'static [(i64, bool, u32)], Option<u32>, u32, Option<(u32, i64)>);

    #[tokio::test]
    async fn a_version_waits_for_the_end_of_the_period_that_it_was_made_in() {
        let stories: [Story; 13] = [
            (&[(90, false, 10)], None, 1, None),
            (&[(90, false, 10), (2, false, 10)], None, 2, None),
            (&[(90, false, 10), (2, true, 10)], None, 1, Some((2, 5))),
            (&[(90, false, 10), (2, true, 10)], Some(1), 1, Some((2, 5))),
            // It runs already, whatever this node's clock says.
            (&[(90, false, 10), (2, true, 10)], Some(2), 2, None),
            // The period that it was made in is over, whoever looked meanwhile.
            (&[(90, false, 10), (7, true, 10)], None, 2, None),
            (&[(90, false, 10), (7, true, 10)], Some(1), 2, None),
            // Of two that wait the newer one comes.
            (&[(90, false, 10), (3, true, 10), (2, true, 10)], None, 1, Some((3, 5))),
            (&[(90, false, 10), (7, true, 10), (2, true, 10)], None, 2, Some((3, 5))),
            // One that does not wait overtakes one that does.
            (&[(90, false, 10), (3, true, 10), (2, false, 10)], None, 3, None),
            // It waits for the period of the terms that run, not for one of those that wait.
            (&[(90, false, 30), (3, true, 1), (2, true, 1)], None, 1, Some((3, 15))),
            // Who came later has it from the start.
            (&[(90, false, 10), (46, true, 90)], None, 2, None),
            // A version of a former plan says nothing.
            (&[(90, false, 10), (2, true, 10)], Some(7), 1, Some((2, 5))),
        ];
        for (versions, running, in_force, waiting) in stories {
            let now = Clock::start().now();
            let catalog = catalog(now, versions).await;
            let row = subscription(ago(now, 45));
            let newest = u32::try_from(versions.len()).unwrap();
            let definition = catalog.define(&row, newest, running).await.unwrap();
            let name = format!("{versions:?}, running {running:?}");
            assert_eq!(definition.terms.plan.version, in_force, "{name}");
            let next = definition.next.map(|next| {
                (next.plan.version, next.waits_until.expect("a version knows how long it waits"))
            });
            let in_days = |days: i64| now.plus(Span::from_seconds(days * 86_400));
            let expected = waiting.map(|(version, days)| (version, in_days(days)));
            assert_eq!(next, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn who_is_made_in_the_same_millisecond_as_a_version_has_it_at_once() {
        let now = Clock::start().now();
        let catalog = catalog(now, &[(90, false, 10), (2, true, 10)]).await;
        let made = ago(now, 2).get().div_euclid(MICROS_PER_MILLI);
        for (millis, in_force) in [(made - 1, 1), (made, 2), (made + 1, 2)] {
            let row = subscription(Micros::from_micros(millis * MICROS_PER_MILLI));
            let definition = catalog.define(&row, 2, None).await.unwrap();
            assert_eq!(definition.terms.plan.version, in_force, "{millis}");
        }
    }
}
