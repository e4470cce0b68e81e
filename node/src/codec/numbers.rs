//! One number on the wire for each value of an enum.
//!
//! Role: written out, so that the order of the domain's variants may change and their numbers do not.
//! Never reuse a number. A variant without one does not compile; a number without one is damage.

use weir_core::meter::{Mode, Reason};
use weir_store::rows::{OutcomeKind, RowKind};

use crate::outcome::{RecordError, Recorded};

/// The number of a value, and the value of a number.
pub(in crate::codec) trait Numbered: Copy {
    /// Its number.
    fn number(self) -> u8;
    /// Whose number it is; `None` = nobody's.
    fn from_number(number: u8) -> Option<Self>;
}

macro_rules! numbered {
    ($type:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        impl Numbered for $type {
            fn number(self) -> u8 {
                match self {
                    $($type::$variant => $number),+
                }
            }

            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some($type::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

numbered!(Reason {
    Ok = 1,
    QuotaExceeded = 2,
    RateLimited = 3,
    UnknownKey = 4,
    KeyRevoked = 5,
    Suspended = 6,
    NotStarted = 7,
    Ended = 8,
    TooManyReservations = 9,
});
numbered!(Mode { Enforced = 1, Shadow = 2, Degraded = 3 });
numbered!(Recorded { New = 1, Duplicate = 2 });
numbered!(RecordError { Busy = 1, Away = 2, Fenced = 3, NotHere = 4 });
numbered!(RowKind { Usage = 1, Adjustment = 2, Reset = 3, Commit = 4 });
numbered!(OutcomeKind { Served = 1, Denied = 2, Aborted = 3 });
