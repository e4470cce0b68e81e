//! What an error of Postgres or of its driver means for a call.

use sqlx::Error;

use crate::failure::Verdict;

/// Judges by SQLSTATE (Postgres documentation, appendix A); errors without one are the driver's.
pub(super) fn verdict(error: &Error) -> Verdict {
    match error {
        Error::Database(cause) => cause.code().map_or(Verdict::Broken, |code| of_state(&code)),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => Verdict::Away,
        _ => Verdict::Broken,
    }
    .or_missing_partition(error)
}

/// Whether a row found no partition: the one check that has no name.
pub(super) fn is_missing_partition(error: &Error) -> bool {
    matches!(error, Error::Database(cause)
        if cause.code().as_deref() == Some("23514") && cause.constraint().is_none())
}

impl Verdict {
    /// A partition that was dropped is made anew by the next try.
    fn or_missing_partition(self, error: &Error) -> Self {
        if self == Self::Broken && is_missing_partition(error) { Self::Refused } else { self }
    }
}

fn of_state(code: &str) -> Verdict {
    match code {
        // The server says itself that the outcome is unknown; the session was ended while it was
        // idle in a transaction.
        "40003" | "25P03" => Verdict::Away,
        // A statement was ended at its limit, and the session goes on; a standby, or a primary on
        // its way to being one.
        "57014" | "25006" => Verdict::Refused,
        _ => match code.get(..2) {
            // Connection exceptions; operator intervention (shutdown, crash, start-up); system
            // errors.
            Some("08" | "57" | "58") => Verdict::Away,
            // Serialisation and deadlock; resources; object not in the state required (locks).
            Some("40" | "53" | "55") => Verdict::Refused,
            _ => Verdict::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_judged_by_what_the_caller_can_do() {
        for (code, expected) in [
            ("57P01", Verdict::Away),
            ("57P03", Verdict::Away),
            ("08006", Verdict::Away),
            ("40003", Verdict::Away),
            ("57014", Verdict::Refused),
            ("40P01", Verdict::Refused),
            ("55P03", Verdict::Refused),
            ("53300", Verdict::Refused),
            ("25006", Verdict::Refused),
            ("42P01", Verdict::Broken),
            ("23505", Verdict::Broken),
            ("", Verdict::Broken),
        ] {
            assert_eq!(of_state(code), expected, "{code}");
        }
    }
}
