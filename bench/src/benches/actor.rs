//! Row 4: a check through the router and under the lock of its actor's state, without HTTP.

use std::time::Instant;

use anyhow::{Result, bail};
use weir_core::meter::Check;
use weir_node::app;
use weir_node::router::Verdict;

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::Spread;
use crate::table::Row;

const KEYS: usize = 1_000;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = bench.count(300, 60);
    let fixture = Fixture::make(Engine::Sqlite, KEYS).await?;
    let running = app::start(&fixture.config()?).await?;
    let keys = fixture.keys();
    progress("warming");
    for _ in 0..20 {
        for key in &keys {
            check(&running, key).await?;
        }
    }
    progress("measuring");
    let mut nanos: Vec<u64> = Vec::with_capacity(rounds * KEYS);
    let mut slow = 0_usize;
    for _ in 0..rounds {
        for key in &keys {
            let begun = Instant::now();
            check(&running, key).await?;
            let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            slow += usize::from(took > 1_000_000);
            nanos.push(took);
        }
    }
    running.stop().await;
    nanos.sort_unstable();
    let at = |share: usize| {
        let nanos = nanos.get(nanos.len().saturating_sub(1) * share / 100).copied();
        crate::figures::float(nanos.unwrap_or_default()) / 1e3
    };
    let (p50, p99) = (at(50), at(99));
    let spread = Spread::of(&[at(1), p50, p99]);
    Ok(vec![
        Row::judged(4, "SQLite", p50, format!("p50 {p50:.1} µs, p99 {p99:.1} µs"))
            .how(format!(
                "a node in this process, {} checks one after the other over {KEYS} warm keys, asked \
                 of its router from one of the runtime's threads; the key is hashed and looked up each \
                 time; p1 {:.1} µs; {slow} above 1 ms (checkpoints and escrow under way)",
                rounds * KEYS,
                spread.min
            ))
            .value("p99_micros", p99),
    ])
}

async fn check(running: &app::Running, key: &str) -> Result<()> {
    match running.api.router.check(key, Check::default(), |_| true, true).await? {
        Verdict::Decided(decided) if decided.decision.allowed => Ok(()),
        other => bail!("a check was not allowed: {other:?}"),
    }
}
