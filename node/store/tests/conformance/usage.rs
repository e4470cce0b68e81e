//! Usage over time: whatever is rolled and wherever the range cuts, every event is seen exactly
//! once.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_core::units::{Micros, Seq, ShardId, SubscriptionId};
use weir_store::rows::{LedgerRow, OutcomeKind, RollupRow, RollupSums, RowKind};
use weir_store::{CursorMove, Error, Reach, RecordFilter, SubscriptionUsage};

use crate::fixture::{
    DAY, Fixture, MINUTE, NOON, Owner, SECOND, at, everything, full_record, record, subscription_id,
};

crate::on_both_engines!(
    a_cursor_moves_only_from_where_it_stands,
    rollups_add_up_and_their_details_merge,
    any_range_over_any_state_of_rolling_sums_exactly,
    a_range_within_one_minute_is_read_from_the_ledger,
    the_next_usage_is_found_rolled_up_or_not,
    the_request_log_pages_backwards_without_gaps,
    the_request_log_lists_usage_and_commits_only,
    the_fullest_running_quotas_come_first_and_the_unlimited_last,
);

const SUBSCRIPTIONS: usize = 4;

fn sums_of<'a>(rows: impl IntoIterator<Item = &'a LedgerRow>) -> RollupSums {
    let mut sums = RollupSums::default();
    for row in rows {
        sums.units += if row.charged { row.units } else { 0 };
        // A commit is no request, whatever it says of one.
        if row.kind == RowKind::Commit {
            continue;
        }
        let denied = row.outcome == OutcomeKind::Denied;
        sums.requests += 1;
        sums.errors += i64::from(!denied && row.status_code.is_some_and(|status| status >= 400));
        sums.denied += i64::from(denied);
        sums.bytes_in += row.request_size.unwrap_or(0);
        sums.bytes_out += row.response_size.unwrap_or(0);
    }
    sums
}

/// Requests, and commits that charged.
fn counts(row: &LedgerRow) -> bool {
    row.kind == RowKind::Usage || row.kind == RowKind::Commit && row.charged
}

fn plus(a: RollupSums, b: RollupSums) -> RollupSums {
    RollupSums {
        requests: a.requests + b.requests,
        units: a.units + b.units,
        errors: a.errors + b.errors,
        denied: a.denied + b.denied,
        bytes_in: a.bytes_in + b.bytes_in,
        bytes_out: a.bytes_out + b.bytes_out,
    }
}

/// What the analytics room would add for these rows; the detail is one byte per row.
fn rollups_of(rows: &[LedgerRow]) -> Vec<RollupRow> {
    let mut by_key: HashMap<_, Vec<&LedgerRow>> = HashMap::new();
    for row in rows.iter().filter(|row| counts(row)) {
        let minute = row.event_time.get() - row.event_time.get().rem_euclid(MINUTE);
        by_key.entry((row.subscription, minute, &row.api_path, &row.method)).or_default().push(row);
    }
    by_key
        .into_iter()
        .map(|((subscription, minute, path, method), rows)| RollupRow {
            subscription,
            minute: at(minute),
            path: path.clone(),
            method: method.clone(),
            sums: sums_of(rows.iter().copied()),
            detail: vec![1; rows.len()],
        })
        .collect()
}

fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    [a, b].concat()
}

/// Rolls one shard on to `to`, as its owner would.
async fn roll(
    fixture: &Fixture,
    owner: &Owner,
    shard: u16,
    from: u64,
    to: u64,
) -> Result<(), Error> {
    let limit = u32::try_from(to - from).expect("small");
    let after = [(ShardId(shard), Seq(from))];
    let rows = fixture.store.ledger_after(&after, limit.max(1)).await.expect("ledger");
    let rows: Vec<_> = rows.into_iter().filter(|row| row.seq.0 <= to).collect();
    let cursor = CursorMove { shard: ShardId(shard), from: Seq(from), to: Seq(to) };
    fixture.store.roll(&owner.fence, &[cursor], &rollups_of(&rows), &join).await
}

async fn a_cursor_moves_only_from_where_it_stands(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    let rows = [record(subscription_id(), 0, 1), record(subscription_id(), 1, 1)];
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    roll(&fixture, &owner, 0, 0, 1).await.expect("the first time");
    // The right cursor beside a wrong one: neither moves, nothing is added.
    let cursors = [(1, 0), (0, 0)].map(|(shard, from)| CursorMove {
        shard: ShardId(shard),
        from: Seq(from),
        to: Seq(from + 1),
    });
    let again = fixture.store.roll(&owner.fence, &cursors, &rollups_of(&rows), &join).await;
    assert!(matches!(again, Err(Error::Conflict { with: "cursor", .. })), "{again:?}");
    let shards = fixture.store.shards().await.expect("shards");
    assert_eq!((shards[0].rolled, shards[1].rolled), (Seq(1), Seq(0)));
    let totals = fixture.store.usage_totals(&everything(), at(0), at(NOON + DAY)).await;
    assert_eq!(totals.expect("totals").requests, 2);
}

async fn rollups_add_up_and_their_details_merge(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    for seq in 1..=5 {
        let row = record(subscription, 0, seq);
        fixture.store.append(&owner.fence, &[row]).await.expect("append");
        roll(&fixture, &owner, 0, seq - 1, seq).await.expect("roll");
    }
    let window = fixture.store.usage_window(subscription, at(NOON), at(NOON + MINUTE)).await;
    let window = window.expect("window");
    assert!(window.rows.is_empty(), "all of it is rolled");
    assert_eq!(window.rollups.len(), 1);
    assert_eq!(window.rollups[0].sums.requests, 5);
    assert_eq!(window.rollups[0].detail, [1; 5]);
    // Moving on without any usage is allowed: a shard may hold other kinds only.
    roll(&fixture, &owner, 0, 5, 9).await.expect("roll nothing");
}

/// Some minutes of traffic of every sort, on two shards, partly rolled.
struct World {
    rows: Vec<LedgerRow>,
    subscriptions: Vec<SubscriptionId>,
}

impl World {
    fn usage_in(&self, from: Micros, to: Micros) -> impl Iterator<Item = &LedgerRow> {
        self.rows
            .iter()
            .filter(move |row| counts(row) && from <= row.event_time && row.event_time < to)
    }
}

fn random_row(
    random: &mut StdRng,
    subscription: SubscriptionId,
    shard: u16,
    seq: u64,
) -> LedgerRow {
    let outcomes = [OutcomeKind::Served, OutcomeKind::Denied, OutcomeKind::Aborted];
    let kinds =
        [RowKind::Usage, RowKind::Usage, RowKind::Usage, RowKind::Commit, RowKind::Adjustment];
    // Half of the events lie exactly on a second, so that many lie exactly on a boundary.
    let jitter = if random.random() { 0 } else { random.random_range(0..SECOND) };
    LedgerRow {
        event_id: format!("{shard}-{seq}"),
        event_time: at(NOON + random.random_range(0..300) * SECOND + jitter),
        kind: kinds[random.random_range(0..kinds.len())],
        outcome: outcomes[random.random_range(0..outcomes.len())],
        charged: random.random(),
        units: random.random_range(0..9),
        status_code: [None, Some(200), Some(404), Some(503)][random.random_range(0..4)],
        request_size: [None, Some(10)][random.random_range(0..2)],
        response_size: [None, Some(77)][random.random_range(0..2)],
        api_path: ["/a", "/b"][random.random_range(0..2)].to_owned(),
        ..record(subscription, shard, seq)
    }
}

async fn grow(fixture: &Fixture, owner: &Owner, random: &mut StdRng, world: &mut World) {
    let mut rolled = [0_u64; 2];
    for round in 0..4_u64 {
        let rows: Vec<_> = (0..120)
            .map(|index: u64| {
                let which = random.random_range(0..SUBSCRIPTIONS);
                let shard = u16::try_from(which % 2).expect("small");
                random_row(random, world.subscriptions[which], shard, 1 + round * 120 + index)
            })
            .collect();
        fixture.store.append(&owner.fence, &rows).await.expect("append");
        world.rows.extend(rows);
        for shard in [0, 1] {
            let from = rolled[usize::from(shard)];
            let to = random.random_range(from..=(round + 1) * 120);
            if to > from {
                roll(fixture, owner, shard, from, to).await.expect("roll");
                rolled[usize::from(shard)] = to;
            }
        }
    }
}

async fn any_range_over_any_state_of_rolling_sums_exactly(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    let mut random = StdRng::seed_from_u64(7);
    let mut world = World { rows: Vec::new(), subscriptions: Vec::new() };
    for _ in 0..SUBSCRIPTIONS {
        world.subscriptions.push(fixture.subscription("default").await.id);
    }
    grow(&fixture, &owner, &mut random, &mut world).await;
    for _ in 0..60 {
        let mut edge = || NOON + random.random_range(-30..330) * SECOND;
        let (a, b) = (edge(), edge());
        let (from, to) = (at(a.min(b)), at(a.max(b) + random.random_range(0..2)));
        for subscription in &world.subscriptions {
            assert_window(&fixture, &world, *subscription, from, to).await;
        }
        assert_aggregates(&fixture, &world, from, to).await;
    }
}

async fn assert_window(
    fixture: &Fixture,
    world: &World,
    subscription: SubscriptionId,
    from: Micros,
    to: Micros,
) {
    let window = fixture.store.usage_window(subscription, from, to).await.expect("window");
    let rolled = window.rollups.iter().fold(RollupSums::default(), |sum, row| plus(sum, row.sums));
    let counted = plus(rolled, sums_of(&window.rows));
    let naive = sums_of(world.usage_in(from, to).filter(|row| row.subscription == subscription));
    assert_eq!(counted, naive, "{subscription} in [{}, {})", from.get(), to.get());
    let inside =
        |rollup: &RollupRow| from <= rollup.minute && rollup.minute.get() + MINUTE <= to.get();
    assert!(window.rollups.iter().all(inside), "only whole minutes come from rollups");
}

async fn assert_aggregates(fixture: &Fixture, world: &World, from: Micros, to: Micros) {
    let floor = |time: i64| time - time.rem_euclid(MINUTE);
    let (start, end) = (at(floor(from.get() + MINUTE - 1)), at(floor(to.get())));
    let totals = fixture.store.usage_totals(&everything(), from, to).await.expect("totals");
    assert_eq!(totals, sums_of(world.usage_in(start, end)));
    let mut expected: Vec<_> = world
        .subscriptions
        .iter()
        .filter_map(|id| {
            let of_it = |row: &&LedgerRow| row.subscription == *id;
            let mut rows = world.usage_in(start, end).filter(of_it).peekable();
            rows.peek()?;
            Some(SubscriptionUsage { subscription: *id, sums: sums_of(rows) })
        })
        .collect();
    expected.sort_by_key(|usage| (-usage.sums.requests, usage.subscription));
    for limit in [1, 10] {
        let listed = fixture.store.usage_by_subscription(&everything(), from, to, limit).await;
        let expected: Vec<_> = expected.iter().take(limit as usize).cloned().collect();
        assert_eq!(listed.expect("by subscription"), expected);
    }
    let one = Reach { subscriptions: Some(vec![world.subscriptions[0]]), tenant: None };
    let totals = fixture.store.usage_totals(&one, from, to).await.expect("totals of one");
    let of_one = |row: &&LedgerRow| row.subscription == world.subscriptions[0];
    assert_eq!(totals, sums_of(world.usage_in(start, end).filter(of_one)));
}

async fn a_range_within_one_minute_is_read_from_the_ledger(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let rows: Vec<_> = (1..=50).map(|seq| record(subscription, 0, seq)).collect();
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    roll(&fixture, &owner, 0, 0, 50).await.expect("roll");
    let window = fixture.store.usage_window(subscription, at(NOON + 10), at(NOON + 20)).await;
    let window = window.expect("window");
    assert!(window.rollups.is_empty());
    assert_eq!(window.rows, rows[9..19]);
    for (from, to) in [(20, 20), (20, 10)] {
        let window = fixture.store.usage_window(subscription, at(NOON + from), at(NOON + to)).await;
        let window = window.expect("window");
        assert!(window.rows.is_empty() && window.rollups.is_empty(), "[{from}, {to}) is empty");
    }
}

async fn the_next_usage_is_found_rolled_up_or_not(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let rows: Vec<_> = (1..=50).map(|seq| record(subscription, 0, seq)).collect();
    let first = rows[0].event_time;
    let after = |span: i64| at(first.get() + span);
    let never = (at(0), at(NOON * 2));
    let found = async |(from, to)| {
        fixture.store.next_usage(subscription, from, to).await.expect("it is read")
    };
    assert_eq!(found(never).await, None);
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    assert_eq!(found(never).await, Some(first));
    assert_eq!(found((after(1), at(NOON * 2))).await, Some(rows[1].event_time));
    assert_eq!(found((at(0), first)).await, None, "the end is not in the range");
    roll(&fixture, &owner, 0, 0, 50).await.expect("roll");
    let minute = at(first.get() - first.get() % MINUTE);
    assert_eq!(found(never).await, Some(minute));
    let other = fixture.store.next_usage(subscription_id(), never.0, never.1).await;
    assert_eq!(other.expect("it is read"), None);
}

async fn the_request_log_pages_backwards_without_gaps(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    // Three at each moment, over three days: pages break within a moment and across partitions.
    let rows: Vec<_> = (1..=30_u64)
        .map(|seq| LedgerRow {
            event_time: at(NOON + i64::try_from(seq / 3).expect("small") * DAY / 4),
            status_code: Some(if seq % 5 == 0 { 404 } else { 200 }),
            api_path: if seq % 2 == 0 { "/even" } else { "/odd" }.to_owned(),
            ..record(subscription, 0, seq)
        })
        .collect();
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    let whole = RecordFilter {
        subscription,
        from: at(NOON),
        to: at(NOON + 10 * DAY),
        status: None,
        path: None,
        before: None,
        limit: 7,
    };
    let page = async |filter: RecordFilter| {
        let mut filter = filter;
        let mut seqs = Vec::new();
        loop {
            let page = fixture.store.records(&filter).await.expect("records");
            seqs.extend(page.data.iter().map(|row| row.seq.0));
            filter.before = page.data.last().map(|row| (row.event_time, row.seq));
            if !page.more {
                return seqs;
            }
        }
    };
    assert_eq!(page(whole.clone()).await, (1..=30).rev().collect::<Vec<_>>());
    let failed = RecordFilter { status: Some(404), limit: 2, ..whole.clone() };
    assert_eq!(page(failed).await, [30, 25, 20, 15, 10, 5]);
    let odd = RecordFilter { path: Some("/odd".to_owned()), limit: 15, ..whole.clone() };
    assert_eq!(page(odd).await, (1..=30).rev().filter(|seq| seq % 2 == 1).collect::<Vec<_>>());
    let short = RecordFilter { from: rows[8].event_time, to: rows[11].event_time, ..whole };
    assert_eq!(page(short).await, [11, 10, 9], "from is inclusive, to is not");
}

async fn the_request_log_lists_usage_and_commits_only(fixture: Fixture) {
    use OutcomeKind::{Denied, Served};
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let rows: Vec<_> = (1..)
        .zip([
            (RowKind::Usage, Served, true),
            (RowKind::Adjustment, Served, true),
            (RowKind::Reset, Served, true),
            (RowKind::Commit, Served, true),
            // Settled by an event that the plan does not bill.
            (RowKind::Commit, Served, false),
            // A release.
            (RowKind::Commit, Denied, false),
            (RowKind::Usage, Denied, false),
        ])
        .map(|(seq, (kind, outcome, charged))| LedgerRow {
            kind,
            outcome,
            charged,
            event_id: format!("event-{seq}"),
            event_time: at(NOON + i64::try_from(seq).expect("small")),
            ..full_record(subscription, 0, seq)
        })
        .collect();
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    let filter = RecordFilter {
        subscription,
        from: at(NOON),
        to: at(NOON + DAY),
        status: None,
        path: None,
        before: None,
        limit: 10,
    };
    let listed = fixture.store.records(&filter).await.expect("records").data;
    assert_eq!(listed, [6, 4, 3, 0].map(|index: usize| rows[index].clone()));
    let window = fixture.store.usage_window(subscription, at(NOON), at(NOON + DAY)).await;
    let counted = [0, 3, 6].map(|index: usize| rows[index].clone());
    assert_eq!(window.expect("window").rows, counted);
}

async fn the_fullest_running_quotas_come_first_and_the_unlimited_last(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let mut rows = Vec::new();
    for (used, quota_limit) in
        [(50, Some(100)), (9, None), (3, Some(4)), (0, Some(0)), (200, Some(100))]
    {
        let subscription = fixture.subscription("default").await;
        let row = crate::fixture::checkpoint(&owner, subscription.id, 0, 1, 1);
        rows.push(weir_store::rows::CheckpointRow { used, quota_limit, ..row });
    }
    let others = [(NOON - DAY, NOON), (NOON + DAY, NOON + 2 * DAY)];
    for (start, end) in others.map(|(start, end)| (at(start), at(end))) {
        let subscription = fixture.subscription("default").await;
        let row = crate::fixture::checkpoint(&owner, subscription.id, 0, 1, 1);
        let (period_start, period_end) = (start, end);
        rows.push(weir_store::rows::CheckpointRow { period_start, period_end, ..row });
    }
    let batch = crate::fixture::batch(1, rows.clone());
    fixture.store.checkpoint(&owner.fence, &batch).await.expect("checkpoint");
    let fullest = fixture.store.fullest(&everything(), at(NOON), 10).await.expect("fullest");
    assert_eq!(fullest, [3, 4, 2, 0, 1].map(|index: usize| rows[index].clone()));
    assert_eq!(
        fixture.store.fullest(&everything(), at(NOON), 2).await.expect("fullest"),
        fullest[..2]
    );
}
