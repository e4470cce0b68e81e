//! Billing runs that die: after any call of the store, with its work done or not, and with a rival.

use std::num::NonZeroU16;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;
use weir_core::rating::Amount;
use weir_core::units::{Micros, PlanId, Seq, ShardId, Span, SubscriptionId};
use weir_node::billing::{Billing, BillingParts, Job, Progress};
use weir_node::catalog::Catalog;
use weir_node::clock::Clock;
use weir_node::metrics::Metrics;
use weir_store::billing::{ChargeFilter, ChargeRow};
use weir_store::rows::{KeyRow, LedgerRow, NodeRow, PlanRow, SubscriptionRow};
use weir_store::sqlite::{SqliteOptions, SqliteStore};
use weir_store::{Fence, Store};

use crate::faulty_store::{Fate, FaultyStore};
use crate::{audit, event};

const DAY: i64 = 86_400;
const SUBSCRIPTIONS: u128 = 3;
const PLAN: &str = r#"{"name":"soft","quotas":[{"name":"requests","meter":"requests","limit":100,
    "every":"P1D","anchor":"calendar","enforcement":"soft",
    "overage":{"model":"graduated","tiers":[{"upTo":10,"unitPrice":"0.333","flatFee":"1"},
        {"unitPrice":"0.01"}]}}]}"#;

/// A store with subscriptions and their ledger, and the means to bill them.
struct Books {
    inner: Arc<dyn Store>,
    faulty: Arc<FaultyStore>,
    fence: Fence,
    seq: u64,
    clock: Arc<Clock>,
    ids: Vec<SubscriptionId>,
}

impl Books {
    async fn open(seed: u64) -> Self {
        let inner: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&SqliteOptions::memory()).await.expect("a store"));
        let clock = Arc::new(Clock::start());
        let now = clock.now();
        inner.init_shards(1).await.expect("shards");
        let incarnation = Uuid::now_v7();
        let node = NodeRow {
            id: "node-1".into(),
            incarnation,
            http: String::new(),
            cluster: String::new(),
            seal: String::new(),
        };
        inner.join(&node, 600_000).await.expect("join");
        let taken = inner.claim(incarnation, &[ShardId(0)]).await.expect("claim");
        let shards = taken.iter().map(|state| (state.shard, state.epoch)).collect();
        let plan = PlanRow {
            id: PlanId::from_uuid(Uuid::from_u128(1)),
            version: 1,
            name: "soft".into(),
            config: PLAN.into(),
            at_period_end: false,
            created_at: now,
        };
        inner.insert_plan(&plan, &audit(now)).await.expect("the plan is stored");
        let mut ids = Vec::new();
        for index in 1..=SUBSCRIPTIONS {
            let row = subscription(index, plan.id, now);
            let mut hash = [0; 32];
            hash[..16].copy_from_slice(row.id.uuid().as_bytes());
            let key = KeyRow {
                id: Uuid::now_v7(),
                subscription: row.id,
                hash,
                hint: "k".into(),
                created_at: now,
                revoked_at: None,
            };
            inner.insert_subscription(&row, &key, &audit(now)).await.expect("it is stored");
            ids.push(row.id);
        }
        let faulty = Arc::new(FaultyStore::new(inner.clone(), seed));
        Self { inner, faulty, fence: Fence { incarnation, shards }, seq: 0, clock, ids }
    }

    /// So many units of one subscription, so many days ago.
    async fn use_units(&mut self, index: usize, days: i64, units: i64) {
        self.seq += 1;
        let at = self.clock.now().minus(Span::from_seconds(days * DAY));
        let id = format!("event-{}", self.seq);
        let row = LedgerRow {
            seq: Seq(self.seq),
            recorded_at: self.clock.now(),
            ..event(self.ids[index], ShardId(0), id, units, at)
        };
        self.inner.append(&self.fence, &[row]).await.expect("append");
    }

    /// A node's jobs. Nobody waits for the lease of one that died.
    fn billing(&self, store: Arc<dyn Store>) -> Billing {
        let one = NonZeroU16::new(1).expect("one");
        let catalog = Catalog::new(store.clone(), self.clock.clone(), one, None);
        Billing::new(BillingParts {
            store,
            catalog: Arc::new(catalog),
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::new()),
            holder: Uuid::now_v7(),
            grace: Span::from_seconds(DAY),
            lease: Span::from_micros(50_000),
        })
    }

    async fn run_well(&self) {
        let billing = self.billing(self.inner.clone());
        for job in [Job::Overage, Job::Rollover] {
            let progress = Progress::default();
            billing.run(job, &progress).await.expect("nothing goes wrong");
            assert_eq!(progress.report().failed, 0);
        }
    }

    async fn charges(&self) -> Vec<ChargeRow> {
        let filter = ChargeFilter { limit: 1_000, ..ChargeFilter::default() };
        let mut all = self.inner.list_charges(&filter).await.expect("list").data;
        all.sort_by_key(|row| (row.subscription, row.corrects, row.start, row.number));
        all
    }

    /// Sums by subscription and by the period that they are for.
    async fn sums(&self) -> Vec<(SubscriptionId, Micros, i128)> {
        let mut sums: Vec<(SubscriptionId, Micros, i128)> = Vec::new();
        for row in self.charges().await {
            let start = row.corrects.map_or(row.start, |(start, _)| start);
            let minor: i128 = row.amount.parse().expect("an integer");
            match sums.iter_mut().find(|sum| (sum.0, sum.1) == (row.subscription, start)) {
                Some(sum) => sum.2 += minor,
                None => sums.push((row.subscription, start, minor)),
            }
        }
        sums.sort_unstable();
        sums
    }
}

fn subscription(index: u128, plan: PlanId, now: Micros) -> SubscriptionRow {
    let id = SubscriptionId::from_uuid(Uuid::from_u128(0x0190 << 112 | index));
    super::row_of(id, plan, now)
}

/// The use of a story: (subscription, days ago, units), in two halves with a run between them.
const USE: [&[(usize, i64, i64)]; 2] = [
    &[(0, 0, 150), (0, 3, 111), (1, 3, 101), (1, 0, 40), (2, 5, 400)],
    &[(0, 0, 7), (0, 3, 13), (1, 3, 1), (1, 0, 70), (2, 5, 1), (2, 0, 101)],
];

/// What the story comes to without any fault, in cents: (subscription, days ago, amount). Ten units
/// at a third of a dollar and the fee come to 4.33.
const CLEAN: [(usize, i64, i128); 6] =
    [(0, 0, 480), (0, 3, 447), (1, 0, 433), (1, 3, 167), (2, 0, 133), (2, 5, 724)];

fn expected(books: &Books) -> Vec<i128> {
    let mut sums: Vec<_> = CLEAN
        .iter()
        .map(|&(index, days, amount)| (books.ids[index], std::cmp::Reverse(days), amount))
        .collect();
    sums.sort_unstable();
    sums.into_iter().map(|(_, _, amount)| amount).collect()
}

async fn check_sums(books: &Books, story: &str) {
    let found: Vec<i128> = books.sums().await.into_iter().map(|(_, _, minor)| minor).collect();
    assert_eq!(found, expected(books), "{story}");
    let charges = books.charges().await;
    let mut keys: Vec<_> = charges.iter().map(|row| &row.idempotency_key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), charges.len(), "{story}");
}

#[tokio::test]
async fn a_run_that_dies_after_any_call_ends_at_the_sums_of_a_clean_one() {
    for fate in [Fate::AnswerLost, Fate::NeverArrived, Fate::Refused] {
        for job in [Job::Overage, Job::Rollover] {
            let mut calls_before = 0;
            loop {
                let mut books = Books::open(1).await;
                let mut is_reached = false;
                for half in USE {
                    for &(index, days, units) in half {
                        books.use_units(index, days, units).await;
                    }
                    books.faulty.plan_fault(calls_before, fate);
                    let dying = books.billing(books.faulty.clone());
                    // It is gone, whatever it would have answered.
                    let _ = dying.run(job, &Progress::default()).await;
                    is_reached |= !books.faulty.call_off();
                    books.run_well().await;
                }
                check_sums(&books, &format!("{fate:?} at call {calls_before} of {job:?}")).await;
                if !is_reached {
                    break;
                }
                calls_before += 1;
                assert!(calls_before < 200, "a run does not end");
            }
            assert!(calls_before > 4, "{fate:?} of {job:?}: no call was reached");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_run_at_once_and_fail_by_chance_end_at_the_same_sums() {
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut books = Books::open(seed).await;
        books.faulty.set_faults(25);
        for half in USE {
            for &(index, days, units) in half {
                books.use_units(index, days, units).await;
                let rivals = (0..3).map(|_| {
                    let billing = books.billing(books.faulty.clone());
                    let job = if rng.random_bool(0.5) { Job::Overage } else { Job::Rollover };
                    tokio::spawn(async move { billing.run(job, &Progress::default()).await })
                });
                for rival in rivals.collect::<Vec<_>>() {
                    // Some fail; none may panic.
                    let _ = rival.await.expect("a run ends");
                }
            }
        }
        books.run_well().await;
        check_sums(&books, &format!("seed {seed}")).await;
        assert!(books.faulty.faults.load(std::sync::atomic::Ordering::Relaxed) > 0);
        let total: Amount =
            books.sums().await.into_iter().map(|(_, _, minor)| Amount::from_minor(minor)).sum();
        assert_eq!(total.minor(), CLEAN.iter().map(|(_, _, amount)| amount).sum::<i128>());
    }
}
