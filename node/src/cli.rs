//! The command line: arguments to actions. Exit codes: 0 done, 1 failed, 64 wrong arguments or config.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use weir_config::Overrides;

/// Weir: distributed metering. Quotas, rate limits and usage, decided in time and counted exactly.
#[derive(Parser)]
#[command(name = "weir", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or Ctrl-C.
    Serve(Serve),
    /// Bring the database's tables up to date and exit.
    Migrate(Common),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The nodes that share the database.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Print period bounds, one `start end` a line.
    Period(Period),
}

/// Where settings come from; flags win over the environment, it over the file.
#[derive(Args, Clone, Default)]
pub struct Common {
    /// TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// `sqlite://PATH` or `postgres://…`.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// `weir serve`.
#[derive(Args)]
pub struct Serve {
    /// Settings.
    #[command(flatten)]
    pub common: Common,
    /// Seed a demo plan, subscriptions and tokens, and print curl lines. Loopback only.
    #[arg(long)]
    pub dev: bool,
    /// Where to serve HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// This node's name.
    #[arg(long, value_name = "ID")]
    pub node_id: Option<String>,
    /// Where peers connect.
    #[arg(long, value_name = "ADDR")]
    pub cluster_listen: Option<String>,
    /// What peers dial.
    #[arg(long, value_name = "ADDR")]
    pub cluster_advertise: Option<String>,
    /// `json` or `pretty`.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// `weir config`.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and print it, secrets hidden.
    Check(Common),
}

/// `weir cluster`.
#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Show nodes and who owns how many shards.
    Status(Common),
    /// Use a database that has lost commits as it is. Nodes that find less in it than they were told end, and
    /// none is let in until then. Events and changes that it lost are lost; their senders were told that
    /// they are safe.
    AcceptRestore(Common),
    /// Let a node give its shards to the others, and wait until it has. It serves on, as a way to
    /// the others, until it is stopped.
    Drain(Drain),
}

/// `weir cluster drain`.
#[derive(Args)]
pub struct Drain {
    /// Settings.
    #[command(flatten)]
    pub common: Common,
    /// The node's name.
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// `weir token`.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once.
    Create(TokenCreate),
}

/// `weir token create`.
#[derive(Args)]
pub struct TokenCreate {
    /// Settings.
    #[command(flatten)]
    pub common: Common,
    /// `admin`, `gateway` or `dashboard`.
    #[arg(long)]
    pub scope: String,
    /// What to call it.
    #[arg(long)]
    pub name: String,
    /// Limit it to a tenant.
    #[arg(long)]
    pub tenant: Option<String>,
}

/// `weir period`.
#[derive(Args)]
pub struct Period {
    /// `calendar` or a moment, RFC 3339.
    #[arg(long)]
    pub anchor: String,
    /// ISO 8601 duration.
    #[arg(long)]
    pub every: String,
    /// IANA name.
    #[arg(long, default_value = "UTC")]
    pub time_zone: String,
    /// How many periods; default 12, with `--at` 1.
    #[arg(long)]
    pub count: Option<u16>,
    /// The period that this moment lies in is the first; default now, or the anchor.
    #[arg(long)]
    pub at: Option<String>,
}

impl Serve {
    /// The flags that override a setting.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            http: self.http.clone(),
            node_id: self.node_id.clone(),
            cluster_listen: self.cluster_listen.clone(),
            cluster_advertise: self.cluster_advertise.clone(),
            log_format: self.log_format.clone(),
            ..self.common.overrides()
        }
    }
}

impl Common {
    /// The flags that override a setting.
    pub fn overrides(&self) -> Overrides {
        Overrides { database_url: self.database_url.clone(), ..Overrides::default() }
    }
}
