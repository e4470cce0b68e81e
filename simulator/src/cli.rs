//! The command line: what can be asked for, and what the process's exit code says.
//!
//! Exit codes: 0 the ledger adds up, 1 it does not, 2 wrong usage or Weir cannot be reached.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{bearer, parse_targets};
use crate::cluster::command::{self as cluster, ClusterArgs};
use crate::load::{self, Access, Rate, Scenario};
use crate::log_format::Format;
use crate::log_format::generate::Generate;
use crate::model::command::{self as model, ModelArgs};
use crate::numbers::duration;
use crate::outbox::FlushOptions;
use crate::replay::{self, ExpectedTotal, Speed};
use crate::{Error, report, signals};

const LEDGER_FAILED: u8 = 1;
const NOT_RUN: u8 = 2;
/// Events that may wait in one worker before checks pause: about 20 MB.
const WAITING_EVENTS_MAX: usize = 200_000;

/// What the first Ctrl-C does.
const ENDING: &str = "ending the load; the ledger is still checked";

/// Plays a gateway against a running Weir, then audits the ledger it left behind.
#[derive(Debug, Parser)]
#[command(name = "weir-sim", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 the ledger adds up, 1 it does not (which subscription and \
by how much is printed), 2 wrong usage or Weir cannot be reached.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make traffic from a seed: check, then usage event; end with a ledger check
    #[command(after_help = LOAD_HELP)]
    Load(LoadArgs),
    /// Replay an access log: one subscription per client, check and event per line
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayArgs),
    /// Start nodes on this machine, make faults among them under load, judge the ledger
    #[command(after_help = cluster::HELP)]
    Cluster(Box<ClusterArgs>),
    /// Play a cluster in memory under faults, and judge every promise
    #[command(after_help = model::HELP)]
    Model(ModelArgs),
    /// Write a made-up access log in combined format to stdout
    GenerateLog(GenerateArgs),
}

const LOAD_HELP: &str = "\
Examples:
  # 1,000 requests a second for a minute, whatever the server does (open loop)
  weir-sim load --target http://127.0.0.1:8080 --token $T --scenario steady \\
      --subscriptions 10000 --rate 1000 --duration 60s --report out.html

  # as fast as it answers (closed loop), compared with /livez on the same connections
  weir-sim load --target http://127.0.0.1:8080 --token $T --scenario steady \\
      --subscriptions 10000 --rate max --duration 30s --warm

  # every subscription meets its hard limit; nobody may pass it
  weir-sim load --target http://n1:8080,http://n2:8080 --token $T --scenario near-limit \\
      --subscriptions 500 --rate max --duration 20s

The run makes its own plans and subscriptions (external ids begin with the run's name) and leaves
them there to look at. Exit codes: 0 the ledger adds up, 1 it does not, 2 not run.";

const REPLAY_HELP: &str = "\
Examples:
  weir-sim replay access.log --format combined --speed max --target http://127.0.0.1:8080 --token $T
  weir-sim replay access.json --format caddy --speed 100 --target http://127.0.0.1:8080 --token $T

Times are moved so that the last line is now; gaps stay as they were. A line that cannot be read is
reported with its number and counted. Event ids come from the file's content, the line's number and
the run's name: giving --run with the name of an earlier run counts nothing twice.
Exit codes: 0 file and ledger agree, 1 they do not, 2 not run.";

#[derive(Debug, Args)]
struct AccessArgs {
    /// Where Weir answers; several nodes separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL")]
    target: Vec<String>,
    /// Token for checks and events (scope gateway); an admin token does for all
    #[arg(long, env = "WEIR_GATEWAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Token for set-up and the ledger check (scope admin); default: --token
    #[arg(long, env = "WEIR_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Tenant that the subscriptions belong to
    #[arg(long, default_value = "default")]
    tenant: String,
}

impl AccessArgs {
    fn access(&self) -> Result<Access, Error> {
        let known = [&self.token, &self.admin_token];
        let gateway = known.into_iter().flatten().next();
        let admin = known.into_iter().rev().flatten().next();
        let (Some(gateway), Some(admin)) = (gateway, admin) else {
            return Err(Error::usage(
                "no token: give --token (and --admin-token or WEIR_ADMIN_TOKEN for set-up and ledger)",
            ));
        };
        Ok(Access {
            targets: parse_targets(&self.target)?,
            gateway: bearer(gateway)?,
            admin: bearer(admin)?,
        })
    }
}

#[derive(Debug, Args)]
struct SendArgs {
    /// What everything random is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections for checks
    #[arg(long, default_value_t = 64, value_name = "C")]
    connections: usize,
    /// Connections for events, beside those
    #[arg(long, default_value_t = 2, value_name = "C")]
    event_connections: usize,
    /// A check fails after this long
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Events wait at most this long for their batch
    #[arg(long, default_value = "200ms", value_parser = duration, value_name = "TIME")]
    flush: Duration,
    /// Events in a batch at most
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    flush_events: usize,
    /// How long events are retried after the load, and how long the ledger may take to agree
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    settle: Duration,
    /// Write a self-contained HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write all numbers as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

impl SendArgs {
    fn flush(&self) -> FlushOptions {
        FlushOptions {
            batch_events_max: self.flush_events,
            interval: self.flush,
            waiting_events_max: WAITING_EVENTS_MAX,
            settle: self.settle,
        }
    }
}

#[derive(Debug, Args)]
struct LoadArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// Kind of traffic
    #[arg(long, value_enum)]
    scenario: Scenario,
    /// Subscriptions to make
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    subscriptions: usize,
    /// Arrivals a second (open loop), or `max` (closed loop)
    #[arg(long, default_value = "max", value_name = "R|max")]
    rate: Rate,
    /// How long, such as 30s or 2m
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    duration: Duration,
    #[command(flatten)]
    send: SendArgs,
    /// Checks only: send no usage events
    #[arg(long)]
    no_events: bool,
    /// Hard limit of the small plans; default: half of what a subscription will ask for
    #[arg(long, value_name = "UNITS")]
    limit: Option<u64>,
    /// Measure /livez this long before the load; 0s skips it
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "TIME")]
    baseline: Duration,
    /// Touch every subscription once before measuring
    #[arg(long)]
    warm: bool,
    /// Arrivals that may wait for a free connection; more are counted as overflow
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    backlog: usize,
    /// Threads of this client; default: half of the cores, for the server needs the others
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The access log
    file: PathBuf,
    #[command(flatten)]
    access: AccessArgs,
    /// Format of the log
    #[arg(long, value_enum)]
    format: Format,
    /// Times faster than it happened, or `max`
    #[arg(long, default_value = "max", value_name = "N|max")]
    speed: Speed,
    /// Keep the log's times instead of moving the last line to now
    #[arg(long)]
    original_time: bool,
    /// Use this plan; default: an unlimited one made for the run
    #[arg(long, value_name = "ID")]
    plan_id: Option<String>,
    /// Take up an earlier run again, by its name
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Totals the file must have, such as lines=10000,parsed=9999,status.200=9125
    #[arg(long, value_delimiter = ',', value_name = "NAME=N,…")]
    expect_totals: Vec<ExpectedTotal>,
    #[command(flatten)]
    send: SendArgs,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// Lines to write
    #[arg(long, default_value_t = 10_000)]
    lines: u64,
    /// What they are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of the lines, this many are cut short
    #[arg(long, default_value_t = 0)]
    malformed: u64,
}

/// Runs one command and turns its outcome into the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Load(args) => run_load(args),
        Command::Replay(args) => run_replay(args),
        Command::Model(args) => Ok(model::play(&args, &mut std::io::stdout().lock())),
        Command::Cluster(args) => cluster::play(&args),
        Command::GenerateLog(args) => generate(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(LEDGER_FAILED),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "weir-sim: {}", error.chain());
            ExitCode::from(NOT_RUN)
        }
    }
}

fn run_load(args: LoadArgs) -> Result<bool, Error> {
    let options = load::Options {
        access: args.access.access()?,
        scenario: args.scenario,
        subscriptions: args.subscriptions,
        rate: args.rate,
        duration: args.duration,
        seed: args.send.seed,
        connections: args.send.connections,
        event_connections: args.send.event_connections,
        workers: args.threads.unwrap_or_else(half_of_the_cores),
        backlog_max: args.backlog,
        request_timeout: args.send.timeout,
        events: !args.no_events,
        flush: args.send.flush(),
        baseline: args.baseline,
        warm: args.warm,
        limit: args.limit,
        tenant: args.access.tenant,
        settle: args.send.settle,
        quiet: args.send.quiet,
    };
    let report = load::run(&options, &signals::stop_on_signal(ENDING)?)?;
    print(&report::table::load(&report));
    if let Some(path) = &args.send.json {
        report::json::write(path, &report)?;
    }
    if let Some(path) = &args.send.report {
        report::html::write(path, &report::html::load(&report))?;
    }
    Ok(report.ledger.passed)
}

fn run_replay(args: ReplayArgs) -> Result<bool, Error> {
    let options = replay::Options {
        access: args.access.access()?,
        file: args.file,
        format: args.format,
        speed: args.speed,
        original_time: args.original_time,
        plan_id: args.plan_id,
        run: args.run,
        seed: args.send.seed,
        connections: args.send.connections,
        event_connections: args.send.event_connections,
        request_timeout: args.send.timeout,
        flush: args.send.flush(),
        tenant: args.access.tenant,
        settle: args.send.settle,
        expected: args.expect_totals,
        quiet: args.send.quiet,
    };
    let report = replay::run(&options, &signals::stop_on_signal(ENDING)?)?;
    print(&report::table::replay(&report));
    if let Some(path) = &args.send.json {
        report::json::write(path, &report)?;
    }
    if let Some(path) = &args.send.report {
        report::html::write(path, &report::html::replay(&report))?;
    }
    Ok(report.ledger.passed)
}

fn generate(args: &GenerateArgs) -> Result<bool, Error> {
    let generate = Generate { lines: args.lines, seed: args.seed, malformed: args.malformed };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match generate.write_to(&mut out) {
        Ok(()) => Ok(true),
        // `generate-log | head` is no failure.
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(source) => Err(Error::File { action: "write", path: "standard output".into(), source }),
    }
}

fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// A closed stdout is no reason to lose the verdict's exit code.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
