//! How one attempt ended.

use std::time::Duration;

/// Characters of a reason that are kept. It is for people, and a receiver has a say in it.
const REASON_CHARS_MAX: usize = 300;

/// An attempt that did not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// What went wrong, for people.
    pub(super) reason: String,
    /// Another attempt would end the same.
    pub(super) is_final: bool,
    /// What the receiver asked to be spared for.
    pub(super) retry_after: Option<Duration>,
}

impl Failed {
    /// It may work another time.
    pub(super) fn for_now(reason: impl AsRef<str>) -> Self {
        Self { reason: shortened(reason.as_ref()), is_final: false, retry_after: None }
    }

    /// It will not.
    pub(super) fn for_good(reason: impl AsRef<str>) -> Self {
        Self { is_final: true, ..Self::for_now(reason) }
    }
}

fn shortened(reason: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    reason.chars().take(REASON_CHARS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let failed = Failed::for_good(format!("a\r\nb{}", "x".repeat(1_000)));
        assert!(failed.is_final);
        assert!(failed.reason.starts_with("a  bx"));
        assert_eq!(failed.reason.chars().count(), REASON_CHARS_MAX);
    }
}
