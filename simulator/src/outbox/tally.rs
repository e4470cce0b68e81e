//! What became of the events: acknowledged, rejected, refused, or unknown.

use serde::Deserialize;

use super::OutgoingEvent;
use crate::measure::{Latency, add_to};
use crate::numbers::count;

/// Rejections remembered word for word, for the report.
pub(super) const REJECTIONS_SHOWN_MAX: usize = 20;

/// What became of one subscription's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Events acknowledged: recorded, now or by an earlier try.
    pub acked: u64,
    /// Units of those.
    pub acked_units: u64,
    /// Events whose outcome is unknown.
    pub unknown: u64,
    /// Units of those.
    pub unknown_units: u64,
}

/// What became of all events of a worker.
#[derive(Debug, Default)]
pub struct EventTally {
    /// By subscription.
    pub per_subscription: Vec<EventCounts>,
    /// Distinct events handed to the network.
    pub sent: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Events acknowledged.
    pub acked: u64,
    /// Of those, recognised by Weir as sent before.
    pub duplicates: u64,
    /// Events rejected one by one, by code.
    pub rejected: Vec<(String, u64)>,
    /// Some rejections in full.
    pub rejections: Vec<String>,
    /// Events in batches that Weir refused as a whole.
    pub refused: u64,
    /// Events whose outcome is unknown.
    pub unknown: u64,
    /// Answers whose numbers do not add up to the batch.
    pub inconsistent_answers: u64,
    /// From a batch's first try to its acknowledgement.
    pub flush_latency: Latency,
}

impl EventTally {
    /// An empty tally for a table of this size.
    pub fn new(subscriptions: usize) -> Self {
        Self { per_subscription: vec![EventCounts::default(); subscriptions], ..Self::default() }
    }

    /// Events rejected for any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|(_, number)| number).sum()
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        if self.per_subscription.len() < other.per_subscription.len() {
            self.per_subscription.resize(other.per_subscription.len(), EventCounts::default());
        }
        for (mine, theirs) in self.per_subscription.iter_mut().zip(&other.per_subscription) {
            mine.acked += theirs.acked;
            mine.acked_units += theirs.acked_units;
            mine.unknown += theirs.unknown;
            mine.unknown_units += theirs.unknown_units;
        }
        self.sent += other.sent;
        self.batches += other.batches;
        self.retries += other.retries;
        self.acked += other.acked;
        self.duplicates += other.duplicates;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.inconsistent_answers += other.inconsistent_answers;
        for (code, number) in other.rejected {
            add_to(&mut self.rejected, &code, number);
        }
        let room = REJECTIONS_SHOWN_MAX.saturating_sub(self.rejections.len());
        self.rejections.extend(other.rejections.into_iter().take(room));
        self.flush_latency.merge(&other.flush_latency);
    }

    /// Spreads the answer to a batch over its subscriptions.
    pub(super) fn acknowledge<E: OutgoingEvent>(&mut self, batch: &[E], receipt: &Receipt) {
        let told = receipt.accepted + receipt.duplicates + count(receipt.rejected.len());
        if told != count(batch.len()) {
            self.inconsistent_answers += 1;
        }
        self.batches += 1;
        self.duplicates += receipt.duplicates;
        let mut is_rejected = vec![false; batch.len()];
        for rejection in &receipt.rejected {
            add_to(&mut self.rejected, &rejection.code, 1);
            if self.rejections.len() < REJECTIONS_SHOWN_MAX {
                self.rejections.push(format!("{}: {}", rejection.code, rejection.detail));
            }
            if let Some(flag) = is_rejected.get_mut(rejection.index) {
                *flag = true;
            }
        }
        for (event, _) in batch.iter().zip(&is_rejected).filter(|(_, rejected)| !**rejected) {
            self.acked += 1;
            let counts = &mut self.per_subscription[event.subscription()];
            counts.acked += 1;
            counts.acked_units += event.units();
        }
    }

    /// Notes that a batch was never acknowledged.
    pub(super) fn give_up<E: OutgoingEvent>(&mut self, batch: &[E]) {
        for event in batch {
            self.unknown += 1;
            let counts = &mut self.per_subscription[event.subscription()];
            counts.unknown += 1;
            counts.unknown_units += event.units();
        }
    }
}

/// The answer to a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Receipt {
    accepted: u64,
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    rejected: Vec<Rejection>,
}

#[derive(Debug, Deserialize)]
struct Rejection {
    index: usize,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Note(usize, u64);

    impl OutgoingEvent for Note {
        fn subscription(&self) -> usize {
            self.0
        }
        fn units(&self) -> u64 {
            self.1
        }
        fn write_json(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("[{},{}]", self.0, self.1).as_bytes());
        }
    }

    fn receipt(json: &str) -> Receipt {
        serde_json::from_str(json).expect("a receipt")
    }

    #[test]
    fn a_receipt_is_spread_over_the_subscriptions() {
        let mut tally = EventTally::new(2);
        let batch = [Note(0, 5), Note(1, 1), Note(0, 2)];
        let answer = r#"{"accepted":1,"duplicates":1,"rejected":[{"index":1,"id":"x","code":"invalid_event","detail":"no"}]}"#;
        tally.acknowledge(&batch, &receipt(answer));
        assert_eq!(tally.per_subscription[0].acked_units, 7);
        assert_eq!(tally.per_subscription[1], EventCounts::default());
        assert_eq!((tally.acked, tally.duplicates, tally.rejected_total()), (2, 1, 1));
        assert_eq!(tally.inconsistent_answers, 0);
    }

    #[test]
    fn a_receipt_that_does_not_add_up_is_noticed() {
        let mut tally = EventTally::new(1);
        tally.acknowledge(&[Note(0, 1), Note(0, 1)], &receipt(r#"{"accepted":1}"#));
        assert_eq!(tally.inconsistent_answers, 1);
    }
}
