//! From a claimed delivery to one attempt on its channel.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use weir_core::units::Micros;
use weir_store::outbox::ClaimedDelivery;

use super::attempt::Failed;
use super::channels::{Channels, EMAIL, PAYMENT, WEBHOOK};
use super::mail::{Letter, Mailer};
use super::webhook::{Webhook, WebhookSender};
use crate::clock::rfc3339;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Every way out that this node has.
pub(super) struct Sender {
    pub(super) webhooks: WebhookSender,
    pub(super) mailer: Option<Mailer>,
    pub(super) payment_url: Option<String>,
    /// Of one attempt, whatever the channel.
    pub(super) timeout: Duration,
}

impl Sender {
    /// What is set up.
    pub(super) fn channels(&self) -> Channels {
        Channels {
            payment_url: self.payment_url.clone(),
            mail_endpoint: self.mailer.as_ref().map(|mailer| mailer.endpoint().to_owned()),
        }
    }

    /// Tries once, where the subscription wants it by now. Ends within the time-out.
    pub(super) async fn attempt(
        &self,
        delivery: &ClaimedDelivery,
        now: Micros,
    ) -> Result<(), Failed> {
        match delivery.channel.as_str() {
            WEBHOOK => {
                let url = delivery.webhook_url.as_deref();
                let gone = || Failed::for_good("the subscription has no `webhookUrl` any more");
                self.webhook(delivery, url.ok_or_else(gone)?, now).await
            }
            PAYMENT => {
                let url = self.payment_url.as_deref();
                let gone = || Failed::for_good("`delivery.payment_url` is not set any more");
                self.webhook(delivery, url.ok_or_else(gone)?, now).await
            }
            EMAIL => self.mail(delivery).await,
            // Another version of the program knows it.
            other => Err(Failed::for_now(format!("this node knows no channel `{other}`"))),
        }
    }

    async fn webhook(
        &self,
        delivery: &ClaimedDelivery,
        url: &str,
        now: Micros,
    ) -> Result<(), Failed> {
        let seconds = now.get().div_euclid(MICROS_PER_SECOND);
        let webhook = Webhook { url, id: delivery.message, seconds, body: body(delivery)? };
        self.webhooks.send(webhook).await
    }

    async fn mail(&self, delivery: &ClaimedDelivery) -> Result<(), Failed> {
        let mailer = self.mailer.as_ref();
        let mailer = mailer.ok_or_else(|| Failed::for_good("`smtp.host` is not set any more"))?;
        let to = delivery.user_email.as_deref();
        let to =
            to.ok_or_else(|| Failed::for_good("the subscription has no `userEmail` any more"))?;
        let data: Value = serde_json::from_str(&delivery.payload).map_err(|_| damaged())?;
        let letter = Letter::of(&delivery.kind, &data);
        // The library bounds each step; a server that is slow in every one is bounded here.
        let sent = tokio::time::timeout(self.timeout, mailer.send(to, delivery.message, letter));
        sent.await.map_err(|_| Failed::for_now("no answer within `delivery.timeout`"))?
    }
}

/// The contract's body of a webhook. Its `timestamp` is when the message came to be; that of the
/// attempt is in the signature's header.
fn body(delivery: &ClaimedDelivery) -> Result<String, Failed> {
    let data: &RawValue = serde_json::from_str(&delivery.payload).map_err(|_| damaged())?;
    let kind = Value::from(delivery.kind.as_str());
    let timestamp = rfc3339(delivery.created_at);
    Ok(format!(r#"{{"type":{kind},"timestamp":"{timestamp}","data":{}}}"#, data.get()))
}

fn damaged() -> Failed {
    Failed::for_good("the message's data are damaged")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;
    use weir_core::units::SubscriptionId;

    use super::*;

    fn delivery(kind: &str, payload: &str) -> ClaimedDelivery {
        ClaimedDelivery {
            message: Uuid::from_u128(1),
            channel: WEBHOOK.to_owned(),
            endpoint: String::new(),
            attempts: 1,
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(2)),
            kind: kind.to_owned(),
            payload: payload.to_owned(),
            created_at: Micros::from_seconds(1_790_000_000),
            webhook_url: None,
            user_email: None,
        }
    }

    #[test]
    fn a_body_has_type_timestamp_and_the_data_as_they_are() {
        let body = body(&delivery("quota_warning", r#"{"used":9007199254740993,"a":"\""}"#));
        let body: Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
        let expected = json!({
            "type": "quota_warning", "timestamp": "2026-09-21T14:13:20.000Z",
            "data": {"used": 9_007_199_254_740_993_u64, "a": "\""},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn damaged_data_are_given_up() {
        for payload in ["", "{", "{}{}"] {
            let failed = body(&delivery("x", payload)).expect_err("it is damaged");
            assert!(failed.is_final, "{payload:?}");
        }
    }
}
