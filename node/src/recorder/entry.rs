//! Ledger rows as the meter counts them.

use smallvec::SmallVec;
use weir_core::meter::{Entry, EntryKind};
use weir_core::units::Units;
use weir_store::rows::{LedgerRow, OutcomeKind, RowKind};

/// The part of a row that moves counters.
pub fn entry_of(row: &LedgerRow) -> Entry {
    let kind = match (row.kind, row.outcome) {
        (RowKind::Usage, OutcomeKind::Denied) => EntryKind::Denied,
        (RowKind::Usage, _) => EntryKind::Usage,
        (RowKind::Adjustment, _) => EntryKind::Adjustment,
        (RowKind::Reset, _) => EntryKind::Reset,
        (RowKind::Commit, _) => EntryKind::Commit,
    };
    Entry {
        seq: row.seq,
        kind,
        at: row.event_time,
        units: row.units,
        others: row.quantities.as_deref().map(quantities_of).unwrap_or_default(),
        charged: row.charged,
        // An event that is charged itself settles no reservation: the one that it names is nobody's,
        // or another subscription's.
        reservation: row.reservation.filter(|_| row.kind != RowKind::Usage || !row.charged),
    }
}

fn quantities_of(json: &str) -> SmallVec<[(Box<str>, Units); 1]> {
    // Written by `quantities_json` only; a damaged column counts nothing rather than stopping all.
    let parsed: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).unwrap_or_default();
    parsed
        .into_iter()
        .filter_map(|(meter, amount)| Some((meter.into(), Units::new(amount.as_u64()?)?)))
        .collect()
}

/// The column of the amounts on other meters; `None` when there are none.
pub fn quantities_json<'a>(amounts: impl IntoIterator<Item = (&'a str, u64)>) -> Option<String> {
    let map: serde_json::Map<String, serde_json::Value> =
        amounts.into_iter().map(|(meter, amount)| (meter.to_owned(), amount.into())).collect();
    (!map.is_empty()).then(|| serde_json::Value::Object(map).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_survive_the_column() {
        let json = quantities_json([("tokens", 743), ("bytes", 0)]);
        let mut amounts = quantities_of(json.as_deref().unwrap_or_default());
        amounts.sort();
        let expected = [("bytes".into(), Units::ZERO), ("tokens".into(), Units::clamped(743))];
        assert_eq!(amounts.as_slice(), expected);
        assert_eq!(quantities_json([]), None);
    }

    #[test]
    fn a_damaged_column_counts_nothing() {
        for json in ["", "{", "[1]", "{\"tokens\":-1}", "{\"tokens\":1.5}"] {
            assert!(quantities_of(json).is_empty(), "{json}");
        }
    }
}
