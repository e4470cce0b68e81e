//! A subscription's row and plan as the terms its meter runs under.

use std::sync::Arc;

use weir_core::calendar::Zone;
use weir_core::terms::{LimitOverride, Terms};
use weir_core::units::{PlanId, SubscriptionId, Units};
use weir_store::Store;
use weir_store::rows::{SubscriptionRow, SubscriptionStatus};

use super::{Catalog, PlanLookupError};

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

impl Catalog {
    /// Builds the definition of a row. `running` is the plan version that a snapshot ran under: a
    /// newer one that is to wait for the period's end then waits.
    pub async fn define(
        &self,
        row: &SubscriptionRow,
        newest_version: u32,
        running: Option<u32>,
    ) -> Result<Definition, PlanLookupError> {
        let newest = self.plan(row.plan, newest_version).await?;
        let in_force = self.version_in_force(row.plan, newest_version, running).await?;
        let (plan, waiting) = if in_force < newest_version {
            (self.plan(row.plan, in_force).await?, Some(newest))
        } else {
            (newest, None)
        };
        let next_plan = match row.next_plan {
            Some(id) => Some(self.newest_plan(id).await?),
            None => waiting,
        };
        Ok(Definition {
            id: row.id,
            user_email: row.user_email.clone(),
            api_id: row.api_id.clone(),
            terms: Arc::new(terms_of(row, plan)),
            next: next_plan.map(|plan| Arc::new(terms_of(row, plan))),
            suspended: row.status == SubscriptionStatus::Suspended,
            deleted: row.status == SubscriptionStatus::Deleted,
            revision: row.revision,
        })
    }

    /// The newest version that waits for nothing, but none before the one that runs. Two changes may
    /// have been made since that ran: one at once, then one for the period's end.
    async fn version_in_force(
        &self,
        id: PlanId,
        newest: u32,
        running: Option<u32>,
    ) -> Result<u32, PlanLookupError> {
        let Some(running) = running else { return Ok(newest) };
        let mut version = newest;
        while version > running && self.waits_for_period_end(id, version).await? {
            version -= 1;
        }
        Ok(version)
    }

    async fn waits_for_period_end(
        &self,
        id: PlanId,
        version: u32,
    ) -> Result<bool, PlanLookupError> {
        let version = i32::try_from(version).map_err(|_| PlanLookupError::NotFound)?;
        let store: &dyn Store = &*self.store.0;
        let row = store.find_plan(id, Some(version)).await.map_err(PlanLookupError::Store)?;
        Ok(row.is_some_and(|row| row.at_period_end))
    }
}

fn terms_of(row: &SubscriptionRow, plan: Arc<weir_core::plan::Plan>) -> Terms {
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
