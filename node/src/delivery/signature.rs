//! Standard Webhooks 1.0.0: what is signed and how.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>: the
//! signature is HMAC-SHA-256 over `id.timestamp.body`, in base64, behind its version `v1`. While a
//! secret is being replaced there are two, the newer first; a receiver takes either.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use weir_config::SigningKey;

/// The value of `webhook-signature`.
///
/// `seconds` is the value of `webhook-timestamp`: the moment of the attempt in Unix time, because
/// receivers refuse what is older than a few minutes.
pub(super) fn signatures<'k>(
    keys: impl IntoIterator<Item = &'k SigningKey>,
    id: &str,
    seconds: i64,
    body: &[u8],
) -> String {
    let sign = |key: &SigningKey| {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of every length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.into_iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(text).expect("a key")
    }

    fn verified(secret: &str, signature: &str, id: &str, seconds: i64, body: &[u8]) -> bool {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &seconds.to_string()),
            ("webhook-signature", signature),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        let receiver = Webhook::new(secret).expect("a secret");
        receiver.verify(body, &headers).is_ok()
    }

    #[test]
    fn a_known_message_has_the_signature_that_the_library_gives_it() {
        let (id, seconds, body) =
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let ours = signatures([&key(ONE)], id, seconds, body);
        assert_eq!(ours, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_receiver_takes_the_secret_it_knows_and_no_other() {
        // Receivers refuse what is old.
        let seconds = crate::clock::Clock::start().now().get() / 1_000_000;
        let (id, body) = ("0192-1", b"{}".as_slice());
        let both = signatures([&key(ONE), &key(OTHER)], id, seconds, body);
        let single = signatures([&key(ONE)], id, seconds, body);
        assert_eq!(both.split(' ').count(), 2);
        // Signature, the receiver's secret, whether it believes it.
        for (signature, secret, expected) in [
            (&both, ONE, true),
            (&both, OTHER, true),
            (&single, ONE, true),
            (&single, OTHER, false),
        ] {
            assert_eq!(verified(secret, signature, id, seconds, body), expected, "{secret}");
        }
        assert!(!verified(ONE, &single, "0192-2", seconds, body), "another id");
        assert!(!verified(ONE, &single, id, seconds + 1, body), "another time");
        assert!(!verified(ONE, &single, id, seconds, b"{ }"), "another body");
        let old = signatures([&key(ONE)], id, seconds - 3_600, body);
        assert!(!verified(ONE, &old, id, seconds - 3_600, body), "an hour ago");
    }
}
