//! Which ways a message leaves. Pure.
//!
//! | type | to the subscription's webhook | to the payment webhook | by e-mail |
//! |---|---|---|---|
//! | `quota_warning`, `billing_period_closed` | yes | – | yes |
//! | `overage_charge` | when there is no payment webhook | yes | – |
//! | any other | yes | – | – |
//!
//! A way that is not set up (no `webhookUrl`, no `userEmail`, no mail server) is none. A webhook
//! without a signing secret stays one and fails, because somebody expects it.

use weir_store::outbox::{Destination, Unaddressed};

use super::webhook::Target;

/// Names of the channels, as they are stored and shown.
pub(super) const WEBHOOK: &str = "webhook";
pub(super) const PAYMENT: &str = "payment";
pub(super) const EMAIL: &str = "email";

/// What all deliveries share that go to a URL that leads nowhere: they fail without a call.
const NOWHERE: &str = "-";

/// What is set up on this node, for all subscriptions.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    /// Where charges go.
    pub(super) payment_url: Option<String>,
    /// What all mail shares; none without a mail server.
    pub(super) mail_endpoint: Option<String>,
}

impl Channels {
    /// Where a message goes: at most once to each channel, nowhere when nobody wants it.
    pub(super) fn destinations(&self, message: &Unaddressed) -> Vec<Destination> {
        let kind = message.kind.as_str();
        let is_charge = kind == "overage_charge";
        let has_mail = matches!(kind, "quota_warning" | "billing_period_closed");
        let payment = self.payment_url.as_deref().filter(|_| is_charge);
        let webhook = message.webhook_url.as_deref().filter(|_| payment.is_none());
        let mail = self.mail_endpoint.as_ref().filter(|_| has_mail && message.user_email.is_some());
        let to =
            |channel: &str, endpoint: String| Destination { channel: channel.to_owned(), endpoint };
        [
            payment.map(|url| to(PAYMENT, endpoint(url))),
            webhook.map(|url| to(WEBHOOK, endpoint(url))),
            mail.map(|endpoint| to(EMAIL, endpoint.clone())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn endpoint(url: &str) -> String {
    Target::parse(url).map_or_else(|| NOWHERE.to_owned(), |target| target.endpoint())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_type_leaves_by_the_ways_that_are_set_up_for_it() {
        const HOOK: Option<&str> = Some("https://hook.example/x");
        const MAIL: Option<&str> = Some("ada@example.com");
        const PAY: Option<&str> = Some("https://pay.example/");
        const SMTP: Option<&str> = Some("smtp:mail.example:587");
        const TO_HOOK: &str = "webhook hook.example:443";
        const TO_PAY: &str = "payment pay.example:443";
        const TO_MAIL: &str = "email smtp:mail.example:587";
        // Type; the subscription's webhook and e-mail, the node's payment webhook and mail server.
        type Story = (&'static str, [Option<&'static str>; 4], &'static [&'static str]);
        let stories: [Story; 14] = [
            ("quota_warning", [HOOK, MAIL, PAY, SMTP], &[TO_HOOK, TO_MAIL]),
            ("quota_warning", [HOOK, MAIL, None, None], &[TO_HOOK]),
            ("quota_warning", [HOOK, None, None, SMTP], &[TO_HOOK]),
            ("quota_warning", [None, MAIL, PAY, SMTP], &[TO_MAIL]),
            ("quota_warning", [None, None, PAY, SMTP], &[]),
            ("quota_warning", [None, MAIL, PAY, None], &[]),
            ("billing_period_closed", [HOOK, MAIL, PAY, SMTP], &[TO_HOOK, TO_MAIL]),
            ("billing_period_closed", [None, None, PAY, None], &[]),
            ("overage_charge", [HOOK, MAIL, PAY, SMTP], &[TO_PAY]),
            ("overage_charge", [None, None, PAY, None], &[TO_PAY]),
            ("overage_charge", [HOOK, MAIL, None, SMTP], &[TO_HOOK]),
            ("overage_charge", [None, MAIL, None, SMTP], &[]),
            ("another", [HOOK, MAIL, PAY, SMTP], &[TO_HOOK]),
            ("quota_warning", [Some("nonsense"), None, None, None], &["webhook -"]),
        ];
        for (kind, [webhook, email, payment, mail_server], expected) in stories {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let channels =
                Channels { payment_url: owned(payment), mail_endpoint: owned(mail_server) };
            let message = Unaddressed {
                id: Uuid::from_u128(1),
                kind: kind.to_owned(),
                webhook_url: owned(webhook),
                user_email: owned(email),
            };
            let found: Vec<String> = channels
                .destinations(&message)
                .iter()
                .map(|to| format!("{} {}", to.channel, to.endpoint))
                .collect();
            assert_eq!(found, expected, "{kind} {webhook:?} {email:?} {payment:?} {mail_server:?}");
        }
    }
}
