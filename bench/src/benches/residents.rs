//! Rows 8 and 9: what a subscription in memory costs, and how fast it comes back after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use weir_sim::client::Lane;

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::{float, grouped, length};
use crate::node::{Node, call, post};
use crate::table::Row;

/// Checks in one request: as many as a request may have.
const BATCH: usize = 1_000;
/// Requests under way at once.
const CONNECTIONS: usize = 4;
/// How long checkpoints may take to come to rest.
const REST: Duration = Duration::from_mins(1);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for engine in [Engine::Postgres, Engine::Sqlite] {
        rows.extend(on(bench, engine).await?);
    }
    Ok(rows)
}

async fn on(bench: &Bench, engine: Engine) -> Result<Vec<Row>> {
    let count = bench.count(50_000, 10_000);
    let fixture = Fixture::make(engine, count).await?;
    let files = bench.scratch.path();
    let node = Node::start(&bench.programs, files, &fixture.database_url).await?;
    let before = node.resident_bytes()?;
    let first = activate(&node, &fixture).await?;
    node.wait_until("weir_checkpoint_queued_subscriptions", 0.0, REST).await?;
    let resident = node.metrics().await?.sum("weir_resident_subscriptions");
    ensure!(resident >= length(count), "of {count} subscriptions only {resident} are resident");
    let bytes = node.resident_bytes()?.saturating_sub(before);
    let ended = node.stop().await?;
    progress(&format!("{}: {first}; ended in {:.1} s", engine.name(), ended.as_secs_f64()));

    let node = Node::start(&bench.programs, files, &fixture.database_url).await?;
    let again = activate(&node, &fixture).await?;
    progress(&format!("{}: {again} after the restart", engine.name()));
    node.kill().await?;

    let kilobytes = float(bytes) / 1024.0 / length(count);
    let rate = again.per_second(count);
    let memory = Row::judged(8, engine.name(), kilobytes, format!("{kilobytes:.1} KB"))
        .how(format!(
            "growth of the server's VmRSS while {count} subscriptions were asked for by one check each \
             (batches of {BATCH}), after their checkpoints, caches of keys and the allocator's slack \
             included, ÷ {count}"
        ));
    let activation = Row::judged(9, engine.name(), rate, grouped(rate))
        .how(format!(
            "after an orderly restart, the first check of each of {count} subscriptions, {BATCH} a request, \
             {CONNECTIONS} requests at once: key looked up, state loaded, escrow committed, answered; {} \
             degraded, {} undecided and asked again; the first time, from empty state: {} a second; the \
             orderly end with all of them resident took {:.1} s",
            again.degraded,
            again.undecided,
            grouped(first.per_second(count)),
            ended.as_secs_f64()
        ))
        .value("degraded", length(again.degraded))
        .value("undecided", length(again.undecided))
        .value("first_per_second", first.per_second(count))
        .value("orderly_end_seconds", ended.as_secs_f64());
    Ok(vec![memory, activation])
}

/// What became of one check for each subscription.
#[derive(Clone, Copy, Debug)]
struct Activated {
    took: Duration,
    degraded: usize,
    undecided: usize,
}

impl Activated {
    fn per_second(&self, count: usize) -> f64 {
        length(count) / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Activated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { took, degraded, undecided } = self;
        let took = took.as_secs_f64();
        write!(f, "activated in {took:.1} s, {degraded} degraded, {undecided} asked again")
    }
}

/// Asks for every subscription until each has been decided about once.
async fn activate(node: &Node, fixture: &Fixture) -> Result<Activated> {
    let keys: Arc<[String]> = fixture.keys().into();
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let tasks = (0..CONNECTIONS).map(|_| {
        let (mut lane, token) = (node.lane(), fixture.token.clone());
        let (keys, next) = (Arc::clone(&keys), Arc::clone(&next));
        tokio::spawn(async move {
            let (mut degraded, mut undecided) = (0, 0);
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                let Some(chunk) = keys.get(from..keys.len().min(from + BATCH)) else { break };
                let mut left: Vec<&String> = chunk.iter().collect();
                while !left.is_empty() {
                    ensure!(
                        started.elapsed() < REST,
                        "not all are active after {} s",
                        REST.as_secs()
                    );
                    let asked = ask(&mut lane, &token, left).await?;
                    degraded += asked.degraded;
                    undecided += asked.undecided.len();
                    left = asked.undecided;
                }
            }
            Ok((degraded, undecided))
        })
    });
    let ended: Vec<Result<(usize, usize)>> = try_join_all(tasks).await?;
    let took = started.elapsed();
    let mut all = Activated { took, degraded: 0, undecided: 0 };
    for task in ended {
        let (degraded, undecided) = task?;
        all.degraded += degraded;
        all.undecided += undecided;
    }
    Ok(all)
}

struct Asked<'a> {
    degraded: usize,
    undecided: Vec<&'a String>,
}

/// One check for each key, in one request. None may be refused.
async fn ask<'a>(lane: &mut Lane, token: &str, keys: Vec<&'a String>) -> Result<Asked<'a>> {
    let checks: Vec<_> = keys.iter().map(|key| json!({ "subscriptionKey": key })).collect();
    let body = json!({ "checks": checks }).to_string().into();
    let answer = call(lane, &post("/api/v1/quota/check", token, body)?).await?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(results.len() == keys.len(), "{} answers to {} checks", results.len(), keys.len());
    let is_undecided = |result: &Value| result.get("error").is_some();
    let refused = results.iter().find(|one| !is_undecided(one) && one["allowed"] != true);
    ensure!(refused.is_none(), "a check was refused: {refused:?}");
    let degraded = results.iter().filter(|one| one["mode"] == "degraded").count();
    let pairs = keys.into_iter().zip(results);
    let undecided = pairs.filter(|(_, one)| is_undecided(one)).map(|(key, _)| key).collect();
    Ok(Asked { degraded, undecided })
}
