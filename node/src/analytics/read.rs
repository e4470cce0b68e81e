//! Answers about one subscription's usage over a range of time.
//!
//! Role: walks the range in chunks of whole minutes, so that memory stays bounded however long it is
//! (INV-6), and folds what the store has for each: rollups, and ledger rows that are in none. The two
//! come from one snapshot of the database, so every row of a chunk is counted once.

use std::collections::HashMap;

use weir_config::limits::{ACCEPT_WINDOW_MAX, ENDPOINTS_PER_MINUTE_MAX, FUTURE_SKEW};
use weir_core::units::{Micros, Span, SubscriptionId};
use weir_store::rows::{LedgerRow, RollupRow};
use weir_store::{Error, UsageWindow};

use super::buckets::Buckets;
use super::deltas::{MICROS_PER_MINUTE, minute_of};
use super::tally::{Measure, Tally};
use super::{Analytics, OTHER};

/// Length of the first chunk: the busiest hour possible has 12,000 rollups.
const CHUNK_FIRST: Span = Span::from_micros(60 * MICROS_PER_MINUTE);
const CHUNK_MIN: Span = Span::from_micros(MICROS_PER_MINUTE);
/// Longer: a subscription that wakes up within a chunk fills memory. Shorter: a year takes many
/// questions.
const CHUNK_MAX: Span = Span::from_micros(24 * 60 * MICROS_PER_MINUTE);
/// A chunk with fewer items is followed by one of double length, one with more than
/// [`ITEMS_MANY`] by one of half the length.
const ITEMS_FEW: usize = 5_000;
const ITEMS_MANY: usize = 20_000;
/// Items folded before other tasks get a turn: about a millisecond's work (INV-7).
const ITEMS_PER_TURN: usize = 256;

/// Distinct endpoints kept apart while one answer is put together: many times as many as it shows.
/// More: memory (a sketch each, a kilobyte or more). Fewer: an endpoint that is busy only late in a
/// long range of many others is not told apart.
const ENDPOINTS_TRACKED_MAX: usize = 10 * ENDPOINTS_PER_MINUTE_MAX;

/// Which requests of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsFilter {
    /// Only this path, exactly as it was recorded.
    pub path: Option<String>,
}

/// One subscription's usage in a range.
#[derive(Debug, Default)]
pub struct Stats {
    /// All of it.
    pub total: Tally,
    /// By endpoint, most requests first. Endpoints beyond a minute's limit are one, named
    /// [`OTHER`].
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint's share.
#[derive(Debug)]
pub struct Endpoint {
    /// Path as recorded; empty when the gateway did not say.
    pub path: Box<str>,
    /// Method as recorded; empty when the gateway did not say.
    pub method: Box<str>,
    /// Its usage.
    pub measure: Measure,
}

impl Analytics {
    /// Usage in `[from, to)`.
    pub async fn stats(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
        filter: StatsFilter,
    ) -> Result<Stats, Error> {
        let fold = StatsFold { filter, total: Tally::default(), endpoints: HashMap::new() };
        Ok(self.walk(subscription, from, to, fold).await?.finish())
    }

    /// Usage in `[from, to)` by bucket, one measure a bucket.
    pub async fn trends(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
        buckets: &Buckets,
    ) -> Result<Vec<Measure>, Error> {
        let measures = vec![Measure::default(); buckets.as_slice().len()];
        let fold = TrendsFold { buckets: buckets.clone(), measures };
        Ok(self.walk(subscription, from, to, fold).await?.measures)
    }

    async fn walk<F: Fold>(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
        mut fold: F,
    ) -> Result<F, Error> {
        let mut from = from.max(first_possible(subscription));
        let to = to.min(last_possible(self.clock.now()));
        let mut length = CHUNK_FIRST;
        while from < to {
            let end = chunk_end(from, length).min(to);
            let window = self.store.usage_window(subscription, from, end).await?;
            let items = window.rollups.len() + window.rows.len();
            fold_window(&window, &mut fold).await;
            length = next_length(length, items);
            from = end;
            if items == 0 && from < to {
                // Years without usage cost one question, not one a day.
                let next = self.store.next_usage(subscription, from, to).await?;
                from = next.map_or(to, |next| minute_of(next).max(from));
            }
        }
        Ok(fold)
    }
}

/// Nothing that happened before can have been accepted. An id that tells no time says nothing.
fn first_possible(subscription: SubscriptionId) -> Micros {
    let Some(made) = subscription.uuid().get_timestamp() else { return Micros::EPOCH };
    let (seconds, _) = made.to_unix();
    let made = Micros::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
    made.minus(Span::from(ACCEPT_WINDOW_MAX)).max(Micros::EPOCH)
}

/// Nor anything that happens after; as far again for nodes whose clocks are ahead of ours.
fn last_possible(now: Micros) -> Micros {
    now.plus(Span::from(2 * FUTURE_SKEW))
}

/// On a minute's boundary and after `from`.
fn chunk_end(from: Micros, length: Span) -> Micros {
    minute_of(from.plus(length.max(CHUNK_MIN)))
}

fn next_length(length: Span, items: usize) -> Span {
    if items < ITEMS_FEW {
        Span::from_micros(length.get().saturating_mul(2)).min(CHUNK_MAX)
    } else if items > ITEMS_MANY {
        Span::from_micros(length.get() / 2).max(CHUNK_MIN)
    } else {
        length
    }
}

async fn fold_window<F: Fold>(window: &UsageWindow, fold: &mut F) {
    for turn in window.rollups.chunks(ITEMS_PER_TURN) {
        for rollup in turn {
            fold.rollup(rollup);
        }
        tokio::task::yield_now().await;
    }
    for turn in window.rows.chunks(ITEMS_PER_TURN) {
        for row in turn {
            fold.row(row);
        }
        tokio::task::yield_now().await;
    }
}

/// Something that is put together from rollups and rows, in any order.
trait Fold: Send {
    fn rollup(&mut self, rollup: &RollupRow);
    fn row(&mut self, row: &LedgerRow);
}

struct StatsFold {
    filter: StatsFilter,
    total: Tally,
    /// By path and method.
    endpoints: HashMap<(Box<str>, Box<str>), Measure>,
}

impl Fold for StatsFold {
    fn rollup(&mut self, rollup: &RollupRow) {
        if !self.wants(&rollup.path) {
            return;
        }
        let tally = Tally::of_rollup(rollup.sums, &rollup.detail);
        self.total.merge(&tally);
        self.endpoint(&rollup.path, &rollup.method).merge(&tally.measure);
    }

    fn row(&mut self, row: &LedgerRow) {
        if !self.wants(&row.api_path) {
            return;
        }
        self.total.add_row(row);
        self.endpoint(&row.api_path, &row.method).add_row(row);
    }
}

impl StatsFold {
    fn wants(&self, path: &str) -> bool {
        self.filter.path.as_deref().is_none_or(|wanted| wanted == path)
    }

    fn endpoint(&mut self, path: &str, method: &str) -> &mut Measure {
        let key = (path.into(), method.into());
        let own = self.endpoints.len() < ENDPOINTS_TRACKED_MAX || self.endpoints.contains_key(&key);
        let key = if own { key } else { (OTHER.into(), OTHER.into()) };
        self.endpoints.entry(key).or_default()
    }

    fn finish(self) -> Stats {
        let mut endpoints: Vec<Endpoint> = self
            .endpoints
            .into_iter()
            // Commits add units where no request was made.
            .filter(|(_, measure)| measure.sums.requests > 0)
            .map(|((path, method), measure)| Endpoint { path, method, measure })
            .collect();
        endpoints.sort_unstable_by(|a, b| {
            let requests = b.measure.sums.requests.cmp(&a.measure.sums.requests);
            requests.then_with(|| (&a.path, &a.method).cmp(&(&b.path, &b.method)))
        });
        Stats { total: self.total, endpoints }
    }
}

struct TrendsFold {
    buckets: Buckets,
    measures: Vec<Measure>,
}

impl Fold for TrendsFold {
    /// A rollup's minute lies in one bucket: the clocks of every zone differ by whole minutes.
    fn rollup(&mut self, rollup: &RollupRow) {
        if let Some(position) = self.buckets.position(rollup.minute) {
            let tally = Tally::of_rollup(rollup.sums, &rollup.detail);
            self.measures[position].merge(&tally.measure);
        }
    }

    fn row(&mut self, row: &LedgerRow) {
        if let Some(position) = self.buckets.position(row.event_time) {
            self.measures[position].add_row(row);
        }
    }
}
