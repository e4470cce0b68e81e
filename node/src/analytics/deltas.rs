//! Ledger rows as what one transaction of the roller writes.
//!
//! Role: pure. Takes rows in the order of the ledger and cuts them into steps; a step has the sums of
//! a run of rows and the cursors from before the run to behind it, so that each step is whole by
//! itself and they can be committed one after the other.

use std::collections::{BTreeMap, HashMap};

use weir_core::units::{Micros, Seq, ShardId, SubscriptionId};
use weir_store::CursorMove;
use weir_store::rows::{LedgerRow, RollupRow};

use super::OTHER;
use super::endpoints::SeenEndpoints;
use super::tally::{Tally, counts, is_request};

/// Microseconds in a minute, the grain of rollups.
pub(super) const MICROS_PER_MINUTE: i64 = 60_000_000;

/// A shard whose ledger has rows that are not rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) shard: ShardId,
    /// Up to here they are.
    pub(super) rolled: Seq,
    /// Up to here there may be some.
    pub(super) applied: Seq,
}

/// What one transaction writes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    pub(super) cursors: Vec<CursorMove>,
    pub(super) deltas: Vec<RollupRow>,
}

/// Cuts `rows`, which were read behind the cursors in `behind` with the given limit, into steps of at
/// most `rollups_max` rollups.
pub(super) fn steps(
    rows: &[LedgerRow],
    behind: &[Behind],
    rows_limit: usize,
    rollups_max: usize,
    seen: &mut SeenEndpoints,
) -> Vec<Step> {
    let mut cutter = Cutter::new(behind);
    for row in rows {
        if let Some(key) = Key::of(row, seen) {
            if cutter.tallies.len() >= rollups_max && !cutter.tallies.contains_key(&key) {
                cutter.cut();
            }
            cutter.tallies.entry(key).or_default().add_row(row);
        }
        cutter.reached.insert(row.shard, row.seq);
    }
    // A full page may have left rows of its last shard and of those behind it.
    let complete_before = (rows.len() >= rows_limit).then(|| rows.last().map(|row| row.shard));
    for shard in behind {
        if complete_before.flatten().is_none_or(|last| shard.shard < last) {
            // Positions without a row (a duplicate's, a lost transaction's) are passed over.
            let reached = cutter.reached.entry(shard.shard).or_insert(shard.applied);
            *reached = (*reached).max(shard.applied);
        }
    }
    cutter.cut();
    seen.trim();
    cutter.steps
}

/// The minute that holds `at`.
pub const fn minute_of(at: Micros) -> Micros {
    Micros::from_micros(at.get().saturating_sub(at.get().rem_euclid(MICROS_PER_MINUTE)))
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    subscription: SubscriptionId,
    minute: Micros,
    path: &'a str,
    method: &'a str,
}

impl<'a> Key<'a> {
    /// `None` for a row that counts nothing here.
    fn of(row: &'a LedgerRow, seen: &mut SeenEndpoints) -> Option<Self> {
        if !counts(row) {
            return None;
        }
        let minute = minute_of(row.event_time);
        let (path, method) = (row.api_path.as_str(), row.method.as_str());
        // Commits name no endpoint; they share one row a minute, which takes nobody's place.
        let own = !is_request(row) || seen.admit(row.subscription, minute, path, method);
        let (path, method) = if own { (path, method) } else { (OTHER, OTHER) };
        Some(Self { subscription: row.subscription, minute, path, method })
    }
}

struct Cutter<'a> {
    /// Where the cursors stand after the steps so far.
    positions: BTreeMap<ShardId, Seq>,
    /// Where this step takes them.
    reached: BTreeMap<ShardId, Seq>,
    tallies: HashMap<Key<'a>, Tally>,
    steps: Vec<Step>,
}

impl Cutter<'_> {
    fn new(behind: &[Behind]) -> Self {
        Self {
            positions: behind.iter().map(|shard| (shard.shard, shard.rolled)).collect(),
            reached: BTreeMap::new(),
            tallies: HashMap::new(),
            steps: Vec::new(),
        }
    }

    fn cut(&mut self) {
        let mut step = Step::default();
        for (shard, to) in std::mem::take(&mut self.reached) {
            let position = self.positions.entry(shard).or_default();
            if to > *position {
                step.cursors.push(CursorMove { shard, from: *position, to });
                *position = to;
            }
        }
        step.deltas = self
            .tallies
            .drain()
            .map(|(key, tally)| RollupRow {
                subscription: key.subscription,
                minute: key.minute,
                path: key.path.to_owned(),
                method: key.method.to_owned(),
                sums: tally.measure.sums,
                detail: tally.detail(),
            })
            .collect();
        if step != Step::default() {
            self.steps.push(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_config::limits::ENDPOINTS_PER_MINUTE_MAX;
    use weir_store::rows::RowKind;

    use super::super::tests::{row, usage_rows};
    use super::*;

    fn behind(shard: u16, rolled: u64, applied: u64) -> Behind {
        Behind { shard: ShardId(shard), rolled: Seq(rolled), applied: Seq(applied) }
    }

    fn moved(steps: &[Step]) -> Vec<Vec<(u16, u64, u64)>> {
        let of = |step: &Step| step.cursors.iter().map(|c| (c.shard.0, c.from.0, c.to.0)).collect();
        steps.iter().map(of).collect()
    }

    #[test]
    fn cursors_move_to_where_rows_were_read_and_over_positions_without_rows() {
        let rows = |positions: &[(u16, u64)]| -> Vec<LedgerRow> {
            positions.iter().map(|&(shard, seq)| row(1, shard, seq)).collect()
        };
        let both = [behind(3, 10, 20), behind(5, 0, 4)];
        for (name, positions, limit, expected) in [
            (
                "all read, last positions empty",
                &[(3, 12), (5, 1)][..],
                10,
                [(3, 10, 20), (5, 0, 4)],
            ),
            ("nothing there", &[], 10, [(3, 10, 20), (5, 0, 4)]),
            ("a row behind the applied one", &[(3, 21)], 10, [(3, 10, 21), (5, 0, 4)]),
        ] {
            let steps = steps(&rows(positions), &both, limit, 9, &mut SeenEndpoints::default());
            assert_eq!(moved(&steps), [expected.to_vec()], "{name}");
        }
        let full = steps(&rows(&[(3, 12), (5, 1)]), &both, 2, 9, &mut SeenEndpoints::default());
        assert_eq!(
            moved(&full),
            [vec![(3, 10, 20), (5, 0, 1)]],
            "full: the last shard may have more"
        );
        let full = steps(&rows(&[(3, 11), (3, 12)]), &both, 2, 9, &mut SeenEndpoints::default());
        assert_eq!(moved(&full), [vec![(3, 10, 12)]], "full: what was not reached stays");
    }

    #[test]
    fn steps_continue_each_other_and_hold_every_row_once() {
        let rows = usage_rows(7, 500, 40);
        let shards = [behind(0, 0, 0), behind(1, 0, 0), behind(2, 0, 0), behind(3, 0, 0)];
        let steps = steps(&rows, &shards, usize::MAX, 10, &mut SeenEndpoints::default());
        assert!(steps.len() > 10);
        let mut positions: HashMap<ShardId, Seq> = HashMap::new();
        for step in &steps {
            assert!(step.deltas.len() <= 10);
            for cursor in &step.cursors {
                assert_eq!(
                    positions.insert(cursor.shard, cursor.to).unwrap_or_default(),
                    cursor.from
                );
            }
        }
        let requests: i64 = steps.iter().flat_map(|s| &s.deltas).map(|d| d.sums.requests).sum();
        let usage = rows.iter().filter(|row| row.kind == RowKind::Usage).count();
        assert_eq!(requests, i64::try_from(usage).unwrap());
    }

    #[test]
    fn endpoints_beyond_the_limit_of_a_minute_share_a_row() {
        let rows: Vec<LedgerRow> = (1..=300)
            .map(|seq| LedgerRow { api_path: format!("/items/{seq}"), ..row(1, 0, seq) })
            .collect();
        let mut seen = SeenEndpoints::default();
        let steps = steps(&rows, &[behind(0, 0, 300)], usize::MAX, 10_000, &mut seen);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].deltas.len(), ENDPOINTS_PER_MINUTE_MAX + 1);
        let other = steps[0].deltas.iter().find(|delta| delta.path == OTHER).unwrap();
        assert_eq!((other.method.as_str(), other.sums.requests), (OTHER, 100));
    }

    #[test]
    fn commits_share_a_row_that_takes_no_endpoints_place_and_releases_have_none() {
        let commit = |seq, charged| LedgerRow {
            kind: RowKind::Commit,
            charged,
            units: 7,
            api_path: String::new(),
            method: String::new(),
            ..row(1, 0, seq)
        };
        let endpoints =
            (1..=200).map(|seq| LedgerRow { api_path: format!("/items/{seq}"), ..row(1, 0, seq) });
        let rows: Vec<LedgerRow> =
            endpoints.chain([commit(201, true), commit(202, false), commit(203, true)]).collect();
        let mut seen = SeenEndpoints::default();
        let steps = steps(&rows, &[behind(0, 0, 203)], usize::MAX, 10_000, &mut seen);
        assert_eq!(steps[0].deltas.len(), ENDPOINTS_PER_MINUTE_MAX + 1);
        let commits = steps[0].deltas.iter().find(|delta| delta.path.is_empty()).unwrap();
        assert_eq!((commits.sums.units, commits.sums.requests), (14, 0));
        assert!(steps[0].deltas.iter().all(|delta| delta.path != OTHER));

        let release = super::steps(&[commit(1, false)], &[behind(0, 0, 1)], 9, 9, &mut seen);
        assert_eq!((moved(&release), release[0].deltas.len()), (vec![vec![(0, 0, 1)]], 0));
    }

    #[test]
    fn a_minute_holds_its_start_and_not_its_end() {
        for (at, minute) in [(0, 0), (59_999_999, 0), (60_000_000, 60_000_000), (-1, -60_000_000)] {
            assert_eq!(minute_of(Micros::from_micros(at)).get(), minute, "{at}");
        }
    }
}
