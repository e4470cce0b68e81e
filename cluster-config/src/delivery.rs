//! How messages leave: webhooks, e-mail, and how often they are tried.
//!
//! Role: the sections `delivery` and `smtp`. The room `delivery` of the node is handed both and
//! nothing else. Secrets are read into the form in which they are used, so that a mistyped one is
//! found when the node starts and not when the first message fails.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits;
use crate::reader::{Reader, ShownText, plain_secret};
use crate::secret::{REDACTED, Secret};
use crate::sections::{file, minutes, ms, s};
use crate::value::whole_number;

/// Deliveries: who is tried how often, and what they are signed with.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Whether this node delivers. Messages wait in the store while no node does.
    pub enabled: bool,
    /// Deliveries under way at once.
    pub concurrency: usize,
    /// Of these to one server at most.
    pub endpoint_concurrency: usize,
    /// Attempts before a delivery is dead.
    pub attempts_max: u32,
    /// Pause after the first failure; it grows sixfold with each.
    pub backoff_first: Duration,
    /// Longest pause, but for its jitter.
    pub backoff_max: Duration,
    /// How often the outbox is looked at.
    pub poll_interval: Duration,
    /// Time of one attempt, from looking up the name to the answer.
    pub timeout: Duration,
    /// What webhooks are signed with.
    pub webhook_secret: Option<SigningKey>,
    /// What they are signed with as well, while receivers still expect it.
    pub webhook_secret_old: Option<SigningKey>,
    /// Where charges go; to the subscription's webhook when there is none.
    pub payment_url: Option<Secret>,
    /// Networks that webhooks may reach although they are not public.
    pub allow: Networks,
    /// PEM file with certificates of authorities that receivers are trusted by, beside the public
    /// ones.
    pub tls_authority: Option<PathBuf>,
}

impl Delivery {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let most = limits::DELIVERIES_MAX;
        let (attempts, attempts_max) = (5, limits::DELIVERY_ATTEMPTS_MAX);
        Self {
            enabled: r
                .setting("delivery.enabled", "true", "true or false", |text| text.parse().ok()),
            concurrency: r.count("delivery.concurrency", most, 1..=most),
            endpoint_concurrency: r.count("delivery.endpoint_concurrency", 4, 1..=most),
            attempts_max: u32::try_from(r.count(
                "delivery.attempts_max",
                attempts,
                1..=attempts_max,
            ))
            .unwrap_or(u32::MAX),
            backoff_first: r.duration("delivery.backoff_first", s(10), ms(1)..=minutes(60)),
            backoff_max: r.duration("delivery.backoff_max", minutes(60), ms(1)..=minutes(24 * 60)),
            poll_interval: r.duration("delivery.poll_interval", s(1), ms(10)..=minutes(1)),
            timeout: r.duration("delivery.timeout", s(15), ms(50)..=minutes(1)),
            webhook_secret: signing_key(r, "delivery.webhook_secret"),
            webhook_secret_old: signing_key(r, "delivery.webhook_secret_old"),
            payment_url: payment_url(r),
            allow: r.setting(
                "delivery.allow",
                "",
                "networks such as `10.1.0.0/16, fd00::/8`, or nothing",
                Networks::parse,
            ),
            tls_authority: file(r, "delivery.tls_authority"),
        }
    }
}

/// The server that sends mail.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// Its name; there is no e-mail without.
    pub host: Option<String>,
    /// Its port; the usual one of `tls` when it is not said.
    pub port: Option<u16>,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// Name to log in with.
    pub user: Option<String>,
    /// Password to log in with.
    pub password: Option<Secret>,
    /// Whom mail comes from, `Weir <weir@example.com>` or the address alone.
    pub from: Option<String>,
    /// PEM file with certificates of authorities that the server is trusted by, beside the public
    /// ones.
    pub tls_authority: Option<PathBuf>,
}

/// How a connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte (port 465).
    Implicit,
    /// After `STARTTLS`, which the server must offer (port 587).
    StartTls,
    /// Not at all (port 25): for a server on the same machine.
    None,
}

impl SmtpTls {
    /// The port that servers listen at for it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Implicit => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "implicit" => Some(Self::Implicit),
            "starttls" => Some(Self::StartTls),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl Smtp {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let line = |text: &str| {
            (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
        };
        let port = |text: &str| {
            let port = whole_number(text).and_then(|port| u16::try_from(port).ok())?;
            (port != 0).then_some(port)
        };
        let host = |text: &str| line(text).filter(|_| !text.contains([' ', '/', '@']));
        Self {
            host: r.optional("smtp.host", "a host name or address", host),
            port: r.optional("smtp.port", "a port from 1 to 65535", port),
            tls: r.setting(
                "smtp.tls",
                "starttls",
                "`implicit`, `starttls` or `none`",
                SmtpTls::parse,
            ),
            user: r.optional("smtp.user", "text on one line", line),
            password: plain_secret(r, "smtp.password"),
            from: r.optional("smtp.from", "an address such as `Weir <weir@example.com>`", |text| {
                line(text).filter(|_| text.contains('@'))
            }),
            tls_authority: file(r, "smtp.tls_authority"),
        }
    }

    /// Whether mail can be sent.
    pub fn is_set(&self) -> bool {
        self.host.is_some()
    }
}

/// A key that webhooks are signed with, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks 1.0.0 has it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes. Let them go no further than they must.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

fn signing_key(r: &mut Reader<'_>, key: &'static str) -> Option<SigningKey> {
    let expected = "`whsec_` and 24 to 64 bytes in base64";
    r.secret(key, expected, SigningKey::parse, |key| {
        key.map_or(ShownText::Unset, |_| ShownText::Hidden(REDACTED.to_owned()))
    })
}

/// Its query is often its password, so it is kept as a secret.
fn payment_url(r: &mut Reader<'_>) -> Option<Secret> {
    let expected = "an http or https URL without user name and password";
    let parse = |text: &str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = !text.contains(|c: char| c.is_control() || c.is_whitespace());
        let shaped = plain && !authority.is_empty() && !authority.contains('@');
        shaped.then(|| Secret::new(text)).flatten()
    };
    r.secret("delivery.payment_url", expected, parse, |url| {
        url.map_or(ShownText::Unset, |_| ShownText::Hidden(REDACTED.to_owned()))
    })
}

/// IP networks, such as `10.0.0.0/8, ::1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: u128,
    /// Length of what all addresses have in common, of the 128 bits of the mapped form.
    bits: u32,
}

impl Networks {
    /// Separated by commas; an address without length stands for itself.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(Network::parse).collect::<Option<_>>().map(Self)
    }

    /// Whether one of them has this address. An IPv4 address and its mapped form are the same.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = number(address);
        self.0.iter().any(|network| (address ^ network.first) & network.mask() == 0)
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(whole_number(bits)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = u32::try_from(bits.unwrap_or(width)).ok()?;
        (u64::from(bits) <= width).then(|| Self { first: number(address), bits: bits + before })
    }

    fn mask(self) -> u128 {
        // A shift by the whole width has no meaning; no bits in common is everything.
        u128::MAX.checked_shl(u128::BITS - self.bits).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_the_addresses_of_their_prefix() {
        // Networks, address, whether it is in one.
        let stories = [
            ("", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.0/8", "127.255.255.255", true),
            ("127.0.0.0/8", "128.0.0.0", false),
            ("127.1.2.3/8", "127.0.0.1", true),
            ("10.0.0.0/8, 192.168.0.0/16", "192.168.7.7", true),
            ("10.0.0.0/8, 192.168.0.0/16", "192.169.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fc00::1", false),
            ("::1", "::1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", true),
        ];
        for (networks, address, expected) in stories {
            let list = Networks::parse(networks).unwrap_or_else(|| panic!("{networks:?}"));
            let address = address.parse().expect("an address");
            assert_eq!(list.contain(address), expected, "{address} in {networks:?}");
        }
        for bad in ["localhost", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/"] {
            assert_eq!(Networks::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_key_has_the_prefix_and_a_fitting_length_and_shows_nothing() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7_u8; bytes]));
        for (text, good) in [
            (of(24), true),
            (of(64), true),
            (of(23), false),
            (of(65), false),
            (of(32).replace("whsec_", ""), false),
            (of(32).replace("whsec_", "whpk_"), false),
            ("whsec_not base64".to_owned(), false),
        ] {
            assert_eq!(SigningKey::parse(&text).is_some(), good, "{text}");
        }
        let key = SigningKey::parse(&of(24)).expect("a key");
        assert_eq!((format!("{key:?}").as_str(), key.expose()), (REDACTED, &[7; 24][..]));
    }

    #[test]
    fn ports_follow_the_protection() {
        for (text, port) in [("implicit", 465), ("starttls", 587), ("none", 25)] {
            assert_eq!(SmtpTls::parse(text).map(SmtpTls::port), Some(port));
        }
        assert_eq!(SmtpTls::parse("tls"), None);
    }
}
