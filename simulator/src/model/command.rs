//! `weir-sim model` on the command line: one run to read, or many to trust.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;

use super::{Batch, Break, Figures, Options, Report, run, run_many, run_traced};
use crate::numbers::grouped;
use crate::progress::Progress;

/// What is shown by `--help`.
pub const HELP: &str = "\
Examples:
  # one run; the same seed is the same run on every machine
  weir-sim model --seed 7 --steps 20000

  # the same, with a line for whatever happens in it
  weir-sim model --seed 7 --steps 20000 --trace

  # many runs, until one is red
  weir-sim model --seeds 1000

  # a drill: without this defence a seed must turn red
  weir-sim model --seeds 1000 --break fence

Exit codes: 0 every promise was kept, 1 one was broken (which, when and how to replay it is printed).";

/// Arguments of the command.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// What everything in the run is drawn from; with --seeds, the first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events under faults; after them everything heals and must answer again
    #[arg(long, default_value_t = 20_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Play so many runs, one seed after another
    #[arg(long, value_name = "N", conflicts_with = "trace",
          value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Write a line for whatever happens
    #[arg(long)]
    trace: bool,
    /// A drill of the oracles: take one defence away
    #[arg(long = "break", value_enum, value_name = "DEFENCE")]
    breaks: Option<Break>,
    /// Threads; default: all cores
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

/// Plays what was asked for and writes the verdict; whether every promise was kept.
pub fn play(args: &ModelArgs, out: &mut dyn Write) -> bool {
    let options = Options { seed: args.seed, steps: args.steps, breaks: args.breaks };
    let (text, is_green) = if let Some(count) = args.seeds {
        let batch = play_many(options, count, args);
        (told_many(&batch, options), batch.red.is_none())
    } else {
        let report = if args.trace { run_traced(options, out) } else { run(options) };
        (told_one(&report, options), report.violation.is_none())
    };
    // A closed stdout is no reason to lose the verdict's exit code.
    let _ = out.write_all(text.as_bytes());
    is_green
}

fn play_many(options: Options, count: u64, args: &ModelArgs) -> Batch {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or_else(cores);
    let mut progress = Progress::begin("model", count, args.quiet);
    let batch = run_many(options, count, threads, &mut |done| {
        progress.at(done, || format!("{done} of {count} runs"));
    });
    progress.end(&format!("{} runs", grouped(batch.runs)));
    batch
}

fn told_many(batch: &Batch, options: Options) -> String {
    let mut text = format!(
        "{} runs, {} events, {} simulated minutes\n{}",
        grouped(batch.runs),
        grouped(batch.steps),
        grouped(minutes(batch.lasted)),
        told_figures(&batch.figures),
    );
    text.push_str(&verdict(batch.red.as_ref(), options));
    text
}

fn told_one(report: &Report, options: Options) -> String {
    let red = report.violation.is_some().then_some(report);
    format!(
        "seed {}: {} events, {} simulated seconds\n{}{}",
        report.seed,
        grouped(report.steps),
        report.lasted.seconds_ceil(),
        told_figures(&report.figures),
        verdict(red, options),
    )
}

fn told_figures(figures: &Figures) -> String {
    let rows = [
        ("checks allowed", figures.allowed),
        ("checks refused", figures.refused),
        ("checks unanswered", figures.unknown),
        ("events in the ledger", figures.events),
        ("faults", figures.faults),
        ("boots", figures.boots),
        ("declared dead", figures.buried),
        ("shards taken over", figures.takeovers),
        ("shards handed over", figures.hand_overs),
        ("writes fenced", figures.fenced),
    ];
    rows.iter().fold(String::new(), |mut text, (name, count)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<21} {:>12}", grouped(*count));
        text
    })
}

fn verdict(red: Option<&Report>, options: Options) -> String {
    let found = red.and_then(|report| report.violation.as_ref().map(|broken| (report, broken)));
    let Some((report, broken)) = found else {
        return "MODEL OK: every promise was kept\n".to_owned();
    };
    let breaks = options.breaks.and_then(|one| clap::ValueEnum::to_possible_value(&one));
    let drill = breaks.map(|one| format!(" --break {}", one.get_name())).unwrap_or_default();
    format!(
        "MODEL RED: {} broken in seed {} after {} µs: {}\nreplay: weir-sim model --seed {} \
         --steps {}{drill} --trace\n",
        broken.promise,
        report.seed,
        broken.at.get(),
        broken.detail,
        report.seed,
        options.steps,
    )
}

fn minutes(span: weir_core::units::Span) -> u64 {
    span.seconds_ceil() / 60
}
