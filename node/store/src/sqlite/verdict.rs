//! What an error of SQLite or of its driver means for a call.

use sqlx::Error;

use crate::failure::Verdict;

/// Judges by primary result code (SQLite documentation, "Result and Error Codes").
pub(super) fn verdict(error: &Error) -> Verdict {
    match error {
        Error::Database(cause) => cause
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .map_or(Verdict::Broken, |extended| of_code(extended & 0xff)),
        Error::Io(_) | Error::WorkerCrashed | Error::PoolTimedOut | Error::PoolClosed => {
            Verdict::Away
        }
        _ => Verdict::Broken,
    }
}

fn of_code(primary: u32) -> Verdict {
    match primary {
        // BUSY and LOCKED: another has it. NOMEM, INTERRUPT, FULL (the transaction is rolled back).
        5 | 6 | 7 | 9 | 13 => Verdict::Refused,
        // IOERR: what is on disk is not known. CANTOPEN, PROTOCOL (locking).
        10 | 14 | 15 => Verdict::Away,
        _ => Verdict::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_judged_by_what_the_caller_can_do() {
        for (code, expected) in [
            (5, Verdict::Refused),
            (13, Verdict::Refused),
            (10, Verdict::Away),
            (1, Verdict::Broken),
            (11, Verdict::Broken),
            (19, Verdict::Broken),
        ] {
            assert_eq!(of_code(code), expected, "{code}");
        }
    }
}
