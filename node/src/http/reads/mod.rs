//! `/api/v1/usage/…`: what was used, for those who look (scope dashboard or admin).
//!
//! Role: parameters in, sums of [`crate::analytics`] out. A subscription that does not exist and one
//! outside the token's reach are the same 404. Ranges are `[from, to)`, by the time of the requests.

mod range;
mod records;
mod stats;
mod summary;
mod trends;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::units::SubscriptionId;

use super::Api;
use super::problem::Problem;
use crate::catalog::Known;
use crate::catalog::principal::Principal;

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(stats::stats))
        .routes(routes!(trends::trends))
        .routes(routes!(summary::summary))
        .routes(routes!(records::records))
}

/// The subscription named in the query, if the caller may see it.
async fn within_reach(
    api: &Api,
    caller: &Principal,
    id: SubscriptionId,
) -> Result<Arc<Known>, Problem> {
    let known = api.router.catalog().find_subscription(id).await?;
    known
        .filter(|known| caller.sees(&known.tenant, known.id))
        .ok_or_else(|| Problem::not_found("subscription"))
}

/// A parameter that is there but not as expected.
fn invalid(detail: impl Into<String>) -> Problem {
    Problem::bad_request("invalid_parameter", detail)
}

/// The id in a query.
fn subscription_parameter(text: &str) -> Result<SubscriptionId, Problem> {
    text.parse().map_err(|_| invalid("`subscriptionId` must be a UUID"))
}
