//! `weir serve --dev`: something to try at once.
//!
//! Role: one plan, three subscriptions and three tokens with fixed, well-known secrets, so that the
//! README's lines work when pasted. Only on loopback: the secrets are public.

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;
use weir_core::units::{Micros, PlanId, SubscriptionId};
use weir_store::rows::{AuditRow, KeyRow, PlanRow, SubscriptionRow, SubscriptionStatus, TokenRow};
use weir_store::{Error, Store};

use crate::catalog::hash_secret;

/// Fixed ids, so that a second start finds what the first one made.
const PLAN: Uuid = Uuid::from_u128(0x019a_b7c0_0000_7000_8000_0000_0000_0001);
const FIRST_SUBSCRIPTION: u128 = 0x019a_b7c0_0000_7000_8000_0000_0000_0010;
const FIRST_TOKEN: u128 = 0x019a_b7c0_0000_7000_8000_0000_0000_0020;
const SUBSCRIPTIONS: [(&str, &str); 3] = [
    ("demo-small", r#"{"requests":100}"#),
    ("demo-medium", "{}"),
    ("demo-unlimited", r#"{"requests":null}"#),
];
const TOKENS: [(&str, &str); 3] =
    [("dev-admin", "admin"), ("dev-gateway", "gateway"), ("dev-dashboard", "dashboard")];
const PLAN_DOCUMENT: &str = r#"{"name":"demo","currency":"USD","baseFee":"30.00",
 "quotas":[{"name":"requests","meter":"requests","limit":10000,"every":"P1M","anchor":"calendar","enforcement":"hard"}],
 "rateLimits":[{"name":"per-second","limit":50,"window":"PT1S","algorithm":"token_bucket","burst":100}],
 "costs":[{"method":"POST","path":"/v1/generate*","units":5}]}"#;

/// Makes what is not there yet.
pub async fn seed(store: &Arc<dyn Store>, now: Micros) -> Result<(), Error> {
    let plan = PlanRow {
        id: PlanId::from_uuid(PLAN),
        version: 1,
        name: "demo".to_owned(),
        config: PLAN_DOCUMENT.to_owned(),
        at_period_end: false,
        created_at: now,
    };
    if store.find_plan(plan.id, None).await?.is_none() {
        let entry = audit(now, "plan.create", "plan", PLAN);
        done_or_there(store.insert_plan(&plan, &entry).await)?;
    }
    for (index, (name, limits)) in (0u128..).zip(SUBSCRIPTIONS) {
        let id = Uuid::from_u128(FIRST_SUBSCRIPTION + index);
        let row = subscription(id, plan.id, name, limits, now);
        let key = KeyRow {
            id,
            subscription: row.id,
            hash: hash_secret(name),
            hint: name.chars().take(8).collect(),
            created_at: now,
            revoked_at: None,
        };
        let entry = audit(now, "subscription.create", "subscription", id);
        done_or_there(store.insert_subscription(&row, &key, &entry).await)?;
    }
    for (index, (token, scope)) in (0u128..).zip(TOKENS) {
        let id = Uuid::from_u128(FIRST_TOKEN + index);
        let row = TokenRow {
            id,
            hash: hash_secret(token),
            name: token.to_owned(),
            scope: scope.to_owned(),
            tenant: None,
            subscriptions: None,
            expires_at: None,
            created_at: now,
            revoked_at: None,
        };
        if store.find_token(&row.hash).await?.is_none() {
            let entry = audit(now, "token.create", "token", id);
            done_or_there(store.insert_token(&row, &entry).await)?;
        }
    }
    Ok(())
}

/// A second start finds everything there.
fn done_or_there(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Conflict { .. }) => Ok(()),
        other => other,
    }
}

fn subscription(id: Uuid, plan: PlanId, name: &str, limits: &str, now: Micros) -> SubscriptionRow {
    SubscriptionRow {
        id: SubscriptionId::from_uuid(id),
        plan,
        next_plan: None,
        external_id: Some(name.to_owned()),
        tenant: "default".to_owned(),
        api_id: Some("demo-api".to_owned()),
        user_email: Some(format!("{name}@example.com")),
        time_zone: "UTC".to_owned(),
        status: SubscriptionStatus::Active,
        started_at: now,
        ends_at: None,
        webhook_url: None,
        limits: limits.to_owned(),
        metadata: "{}".to_owned(),
        created_at: now,
        updated_at: now,
        revision: 1,
        requests_used: 0,
    }
}

fn audit(now: Micros, action: &str, kind: &str, id: Uuid) -> AuditRow {
    AuditRow {
        id: Uuid::now_v7(),
        at: now,
        actor: "dev".to_owned(),
        action: action.to_owned(),
        target_kind: kind.to_owned(),
        target_id: id.to_string(),
        tenant: None,
        before: None,
        after: None,
        reason: Some("weir serve --dev".to_owned()),
    }
}

/// What to paste.
pub fn welcome(address: SocketAddr) -> String {
    let base = format!("http://{address}");
    format!(
        r#"
Weir runs in dev mode at {base} (docs at {base}/docs).
Keys: demo-small (100 requests a month), demo-medium (10,000), demo-unlimited.
Tokens: dev-admin, dev-gateway, dev-dashboard. They are public: never use --dev in production.

# May this request pass?
curl -s '{base}/api/v1/quota/check' -H 'Authorization: Bearer dev-gateway' -H 'X-Subscription-Key: demo-small'

# It happened: record it (answered once it is durable; send it twice, it counts once)
curl -s '{base}/api/v1/usage/events' -H 'Authorization: Bearer dev-gateway' -H 'Content-Type: application/json' \
  -d '{{"id":"event-1","subscription_key":"demo-small","timestamp":"'"$(date -u +%Y-%m-%dT%H:%M:%SZ)"'","method":"GET","api_path":"/v1/search","status_code":200}}'

# Where does the subscription stand?
curl -s '{base}/api/v1/subscriptions/{id}/usage' -H 'Authorization: Bearer dev-dashboard'

# What happened?
curl -s '{base}/api/v1/usage/stats?subscriptionId={id}' -H 'Authorization: Bearer dev-dashboard'
"#,
        id = Uuid::from_u128(FIRST_SUBSCRIPTION),
    )
}
