//! Which percentages of a limit have been passed, each told once.
//!
//! Role: decides notices in the same step as the increment that causes them. Percentages are told in
//! ascending order, so the state is the highest one told, for one (period, limit version): it stays
//! right when a plan changes its list. A new period or a changed limit starts afresh.

use crate::units::Units;

/// Thresholds a quota may have: each is looked at by every event.
pub const THRESHOLDS_MAX: usize = 16;

/// The highest percentage told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired(u16);

impl Fired {
    /// From what was stored.
    pub const fn from_told(highest: u16) -> Self {
        Self(highest)
    }

    /// To be stored.
    pub const fn told(self) -> u16 {
        self.0
    }

    /// Marks and returns the percentages that `used` has reached and that were not told before, in
    /// ascending order, whatever the size of the step. A limit of zero is passed by any use.
    pub fn pass(&mut self, warn_at: &[u16], used: Units, limit: Units) -> Vec<u16> {
        debug_assert!(warn_at.len() <= THRESHOLDS_MAX);
        let mut told = Vec::new();
        if used.is_zero() {
            return told;
        }
        let used = u128::from(used.get()) * 100;
        for &percent in warn_at.iter().filter(|&&percent| percent > self.0) {
            if used < u128::from(limit.get()) * u128::from(percent) {
                break;
            }
            told.push(percent);
        }
        self.0 = told.last().copied().unwrap_or(self.0);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_told_once_in_order_however_large_the_step() {
        /// Used, and what that tells.
        type Step = (u64, &'static [u16]);
        let stories: [(&[Step], u64); 4] = [
            (&[(79, &[]), (80, &[80]), (80, &[]), (89, &[]), (90, &[90]), (100, &[100])], 100),
            (&[(79, &[]), (101, &[80, 90, 100]), (500, &[])], 100),
            (&[(0, &[]), (1, &[80, 90, 100])], 0),
            (&[(2, &[]), (3, &[80, 90, 100])], 3),
        ];
        for (steps, limit) in stories {
            let mut fired = Fired::default();
            for &(used, expected) in steps {
                let told = fired.pass(&[80, 90, 100], Units::clamped(used), Units::clamped(limit));
                assert_eq!(told, expected, "used {used} of {limit}");
            }
        }
    }

    #[test]
    fn a_list_that_changes_tells_nothing_twice_and_nothing_out_of_order() {
        let mut fired = Fired::default();
        let mut pass =
            |warn_at: &[u16], used| fired.pass(warn_at, Units::clamped(used), Units::clamped(100));
        assert_eq!(pass(&[80, 90, 100], 85), [80]);
        assert_eq!(
            pass(&[50, 80, 90, 100], 86),
            [] as [u16; 0],
            "50 after 80 would be out of order"
        );
        assert_eq!(pass(&[50, 95], 99), [95]);
        assert_eq!(pass(&[80, 90, 100], 100), [100]);
    }
}
