//! `weir-sim cluster` on the command line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::launch::secret;
use super::options::Options;
use super::run::{self, Up};
use super::schedule::Kind;
use crate::load::{self, Access, Rate, Scenario};
use crate::outbox::FlushOptions;
use crate::{Error, numbers, report, signals};

/// What is shown by `--help`.
pub const HELP: &str = "\
Examples:
  # three nodes until Ctrl-C, with demo keys and tokens (`make cluster` brings a Postgres for it)
  weir-sim cluster --nodes 3 --dev --database-url postgres://weir@127.0.0.1/weir

  # a minute of load while one node after another is killed with kill -9
  weir-sim cluster --nodes 3 --kill-every 5s --duration 60s --database-url …

  # rolling restart: no check may fail
  weir-sim cluster --nodes 3 --stop-every 5s --duration 60s --database-url …

  # zombies: a node sleeps past its lease and wakes up when others have its shards
  weir-sim cluster --nodes 3 --pause-every 10s --duration 60s --database-url …

One fault at a time: the next waits until every node is up and owns its share. Which node meets
which fault comes from --seed. Logs stay in a directory that is named at the start.
Exit codes: 0 the ledger adds up and every node did what it must, 1 not, 2 not run.";

/// Events that may wait in one worker before checks pause: about 20 MB.
const WAITING_EVENTS_MAX: usize = 200_000;
/// Arrivals that may wait for a connection: as many as an outage of ten seconds brings.
const BACKLOG_SECONDS: f64 = 10.0;

/// Arguments of the command.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_name = "N")]
    nodes: usize,
    /// The Postgres that they share
    #[arg(long, env = "WEIR_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// The `weir` program; default: the one beside this program
    #[arg(long, value_name = "FILE")]
    weir: Option<PathBuf>,
    /// Token of the administrator; default: a random one
    #[arg(long, env = "WEIR_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Port of the first node, the others follow; default: free ones
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Seed the demo plan, keys and tokens of `weir serve --dev`
    #[arg(long)]
    dev: bool,
    /// How long a node's lease lasts
    #[arg(long, default_value = "5s", value_parser = numbers::duration, value_name = "TIME")]
    lease: Duration,
    /// Kill a node with kill -9 so often
    #[arg(long, value_parser = numbers::duration, value_name = "TIME")]
    kill_every: Option<Duration>,
    /// End a node with SIGTERM so often
    #[arg(long, value_parser = numbers::duration, value_name = "TIME")]
    stop_every: Option<Duration>,
    /// Freeze a node past its lease so often
    #[arg(long, value_parser = numbers::duration, value_name = "TIME")]
    pause_every: Option<Duration>,
    /// Put the nodes under load for so long; default: none, and they run until Ctrl-C
    #[arg(long, value_parser = numbers::duration, value_name = "TIME")]
    duration: Option<Duration>,
    /// Kind of traffic
    #[arg(long, value_enum, default_value_t = Scenario::NearLimit)]
    scenario: Scenario,
    /// Subscriptions to make
    #[arg(long, default_value_t = 200, value_name = "N")]
    subscriptions: usize,
    /// Arrivals a second (open loop), or `max` (closed loop)
    #[arg(long, default_value = "300", value_name = "R|max")]
    rate: Rate,
    /// Hard limit of the small plans; default: half of what a subscription will ask for
    #[arg(long, value_name = "UNITS")]
    limit: Option<u64>,
    /// What traffic and faults are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections for checks, spread over the nodes
    #[arg(long, default_value_t = 48, value_name = "C")]
    connections: usize,
    /// A check fails after this long
    #[arg(long, default_value = "2s", value_parser = numbers::duration)]
    timeout: Duration,
    /// How long events are retried after the load, and how long the ledger may take to agree
    #[arg(long, default_value = "30s", value_parser = numbers::duration, value_name = "TIME")]
    settle: Duration,
    /// Write a self-contained HTML page
    #[arg(long, value_name = "FILE", requires = "duration")]
    report: Option<PathBuf>,
    /// Write all numbers as JSON
    #[arg(long, value_name = "FILE", requires = "duration")]
    json: Option<PathBuf>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

impl ClusterArgs {
    fn options(&self) -> Result<Options, Error> {
        let database_url = self.database_url.clone().ok_or_else(|| {
            Error::usage(
                "no database: nodes of a cluster share a Postgres; give --database-url, or run \
                 `make cluster`, which brings one",
            )
        })?;
        let weir = match &self.weir {
            Some(given) => given.clone(),
            None => beside_us()?,
        };
        let kinds = [
            (Kind::Kill, self.kill_every),
            (Kind::Stop, self.stop_every),
            (Kind::Pause, self.pause_every),
        ];
        let options = Options {
            nodes: self.nodes,
            database_url,
            weir,
            admin_token: self.admin_token.clone().unwrap_or_else(secret),
            http_port: self.http_port,
            dev: self.dev,
            lease: self.lease,
            intervals: kinds.into_iter().filter_map(|(kind, every)| Some((kind, every?))).collect(),
            seed: self.seed,
            quiet: self.quiet,
        };
        options.check()?;
        Ok(options)
    }

    fn load(&self, access: Access, duration: Duration) -> load::Options {
        let backlog = match self.rate {
            Rate::Max => 1,
            Rate::PerSecond(rate) => numbers::index(numbers::whole(rate * BACKLOG_SECONDS)).max(1),
        };
        load::Options {
            access,
            scenario: self.scenario,
            subscriptions: self.subscriptions,
            rate: self.rate,
            duration,
            seed: self.seed,
            connections: self.connections,
            // One at least to every node, or a load would say little about some of them.
            event_connections: self.nodes.max(2),
            workers: 1,
            backlog_max: backlog,
            request_timeout: self.timeout,
            events: true,
            flush: FlushOptions {
                batch_events_max: 1_000,
                interval: Duration::from_millis(200),
                waiting_events_max: WAITING_EVENTS_MAX,
                settle: self.settle,
            },
            baseline: Duration::ZERO,
            warm: true,
            limit: self.limit,
            tenant: "default".to_owned(),
            settle: self.settle,
            quiet: self.quiet,
        }
    }
}

/// Runs what was asked for; whether everything was as it must be.
pub fn play(args: &ClusterArgs) -> Result<bool, Error> {
    let options = args.options()?;
    let Some(duration) = args.duration else {
        let stop = signals::stop_on_signal("ending the nodes in order")?;
        let problems = run::idle(&options, &stop, |up| print(&welcome(up)))?;
        for problem in &problems {
            print(&format!("problem: {problem}\n"));
        }
        return Ok(problems.is_empty());
    };
    let stop = signals::stop_on_signal("ending the load; the ledger is still checked")?;
    let told = |up: &Up<'_>| {
        if !options.quiet {
            crate::progress::to_stderr(&welcome(up));
        }
    };
    let outcome = run::run(&options, &stop, told, |access| args.load(access, duration))?;
    // Told to end while the nodes still started: nothing was sent, so nothing is wrong.
    let Some(outcome) = outcome else { return Ok(true) };
    print(&report::cluster::table(&outcome));
    if let Some(path) = &args.json {
        report::json::write(path, &outcome)?;
    }
    if let Some(path) = &args.report {
        report::html::write(path, &report::cluster::page(&outcome))?;
    }
    Ok(outcome.passed)
}

/// What to look at and what to paste.
fn welcome(up: &Up<'_>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "A cluster of {} nodes:", up.nodes.len());
    for (name, endpoint, pid, log) in &up.nodes {
        let (at, log) = (endpoint.authority(), log.display());
        let _ = writeln!(out, "  {name:<8} http://{at}  process {pid:<8} log {log}");
    }
    let Some((_, first, pid, _)) = up.nodes.first() else { return out };
    let (first, token) = (first.authority(), &up.options.admin_token);
    if up.options.dev {
        let _ = writeln!(
            out,
            "Keys: demo-small (100 requests a month), demo-medium (10,000), demo-unlimited.\n\
             Tokens: dev-admin, dev-gateway, dev-dashboard. They are public.\n\n\
             # The same subscription through each node: one of them owns it, the others ask it"
        );
        for (_, endpoint, _, _) in &up.nodes {
            let at = endpoint.authority();
            let _ = writeln!(
                out,
                "curl -si http://{at}/api/v1/quota/check -H 'Authorization: Bearer dev-gateway' \
                 -H 'X-Subscription-Key: demo-small' | grep -iE 'x-weir|allowed'"
            );
        }
    }
    let _ = writeln!(
        out,
        "\n# Who owns how many shards\n\
         curl -s http://{first}/api/v1/cluster -H 'Authorization: Bearer {token}'"
    );
    // A password belongs on no screen.
    let url = match &up.options.database_url {
        url if url.split('@').next().is_some_and(|before| before.matches(':').count() < 2) => url,
        _ => "…",
    };
    let weir = up.options.weir.display();
    let _ = writeln!(out, "WEIR_DATABASE_URL={url} {weir} cluster status");
    if up.options.intervals.is_empty() {
        let _ = writeln!(out, "\n# Kill a node, and ask again\nkill -9 {pid}");
    }
    out
}

fn beside_us() -> Result<PathBuf, Error> {
    let here = std::env::current_exe()
        .map_err(|source| Error::Start { what: "anything without its own path", source })?;
    Ok(here.with_file_name("weir"))
}

/// A closed stdout is no reason to leave nodes behind.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
