//! Row 5: events made durable through HTTP, beside a bare client on the same server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use weir_node::clock::Clock;
use weir_sim::client::Lane;

use super::batches::{self, BATCH};
use super::fixture::{self, Engine, Fixture};
use super::{Bench, bare, progress};
use crate::figures::{Spread, float, grouped, length, per_second};
use crate::node::{Node, call, post};
use crate::table::Row;

const SUBSCRIPTIONS: usize = 1_000;
/// Batches under way at once, over a connection each; the bare client has as many.
const CONNECTIONS: usize = 8;
const TURNS: usize = 4;
/// Batches made ahead for each second: more than either side can insert.
const BATCHES_PER_SECOND: u64 = 80;
/// Identities older than this are forgotten by upkeep; none here are.
const NOTHING_TO_FORGET: weir_core::units::Micros = weir_core::units::Micros::EPOCH;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = on_postgres(bench).await?;
    rows.push(on_sqlite(bench).await?);
    Ok(rows)
}

async fn on_postgres(bench: &Bench) -> Result<Vec<Row>> {
    let duration = bench.seconds(3, 2);
    let bare_side = Fixture::make(Engine::Postgres, SUBSCRIPTIONS).await?;
    let weir_side = Fixture::make(Engine::Postgres, SUBSCRIPTIONS).await?;
    let server = fixture::durability(&weir_side.database_url).await?;
    // The day's partition, which Weir would make by itself.
    let now = Clock::start().now();
    bare_side.store().await?.maintain(now, 1, NOTHING_TO_FORGET).await?;
    let node = Node::start(&bench.programs, bench.scratch.path(), &weir_side.database_url).await?;
    post_for(&node, &weir_side, bench.seconds(1, 1)).await?;

    let (mut bare_rates, mut weir_rates, mut position) = (Vec::new(), Vec::new(), 0);
    let mut processor = Duration::ZERO;
    let mut posted = 0;
    for turn in 1..=TURNS {
        let all = (0..batches_for(duration))
            .map(|_| batches::columns(&bare_side.subscriptions, now, &mut position))
            .collect();
        let (done, took) =
            bare::insert(&bare_side.database_url, CONNECTIONS, all, duration).await?;
        bare_rates.push(length(done * BATCH) / took.as_secs_f64());
        let before = node.processor_time()?;
        let (rows, took) = post_for(&node, &weir_side, duration).await?;
        processor += node.processor_time()?.saturating_sub(before);
        posted += rows;
        weir_rates.push(per_second(rows, took));
        progress(&format!(
            "turn {turn} of {TURNS}: bare {} rows/s, through Weir {} rows/s",
            grouped(bare_rates.last().copied().unwrap_or_default()),
            grouped(weir_rates.last().copied().unwrap_or_default())
        ));
    }
    node.stop().await?;
    let ratios: Vec<f64> =
        weir_rates.iter().zip(&bare_rates).map(|(weir, bare)| weir / bare).collect();
    let (weir, bare) = (Spread::of(&weir_rates).median, Spread::of(&bare_rates).median);
    let spread = Spread::of(&ratios);
    let measured = format!(
        "{:.0} % ({:.0}–{:.0}): {} of {} rows/s",
        spread.median * 100.0,
        spread.min * 100.0,
        spread.max * 100.0,
        grouped(weir),
        grouped(bare)
    );
    let how = format!(
        "{server}; {BATCH} events a batch, {CONNECTIONS} connections, {SUBSCRIPTIONS} subscriptions, \
         {} s each, in turns, {TURNS} times; the bare client (sqlx) inserts identities and records by \
         UNNEST, {BATCH} rows a transaction, over {CONNECTIONS} connections into a second database; bodies \
         and rows made ahead; {:.1} µs of Weir's processors an event",
        duration.as_secs(),
        processor.as_secs_f64() * 1e6 / float(posted)
    );
    let row = Row::judged(5, Engine::Postgres.name(), spread.median, measured)
        .how(how)
        .value("weir_rows_per_second", weir)
        .value("bare_rows_per_second", bare);
    Ok(vec![row])
}

async fn on_sqlite(bench: &Bench) -> Result<Row> {
    let fixture = Fixture::make(Engine::Sqlite, SUBSCRIPTIONS).await?;
    let node = Node::start(&bench.programs, bench.scratch.path(), &fixture.database_url).await?;
    post_for(&node, &fixture, bench.seconds(1, 1)).await?;
    let (rows, took) = post_for(&node, &fixture, bench.seconds(6, 2)).await?;
    node.stop().await?;
    let rate = per_second(rows, took);
    progress(&format!("SQLite: {} rows/s", grouped(rate)));
    let what = "events durable through HTTP";
    Ok(Row::shown(5, Engine::Sqlite.name(), what, format!("{} rows/s", grouped(rate)))
        .how(format!("as above, on SQLite (synchronous=FULL), for {} s", took.as_secs()))
        .value("weir_rows_per_second", rate))
}

fn batches_for(duration: Duration) -> u64 {
    duration.as_secs() * BATCHES_PER_SECOND
}

/// Posts batches until they or the time are used up. Answers how many events are durable, in which time.
async fn post_for(node: &Node, fixture: &Fixture, duration: Duration) -> Result<(u64, Duration)> {
    let now = Clock::start().now();
    let bodies: Vec<Bytes> =
        (0..batches_for(duration)).map(|_| batches::body(&fixture.subscriptions, now)).collect();
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let tasks = (0..CONNECTIONS).map(|_| {
        let (lane, token) = (node.lane(), fixture.token.clone());
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        tokio::spawn(
            async move { post_in_turn(lane, &token, &bodies, &next, started, duration).await },
        )
    });
    let done: Vec<Result<u64>> = try_join_all(tasks).await?;
    let took = started.elapsed();
    let done: Vec<u64> = done.into_iter().collect::<Result<_>>()?;
    Ok((done.into_iter().sum(), took))
}

async fn post_in_turn(
    mut lane: Lane,
    token: &str,
    bodies: &[Bytes],
    next: &AtomicUsize,
    started: Instant,
    duration: Duration,
) -> Result<u64> {
    #[derive(Deserialize)]
    struct Answered {
        accepted: u64,
    }
    let mut accepted = 0;
    while started.elapsed() < duration {
        let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
        let answer = call(&mut lane, &post("/api/v1/usage/events", token, body.clone())?).await?;
        let answered: Answered = serde_json::from_slice(&answer.body)?;
        let all = usize::try_from(answered.accepted).is_ok_and(|count| count == BATCH);
        ensure!(all, "a batch was not taken whole: {}", String::from_utf8_lossy(&answer.body));
        accepted += answered.accepted;
    }
    Ok(accepted)
}
