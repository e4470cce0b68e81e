//! The `weir` program: arguments → configuration → logs → [`app`].

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;
use weir_config::{Config, LogFormat, Overrides};
use weir_core::calendar::{Anchor, Every, Preview, Zone};
use weir_node::app::operator;
use weir_node::catalog::hash_secret;
use weir_node::catalog::principal::{Scope, new_token};
use weir_node::cli::{
    Cli, ClusterCommand, Command, Common, ConfigCommand, Period, Serve, TokenCommand, TokenCreate,
};
use weir_node::clock::{Clock, rfc3339};
use weir_node::{app, dev};
use weir_store::rows::{AuditRow, TokenRow};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_USAGE` of sysexits.h: wrong arguments or configuration.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for_help = !error.use_stderr();
            // A closed stdout is no reason to fail.
            let _ = error.print();
            return if asked_for_help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // stderr may be gone; then there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(arguments) => {
            with_config(&arguments.common, arguments.overrides(), |config| {
                start_logs(&config);
                for warning in config.warnings() {
                    tracing::warn!("{warning}");
                }
                runtime()?.block_on(serve(config, &arguments))
            })
        }
        Command::Migrate(common) => with_config(&common, common.overrides(), |config| {
            start_logs(&config);
            runtime()?
                .block_on(app::open_store(&config))
                .context("the tables are not up to date")?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Config(ConfigCommand::Check(common)) => {
            with_config(&common, common.overrides(), |config| {
                print(&config.redacted_toml())?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Token(TokenCommand::Create(arguments)) => {
            with_config(&arguments.common, arguments.common.overrides(), |config| {
                runtime()?.block_on(create_token(&config, &arguments))
            })
        }
        Command::Cluster(ClusterCommand::Status(common)) => {
            with_config(&common, common.overrides(), |config| {
                print(&runtime()?.block_on(operator::status(&config))?)?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Cluster(ClusterCommand::AcceptRestore(common)) => {
            with_config(&common, common.overrides(), |config| {
                let accepted = runtime()?.block_on(operator::accept_restore(&config))?;
                print(if accepted {
                    "the database is used as it is; nodes may be started\n"
                } else {
                    "nothing to accept: no node has found that the database lost commits\n"
                })?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Cluster(ClusterCommand::Drain(arguments)) => {
            with_config(&arguments.common, arguments.common.overrides(), |config| {
                let draining = operator::drain(&config, &arguments.node, |left| {
                    let _ = writeln!(std::io::stderr(), "{left} shards left");
                });
                runtime()?.block_on(draining)?;
                print(&format!("{} owns no shards and can be stopped\n", arguments.node))?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Period(arguments) => print_periods(&arguments),
    }
}

fn with_config(
    common: &Common,
    overrides: Overrides,
    action: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match Config::load(common.config.as_deref(), std::env::vars_os(), overrides) {
        Ok(config) => action(config),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "weir: {error}");
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("the runtime could not be started")
}

fn start_logs(config: &Config) {
    // The filter was checked with the configuration; a directive that a newer library refuses must
    // not keep the node from serving.
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Pretty => builder.init(),
    }
}

async fn serve(config: Config, arguments: &Serve) -> anyhow::Result<ExitCode> {
    if arguments.dev && !config.http.ip().is_loopback() {
        let _ =
            writeln!(std::io::stderr(), "weir: --dev has public secrets and serves loopback only");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    if let weir_config::DatabaseUrl::Sqlite { path } = &config.database_url {
        app::make_parent(path).context("the database's directory could not be made")?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let running = app::start(&config).await.context("the node could not start")?;
    if arguments.dev {
        dev::seed(&running.api.store, running.api.clock.now()).await.context("seeding failed")?;
    }
    let cluster = running.cluster.map_or_else(|| "-".to_owned(), |address| address.to_string());
    print(&format!(
        "weir listening http={} cluster={cluster} node={}\n",
        running.address,
        config.node_id.as_str()
    ))?;
    if arguments.dev {
        let _ = writeln!(std::io::stderr(), "{}", dev::welcome(running.address));
    }
    let code = tokio::select! {
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        () = running.lost.cancelled() => ExitCode::FAILURE,
    };
    tracing::info!("ending in order");
    running.stop().await;
    Ok(code)
}

async fn create_token(config: &Config, arguments: &TokenCreate) -> anyhow::Result<ExitCode> {
    let Some(scope) = Scope::parse(&arguments.scope) else {
        let _ = writeln!(std::io::stderr(), "weir: --scope is admin, gateway or dashboard");
        return Ok(ExitCode::from(EXIT_USAGE));
    };
    let store = app::open_store(config).await.context(
        "the database cannot be used (while a node runs on SQLite, use POST /api/v1/tokens)",
    )?;
    let (token, id, now) = (new_token(scope), Uuid::now_v7(), Clock::start().now());
    let row = TokenRow {
        id,
        hash: hash_secret(&token),
        name: arguments.name.clone(),
        scope: scope.as_str().to_owned(),
        tenant: arguments.tenant.clone(),
        subscriptions: None,
        expires_at: None,
        created_at: now,
        revoked_at: None,
    };
    let audit = AuditRow {
        id: Uuid::now_v7(),
        at: now,
        actor: "command line".to_owned(),
        action: "token.create".to_owned(),
        target_kind: "token".to_owned(),
        target_id: id.to_string(),
        tenant: arguments.tenant.clone(),
        before: None,
        after: None,
        reason: None,
    };
    store.insert_token(&row, &audit).await.context("the token could not be stored")?;
    print(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn print_periods(arguments: &Period) -> anyhow::Result<ExitCode> {
    let parsed = (|| {
        let every = Every::parse(&arguments.every).context("--every")?;
        let anchor = Anchor::parse(&arguments.anchor).context("--anchor")?;
        let zone = Zone::parse(&arguments.time_zone).context("--time-zone")?;
        let at = arguments.at.as_deref().map(str::parse::<jiff::Timestamp>).transpose();
        anyhow::Ok((every, anchor, zone, at.context("--at")?))
    })();
    let (every, anchor, zone, at) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "weir: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let at = at.map(|at| weir_core::units::Micros::from_micros(at.as_microsecond()));
    let count = arguments.count.map(usize::from);
    let preview = Preview { every, anchor, zone, at, count };
    let periods = preview.periods(Clock::start().now());
    let mut text = String::new();
    for period in periods {
        text.extend([&rfc3339(period.start), " ", &rfc3339(period.end), "\n"]);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("stdout is closed")
}
