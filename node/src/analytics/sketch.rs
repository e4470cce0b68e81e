//! Latencies as a mergeable sketch.
//!
//! Role: the only file that knows the `DDSketch` library. A sketch answers any quantile within 1 % of
//! the true value and merges without loss of that promise, so percentiles over any range, endpoint or
//! node are merges, never averages of percentiles (Masson, Rim, Lee: "DDSketch", VLDB 2019). The
//! largest value is kept beside it, exactly.

use sketches_ddsketch::{Config, DDSketch};

/// Latencies in microseconds.
#[derive(Clone, Default)]
pub struct Latency {
    /// `None` until something was timed: an empty sketch would cost its bins.
    sketch: Option<DDSketch>,
    max_us: u64,
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.sketch.as_ref().map_or(0, DDSketch::count);
        f.debug_struct("Latency").field("count", &count).field("max_us", &self.max_us).finish()
    }
}

/// The bytes hold no sketch of ours.
#[derive(Debug, thiserror::Error)]
#[error("a latency sketch is damaged")]
pub(super) struct DamagedSketch;

impl Latency {
    /// One request took this long. Nothing takes less than no time; a negative value is left out.
    pub fn record(&mut self, micros: i64) {
        let Ok(micros) = u64::try_from(micros) else { return };
        self.sketch.get_or_insert_with(empty).add(exact(micros));
        self.max_us = self.max_us.max(micros);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.sketch else { return };
        match &mut self.sketch {
            None => self.sketch = Some(theirs.clone()),
            Some(ours) => {
                // Sketches differ in configuration only when they are not ours, and `from_bytes`
                // lets none of those in.
                let merged = ours.merge(theirs);
                debug_assert!(merged.is_ok());
            }
        }
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Milliseconds below which the fraction `q` of the requests lies, to the microsecond; `None`
    /// when nothing was timed.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let sketch = self.sketch.as_ref()?;
        let micros = sketch.quantile(q).ok()??;
        // A bin may be off by 1 %, but nothing was faster than the fastest or slower than the slowest.
        Some(millis(micros.max(sketch.min()?).min(exact(self.max_us))))
    }

    /// The longest, in milliseconds; `None` when nothing was timed.
    pub fn max_ms(&self) -> Option<f64> {
        self.sketch.as_ref().map(|_| millis(exact(self.max_us)))
    }

    /// The longest, in microseconds.
    pub(super) const fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The sketch's bytes; empty when nothing was timed.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.sketch.as_ref().map(DDSketch::to_java_bytes).unwrap_or_default()
    }

    /// From what [`Latency::to_bytes`] and [`Latency::max_us`] gave.
    pub(super) fn from_bytes(bytes: &[u8], max_us: u64) -> Result<Self, DamagedSketch> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let sketch = DDSketch::from_java_bytes(bytes).map_err(|_| DamagedSketch)?;
        // Merging with an empty one is how the library tells whether the configuration is ours.
        empty().merge(&sketch).map_err(|_| DamagedSketch)?;
        Ok(Self { sketch: Some(sketch), max_us })
    }
}

/// Relative accuracy 1 %, 2,048 bins: microseconds from 1 to 10^17 without collapsing. The bytes do
/// not carry the number of bins, so only the library's default can be read back.
fn empty() -> DDSketch {
    DDSketch::new(Config::defaults())
}

#[expect(clippy::cast_precision_loss, reason = "ingest refuses times that a double cannot hold")]
const fn exact(micros: u64) -> f64 {
    micros as f64
}

fn millis(micros: f64) -> f64 {
    micros.round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn sketched(values: &[i64]) -> Latency {
        let mut latency = Latency::default();
        for &value in values {
            latency.record(value);
        }
        latency
    }

    /// Microseconds spread over nine orders of magnitude, as timeouts and cache hits are.
    fn values(seed: u64, count: usize) -> Vec<i64> {
        let mut rng = StdRng::seed_from_u64(seed);
        #[expect(clippy::cast_possible_truncation)]
        (0..count).map(|_| 10f64.powf(rng.random_range(0.0..9.0)) as i64).collect()
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn quantiles_are_within_one_percent_of_an_exact_sort_also_after_merges_and_storage() {
        for seed in 0..20 {
            let mut all = values(seed, 5_000);
            let mut merged = Latency::default();
            for part in all.chunks(377) {
                let part = sketched(part);
                merged.merge(&Latency::from_bytes(&part.to_bytes(), part.max_us()).unwrap());
            }
            all.sort_unstable();
            for q in [0.01, 0.5, 0.9, 0.95, 0.99, 0.999] {
                let rank = (q * (all.len() - 1) as f64) as usize;
                let exact = all[rank] as f64 / 1_000.0;
                let found = merged.quantile_ms(q).unwrap();
                // Half a microsecond for the rounding to whole ones.
                let allowed = exact * 0.010_001 + 0.000_5;
                assert!((found - exact).abs() <= allowed, "seed {seed} q {q}: {found} for {exact}");
            }
            assert_eq!(merged.max_ms(), Some(all[all.len() - 1] as f64 / 1_000.0));
        }
    }

    #[test]
    fn the_order_of_merges_does_not_show() {
        let parts: Vec<Latency> = (0..6).map(|seed| sketched(&values(seed, 200))).collect();
        let merge = |order: &[usize]| {
            let mut merged = Latency::default();
            for &part in order {
                merged.merge(&parts[part]);
            }
            (merged.to_bytes(), merged.max_us())
        };
        let expected = merge(&[0, 1, 2, 3, 4, 5]);
        assert_eq!(merge(&[5, 4, 3, 2, 1, 0]), expected);
        assert_eq!(merge(&[3, 0, 5, 1, 4, 2]), expected);
        let mut left = parts[0].clone();
        let mut right = parts[1].clone();
        for part in &parts[2..] {
            right.merge(part);
        }
        left.merge(&right);
        assert_eq!((left.to_bytes(), left.max_us()), expected);
    }

    #[test]
    fn nothing_timed_has_no_quantiles_and_no_bytes() {
        let nothing = sketched(&[-1]);
        assert_eq!((nothing.quantile_ms(0.5), nothing.max_ms()), (None, None));
        assert!(nothing.to_bytes().is_empty());
        assert_eq!(Latency::from_bytes(&[], 7).unwrap().max_ms(), None);
    }

    #[test]
    fn a_request_that_took_no_time_was_timed_all_the_same() {
        let instant = sketched(&[0, 0]);
        assert_eq!((instant.quantile_ms(0.99), instant.max_ms()), (Some(0.0), Some(0.0)));
        let mixed = sketched(&[0, 0, 0, 8_000]);
        assert_eq!((mixed.quantile_ms(0.5), mixed.max_ms()), (Some(0.0), Some(8.0)));
    }

    #[test]
    fn one_time_is_every_quantile_exactly() {
        let one = sketched(&[12_345]);
        for q in [0.5, 0.95, 0.99] {
            assert_eq!(one.quantile_ms(q), Some(12.345), "{q}");
        }
    }

    #[test]
    fn the_longest_possible_times_are_told_apart() {
        let latency = sketched(&[1, 9_007_199_254_740_000]);
        assert_eq!(latency.quantile_ms(0.5), Some(0.001));
        assert_eq!(latency.max_ms(), Some(9_007_199_254_740.0));
    }

    #[test]
    fn bytes_of_another_accuracy_are_refused() {
        let mut other = DDSketch::new(Config::new(0.05, 2_048, 1e-9));
        other.add(1.0);
        assert!(Latency::from_bytes(&other.to_java_bytes(), 1).is_err());
        assert!(Latency::from_bytes(&[0xff, 1, 2], 1).is_err());
    }
}
