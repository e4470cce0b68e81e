//! Batches made fit for one statement per table.
//!
//! Role: an upsert may not meet the same row twice in one statement, and the order in which rows
//! are locked must be the same in every transaction. Pure; both engines call it.

use std::collections::{BTreeMap, HashSet};

use weir_core::units::{Epoch, Micros, PlanId, Seq, ShardId, SubscriptionId};

use crate::failure::Failure;
use crate::rows::{CheckpointBatch, CheckpointRow, LedgerRow, PeriodDelta};
use crate::{Appended, Fence};

impl CheckpointBatch {
    /// The same in three batches, to be written from the last to the first: half of the subscriptions,
    /// the other half, and the bounds, which hold only when both are written or set aside.
    pub fn split(self) -> [Self; 3] {
        let (first, second) = self.subscriptions.split_at(self.subscriptions.len() / 2);
        let ids = |rows: &[CheckpointRow]| rows.iter().map(|row| row.subscription).collect();
        let (first, second): (HashSet<_>, HashSet<_>) = (ids(first), ids(second));
        [self.clone().bounds(), self.clone().only(&second), self.only(&first)]
    }

    /// Its bounds alone.
    #[must_use]
    pub fn bounds(self) -> Self {
        Self { lane: self.lane, number: self.number, counted: self.counted, ..Self::default() }
    }

    fn only(mut self, ids: &HashSet<SubscriptionId>) -> Self {
        self.subscriptions.retain(|row| ids.contains(&row.subscription));
        self.periods.retain(|row| ids.contains(&row.subscription));
        self.outbox.retain(|row| ids.contains(&row.subscription));
        self.reservations.retain(|row| ids.contains(&row.subscription));
        self.plan_switches.retain(|(id, _)| ids.contains(id));
        self.counted.clear();
        self
    }
}

/// One delta per period: units add up, the rest is the last one's.
pub(crate) fn periods(deltas: &[PeriodDelta]) -> Vec<PeriodDelta> {
    let mut merged: BTreeMap<(SubscriptionId, &str, Micros), PeriodDelta> = BTreeMap::new();
    for delta in deltas {
        let key = (delta.subscription, delta.quota.as_str(), delta.start);
        let before = merged.get(&key).map_or(0, |earlier| earlier.used_delta);
        let sum =
            PeriodDelta { used_delta: before.saturating_add(delta.used_delta), ..delta.clone() };
        merged.insert(key, sum);
    }
    merged.into_values().collect()
}

/// One delta per period and terms.
pub(crate) fn segments(deltas: &[PeriodDelta]) -> Vec<PeriodDelta> {
    let mut merged: BTreeMap<(SubscriptionId, &str, Micros, Micros), PeriodDelta> = BTreeMap::new();
    for delta in deltas {
        let key = (delta.subscription, delta.quota.as_str(), delta.start, delta.until);
        match merged.get_mut(&key) {
            Some(sum) => sum.used_delta = sum.used_delta.saturating_add(delta.used_delta),
            None => drop(merged.insert(key, delta.clone())),
        }
    }
    merged.into_values().collect()
}

/// One switch per subscription, the last one named.
pub(crate) fn plan_switches(
    switches: &[(SubscriptionId, PlanId)],
) -> Vec<(SubscriptionId, PlanId)> {
    switches.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// One position per shard, the furthest.
pub(crate) fn counted(positions: &[(ShardId, Seq)]) -> Vec<(ShardId, Seq)> {
    let mut furthest = BTreeMap::new();
    for &(shard, seq) in positions {
        let held = furthest.entry(shard).or_insert(seq);
        *held = seq.max(*held);
    }
    furthest.into_iter().collect()
}

/// Order in which identities are inserted: neighbours in the index one after the other, which is
/// faster, and the same in every transaction, so that two that meet cannot deadlock.
pub(crate) fn identity_order(rows: &[LedgerRow]) -> Vec<&LedgerRow> {
    let mut ordered: Vec<&LedgerRow> = rows.iter().collect();
    ordered.sort_unstable_by(|a, b| {
        (a.subscription, &a.event_id, a.kind).cmp(&(b.subscription, &b.event_id, b.kind))
    });
    ordered
}

/// Marks the rows whose identities were inserted, named by (subscription, seq).
pub(crate) fn appended(rows: &[LedgerRow], inserted: &HashSet<(SubscriptionId, Seq)>) -> Appended {
    Appended {
        new: rows.iter().map(|row| inserted.contains(&(row.subscription, row.seq))).collect(),
    }
}

/// Compares the shards that are still held with those of the fence.
pub(crate) fn check_fence(fence: &Fence, held: &[(ShardId, Epoch)]) -> Result<(), Failure> {
    debug_assert!(
        fence.shards.is_sorted_by(|a, b| a.0 < b.0),
        "INV-4: a fence names each shard once, in ascending order"
    );
    let held: HashSet<&(ShardId, Epoch)> = held.iter().collect();
    let lost: Vec<ShardId> = fence
        .shards
        .iter()
        .filter(|wanted| !held.contains(wanted))
        .map(|(shard, _)| *shard)
        .collect();
    if lost.is_empty() { Ok(()) } else { Err(Failure::Fenced(lost)) }
}

/// INV-4: whatever a fenced call writes must lie in the shards of its fence.
pub(crate) fn assert_rows_fenced(fence: &Fence, rows: &[LedgerRow]) {
    debug_assert!(
        rows.iter().all(|row| names(fence, row.shard)),
        "INV-4: a ledger row lies in a shard that the fence does not name"
    );
}

/// INV-4, for a checkpoint.
pub(crate) fn assert_batch_fenced(fence: &Fence, batch: &CheckpointBatch) {
    debug_assert!(
        batch.subscriptions.iter().all(|row| names(fence, row.shard))
            && batch.counted.iter().all(|(shard, _)| names(fence, *shard)),
        "INV-4: a checkpoint writes to a shard that the fence does not name"
    );
}

fn names(fence: &Fence, shard: ShardId) -> bool {
    fence.shards.binary_search_by_key(&shard, |(held, _)| *held).is_ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn delta(quota: &str, start: i64, used_delta: i64) -> PeriodDelta {
        PeriodDelta {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(1)),
            quota: quota.to_owned(),
            meter: "requests".to_owned(),
            start: Micros::from_micros(start),
            end: Micros::from_micros(start + 10),
            used_delta,
            quota_limit: Some(used_delta),
            until: Micros::MAX,
            plan: PlanId::from_uuid(Uuid::from_u128(2)),
            plan_version: 1,
            priced_as: quota.to_owned(),
            overage_from: Some(100),
        }
    }

    #[test]
    fn deltas_of_one_period_add_up_and_others_stay_apart() {
        let merged =
            periods(&[delta("a", 0, 3), delta("b", 0, 5), delta("a", 0, 4), delta("a", 9, 1)]);
        let sums: Vec<_> =
            merged.iter().map(|d| (d.quota.as_str(), d.start.get(), d.used_delta)).collect();
        assert_eq!(sums, [("a", 0, 7), ("a", 9, 1), ("b", 0, 5)]);
        assert_eq!(merged[0].quota_limit, Some(4), "the last delta knows the limit best");
    }

    #[test]
    fn deltas_of_one_period_add_up_by_the_terms_that_they_lie_under() {
        let early = |used| PeriodDelta { until: Micros::from_micros(5), ..delta("a", 0, used) };
        let deltas = [delta("a", 0, 3), early(1), delta("a", 0, 4), early(1), delta("b", 0, 9)];
        let sums: Vec<_> = segments(&deltas)
            .iter()
            .map(|d| (d.quota.clone(), d.until == Micros::MAX, d.used_delta))
            .collect();
        let expected = [("a", false, 2), ("a", true, 7), ("b", true, 9)];
        assert_eq!(sums, expected.map(|(quota, whole, sum)| (quota.to_owned(), whole, sum)));
        assert_eq!(periods(&deltas).iter().map(|d| d.used_delta).collect::<Vec<_>>(), [9, 9]);
    }

    fn state(number: u128) -> CheckpointRow {
        CheckpointRow {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(number)),
            shard: ShardId(0),
            epoch: Epoch(1),
            version: 1,
            last_seq: Seq(1),
            used: 0,
            quota_limit: None,
            period_start: Micros::EPOCH,
            period_end: Micros::EPOCH,
            escrow_hi: 0,
            clean: false,
            snapshot: Vec::new(),
            taken_at: Micros::EPOCH,
        }
    }

    #[test]
    fn a_split_batch_has_each_subscription_whole_and_its_bounds_by_themselves() {
        let plan = PlanId::from_uuid(Uuid::from_u128(9));
        let batch = CheckpointBatch {
            lane: 3,
            number: 7,
            subscriptions: vec![state(2), state(1), state(3)],
            periods: vec![delta("a", 0, 3), delta("b", 0, 5)],
            plan_switches: vec![(state(3).subscription, plan)],
            counted: vec![(ShardId(4), Seq(8))],
            ..CheckpointBatch::default()
        };
        let [bounds, second, first] = batch.clone().split();
        assert_eq!(bounds, batch.clone().bounds());
        assert_eq!((&bounds.counted, bounds.subscriptions.len()), (&batch.counted, 0));
        assert_eq!(first.subscriptions, batch.subscriptions[..1]);
        assert_eq!(second.subscriptions, batch.subscriptions[1..]);
        assert_eq!((first.periods.len(), second.periods), (0, batch.periods));
        assert_eq!((first.plan_switches.len(), second.plan_switches), (0, batch.plan_switches));
        assert!(first.counted.is_empty() && second.counted.is_empty());
        assert_eq!([(first.lane, first.number), (bounds.lane, bounds.number)], [(3, 7); 2]);
    }

    #[test]
    fn a_fence_lists_exactly_the_shards_that_were_lost() {
        let fence = Fence {
            incarnation: Uuid::nil(),
            shards: vec![(ShardId(1), Epoch(1)), (ShardId(2), Epoch(5)), (ShardId(3), Epoch(1))],
        };
        let held = [(ShardId(1), Epoch(1)), (ShardId(2), Epoch(6))];
        let refused = check_fence(&fence, &held);
        assert!(matches!(refused, Err(Failure::Fenced(lost)) if lost == [ShardId(2), ShardId(3)]));
    }

    #[test]
    fn the_furthest_position_of_a_shard_wins() {
        let merged = counted(&[(ShardId(2), Seq(4)), (ShardId(1), Seq(9)), (ShardId(2), Seq(3))]);
        assert_eq!(merged, [(ShardId(1), Seq(9)), (ShardId(2), Seq(4))]);
    }
}
