//! What a ledger row counts as, and sums of such counts.
//!
//! Role: the one place that says what a request, a unit, an error and a refusal is; the roller and
//! the reads both add rows through it, so that a minute means the same before and after it is rolled
//! up. The same rule in SQL stands in the store's `sql/usage.rs`, for sums over many subscriptions.
//!
//! | row | requests | units | errors | denied |
//! |---|---|---|---|---|
//! | usage, served or aborted | 1 | if charged | 1 if status ≥ 400 | 0 |
//! | usage, denied | 1 | never charged | 0 | 1 |
//! | commit | 0 | if charged | 0 | 0 |
//! | release, adjustment, reset | 0 | 0 | 0 | 0 |
//!
//! A commit is no request: its units count, for a subscription's `used` and its units over a period to
//! agree. Those of the last line move counters and nothing else. An event that settles a reservation is
//! two rows, usage that is not charged and a commit that is.

use std::collections::BTreeMap;

use weir_config::limits::BUCKET_LABELS_MAX;
use weir_store::rows::{LedgerRow, OutcomeKind, RollupSums, RowKind};

use super::OTHER;
use super::sketch::Latency;
use crate::codec::{CodecError, Detail, decode_detail, encode_detail};
use crate::metrics::chain;

/// First HTTP status that is an error.
const ERROR_STATUS_MIN: i16 = 400;

/// Sums and latencies: what an endpoint or a bucket of a trend shows.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// Counters.
    pub sums: RollupSums,
    /// Response times.
    pub latency: Latency,
}

impl Measure {
    /// Counts a row.
    pub(super) fn add_row(&mut self, row: &LedgerRow) {
        add_sums(&mut self.sums, &sums_of(row));
        if let Some(micros) = row.response_time_us.filter(|_| is_request(row)) {
            self.latency.record(micros);
        }
    }

    /// Counts what was counted elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        add_sums(&mut self.sums, &other.sums);
        self.latency.merge(&other.latency);
    }
}

/// Everything a rollup keeps.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Sums and latencies.
    pub measure: Measure,
    statuses: BTreeMap<u16, u64>,
    countries: BTreeMap<Box<str>, u64>,
}

impl Tally {
    /// Requests by status code; those without one are in no group.
    pub const fn statuses(&self) -> &BTreeMap<u16, u64> {
        &self.statuses
    }

    /// Requests by country; those without one are in no group.
    pub const fn countries(&self) -> &BTreeMap<Box<str>, u64> {
        &self.countries
    }

    /// Counts a row.
    pub(super) fn add_row(&mut self, row: &LedgerRow) {
        self.measure.add_row(row);
        if !is_request(row) {
            return;
        }
        if let Some(status) = row.status_code.and_then(|status| u16::try_from(status).ok()) {
            self.add_status(status, 1);
        }
        if let Some(country) = &row.country {
            self.add_country(country, 1);
        }
    }

    /// Counts what was counted elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        self.measure.merge(&other.measure);
        for (&status, &count) in &other.statuses {
            self.add_status(status, count);
        }
        for (country, &count) in &other.countries {
            self.add_country(country, count);
        }
    }

    /// A stored rollup. A detail that cannot be read is left out and told in the log: the sums beside
    /// it are still right, and a question must not fail for one minute of a year.
    pub(super) fn of_rollup(sums: RollupSums, detail: &[u8]) -> Self {
        let read = Self::of_detail(detail).unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "a rollup's detail was left out");
            Self::default()
        });
        Self { measure: Measure { sums, ..read.measure }, ..read }
    }

    fn of_detail(bytes: &[u8]) -> Result<Self, CodecError> {
        let detail = decode_detail(bytes)?;
        let latency = Latency::from_bytes(&detail.latency, detail.latency_max_us)
            .map_err(|_| CodecError::Damaged { what: "latency sketch", source: None })?;
        Ok(Self {
            measure: Measure { sums: RollupSums::default(), latency },
            statuses: detail.statuses.into_iter().collect(),
            countries: detail
                .countries
                .into_iter()
                .map(|(country, count)| (country.into_boxed_str(), count))
                .collect(),
        })
    }

    /// What is kept beside the sums.
    pub(super) fn detail(&self) -> Vec<u8> {
        encode_detail(&Detail {
            statuses: self.statuses.iter().map(|(&status, &count)| (status, count)).collect(),
            countries: self
                .countries
                .iter()
                .map(|(country, &count)| (country.to_string(), count))
                .collect(),
            latency: self.measure.latency.to_bytes(),
            latency_max_us: self.measure.latency.max_us(),
        })
    }

    fn add_status(&mut self, status: u16, count: u64) {
        // Ingest lets 500 values in; HTTP has about 60 in use. The rest is in nobody's group.
        if self.statuses.len() < BUCKET_LABELS_MAX || self.statuses.contains_key(&status) {
            let held = self.statuses.entry(status).or_default();
            *held = held.saturating_add(count);
        }
    }

    fn add_country(&mut self, country: &str, count: u64) {
        let full = self.countries.len() >= BUCKET_LABELS_MAX;
        let label = if full && !self.countries.contains_key(country) { OTHER } else { country };
        if let Some(held) = self.countries.get_mut(label) {
            *held = held.saturating_add(count);
        } else {
            self.countries.insert(label.into(), count);
        }
    }
}

/// Merges two stored details; for [`weir_store::Store::roll`].
pub(super) fn merge_details(held: &[u8], delta: &[u8]) -> Vec<u8> {
    let mut tally = Tally::of_rollup(RollupSums::default(), held);
    tally.merge(&Tally::of_rollup(RollupSums::default(), delta));
    tally.detail()
}

/// Whether a row adds to any sum.
pub(super) const fn counts(row: &LedgerRow) -> bool {
    match row.kind {
        RowKind::Usage => true,
        RowKind::Commit => row.charged,
        RowKind::Adjustment | RowKind::Reset => false,
    }
}

/// Whether a row is traffic.
pub(super) const fn is_request(row: &LedgerRow) -> bool {
    matches!(row.kind, RowKind::Usage)
}

/// What one row adds.
fn sums_of(row: &LedgerRow) -> RollupSums {
    if !counts(row) {
        return RollupSums::default();
    }
    let units = if row.charged { row.units } else { 0 };
    if !is_request(row) {
        return RollupSums { units, ..RollupSums::default() };
    }
    let denied = row.outcome == OutcomeKind::Denied;
    let failed = row.status_code.is_some_and(|status| status >= ERROR_STATUS_MIN);
    RollupSums {
        requests: 1,
        units,
        errors: i64::from(failed && !denied),
        denied: i64::from(denied),
        bytes_in: row.request_size.unwrap_or(0),
        bytes_out: row.response_size.unwrap_or(0),
    }
}

/// The largest sum of a rollup.
const SUM_MAX: i64 = (1 << 53) - 1;

fn add_sums(sums: &mut RollupSums, more: &RollupSums) {
    for (held, more) in [
        (&mut sums.requests, more.requests),
        (&mut sums.units, more.units),
        (&mut sums.errors, more.errors),
        (&mut sums.denied, more.denied),
        (&mut sums.bytes_in, more.bytes_in),
        (&mut sums.bytes_out, more.bytes_out),
    ] {
        // What JSON carries exactly; beyond it a sum says "at least so many".
        *held = held.saturating_add(more).min(SUM_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row, usage_rows};
    use super::*;

    fn tally(rows: &[LedgerRow]) -> Tally {
        let mut tally = Tally::default();
        for row in rows {
            tally.add_row(row);
        }
        tally
    }

    #[test]
    fn each_kind_of_row_counts_as_the_table_says() {
        let usage = LedgerRow { units: 3, ..row(1, 0, 1) };
        let sums = |requests, units, errors, denied| RollupSums {
            requests,
            units,
            errors,
            denied,
            bytes_in: 10 * requests,
            bytes_out: 100 * requests,
        };
        let status = Some(500);
        let denied = OutcomeKind::Denied;
        let aborted = OutcomeKind::Aborted;
        for (name, row, expected) in [
            ("served", usage.clone(), sums(1, 3, 0, 0)),
            ("not charged", LedgerRow { charged: false, ..usage.clone() }, sums(1, 0, 0, 0)),
            ("failed", LedgerRow { status_code: status, ..usage.clone() }, sums(1, 3, 1, 0)),
            (
                "last good status",
                LedgerRow { status_code: Some(399), ..usage.clone() },
                sums(1, 3, 0, 0),
            ),
            ("no status", LedgerRow { status_code: None, ..usage.clone() }, sums(1, 3, 0, 0)),
            (
                "denied with a status",
                LedgerRow {
                    outcome: denied,
                    charged: false,
                    status_code: Some(429),
                    ..usage.clone()
                },
                sums(1, 0, 0, 1),
            ),
            (
                "aborted with a status",
                LedgerRow { outcome: aborted, status_code: Some(499), ..usage.clone() },
                sums(1, 3, 1, 0),
            ),
            ("commit", LedgerRow { kind: RowKind::Commit, ..usage.clone() }, sums(0, 3, 0, 0)),
            (
                "commit that is not billed",
                LedgerRow { kind: RowKind::Commit, charged: false, ..usage.clone() },
                sums(0, 0, 0, 0),
            ),
            (
                "release",
                LedgerRow {
                    kind: RowKind::Commit,
                    outcome: denied,
                    charged: false,
                    units: 0,
                    ..usage.clone()
                },
                sums(0, 0, 0, 0),
            ),
            (
                "adjustment",
                LedgerRow { kind: RowKind::Adjustment, ..usage.clone() },
                sums(0, 0, 0, 0),
            ),
            ("reset", LedgerRow { kind: RowKind::Reset, ..usage }, sums(0, 0, 0, 0)),
        ] {
            assert_eq!(sums_of(&row), expected, "{name}");
        }
    }

    #[test]
    fn details_merge_to_the_same_bytes_in_any_order_and_grouping() {
        for seed in 0..10 {
            let rows = usage_rows(seed, 300, 5);
            let details: Vec<Vec<u8>> = rows.chunks(61).map(|part| tally(part).detail()).collect();
            let whole = tally(&rows).detail();
            let forth = details[1..].iter().fold(details[0].clone(), |a, b| merge_details(&a, b));
            let back = details[..4].iter().rfold(details[4].clone(), |a, b| merge_details(&a, b));
            let pair = |a: usize, b: usize| merge_details(&details[a], &details[b]);
            let paired = merge_details(&merge_details(&pair(3, 0), &details[4]), &pair(2, 1));
            assert_eq!((&forth, &back, &paired), (&whole, &whole, &whole), "seed {seed}");
        }
    }

    #[test]
    fn countries_and_statuses_beyond_the_bound_do_not_grow_a_row() {
        let letters = || b'A'..=b'Z';
        let codes = letters().flat_map(|a| letters().map(move |b| [a, b]));
        let mut tally = Tally::default();
        for (code, status) in codes.zip(100_i16..) {
            let country = code.iter().copied().map(char::from).collect();
            tally.add_row(&LedgerRow {
                country: Some(country),
                status_code: Some(status),
                ..row(1, 0, 1)
            });
        }
        assert_eq!(tally.statuses().len(), BUCKET_LABELS_MAX);
        assert_eq!(tally.countries().len(), BUCKET_LABELS_MAX + 1);
        assert_eq!(tally.countries().values().sum::<u64>(), 26 * 26, "nobody is left out");
    }

    #[test]
    fn a_damaged_detail_leaves_the_sums_alone() {
        let sums = RollupSums { requests: 7, ..RollupSums::default() };
        for detail in [&[][..], &[9], &[1, 255, 255]] {
            let tally = Tally::of_rollup(sums, detail);
            assert_eq!((tally.measure.sums, tally.statuses().len()), (sums, 0));
        }
        let good = tally(&usage_rows(1, 50, 1)).detail();
        assert_eq!(merge_details(&[9, 9], &good), good);
    }
}
