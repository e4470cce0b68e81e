//! `/api/v1/subscriptions`: who may use what is sold, and how that changes.
//!
//! ```text
//!   crud         make, list, show, change, delete      body   shapes of requests and answers
//!   keys         further keys, revocation              change what a PATCH does to a row
//!   adjustments  corrections of what was used          value  checks of single fields
//!   usage        the live state
//! ```
//! A subscription outside the caller's reach does not exist for it: every file here looks it up with
//! [`find`].

mod adjustments;
mod body;
mod change;
mod crud;
mod keys;
mod periods;
mod usage;
pub(super) mod value;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::units::SubscriptionId;
use weir_store::rows::SubscriptionRow;

use super::Api;
use super::audit::Target;
use super::problem::Problem;
use crate::catalog::principal::Principal;

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(crud::create, crud::list))
        .routes(routes!(crud::show, crud::update, crud::delete))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(adjustments::adjust))
        .routes(routes!(adjustments::reset))
        .routes(routes!(usage::usage))
        .routes(routes!(periods::list))
        .routes(routes!(periods::show))
}

/// A subscription within the caller's reach.
async fn find(api: &Api, caller: &Principal, id: Uuid) -> Result<SubscriptionRow, Problem> {
    let id = SubscriptionId::from_uuid(id);
    let row = api.store.find_subscription(id, &caller.reach).await?;
    row.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found("subscription")
}

fn target(row: &SubscriptionRow) -> Target {
    Target::subscription(row.id.uuid(), row.tenant.clone())
}
