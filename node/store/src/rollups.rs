//! Adding rollups to those that are there.

use std::collections::HashMap;

use weir_core::units::{Micros, SubscriptionId};

use crate::MergeDetail;
use crate::rows::{RollupRow, RollupSums};

type Key<'a> = (SubscriptionId, Micros, &'a str, &'a str);

/// The deltas as absolute values, in the order of their keys.
pub(crate) fn add(
    existing: &[RollupRow],
    deltas: &[RollupRow],
    merge: MergeDetail<'_>,
) -> Vec<RollupRow> {
    debug_assert!(keys_differ(deltas), "a roll names each key once");
    let existing: HashMap<Key<'_>, &RollupRow> =
        existing.iter().map(|row| (key(row), row)).collect();
    let mut merged: Vec<RollupRow> = deltas
        .iter()
        .map(|delta| match existing.get(&key(delta)) {
            None => delta.clone(),
            Some(held) => RollupRow {
                sums: sum(held.sums, delta.sums),
                detail: merge(&held.detail, &delta.detail),
                ..delta.clone()
            },
        })
        .collect();
    merged.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    merged
}

fn key(row: &RollupRow) -> Key<'_> {
    (row.subscription, row.minute, &row.path, &row.method)
}

fn keys_differ(rows: &[RollupRow]) -> bool {
    let keys: std::collections::HashSet<_> = rows.iter().map(key).collect();
    keys.len() == rows.len()
}

fn sum(a: RollupSums, b: RollupSums) -> RollupSums {
    RollupSums {
        requests: a.requests.saturating_add(b.requests),
        units: a.units.saturating_add(b.units),
        errors: a.errors.saturating_add(b.errors),
        denied: a.denied.saturating_add(b.denied),
        bytes_in: a.bytes_in.saturating_add(b.bytes_in),
        bytes_out: a.bytes_out.saturating_add(b.bytes_out),
    }
}
