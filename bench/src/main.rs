//! Measures Weir against the table of the design (§8), and says how it stands.
//!
//! ```text
//!   main ─▶ benches ─┬─▶ node (a real `weir serve`) ◀── http_load (wrk, or weir-sim's client)
//!                    ├─▶ the core, the actor and the store in this process
//!                    └─▶ table ─▶ stdout (Markdown), bench/results/latest.json
//! ```
//! It asserts no times: it prints figures, and exits 1 only when one could not be measured. Figures
//! that hang together (a check and `/livez`, Weir and a bare client) are taken in turns, because a
//! machine is never quite idle.

mod benches;
mod figures;
mod http_load;
mod machine;
mod node;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use benches::{BENCHES, Bench};
use machine::{Machine, Scratch};
use table::{GOALS, Row, Verdict};

// As in the node: some benches run its code in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One bench may take this long; more means that it hangs.
const BENCH_TIMEOUT: Duration = Duration::from_mins(4);

/// Measures a Weir node against the ratios of its design.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", version, about)]
struct Arguments {
    /// Shorter runs and fewer subscriptions: a look, not a figure to keep
    #[arg(long)]
    quick: bool,
    /// Only these rows of the table
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=13))]
    only: Vec<u8>,
    /// Where the figures go as JSON
    #[arg(long, default_value = "bench/results/latest.json", value_name = "FILE")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when every bench could be run.
fn run(arguments: &Arguments) -> Result<bool> {
    let machine = Machine::here();
    eprintln!("bench: {}", machine.line());
    let bench =
        Bench { quick: arguments.quick, programs: node::programs()?, scratch: Scratch::make()? };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let started = Instant::now();
    let measured = runtime.block_on(measure(arguments, Arc::new(bench)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let mut rows = measured?;
    rows.sort_by_key(|row| row.number);

    let quick = if arguments.quick { ", --quick: short runs" } else { "" };
    let took = started.elapsed().as_secs();
    let text = format!("{}\n{}; {took} s in all{quick}\n", table::markdown(&rows), machine.line());
    // A closed stdout is no reason to lose the file below.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let document = json!({
        "version": 1, "machine": machine, "quick": arguments.quick, "seconds": took, "rows": rows,
    });
    if let Some(directory) = arguments.json.parent() {
        std::fs::create_dir_all(directory).context("make the directory of the results")?;
    }
    std::fs::write(&arguments.json, format!("{document:#}\n")).context("write the results")?;
    Ok(rows.iter().all(|row| row.verdict != Verdict::Broken))
}

/// Runs the benches one after the other. Fails only when it is told to end.
async fn measure(arguments: &Arguments, bench: Arc<Bench>) -> Result<Vec<Row>> {
    let wanted = |number: &u8| arguments.only.is_empty() || arguments.only.contains(number);
    let mut stopped = std::pin::pin!(stopped()?);
    let mut rows = Vec::new();
    for one in BENCHES.iter().filter(|one| one.goals.iter().any(wanted)) {
        let names: Vec<_> = GOALS
            .iter()
            .filter(|goal| one.goals.contains(&goal.number))
            .map(|goal| goal.what)
            .collect();
        eprintln!("bench: {:?} {}", one.goals, names.join(" · "));
        // A task of its own, on the runtime's threads like a handler's, whose panic is a row.
        let mut task = tokio::spawn((one.run)(Arc::clone(&bench)));
        let outcome = tokio::select! {
            ended = &mut task => {
                ended.unwrap_or_else(|panicked| Err(anyhow::anyhow!("the bench panicked: {panicked}")))
            }
            () = tokio::time::sleep(BENCH_TIMEOUT) => {
                give_up(task).await;
                Err(anyhow::anyhow!("not done after {} s", BENCH_TIMEOUT.as_secs()))
            }
            () = &mut stopped => {
                give_up(task).await;
                anyhow::bail!("ended early, nothing is kept");
            }
        };
        match outcome {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                eprintln!("bench: {error:#}");
                rows.extend(one.goals.iter().map(|&number| Row::broken(number, &error)));
            }
        }
    }
    Ok(rows)
}

/// Ends a bench; when this returns, what it started has been dropped and so ended, too.
async fn give_up(task: JoinHandle<Result<Vec<Row>>>) {
    task.abort();
    // How it ended is known: by our own hand.
    let _ = task.await;
}

/// Ctrl-C or SIGTERM. Dying of them would leave nodes and directories behind.
fn stopped() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handle signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
