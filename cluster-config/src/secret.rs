//! Text that must not be seen: passwords, tokens, the cluster's shared secret.
//!
//! Role: the only way to the text is [`Secret::expose`], so that each use can be found by its
//! name; `Debug` says that something is there and nothing else. There is no `Display`.

use std::fmt;

/// What is printed in place of a secret.
pub(crate) const REDACTED: &str = "<redacted>";

/// A secret from the configuration, never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text of a secret; `None` when there is no text.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        if text.is_empty() { None } else { Some(Self(text)) }
    }

    /// The text. Compare it in constant time, and let it go no further than it must.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new("hunter2").expect("it has text");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "<redacted> Some(<redacted>)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn an_empty_secret_is_none() {
        assert_eq!(Secret::new(""), None);
    }
}
