//! Rows 10 and 11: a check that its owner answers beside one that another node passes on, and three
//! nodes beside one.
//!
//! The node that passes everything on is one that an operator drains: it owns nothing and serves on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokio::process::Command;
use uuid::Uuid;

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::{Spread, float, grouped};
use crate::http_load::{Ask, HttpLoad};
use crate::node::Node;
use crate::table::Row;

const KEYS: usize = 10_000;
const CONNECTIONS: usize = 64;
const TURNS: usize = 4;
/// A node that joins is given shards once it has been seen for some renewals of its lease.
const JOIN_PATIENCE: Duration = Duration::from_secs(40);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let fixture = Fixture::make(Engine::Postgres, KEYS).await?;
    let files = bench.scratch.path();
    let secret = Uuid::now_v7().to_string();
    let start = |name: &'static str| {
        Node::start_in_cluster(&bench.programs, files, &fixture.database_url, name, &secret)
    };
    let owner = start("bench-owner").await?;
    let busy = HttpLoad::new(files, CONNECTIONS, &fixture.token, fixture.keys()).await?;
    let alone = HttpLoad::new(files, 1, &fixture.token, fixture.keys()).await?;
    progress("warming");
    busy.run(&owner, Ask::Check, bench.seconds(4, 2)).await?;

    // Drained before it is given anything, so that the owner keeps what it has in memory.
    let other = start("bench-other").await?;
    drain(bench, &fixture.database_url, "bench-other").await?;
    busy.run(&other, Ask::Check, bench.seconds(4, 2)).await?;
    let duration = bench.seconds(4, 2);
    let (mut rates, mut local, mut passed, mut waits) = (vec![], vec![], vec![], vec![]);
    for turn in 1..=TURNS {
        let here = busy.run(&owner, Ask::Check, duration).await?;
        let there = busy.run(&other, Ask::Check, duration).await?;
        let quick_owner = alone.run(&owner, Ask::Check, bench.seconds(2, 1)).await?;
        let quick_other = alone.run(&other, Ask::Check, bench.seconds(2, 1)).await?;
        progress(&format!(
            "turn {turn} of {TURNS}: {} requests/s at the owner, {} through another",
            grouped(here.per_second),
            grouped(there.per_second)
        ));
        rates.push(there.per_second / here.per_second);
        local.push(here.per_second);
        passed.push(there.per_second);
        waits.push(float(quick_other.p50_micros) - float(quick_owner.p50_micros));
    }
    let through_others = other.metrics().await?.sum("weir_checks_total");
    ensure!(through_others < 1.0, "the drained node decided {through_others} checks itself");
    let (rate, wait) = (Spread::of(&rates), Spread::of(&waits));
    let (local, passed) = (Spread::of(&local).median, Spread::of(&passed).median);

    let (together, idle) = three_nodes(bench, &fixture, owner, other, &secret).await?;
    Ok(vec![
        Row::judged(
            10,
            "Postgres",
            rate.median,
            format!(
                "{:.0} % ({:.0}–{:.0}): {} of {}",
                rate.median * 100.0,
                rate.min * 100.0,
                rate.max * 100.0,
                grouped(passed),
                grouped(local)
            ),
        )
        .how(format!(
            "two nodes, one of them drained; {KEYS} keys, {}, {CONNECTIONS} connections, {} s each in \
             turns, {TURNS} times; both nodes and the client share the machine's processors",
            busy.name(),
            duration.as_secs()
        ))
        .value("local_per_second", local)
        .value("through_other_per_second", passed),
        Row::judged(11, "Postgres", wait.median, format!("{:+.0} µs", wait.median))
            .how("one connection, the median of the differences of a turn"),
        Row::shown(
            10,
            "Postgres",
            "three nodes ÷ one, requests/s, any node asked",
            format!("{:.0} %: {} of {}", together / local * 100.0, grouped(together), grouped(local)),
        )
        .how("a third of the connections to each node, which share the processors that the one had"),
        Row::shown(
            10,
            "Postgres",
            "three nodes that nobody asks, of one core each",
            format!("{:.2} %", idle * 100.0),
        )
        .how("own processor time of the busiest of them; the subscriptions of the rows above are in memory")
        .value("idle_share", idle),
    ])
}

/// Three nodes that share the shards evenly: requests a second when each is asked by a third of the
/// connections, and the share of a core that the busiest takes when nobody asks.
async fn three_nodes(
    bench: &Bench,
    fixture: &Fixture,
    owner: Node,
    drained: Node,
    secret: &str,
) -> Result<(f64, f64)> {
    drained.stop().await?;
    let files = bench.scratch.path();
    let mut nodes = vec![owner];
    for name in ["bench-second", "bench-third"] {
        let url = &fixture.database_url;
        nodes.push(Node::start_in_cluster(&bench.programs, files, url, name, secret).await?);
    }
    tokio::time::timeout(JOIN_PATIENCE, even(&bench.programs, fixture))
        .await
        .context("the shards are not shared out")??;
    let load = HttpLoad::new(files, CONNECTIONS / 3, &fixture.token, fixture.keys()).await?;
    let duration = bench.seconds(4, 2);
    let mut totals = Vec::new();
    for _ in 0..=TURNS {
        let asking = nodes.iter().map(|node| load.run(node, Ask::Check, duration));
        let samples = try_join_all(asking).await?;
        totals.push(samples.iter().map(|sample| sample.per_second).sum());
    }
    let idle = idle(&nodes, bench.seconds(15, 5)).await?;
    for node in nodes {
        node.stop().await?;
    }
    // The first turn loads what the nodes have just been given.
    Ok((Spread::of(&totals[1..]).median, idle))
}

async fn idle(nodes: &[Node], duration: Duration) -> Result<f64> {
    // What the load left to be written is written by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let times = || nodes.iter().map(Node::processor_time).collect::<Result<Vec<_>>>();
    let (before, began) = (times()?, Instant::now());
    tokio::time::sleep(duration).await;
    let (after, passed) = (times()?, began.elapsed().as_secs_f64());
    let shares =
        before.iter().zip(&after).map(|(old, new)| new.saturating_sub(*old).as_secs_f64() / passed);
    Ok(shares.fold(0.0, f64::max))
}

/// Until `weir cluster status` shows three nodes with shards.
async fn even(programs: &std::path::Path, fixture: &Fixture) -> Result<()> {
    loop {
        let status = Command::new(programs.join("weir"))
            .args(["cluster", "status", "--database-url", &fixture.database_url])
            .output()
            .await
            .context("run weir cluster status")?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let shards = text.lines().filter(|line| line.contains(" up ")).filter_map(|line| {
            line.split_whitespace().nth(2).and_then(|number| number.parse::<u32>().ok())
        });
        let shards: Vec<u32> = shards.collect();
        let spread = shards.iter().max().zip(shards.iter().min()).map(|(most, least)| most - least);
        if shards.len() == 3 && spread.is_some_and(|spread| spread <= 1) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn drain(bench: &Bench, database_url: &str, name: &str) -> Result<()> {
    let drained = Command::new(bench.programs.join("weir"))
        .args(["cluster", "drain", name, "--database-url", database_url])
        .output()
        .await
        .context("run weir cluster drain")?;
    let complaint = String::from_utf8_lossy(&drained.stderr).into_owned();
    ensure!(drained.status.success(), "{name} could not be drained: {complaint}");
    Ok(())
}
