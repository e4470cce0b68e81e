//! Answers are exact at any moment of the roller's work, for ranges that cut minutes.

use weir_core::calendar::{Every, Zone};
use weir_store::rows::RollupSums;

use super::super::{Buckets, Roller, Round};
use super::*;

fn later(micros: i64) -> Micros {
    Micros::from_micros(BASE.get() + micros)
}

#[tokio::test]
async fn answers_are_exact_however_far_the_roller_is() {
    const MINUTES: i64 = 20;
    for seed in 50..53 {
        let rows = usage_rows(seed, 600, MINUTES);
        let ledger = Ledger::with(&rows).await;
        let ownership = ledger.boot().await;
        let mut roller = Roller::with_limits(Arc::clone(&ledger.store), ownership, 100, 30);
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..100 {
            for _ in 0..5 {
                let a = rng.random_range(-60_000_000..MINUTES * 60_000_000);
                let b = rng.random_range(a + 1..=MINUTES * 60_000_000 + 1);
                let number = rng.random_range(1..=SUBSCRIPTIONS);
                let path = rng.random_bool(0.3).then_some("/path/2");
                ledger.assert_exact(&rows, number, (later(a), later(b)), path).await;
            }
            if roller.round().await.unwrap() == Round::CaughtUp {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_long_range_is_read_in_chunks_and_adds_up() {
    // Four days, so that chunks grow to a day and the last is cut.
    const MINUTES: i64 = 4 * 24 * 60;
    let rows = usage_rows(61, 800, MINUTES);
    let ledger = Ledger::with(&rows).await;
    let ownership = ledger.boot().await;
    let mut roller = Roller::with_limits(Arc::clone(&ledger.store), ownership, 300, 100);
    roller.round().await.unwrap();
    let ages = (Micros::from_micros(i64::MIN), Micros::MAX);
    for number in 1..=SUBSCRIPTIONS {
        let long = (later(30_500_000), later(MINUTES * 60_000_000 - 30_500_000));
        ledger.assert_exact(&rows, number, long, None).await;
    }
    let all = ledger.stats(1, ages).await;
    assert_eq!(all.total.measure.sums, Naive::of(&rows, 1, ages, None).sums);
}

#[tokio::test]
async fn a_trend_has_every_bucket_and_counts_what_is_in_it_and_in_the_range() {
    // 30 hours over the night in Berlin on which the clocks go back.
    const MINUTES: i64 = 30 * 60;
    let rows = usage_rows(71, 900, MINUTES);
    let ledger = Ledger::with(&rows).await;
    let mut roller = Roller::with_limits(Arc::clone(&ledger.store), ledger.boot().await, 400, 90);
    roller.round().await.unwrap();
    let range = (later(90_000_000 * 17), later((MINUTES - 45) * 60_000_000 + 1));
    for (every, zone, count) in
        [("PT1H", "UTC", 30), ("P1D", "Europe/Berlin", 3), ("P1D", "UTC", 3), ("P1M", "UTC", 1)]
    {
        let (every, zone) = (Every::parse(every).unwrap(), Zone::parse(zone).unwrap());
        let buckets = Buckets::new(every, zone.clone(), range.0, range.1).unwrap();
        assert_eq!(buckets.as_slice().len(), count, "{every} {zone}");
        let analytics = ledger.analytics();
        let trend = analytics.trends(subscription(2), range.0, range.1, &buckets).await.unwrap();
        for (period, measure) in buckets.as_slice().iter().zip(trend) {
            let clipped = (period.start.max(range.0), period.end.min(range.1));
            let naive = Naive::of(&rows, 2, clipped, None);
            let context = format!("{every} {zone} from {:?}", period.start);
            assert_eq!(measure.sums, naive.sums, "{context}");
            for q in [0.5, 0.95, 0.99] {
                assert_near(measure.latency.quantile_ms(q), quantile(&naive.times, q), &context);
            }
        }
    }
}

#[tokio::test]
async fn a_subscription_without_traffic_has_zeros_and_empty_buckets() {
    let ledger = Ledger::new().await;
    let stats = ledger.stats(9, (BASE, later(1))).await;
    assert_eq!(stats.total.measure.sums, RollupSums::default());
    assert!(stats.endpoints.is_empty());
    let hour = Every::parse("PT1H").unwrap();
    let buckets = Buckets::new(hour, Zone::utc(), BASE, later(3 * 3_600_000_000)).unwrap();
    let trend = ledger.analytics().trends(subscription(9), BASE, later(1), &buckets).await.unwrap();
    assert_eq!(trend.len(), 3);
    assert!(trend.iter().all(|bucket| bucket.sums == RollupSums::default()));
}

#[tokio::test]
async fn endpoints_come_with_most_requests_first_and_the_rest_together() {
    let busy = [0, 0, 0, 0, 1, 1, 1, 2, 2];
    let paths = busy.into_iter().chain(3..3_000);
    let rows: Vec<LedgerRow> = paths
        .zip(1..)
        .map(|(path, seq)| LedgerRow { api_path: format!("/{path}"), ..row(1, 1, seq) })
        .collect();
    let ledger = Ledger::with(&rows).await;
    let stats = ledger.stats(1, (BASE, later(1))).await;
    let names: Vec<&str> = stats.endpoints.iter().take(4).map(|e| &*e.path).collect();
    assert_eq!(names, ["*", "/0", "/1", "/2"]);
    assert_eq!(stats.endpoints[0].measure.sums.requests, 1_000);
    let requests: i64 = stats.endpoints.iter().map(|e| e.measure.sums.requests).sum();
    assert_eq!(requests, i64::try_from(rows.len()).unwrap());
}
