//! Between the domain's unsigned numbers and SQL's signed ones, and between moments and minutes.

use weir_core::units::{Epoch, Micros, Seq, ShardId};

use crate::failure::Failure;

/// Microseconds in a minute, the grain of analytics.
const MICROS_PER_MINUTE: i64 = 60_000_000;

/// A count as SQL keeps it. Nothing that Weir counts comes near the bound.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A length as SQL keeps it.
pub(crate) fn length(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A position as SQL keeps it.
pub(crate) fn seq(position: Seq) -> i64 {
    signed(position.0)
}

/// A fencing token as SQL keeps it.
pub(crate) fn epoch(token: Epoch) -> i64 {
    signed(token.0)
}

/// A shard's number as SQL keeps it: above 32,767 it does not fit a smallint.
pub(crate) fn shard(id: ShardId) -> i32 {
    i32::from(id.0)
}

/// A count read from SQL.
pub(crate) fn unsigned(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::Damaged(format!("count {number} is negative")))
}

/// A shard's number read from SQL.
pub(crate) fn shard_id(number: i32) -> Result<ShardId, Failure> {
    u16::try_from(number)
        .map(ShardId)
        .map_err(|_| Failure::Damaged(format!("shard number {number} is out of range")))
}

/// The whole minutes inside `[from, to)`, as `[start, end)`; empty when `start >= end`.
pub(crate) fn whole_minutes(from: Micros, to: Micros) -> (i64, i64) {
    let start = match from.get().rem_euclid(MICROS_PER_MINUTE) {
        0 => from.get(),
        past => from.get().saturating_add(MICROS_PER_MINUTE - past),
    };
    let end = to.get().saturating_sub(to.get().rem_euclid(MICROS_PER_MINUTE));
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_minutes_lie_inside_the_range() {
        const MINUTE: i64 = MICROS_PER_MINUTE;
        for (from, to, start, end) in [
            (0, MINUTE, 0, MINUTE),
            (1, 3 * MINUTE, MINUTE, 3 * MINUTE),
            (0, 2 * MINUTE + 59, 0, 2 * MINUTE),
            (-1, 1, 0, 0),
            (-MINUTE - 1, -1, -MINUTE, -MINUTE),
            (10, 20, MINUTE, 0),
        ] {
            let minutes = whole_minutes(Micros::from_micros(from), Micros::from_micros(to));
            assert_eq!(minutes, (start, end), "[{from}, {to})");
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let (start, end) = whole_minutes(Micros::from_micros(i64::MIN), Micros::MAX);
        assert!(start < end);
        assert_eq!(whole_minutes(Micros::MAX, Micros::MAX).0, i64::MAX);
    }
}
