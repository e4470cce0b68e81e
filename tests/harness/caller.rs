//! What a story asks of one node, in the words that most stories are told in.
//!
//! Role: a lone node's [`World`](crate::World) and a [`Cluster`](crate::Cluster) lead to it; it does not
//! matter here whether the node owns what it is asked for.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Http};
use crate::eventually;

/// One node, asked with a token of each scope.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Scope admin.
    pub admin: Http,
    /// Scope gateway.
    pub gateway: Http,
    /// Scope dashboard.
    pub dashboard: Http,
}

/// A subscription with the key that only its making shows.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
}

impl Caller {
    /// Makes a plan and returns its id. What `fields` leaves out: a name.
    pub async fn plan(&self, fields: Value) -> String {
        let mut plan = json!({"name": "test"});
        merge(&mut plan, fields);
        let made = self.admin.post("/api/v1/plans", &plan).await.expect(201);
        made["id"].as_str().expect("a plan has an id").to_owned()
    }

    /// Makes a subscription of a plan.
    pub async fn subscribe(&self, plan: &str) -> Subscription {
        self.subscribe_with(plan, json!({})).await
    }

    /// Makes a subscription with these fields.
    pub async fn subscribe_with(&self, plan: &str, fields: Value) -> Subscription {
        let mut body = json!({"planId": plan});
        merge(&mut body, fields);
        let made = self.admin.post("/api/v1/subscriptions", &body).await.expect(201);
        let text = |field: &str| made[field].as_str().map(str::to_owned);
        Subscription {
            id: text("id").expect("a subscription has an id"),
            key: text("key").expect("its making shows the key"),
        }
    }

    /// A subscription of a new hard monthly plan with this limit.
    pub async fn subscribe_hard(&self, limit: u64) -> Subscription {
        let quota = json!({"limit": limit, "every": "P1M", "enforcement": "hard"});
        self.subscribe(&self.plan(json!({"quota": quota})).await).await
    }

    /// Asks whether a request may pass.
    pub async fn check(&self, key: &str) -> Value {
        self.check_with(key, "").await
    }

    /// Asks with these parameters, such as `cost=3&path=/v1`.
    pub async fn check_with(&self, key: &str, query: &str) -> Value {
        self.try_check(key, query).await.expect(200)
    }

    /// Asks, and returns whatever is answered.
    pub async fn try_check(&self, key: &str, query: &str) -> Answer {
        let client = &self.gateway;
        let request = client.request(Method::GET, &format!("/api/v1/quota/check?{query}"));
        client.send(request.header("x-subscription-key", key), "").await
    }

    /// Looks without changing anything.
    pub async fn peek(&self, key: &str) -> Value {
        self.check_with(key, "cost=0").await
    }

    /// Records events, in any of the forms.
    pub async fn record(&self, body: &Value) -> Value {
        self.gateway.post("/api/v1/usage/events", body).await.expect(200)
    }

    /// Waits until the subscription's `used` is this and returns the decision that said so.
    pub async fn await_used(&self, key: &str, used: u64) -> Value {
        eventually("used", Duration::from_secs(10), || async {
            let seen = self.peek(key).await;
            if seen["used"] == used { Ok(seen) } else { Err(format!("not {used}: {seen}")) }
        })
        .await
    }

    /// Every ledger row of a subscription, page by page.
    ///
    /// # Panics
    /// When the pages do not end.
    pub async fn records(&self, id: &str, query: &str) -> Vec<Value> {
        let (from, to) = ("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
        let base = format!("/api/v1/usage/records?subscriptionId={id}&from={from}&to={to}");
        let mut rows = Vec::new();
        let mut cursor = String::new();
        for _ in 0..1_000 {
            let path = format!("{base}&limit=1000{query}{cursor}");
            let page = self.dashboard.get(&path).await.expect(200);
            rows.extend(page["data"].as_array().expect("a page has data").iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
        panic!("the pages do not end");
    }
}

fn merge(into: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else { panic!("fields are an object: {fields}") };
    for (name, value) in fields {
        into[name] = value;
    }
}
