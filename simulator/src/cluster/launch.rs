//! How nodes are started: one program, one database, one secret, a directory for their logs.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use uuid::Uuid;

use super::guard::Guard;
use super::options::Options;
use crate::Error;

/// What all nodes of a run have in common.
#[derive(Debug)]
pub(super) struct Launch {
    options: Options,
    secret: String,
    /// Where logs go; stays behind, to look at.
    pub(super) directory: PathBuf,
    pub(super) guard: Guard,
}

impl Launch {
    pub(super) fn prepare(options: &Options) -> Result<Self, Error> {
        let name = format!("weir-cluster-{}", Uuid::now_v7().simple());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).map_err(|source| Error::File {
            action: "make",
            path: directory.clone(),
            source,
        })?;
        let (guard, secret) = (Guard::start()?, secret());
        Ok(Self { options: options.clone(), secret, directory, guard })
    }

    /// Where node number `place` is to serve, if that was asked for.
    pub(super) fn address(&self, place: u16) -> Option<SocketAddr> {
        let first = self.options.http_port?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, first + place)))
    }

    /// Starts the process of a node. The first time it takes a free port, later the same again, for
    /// that is where gateways know it.
    pub(super) fn spawn(
        &self,
        name: &str,
        http: Option<SocketAddr>,
        log: &Path,
    ) -> Result<Child, Error> {
        let options = &self.options;
        let failed = |what| move |source| Error::Start { what, source };
        let log = File::options().create(true).append(true).open(log);
        let log = log.map_err(failed("the log of a node"))?;
        let mut command = Command::new(&options.weir);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("WEIR_") {
                command.env_remove(variable);
            }
        }
        let http = http.map_or_else(|| "127.0.0.1:0".to_owned(), |http| http.to_string());
        command.args(["serve", "--http", &http, "--cluster-listen", "127.0.0.1:0"]);
        command.args(["--node-id", name]);
        if options.dev {
            command.arg("--dev");
        }
        let millis = |part: u32| format!("{}ms", (options.lease * part / 5).as_millis());
        let child = command
            // Secrets in the environment, for everybody may read a command line.
            .env("WEIR_DATABASE_URL", &options.database_url)
            .env("WEIR_CLUSTER_SECRET", &self.secret)
            .env("WEIR_ADMIN_TOKEN", &options.admin_token)
            .env("WEIR_CLUSTER__LEASE", millis(5))
            .env("WEIR_CLUSTER__LEASE_RENEW", millis(1))
            // With a renewal it must fit into the lease.
            .env("WEIR_STORE__QUERY_TIMEOUT", millis(2))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed("a node"))?;
        self.guard.began(child.id());
        Ok(child)
    }
}

/// A secret or token of 256 random bits that nobody has seen.
pub(super) fn secret() -> String {
    use rand::RngCore as _;
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
