//! Who is asking: the holder of a token, what it may do and what it may see.
//!
//! Role: tokens are opaque to everyone but this file. A token is `weir_SCOPE_` + 43 random letters and
//! digits (256 bits) + 6 of checksum, so that a typing error is refused without a look at the store and
//! leaked ones can be scanned for. The store keeps only its SHA-256: with 256 bits of entropy a slow
//! hash would add nothing.

use rand::RngCore;
use weir_core::units::Micros;
use weir_store::rows::TokenRow;
use weir_store::{Error, Reach};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Checks and events.
    Gateway,
    /// Reads of usage.
    Dashboard,
}

impl Scope {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Gateway => "gateway",
            Self::Dashboard => "dashboard",
        }
    }

    /// From the contract's word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "admin" => Some(Self::Admin),
            "gateway" => Some(Self::Gateway),
            "dashboard" => Some(Self::Dashboard),
            _ => None,
        }
    }
}

/// A token's holder.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Token id, or `bootstrap`; stands in the audit log.
    pub id: String,
    /// What it may do.
    pub scope: Scope,
    /// What it may see.
    pub reach: Reach,
    /// Refused from when.
    pub expires_at: Option<Micros>,
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nobody has it, or no longer.
    #[error("unknown token")]
    Unknown,
    /// It could not be looked up.
    #[error("the token could not be looked up")]
    Store(#[source] Error),
}

impl Principal {
    /// The holder of the configured admin token.
    pub fn bootstrap() -> Self {
        Self {
            id: "bootstrap".to_owned(),
            scope: Scope::Admin,
            reach: Reach::default(),
            expires_at: None,
        }
    }

    /// `None` when it was revoked.
    pub fn from_row(row: &TokenRow) -> Option<Self> {
        if row.revoked_at.is_some() {
            return None;
        }
        Some(Self {
            id: row.id.to_string(),
            scope: Scope::parse(&row.scope)?,
            reach: Reach { tenant: row.tenant.clone(), subscriptions: row.subscriptions.clone() },
            expires_at: row.expires_at,
        })
    }

    /// Whether it may do what needs `scope`. An admin may do everything.
    pub fn may(&self, scope: Scope) -> bool {
        self.scope == Scope::Admin || self.scope == scope
    }

    /// Whether it may see a subscription.
    pub fn sees(&self, tenant: &str, id: weir_core::units::SubscriptionId) -> bool {
        let in_tenant = self.reach.tenant.as_deref().is_none_or(|own| own == tenant);
        in_tenant && self.reach.subscriptions.as_ref().is_none_or(|own| own.contains(&id))
    }

    /// Whether nothing is hidden from it.
    pub fn sees_all(&self) -> bool {
        self.reach.tenant.is_none() && self.reach.subscriptions.is_none()
    }
}

/// A new token.
pub fn new_token(scope: Scope) -> String {
    let body = format!("weir_{}_{}", scope.as_str(), random_chars(RANDOM_CHARS));
    let sum = checksum(&body);
    body + &sum
}

/// A new subscription key.
pub fn new_key() -> String {
    let body = format!("sk_{}", random_chars(RANDOM_CHARS));
    let sum = checksum(&body);
    body + &sum
}

/// Whether text that looks like one of our tokens was mistyped; other text (the bootstrap token may
/// be anything) is not judged.
pub fn is_mistyped(token: &str) -> bool {
    let ours = [Scope::Admin, Scope::Gateway, Scope::Dashboard]
        .iter()
        .any(|scope| token.strip_prefix("weir_").is_some_and(|t| t.starts_with(scope.as_str())));
    if !ours || !token.is_ascii() || token.len() <= CHECKSUM_CHARS {
        return false;
    }
    let (body, sum) = token.split_at(token.len() - CHECKSUM_CHARS);
    checksum(body) != sum
}

fn random_chars(count: usize) -> String {
    let mut rng = rand::rng();
    let mut text = String::with_capacity(count);
    while text.len() < count {
        // Bytes of 248 and more would make the first letters likelier than the others.
        let byte = usize::from(rng.next_u32().to_le_bytes()[0]);
        if byte < 248 {
            text.push(char::from(ALPHABET[byte % 62]));
        }
    }
    text
}

fn checksum(body: &str) -> String {
    let mut rest = xxhash_rust::xxh3::xxh3_64(body.as_bytes());
    let mut text = String::with_capacity(CHECKSUM_CHARS);
    for _ in 0..CHECKSUM_CHARS {
        text.push(char::from(ALPHABET[(rest % 62) as usize]));
        rest /= 62;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_token_is_seen_without_the_store() {
        let token = new_token(Scope::Gateway);
        assert!(!is_mistyped(&token), "{token}");
        for position in "weir_gateway_".len()..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[position] = if bytes[position] == b'x' { b'y' } else { b'x' };
            let typo = String::from_utf8(bytes).unwrap_or_default();
            assert!(is_mistyped(&typo), "{typo}");
        }
        assert!(!is_mistyped("whatever an operator chose"));
        assert!(!is_mistyped(""));
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(new_token(Scope::Admin), new_token(Scope::Admin));
        assert_ne!(new_key(), new_key());
    }
}
