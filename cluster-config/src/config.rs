//! What one node is told: every setting, read once into types and checked against the others.
//!
//! Role: `main` gathers the sources, calls [`Config::load`] and hands parts of the result to
//! the rooms that need them; nobody reads the environment or the file again. Invariants: a
//! [`Config`] that exists is valid as a whole; no secret is printed by `Debug` or by
//! [`Config::redacted_toml`]; each setting's key, default and range stand in one line below.
//!
//! Names: the key `store.pool_size` is `[store] pool_size = …` in the file and
//! `WEIR_STORE__POOL_SIZE` in the environment. Flags exist for some keys without a section
//! (`--node-id` is `node_id` is `WEIR_NODE_ID`). A secret `x` may stand in a file named by
//! `x_file`. Every other `WEIR_…` variable is an error (there is no `WEIR_LOG`: the filter is
//! `WEIR_LOG_FILTER`), but for those that Kubernetes adds by itself for a service called `weir…`.
//! A value that is set but empty is an error as well: leave it out to have the default.

use std::ffi::OsStr;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::delivery::{Delivery, Smtp};
use crate::error::{ConfigError, Problem};
use crate::layers::Layers;
use crate::limits;
use crate::reader::{ReadText, Reader, Shown, ShownText, plain_secret};
use crate::secret::Secret;
use crate::sections::{Actors, Billing, Checkpoint, Cluster, Ingest, Recorder, Server, Store};
use crate::value::{DatabaseUrl, HostPort, LogFormat, NodeId, listen_address};

const DATABASE_URL_DEFAULT: &str = "sqlite://weir.db";

/// Everything one node is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served; port 0 takes a free one.
    pub http: SocketAddr,
    /// The ledger.
    pub database_url: DatabaseUrl,
    /// This node's name, its own within the cluster.
    pub node_id: NodeId,
    /// Where peers would be listened to. Read but not used yet, like the next two: see
    /// [`Config::warnings`].
    pub cluster_listen: Option<SocketAddr>,
    /// What peers would dial.
    pub cluster_advertise: Option<HostPort>,
    /// What peers would prove to each other that they know.
    pub cluster_secret: Option<Secret>,
    /// The bootstrap admin token.
    pub admin_token: Option<Secret>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written, as `tracing`'s filter directives.
    pub log_filter: String,
    /// The HTTP edge.
    pub server: Server,
    /// What is accepted as an event.
    pub ingest: Ingest,
    /// The database connections.
    pub store: Store,
    /// Group commit of events.
    pub recorder: Recorder,
    /// Checkpoints of counters.
    pub checkpoint: Checkpoint,
    /// Subscriptions in memory.
    pub actors: Actors,
    /// Periods and charges.
    pub billing: Billing,
    /// Shards and the lease of the node that serves them.
    pub cluster: Cluster,
    /// Messages on their way out.
    pub delivery: Delivery,
    /// The server that sends mail.
    pub smtp: Smtp,
    pub(crate) shown: Vec<Shown>,
}

/// The flags of the command line that override a setting; `main` fills them from its parser.
/// No `Debug`: a database URL may carry a password.
#[derive(Clone, Default)]
#[expect(missing_docs, reason = "each field is the flag of its name")]
pub struct Overrides {
    pub http: Option<String>,
    pub database_url: Option<String>,
    pub node_id: Option<String>,
    pub cluster_listen: Option<String>,
    pub cluster_advertise: Option<String>,
    pub log_format: Option<String>,
    pub log_filter: Option<String>,
}

impl Overrides {
    fn into_pairs(self) -> impl Iterator<Item = (&'static str, String)> {
        let pairs = [
            ("http", self.http),
            ("database_url", self.database_url),
            ("node_id", self.node_id),
            ("cluster_listen", self.cluster_listen),
            ("cluster_advertise", self.cluster_advertise),
            ("log_format", self.log_format),
            ("log_filter", self.log_filter),
        ];
        pairs.into_iter().filter_map(|(key, text)| text.map(|text| (key, text)))
    }
}

/// All that a configuration is made of, already read. No `Debug`: it holds secrets.
pub struct Sources<'a, E> {
    /// The config file's name and text.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment, as from `std::env::vars_os`.
    pub environment: E,
    /// The flags.
    pub overrides: Overrides,
}

/// Reads a config file or a secret's file, if it is of sensible size.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let bytes_max = limits::CONFIG_FILE_BYTES_MAX as u64;
    let mut text = String::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}

impl Config {
    /// Reads the file and the files of secrets, and resolves.
    pub fn load<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (K, V)>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::resolve(Sources { file: None, environment, overrides }, &read_text);
        };
        let name = path.display().to_string();
        match read_text(path) {
            Ok(text) => {
                let file = Some((name.as_str(), text.as_str()));
                Self::resolve(Sources { file, environment, overrides }, &read_text)
            }
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                Err(ConfigError::from(Problem::BadFile { name, line: None, reason }))
            }
        }
    }

    /// Lays the sources over each other (defaults < file < environment < flags), reads every
    /// setting and checks them against each other. Files of secrets are read by `read_text`.
    pub fn resolve<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        sources: Sources<'_, impl IntoIterator<Item = (K, V)>>,
        read_text: ReadText<'_>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        if let Some((name, text)) = sources.file {
            layers.add_file(name, text);
        }
        for (name, value) in sources.environment {
            layers.add_environment(name.as_ref(), value.as_ref());
        }
        for (key, text) in sources.overrides.into_pairs() {
            layers.add_flag(key, &text);
        }
        let mut reader = Reader::new(layers, read_text);
        let mut config = Self::read(&mut reader);
        // Defaults stand in for bad values; comparing those would only add noise.
        if reader.is_faultless() {
            config.cross_check(&mut reader);
        }
        let (problems, shown) = reader.finish();
        ConfigError::unless_empty(problems)?;
        config.shown = shown;
        Ok(config)
    }

    fn read(r: &mut Reader<'_>) -> Self {
        let address = "an address such as `127.0.0.1:8080` or `[::1]:8080`";
        let database = "`sqlite://PATH` (no options) or `postgres://…`";
        let show_database = |url: Option<&DatabaseUrl>| match url {
            None => ShownText::Scalar(DATABASE_URL_DEFAULT.to_owned()),
            Some(url) if url.is_shared() => ShownText::Hidden(url.to_string()),
            Some(url) => ShownText::Scalar(url.to_string()),
        };
        let database_url = r
            .secret("database_url", database, DatabaseUrl::parse, show_database)
            .or_else(|| DatabaseUrl::parse(DATABASE_URL_DEFAULT))
            .expect("the default is a database URL");
        let filter = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
        Self {
            http: r.setting("http", "127.0.0.1:8080", address, listen_address),
            database_url,
            node_id: r.setting(
                "node_id",
                "node-1",
                "1 to 63 letters, digits, `.`, `_` or `-`, a letter or digit at both ends",
                NodeId::new,
            ),
            cluster_listen: r.optional("cluster_listen", address, listen_address),
            cluster_advertise: r.optional(
                "cluster_advertise",
                "a host and port that peers can dial, such as `weir-0.weir:7400`",
                HostPort::parse,
            ),
            cluster_secret: plain_secret(r, "cluster_secret"),
            admin_token: plain_secret(r, "admin_token"),
            log_format: r.setting("log_format", "pretty", "`json` or `pretty`", LogFormat::parse),
            log_filter: r.setting(
                "log_filter",
                // ractor opens a span for every actor at `info`.
                "info,ractor=warn",
                "a filter such as `info,sqlx=warn`",
                filter,
            ),
            server: Server::read(r),
            ingest: Ingest::read(r),
            store: Store::read(r),
            recorder: Recorder::read(r),
            checkpoint: Checkpoint::read(r),
            actors: Actors::read(r),
            billing: Billing::read(r),
            cluster: Cluster::read(r),
            delivery: Delivery::read(r),
            smtp: Smtp::read(r),
            shown: Vec::new(),
        }
    }
}
