//! Row 6: the state of dirty subscriptions into Postgres, through the store alone.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use uuid::Uuid;
use weir_config::limits::{CHECKPOINT_CHUNK_ROWS_MAX, SHARD_COUNT_DEFAULT};
use weir_core::calendar::Zone;
use weir_core::meter::{Check, Command, Meter};
use weir_core::terms::Terms;
use weir_core::units::{Epoch, Micros, PlanId, Seq, ShardId, Span};
use weir_node::catalog::plan_document;
use weir_node::clock::Clock;
use weir_node::codec::encode_snapshot;
use weir_store::rows::{CheckpointBatch, CheckpointRow, NodeRow};
use weir_store::{Fence, ShardState};

use super::fixture::{self, Engine, Fixture};
use super::{Bench, progress};
use crate::figures::{Spread, grouped, length};
use crate::table::Row;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let subscriptions = bench.count(50_000, 10_000);
    let rounds = bench.count(6, 3);
    let fixture = Fixture::make(Engine::Postgres, subscriptions).await?;
    let store = fixture.store().await?;
    let incarnation = Uuid::now_v7();
    let states = {
        let shards = store.init_shards(SHARD_COUNT_DEFAULT).await?;
        let node = NodeRow {
            id: "bench".to_owned(),
            incarnation,
            http: String::new(),
            cluster: String::new(),
            seal: String::new(),
        };
        store.join(&node, 600_000).await?;
        let all: Vec<ShardId> = (0..shards).map(ShardId).collect();
        store.claim(incarnation, &all).await?
    };
    let now = Clock::start().now();
    let mut rows = checkpoint_rows(&fixture, &states, now)?;
    let snapshot_bytes = rows.first().map_or(0, |row| row.snapshot.len());

    // The first round inserts; the others replace, which is what a running node does.
    let (mut rates, mut number) = (Vec::new(), 0);
    for round in 0..=rounds {
        let begun = Instant::now();
        for chunk in rows.chunks(CHECKPOINT_CHUNK_ROWS_MAX) {
            number += 1;
            let batch = CheckpointBatch {
                number,
                subscriptions: chunk.to_vec(),
                ..CheckpointBatch::default()
            };
            store.checkpoint(&fence(incarnation, &states, chunk), &batch).await?;
        }
        let rate = length(rows.len()) / begun.elapsed().as_secs_f64();
        progress(&format!("round {round}: {} rows/s", grouped(rate)));
        rates.push(rate);
        for row in &mut rows {
            row.version += 1;
            row.used += 1;
        }
    }
    store.leave(incarnation).await?;
    let replaced = Spread::of(rates.get(1..).unwrap_or_default());
    let measured = format!(
        "{} ({}–{})",
        grouped(replaced.median),
        grouped(replaced.min),
        grouped(replaced.max)
    );
    let how = format!(
        "{}; `Store::checkpoint` of {subscriptions} subscriptions, {CHECKPOINT_CHUNK_ROWS_MAX} rows a \
         transaction, one after the other as the node writes them, fence and `requests_used` included, \
         snapshots of {snapshot_bytes} bytes; median of {rounds} rounds that replace; the first, which \
         inserts: {} rows/s",
        fixture::durability(&fixture.database_url).await?,
        grouped(rates.first().copied().unwrap_or_default())
    );
    Ok(vec![Row::judged(6, Engine::Postgres.name(), replaced.median, measured).how(how)])
}

/// A row for every subscription, with the bytes of a meter that has been used.
fn checkpoint_rows(
    fixture: &Fixture,
    states: &[ShardState],
    now: Micros,
) -> Result<Vec<CheckpointRow>> {
    let plan = plan_document::parse(fixture::PLAN.as_bytes(), PlanId::from_uuid(Uuid::nil()), 1);
    let terms = Terms::new(Arc::new(plan.context("read the plan")?), &Zone::utc(), now, None, &[]);
    let mut meter = Meter::new(Arc::new(terms), now);
    for second in 0..30 {
        let at = now.plus(Span::from_seconds(second));
        meter.apply(at, Command::Check(&Check::default()));
        drop(meter.checkpoint(at, false));
        meter.apply(at, Command::Confirm);
    }
    let snapshot = encode_snapshot(&meter.checkpoint(now, false).state);
    let shard_count = u16::try_from(states.len()).ok().and_then(NonZeroU16::new);
    let shard_count = shard_count.context("no shards were claimed")?;
    let rows = fixture.subscriptions.iter().map(|made| {
        let shard = ShardId(weir_config::shard_of(*made.id.uuid().as_bytes(), shard_count));
        CheckpointRow {
            subscription: made.id,
            shard,
            epoch: epoch(states, shard),
            version: 1,
            last_seq: Seq(1),
            used: 1,
            quota_limit: Some(1_000_000_000),
            period_start: now,
            period_end: now.plus(Span::from_seconds(86_400)),
            escrow_hi: 100,
            clean: false,
            snapshot: snapshot.clone(),
            taken_at: now,
        }
    });
    Ok(rows.collect())
}

fn epoch(states: &[ShardState], shard: ShardId) -> Epoch {
    states
        .iter()
        .find(|state| state.shard == shard)
        .map_or_else(Epoch::default, |state| state.epoch)
}

fn fence(incarnation: Uuid, states: &[ShardState], rows: &[CheckpointRow]) -> Fence {
    let mut shards: Vec<ShardId> = rows.iter().map(|row| row.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    Fence {
        incarnation,
        shards: shards.into_iter().map(|shard| (shard, epoch(states, shard))).collect(),
    }
}
