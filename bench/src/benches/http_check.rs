//! Rows 1 and 2: a check over HTTP beside `/livez` of the same server.

use anyhow::{Result, ensure};

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::{Spread, grouped};
use crate::http_load::{Ask, HttpLoad, Sample};
use crate::node::Node;
use crate::table::Row;

const KEYS: usize = 10_000;
const CONNECTIONS: usize = 64;
/// Many short turns: a machine that is busy for a while spoils one of them, not the median.
const TURNS: usize = 6;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let fixture = Fixture::make(Engine::Sqlite, KEYS).await?;
    let files = bench.scratch.path();
    let node = Node::start(&bench.programs, files, &fixture.database_url).await?;
    let load = HttpLoad::new(files, CONNECTIONS, &fixture.token, fixture.keys()).await?;
    progress("warming");
    load.run(&node, Ask::Check, bench.seconds(4, 2)).await?;
    load.run(&node, Ask::Livez, bench.seconds(2, 1)).await?;
    let warm = node.metrics().await?;

    let duration = bench.seconds(4, 2);
    let (mut livez, mut checks) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        for (ask, samples) in [(Ask::Livez, &mut livez), (Ask::Check, &mut checks)] {
            let sample = load.run(&node, ask, duration).await?;
            progress(&format!(
                "turn {turn} of {TURNS}, {ask:?}: {} requests/s, {:.1} µs of the server's processors each",
                grouped(sample.per_second),
                sample.processor_micros
            ));
            samples.push(sample);
        }
    }
    let end = node.metrics().await?;
    let counted = |prefix: &str| end.sum(prefix) - warm.sum(prefix);
    let decided = counted("weir_checks_total");
    let allowed = counted("weir_checks_total{reason=\"ok\",mode=\"enforced\"");
    let failed = counted("weir_check_failures_total");
    ensure!(
        allowed >= 0.999 * (decided + failed) && decided > 0.0,
        "of {decided} checks only {allowed} were allowed; {failed} were not decided"
    );
    node.stop().await?;
    Ok(rows(&load, &livez, &checks, duration.as_secs()))
}

fn rows(load: &HttpLoad, livez: &[Sample], checks: &[Sample], seconds: u64) -> Vec<Row> {
    let of = |samples: &[Sample], value: fn(&Sample) -> f64| {
        Spread::of(&samples.iter().map(value).collect::<Vec<_>>())
    };
    let (livez_rate, check_rate) = (of(livez, |s| s.per_second), of(checks, |s| s.per_second));
    let (livez_cpu, check_cpu) =
        (of(livez, |s| s.processor_micros), of(checks, |s| s.processor_micros));
    let pairs = || livez.iter().zip(checks);
    let ratios = |value: fn(&Sample) -> f64| {
        Spread::of(&pairs().map(|(livez, check)| value(check) / value(livez)).collect::<Vec<_>>())
    };
    let (rate, cpu) = (ratios(|s| s.per_second), ratios(|s| s.processor_micros));
    let p99 = of(checks, |s| crate::figures::float(s.p99_micros)).median;
    let p50 = of(checks, |s| crate::figures::float(s.p50_micros)).median;
    let rate_text = format!(
        "{:.0} % ({:.0}–{:.0}): {} of {}",
        rate.median * 100.0,
        rate.min * 100.0,
        rate.max * 100.0,
        grouped(check_rate.median),
        grouped(livez_rate.median)
    );
    let cpu_text = format!(
        "{:.2}× ({:.2}–{:.2}): {:.1} of {:.1} µs",
        cpu.median, cpu.min, cpu.max, check_cpu.median, livez_cpu.median
    );
    let how = format!(
        "`weir serve` on SQLite, {KEYS} keys, {}, {CONNECTIONS} connections, {seconds} s each, `/livez` \
         and check in turns, {TURNS} times; the median, smallest and largest ratio of a turn, and median \
         figures; token and key in headers; check p50 {p50:.0} µs, p99 {p99:.0} µs under this load",
        load.name()
    );
    vec![
        Row::judged(1, "SQLite", rate.median, rate_text)
            .how(how)
            .value("check_per_second", check_rate.median)
            .value("livez_per_second", livez_rate.median)
            .value("check_p50_micros", p50)
            .value("check_p99_micros", p99),
        Row::judged(2, "SQLite", cpu.median, cpu_text)
            .how("the same runs: user and system time of the server's process ÷ its answers")
            .value("check_micros", check_cpu.median)
            .value("livez_micros", livez_cpu.median),
    ]
}
