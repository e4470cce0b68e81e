//! `/api/v1/cluster`: the nodes, and who owns what.
//!
//! Read from the store, which is where ownership is decided; any node answers alike.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::units::{Span, SubscriptionId};

use super::Api;
use super::auth::{Admin, Gateway};
use super::moment::Moment;
use super::parameters::Parameters;
use super::problem::{Problem, ProblemBody};
use super::reach;

/// Every node, by name.
#[derive(Serialize, ToSchema)]
pub struct ClusterAnswer {
    nodes: Vec<NodeAnswer>,
    /// How many shards there are.
    shards: usize,
    /// The highest epoch of a shard: grows whenever one changes hands.
    epoch: u64,
    /// Shards that no living node owns.
    unowned: usize,
}

/// One node.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    id: String,
    /// Address of its HTTP interface.
    http: String,
    /// Address for its peers; empty for a node that serves alone.
    cluster: String,
    /// `joining`, `up`, `draining`, `dead`, `left`; `expired` when its lease has run out and nobody
    /// has declared it dead yet.
    status: String,
    /// Shards that it owns.
    shards: usize,
    /// RFC 3339.
    lease_expires_at: Moment,
}

/// Where a subscription is served.
#[derive(Serialize, ToSchema)]
pub struct RouteAnswer {
    shard: u16,
    /// Name of the node; null while nobody owns the shard.
    owner: Option<String>,
    /// Fencing token of its ownership.
    epoch: u64,
    /// Address of its HTTP interface.
    http: Option<String>,
}

/// Which subscription.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteQuery {
    /// The subscription's id.
    subscription_id: Uuid,
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(cluster)).routes(routes!(route))
}

/// The nodes of the cluster.
#[utoipa::path(
    get, path = "/api/v1/cluster", tag = "operate", security(("bearer" = [])),
    responses((status = 200, body = ClusterAnswer), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn cluster(
    State(api): State<Arc<Api>>,
    caller: Admin,
) -> Result<JsonAnswer<ClusterAnswer>, Problem> {
    reach::unlimited(&caller)?;
    let members = api.store.members().await?;
    let states = api.store.shards().await?;
    let now = api.clock.now();
    let mut owned: HashMap<Uuid, usize> = HashMap::new();
    for state in &states {
        if let Some(owner) = state.owner {
            *owned.entry(owner).or_default() += 1;
        }
    }
    let is_alive = |boot: &Uuid| {
        members.iter().any(|member| member.node.incarnation == *boot && member.is_alive())
    };
    let living: usize = owned.iter().filter(|(boot, _)| is_alive(boot)).map(|(_, n)| n).sum();
    let nodes = members.iter().map(|member| NodeAnswer {
        id: member.node.id.clone(),
        http: member.node.http.clone(),
        cluster: member.node.cluster.clone(),
        status: member.status().to_owned(),
        shards: owned.get(&member.node.incarnation).copied().unwrap_or_default(),
        lease_expires_at: Moment(now.plus(Span::from_micros(member.lease_left_ms * 1_000))),
    });
    Ok(JsonAnswer(ClusterAnswer {
        nodes: nodes.collect(),
        shards: states.len(),
        epoch: states.iter().map(|state| state.epoch.0).max().unwrap_or_default(),
        unowned: states.len() - living,
    }))
}

/// Where a subscription is served, so that a gateway can ask its owner directly.
#[utoipa::path(
    get, path = "/api/v1/cluster/route", tag = "operate", security(("bearer" = [])),
    params(RouteQuery),
    responses((status = 200, body = RouteAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn route(
    State(api): State<Arc<Api>>,
    caller: Gateway,
    Parameters(query): Parameters<RouteQuery>,
) -> Result<JsonAnswer<RouteAnswer>, Problem> {
    let id = SubscriptionId::from_uuid(query.subscription_id);
    let known = api.router.catalog().find_subscription(id).await?;
    let known = known.filter(|known| caller.sees(&known.tenant, id));
    let known = known.ok_or_else(|| Problem::not_found("subscription"))?;
    let states = api.store.shards().await?;
    let state = states.iter().find(|state| state.shard == known.shard);
    let members = api.store.members().await?;
    let owner = state.and_then(|state| state.owner).and_then(|boot| {
        members.iter().find(|member| member.node.incarnation == boot && member.is_alive())
    });
    Ok(JsonAnswer(RouteAnswer {
        shard: known.shard.0,
        owner: owner.map(|member| member.node.id.clone()),
        epoch: state.map_or(0, |state| state.epoch.0),
        http: owner.map(|member| member.node.http.clone()),
    }))
}
