//! What must hold after every step of a [`Cluster`], computed the slow and obvious way.

use weir_core::plan::ChargeOn;

use super::cluster::{Cluster, UnderWay, moved, period_of};

impl Cluster {
    /// INV-3. The live owner knows of every correction; a zombie may not, so that for it only what
    /// was let through counts, against the limit and what was taken back since.
    pub(super) fn never_over(&self, period: i64, limit: u64, live: bool) -> Result<(), String> {
        let now = self.now;
        let of_period = || self.admissions.iter().filter(move |a| a.period == period);
        let open: u64 = of_period().filter(|a| a.is_open(now)).map(|a| a.units).sum();
        let settled: u64 = of_period().filter_map(|a| a.charged).sum();
        let back = self.taken_back.get(&period).copied().unwrap_or(0);
        if settled + open > limit + back {
            return Err(format!(
                "INV-3: {settled} settled + {open} open of {limit} (+{back} back)"
            ));
        }
        let used = self.used.get(&period).copied().unwrap_or(0);
        // Where checks charge, they are open for ever here and in `used` there.
        let exact = live && self.charge_on == ChargeOn::Event;
        if exact && used + i128::from(open) > i128::from(limit) {
            return Err(format!("INV-3: admitted at {used} used + {open} open of {limit}"));
        }
        Ok(())
    }

    /// INV-2: every period is the sum of its rows, wherever the parts of the sum are.
    pub(super) fn audit(&self) -> Result<(), String> {
        if self.charge_on == ChargeOn::Check {
            return Ok(());
        }
        let mut sums = self.store.past.clone();
        if let Some(UnderWay { checkpoint, committed: false, .. }) = &self.under_way {
            for past in &checkpoint.past {
                *sums.entry(period_of(past.start)).or_default() += i128::from(past.units);
            }
        }
        let live = self.live_ref();
        let probe = live.meter.clone().checkpoint(moved(self.now, live.skew), false);
        let counter = &probe.state.counters[0];
        *sums.entry(period_of(counter.period_start)).or_default() += i128::from(counter.used);
        for early in &counter.early {
            *sums.entry(period_of(early.start)).or_default() += i128::from(early.units);
        }
        for past in &probe.past {
            *sums.entry(period_of(past.start)).or_default() += i128::from(past.units);
        }
        sums.retain(|_, units| *units != 0);
        let mut expected = self.used.clone();
        expected.retain(|_, units| *units != 0);
        if sums == expected {
            Ok(())
        } else {
            Err(format!("INV-2: counted {sums:?}, the ledger says {expected:?}"))
        }
    }
}
