//! `/api/v1/notifications`: the outbox, newest first, and sending a message again.
//!
//! Role: shows what the worker of the room `delivery` does with messages; it sends nothing itself. A
//! limited token sees the messages of the subscriptions within its reach.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::units::SubscriptionId;
use weir_store::Error;
use weir_store::outbox::{DeliveryRow, DeliveryStatus, NotificationFilter, NotificationRow};

use super::Api;
use super::audit::{self, Target};
use super::auth::Admin;
use super::moment::Moment;
use super::page::{self, List};
use super::parameters::{Ids, Parameters};
use super::problem::{Problem, ProblemBody};

const LIST: &str = "notifications";

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(redeliver))
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NotificationQuery {
    /// Only of this type.
    #[serde(rename = "type")]
    kind: Option<NotificationType>,
    /// Only these.
    status: Option<NotificationStatus>,
    /// Only of this subscription.
    subscription_id: Option<String>,
    /// Messages on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationType {
    /// A threshold of a quota was reached.
    QuotaWarning,
    /// Use beyond a quota was charged.
    OverageCharge,
    /// A billing period was closed.
    BillingPeriodClosed,
}

/// What became of a message, or of its delivery on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationStatus {
    /// It is being sent, or will be.
    Pending,
    /// It arrived on every channel that is set up for it, which may be none.
    Delivered,
    /// It was given up on at least one.
    Dead,
}

/// A message to a customer or to a payment system.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Its id, also the `webhook-id` and within the `Message-ID` of a mail.
    id: String,
    /// `quota_warning`, `overage_charge` or `billing_period_closed`.
    #[serde(rename = "type")]
    kind: String,
    /// Whose message.
    subscription_id: String,
    /// What became of it.
    status: NotificationStatus,
    /// The most attempts on one of its channels.
    attempts: u32,
    /// When it came to be.
    created_at: Moment,
    /// When it was delivered or given up.
    finished_at: Option<Moment>,
    /// What went wrong last on a channel on which it has not arrived.
    last_error: Option<String>,
    /// What it says: `data` of the webhook.
    #[schema(value_type = Object)]
    data: Value,
    /// Its channels; none until a worker has seen it, or when nobody wants it.
    deliveries: Vec<Delivery>,
}

/// A message on one channel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// `webhook`, `payment` or `email`.
    channel: String,
    /// Host and port that it goes to.
    endpoint: String,
    /// What became of it.
    status: NotificationStatus,
    /// Attempts begun.
    attempts: u32,
    /// When it is tried next; while it is pending.
    next_attempt_at: Option<Moment>,
    /// When it was delivered or given up.
    finished_at: Option<Moment>,
    /// What went wrong last.
    last_error: Option<String>,
}

/// Lists messages, newest first.
#[utoipa::path(
    get, path = "/api/v1/notifications", tag = "notifications", security(("bearer" = [])),
    params(NotificationQuery),
    responses((status = 200, body = List<Notification>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Parameters(query): Parameters<NotificationQuery>,
) -> Result<JsonAnswer<List<Notification>>, Problem> {
    let subscription = query.subscription_id.as_deref().map(subscription_id).transpose()?;
    let filter = NotificationFilter {
        reach: caller.reach.clone(),
        kind: query.kind.map(|kind| kind.as_str().to_owned()),
        status: query.status.map(DeliveryStatus::from),
        subscription,
        before: page::after_id(LIST, query.cursor.as_deref())?,
        limit: page::limit(query.limit)?,
    };
    let page = api.store.list_notifications(&filter).await?;
    Ok(JsonAnswer(page::by_id(LIST, page, |row| row.id, Notification::from)))
}

/// Sends a message again that was delivered or given up.
///
/// With fresh attempts: on the channels on which it was given up, or, when it was on none, on all that
/// are set up for it by now. It keeps its id. 409 `notification_pending` while it is on its way.
#[utoipa::path(
    post, path = "/api/v1/notifications/{id}/redeliver", tag = "notifications",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Id of the message")),
    responses((status = 200, body = Notification), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn redeliver(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<JsonAnswer<Notification>, Problem> {
    let missing = || Problem::not_found("notification");
    let row = api.store.find_notification(id, &caller.reach).await?.ok_or_else(missing)?;
    let target = Target::notification(id, row.tenant.clone());
    let mut entry = audit::entry(&api, &caller, "notification.redeliver", target);
    // What it says stays the same and may be large.
    let state = |status, row: &NotificationRow| {
        audit::state(&serde_json::json!({
            "type": row.kind, "subscriptionId": row.subscription.to_string(), "status": status,
        }))
    };
    entry.before = state(NotificationStatus::from(row.status), &row);
    entry.after = state(NotificationStatus::Pending, &row);
    let done = api.store.redeliver(id, api.clock.now(), &entry).await;
    done.map_err(|error| match error {
        Error::Conflict { .. } => {
            let detail = "it is on its way; only what was delivered or given up is sent again";
            Problem::conflict("notification_pending", detail)
        }
        error => error.into(),
    })?;
    let row = api.store.find_notification(id, &caller.reach).await?.ok_or_else(missing)?;
    Ok(JsonAnswer(row.into()))
}

fn subscription_id(text: &str) -> Result<SubscriptionId, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_request("invalid_parameter", "`subscriptionId` must be a subscription's id")
    })
}

impl NotificationType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::QuotaWarning => "quota_warning",
            Self::OverageCharge => "overage_charge",
            Self::BillingPeriodClosed => "billing_period_closed",
        }
    }
}

impl From<NotificationStatus> for DeliveryStatus {
    fn from(status: NotificationStatus) -> Self {
        match status {
            NotificationStatus::Pending => Self::Pending,
            NotificationStatus::Delivered => Self::Delivered,
            NotificationStatus::Dead => Self::Dead,
        }
    }
}

impl From<DeliveryStatus> for NotificationStatus {
    fn from(status: DeliveryStatus) -> Self {
        match status {
            DeliveryStatus::Pending => Self::Pending,
            DeliveryStatus::Delivered => Self::Delivered,
            DeliveryStatus::Dead => Self::Dead,
        }
    }
}

impl From<NotificationRow> for Notification {
    fn from(row: NotificationRow) -> Self {
        Self {
            id: row.id.to_string(),
            kind: row.kind,
            subscription_id: row.subscription.to_string(),
            status: row.status.into(),
            attempts: row.attempts,
            created_at: Moment(row.created_at),
            finished_at: row.finished_at.map(Moment),
            last_error: row.last_error,
            // Written by a node; damaged data show as none rather than hiding the message.
            data: serde_json::from_str(&row.payload).unwrap_or_default(),
            deliveries: row.deliveries.into_iter().map(Delivery::from).collect(),
        }
    }
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        let is_pending = row.status == DeliveryStatus::Pending;
        Self {
            channel: row.channel,
            endpoint: row.endpoint,
            status: row.status.into(),
            attempts: row.attempts,
            next_attempt_at: is_pending.then_some(Moment(row.next_attempt_at)),
            finished_at: row.finished_at.map(Moment),
            last_error: row.last_error,
        }
    }
}
