//! Stories of the roller and the reads on a real ledger, and the rows they are told with.
//!
//! The referee is [`Naive`]: it looks at every row of a range and knows nothing of minutes, sketches
//! or cursors.

mod reading;
mod rolling;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use weir_core::units::{Micros, Seq, ShardId, SubscriptionId};
use weir_store::Store;
use weir_store::rows::{LedgerRow, NodeRow, OutcomeKind, RollupSums, RowKind};
use weir_store::sqlite::{SqliteOptions, SqliteStore};

use super::{Analytics, Stats, StatsFilter};
use crate::clock::Clock;
use crate::ownership::Ownership;

pub(super) const SHARDS: u16 = 4;
pub(super) const SUBSCRIPTIONS: u128 = 6;
const INCARNATION: Uuid = Uuid::from_u128(0xa11ce);
/// 2024-10-26T21:00:00Z, an hour before the day in Berlin on which the clocks go back.
pub(super) const BASE: Micros = Micros::from_seconds(1_729_976_400);

/// One that was made when the stories begin.
pub(super) fn subscription(number: u128) -> SubscriptionId {
    let mut random = [0; 10];
    random.copy_from_slice(&number.to_be_bytes()[6..]);
    let millis = BASE.get().unsigned_abs() / 1_000;
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    SubscriptionId::from_uuid(id)
}

/// A request that was served.
pub(super) fn row(number: u128, shard: u16, seq: u64) -> LedgerRow {
    LedgerRow {
        subscription: subscription(number),
        shard: ShardId(shard),
        seq: Seq(seq),
        event_id: format!("{shard}-{seq}"),
        kind: RowKind::Usage,
        event_time: BASE,
        recorded_at: BASE,
        units: 1,
        quantities: None,
        charged: true,
        outcome: OutcomeKind::Served,
        reservation: None,
        key_id: None,
        api_id: None,
        api_path: "/".to_owned(),
        method: "GET".to_owned(),
        status_code: Some(200),
        success: None,
        response_time_us: Some(1_000),
        request_size: Some(10),
        response_size: Some(100),
        user_agent: None,
        ip_address: None,
        country: None,
    }
}

/// Rows of every kind, in the order of the ledger, with gaps in it, spread over this many minutes.
pub(super) fn usage_rows(seed: u64, count: usize, minutes: i64) -> Vec<LedgerRow> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut last = [0_u64; SHARDS as usize];
    let mut rows: Vec<LedgerRow> = (0..count)
        .map(|_| {
            let number = rng.random_range(1..=SUBSCRIPTIONS);
            let shard = u16::try_from(number % u128::from(SHARDS)).unwrap();
            let seq = &mut last[usize::from(shard)];
            *seq += if rng.random_bool(0.1) { rng.random_range(2..5) } else { 1 };
            random_row(&mut rng, row(number, shard, *seq), minutes)
        })
        .collect();
    rows.sort_unstable_by_key(|row| (row.shard, row.seq));
    rows
}

fn random_row(rng: &mut StdRng, blank: LedgerRow, minutes: i64) -> LedgerRow {
    let event_time = Micros::from_micros(BASE.get() + rng.random_range(0..minutes * 60_000_000));
    let kind = match rng.random_range(0..20) {
        0 => RowKind::Adjustment,
        1 => RowKind::Reset,
        2 | 3 => RowKind::Commit,
        _ => RowKind::Usage,
    };
    let units = rng.random_range(0..50);
    if kind != RowKind::Usage {
        let (api_path, method) = (String::new(), String::new());
        let (status_code, response_time_us) = (None, None);
        let (request_size, response_size) = (None, None);
        // A release, or a commit of what the plan does not bill.
        let charged = kind != RowKind::Commit || rng.random_bool(0.6);
        let outcome =
            if charged || rng.random() { OutcomeKind::Served } else { OutcomeKind::Denied };
        return LedgerRow {
            charged,
            outcome,
            event_time,
            kind,
            units,
            api_path,
            method,
            status_code,
            response_time_us,
            request_size,
            response_size,
            ..blank
        };
    }
    let outcome = match rng.random_range(0..10) {
        0 => OutcomeKind::Denied,
        1 => OutcomeKind::Aborted,
        _ => OutcomeKind::Served,
    };
    let statuses = [None, Some(200), Some(201), Some(404), Some(429), Some(503)];
    let countries = [None, Some("DE"), Some("FR"), Some("JP")];
    LedgerRow {
        event_time,
        units,
        outcome,
        charged: outcome != OutcomeKind::Denied && rng.random_bool(0.8),
        api_path: format!("/path/{}", rng.random_range(0..5)),
        method: if rng.random_bool(0.7) { "GET" } else { "POST" }.to_owned(),
        status_code: statuses[rng.random_range(0..statuses.len())],
        response_time_us: rng.random_bool(0.9).then(|| rng.random_range(0..5_000_000)),
        request_size: rng.random_bool(0.5).then(|| rng.random_range(0..10_000)),
        response_size: rng.random_bool(0.5).then(|| rng.random_range(0..1_000_000)),
        country: countries[rng.random_range(0..countries.len())].map(str::to_owned),
        ..blank
    }
}

/// What a look at each row finds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Naive {
    pub(super) sums: RollupSums,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) countries: BTreeMap<String, u64>,
    /// Requests by path and method.
    pub(super) endpoints: BTreeMap<(String, String), i64>,
    /// Microseconds, ascending.
    pub(super) times: Vec<i64>,
}

impl Naive {
    pub(super) fn of(
        rows: &[LedgerRow],
        number: u128,
        (from, to): (Micros, Micros),
        path: Option<&str>,
    ) -> Self {
        let mut naive = Self::default();
        let wanted = |row: &&LedgerRow| {
            row.subscription == subscription(number)
                && from <= row.event_time
                && row.event_time < to
                && path.is_none_or(|path| path == row.api_path)
        };
        for row in rows.iter().filter(wanted) {
            naive.add(row);
        }
        naive.times.sort_unstable();
        naive
    }

    fn add(&mut self, row: &LedgerRow) {
        if matches!(row.kind, RowKind::Usage | RowKind::Commit) && row.charged {
            self.sums.units += row.units;
        }
        if row.kind != RowKind::Usage {
            return;
        }
        self.sums.requests += 1;
        if row.outcome == OutcomeKind::Denied {
            self.sums.denied += 1;
        } else if row.status_code >= Some(400) {
            self.sums.errors += 1;
        }
        self.sums.bytes_in += row.request_size.unwrap_or_default();
        self.sums.bytes_out += row.response_size.unwrap_or_default();
        if let Some(status) = row.status_code {
            *self.statuses.entry(u16::try_from(status).unwrap()).or_default() += 1;
        }
        if let Some(country) = row.country.clone() {
            *self.countries.entry(country).or_default() += 1;
        }
        let endpoint = (row.api_path.clone(), row.method.clone());
        *self.endpoints.entry(endpoint).or_default() += 1;
        self.times.extend(row.response_time_us);
    }
}

/// A database in memory with this node as the owner of every shard.
pub(super) struct Ledger {
    pub(super) store: Arc<dyn Store>,
}

impl Ledger {
    pub(super) async fn new() -> Self {
        let store = SqliteStore::open(&SqliteOptions::memory()).await.unwrap();
        store.init_shards(SHARDS).await.unwrap();
        let node = NodeRow {
            id: "node".to_owned(),
            incarnation: INCARNATION,
            http: String::new(),
            cluster: String::new(),
            seal: String::new(),
        };
        store.join(&node, 3_600_000).await.unwrap();
        Self { store: Arc::new(store) }
    }

    pub(super) async fn with(rows: &[LedgerRow]) -> Self {
        let ledger = Self::new().await;
        ledger.append(rows).await;
        ledger
    }

    /// What a boot finds. Every boot raises the epochs.
    pub(super) async fn boot(&self) -> Arc<Ownership> {
        let shards: Vec<ShardId> = (0..SHARDS).map(ShardId).collect();
        let mut claimed = self.store.claim(INCARNATION, &shards).await.unwrap();
        claimed.sort_unstable_by_key(|shard| shard.shard);
        assert_eq!(claimed.len(), shards.len());
        Arc::new(Ownership::new(INCARNATION, &claimed))
    }

    pub(super) async fn append(&self, rows: &[LedgerRow]) {
        let ownership = self.boot().await;
        for rows in rows.chunks(500) {
            let fence = ownership.fence(rows.iter().map(|row| row.shard));
            let appended = self.store.append(&fence, rows).await.unwrap();
            assert!(appended.new.iter().all(|new| *new));
        }
    }

    /// Reads without a roller.
    pub(super) fn analytics(&self) -> Analytics {
        let ownership = Arc::new(Ownership::new(INCARNATION, &[]));
        Analytics { store: Arc::clone(&self.store), ownership, clock: Arc::new(Clock::start()) }
    }

    pub(super) async fn stats(&self, number: u128, (from, to): (Micros, Micros)) -> Stats {
        let (analytics, all) = (self.analytics(), StatsFilter::default());
        analytics.stats(subscription(number), from, to, all).await.unwrap()
    }

    /// Compares the answer with the referee's.
    pub(super) async fn assert_exact(
        &self,
        rows: &[LedgerRow],
        number: u128,
        (from, to): (Micros, Micros),
        path: Option<&str>,
    ) {
        let filter = StatsFilter { path: path.map(str::to_owned) };
        let stats = self.analytics().stats(subscription(number), from, to, filter).await.unwrap();
        let latency = &stats.total.measure.latency;
        let naive = Naive::of(rows, number, (from, to), path);
        let context = format!("subscription {number}, [{from:?}, {to:?}), path {path:?}");
        let slowest = naive.times.last().map(|&micros| millis(micros));
        assert_eq!(latency.max_ms(), slowest, "{context}");
        for q in [0.5, 0.95, 0.99] {
            assert_near(latency.quantile_ms(q), quantile(&naive.times, q), &context);
        }
        let countries = stats.total.countries().iter();
        let found = Naive {
            sums: stats.total.measure.sums,
            statuses: stats.total.statuses().clone(),
            countries: countries.map(|(country, &count)| (country.to_string(), count)).collect(),
            endpoints: stats
                .endpoints
                .iter()
                .map(|e| ((e.path.to_string(), e.method.to_string()), e.measure.sums.requests))
                .collect(),
            times: naive.times.clone(),
        };
        assert_eq!(found, naive, "{context}");
    }
}

pub(super) fn quantile(sorted: &[i64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (q * last as f64) as usize;
    Some(millis(sorted[rank]))
}

#[expect(clippy::cast_precision_loss)]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1_000.0
}

/// Within 1 % and half a microsecond, the rounding to whole ones.
pub(super) fn assert_near(found: Option<f64>, exact: Option<f64>, context: &str) {
    match (found, exact) {
        (None, None) => {}
        (Some(found), Some(exact)) => {
            let allowed = exact * 0.010_001 + 0.000_5;
            assert!((found - exact).abs() <= allowed, "{context}: {found} for {exact}");
        }
        _ => panic!("{context}: {found:?} for {exact:?}"),
    }
}
