//! A Postgres server for tests: found or started, never skipped.
//!
//! [`Postgres::shared`] is the server that all tests of a process share, each with a database of
//! its own: the one at `DATABASE_URL` if that is set, otherwise one that is started from the
//! installed binaries in a temporary directory. [`Postgres::start_own`] starts one for a test that
//! pauses or stops it.
//!
//! A started server is kept by a small shell process (`keeper.sh`) that watches a pipe from the
//! test process. The pipe closes however the test process ends, kill -9 included; the keeper then
//! stops the server and removes its directory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Longest wait for a server to answer after its start. A loaded machine takes seconds; a minute
/// means that it never will.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Another process may take the port between our finding it free and the server's binding it.
const START_TRIES: usize = 5;

/// A running Postgres server.
#[derive(Debug)]
pub struct Postgres {
    /// URL of the server, up to and without the database's name.
    base: String,
    /// What follows the database's name in the URL, with its question mark.
    query: String,
    /// The database that exists in any case.
    first_database: String,
    keeper: Option<Mutex<Keeper>>,
}

/// A database made for one test, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Where the test connects.
    pub url: String,
    name: String,
    admin_url: String,
    /// Whether the server is somebody else's, so that the database must not stay behind.
    drop_after: bool,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, what is committed is flushed.
    Fast,
    /// As in a crash: recovery runs at the next start.
    Immediate,
}

/// A copy of a database, on the same server.
#[derive(Debug)]
pub struct BackUp(String);

/// The shell process that holds a server, and the pipe that it watches.
#[derive(Debug)]
struct Keeper {
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    process: Child,
}

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

impl Postgres {
    /// The server that the tests of this process share.
    ///
    /// # Panics
    /// When there is none and none can be started: the tests that need it have then failed.
    pub async fn shared() -> &'static Self {
        let started = SHARED.get_or_try_init(|| async {
            match std::env::var("DATABASE_URL") {
                Ok(url) => Self::given(&url),
                Err(_) => Self::start_own().await,
            }
        });
        started.await.unwrap_or_else(|error| panic!("no Postgres for the tests: {error:#}"))
    }

    /// A server of one's own, to pause and to stop.
    pub async fn start_own() -> Result<Self> {
        let mut last = None;
        for _ in 0..START_TRIES {
            match Self::start().await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no try was made")?)
    }

    /// A new, empty database.
    pub async fn fresh_database(&self) -> Result<TestDatabase> {
        let name = format!("weir_test_{}", Uuid::now_v7().simple());
        let admin_url = self.url_of(&self.first_database);
        admin(&admin_url, format!("CREATE DATABASE {name}")).await?;
        let drop_after = self.keeper.is_none();
        Ok(TestDatabase { url: self.url_of(&name), name, admin_url, drop_after })
    }

    /// Freezes every process of the server, as a stalled disk or machine does: sockets stay open
    /// and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.order("pause")
    }

    /// Undoes [`Postgres::pause`].
    pub fn resume(&self) -> Result<()> {
        self.order("resume")
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&self, how: Stop) -> Result<()> {
        self.order(match how {
            Stop::Fast => "stop",
            Stop::Immediate => "kill",
        })
    }

    /// Starts a stopped server and waits until it answers.
    pub async fn restart(&self) -> Result<()> {
        self.order("start")?;
        self.await_answer().await
    }

    fn given(url: &str) -> Result<Self> {
        let (place, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        let (base, database) = place.rsplit_once('/').context("DATABASE_URL names no database")?;
        ensure!(base.contains("//") && !database.is_empty(), "DATABASE_URL names no database");
        Ok(Self {
            base: base.to_owned(),
            query: query.to_owned(),
            first_database: database.to_owned(),
            keeper: None,
        })
    }

    async fn start() -> Result<Self> {
        let port = free_port()?;
        // initdb and the first start are work of seconds; the test's other tasks go on meanwhile.
        let keeper = tokio::task::spawn_blocking(move || Keeper::start(port)).await??;
        let server = Self {
            base: format!("postgres://weir@127.0.0.1:{port}"),
            query: String::new(),
            first_database: "postgres".to_owned(),
            keeper: Some(Mutex::new(keeper)),
        };
        server.order("start")?;
        server.await_answer().await?;
        Ok(server)
    }

    fn url_of(&self, database: &str) -> String {
        format!("{}/{database}{}", self.base, self.query)
    }

    fn order(&self, order: &str) -> Result<()> {
        let keeper = self.keeper.as_ref().context("this server is not ours to order about")?;
        keeper.lock().unwrap_or_else(PoisonError::into_inner).order(order)
    }

    async fn await_answer(&self) -> Result<()> {
        let url = self.url_of(&self.first_database);
        let started = Instant::now();
        loop {
            let tried = tokio::time::timeout(START_TIMEOUT, PgConnection::connect(&url)).await?;
            match tried {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if started.elapsed() > START_TIMEOUT => {
                    return Err(error).context("the server does not answer");
                }
                Err(_) => self.order("check").context("the server ended at its start")?,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl TestDatabase {
    /// Host and port of the server.
    pub fn address(&self) -> String {
        let (_, _, place) = self.parts();
        if place.contains(':') { place.to_owned() } else { format!("{place}:5432") }
    }

    /// The same database by way of another address, such as a proxy's.
    pub fn url_by(&self, address: std::net::SocketAddr) -> String {
        let (before, after, _) = self.parts();
        format!("{before}{address}{after}")
    }

    /// The URL before, after and at the server's place.
    fn parts(&self) -> (&str, &str, &str) {
        let scheme = self.url.find("//").map_or(0, |at| at + 2);
        let slash = self.url[scheme..].find('/').map_or(self.url.len(), |at| scheme + at);
        let begin = self.url[..slash].rfind('@').map_or(scheme, |at| at + 1);
        (&self.url[..begin], &self.url[slash..], &self.url[begin..slash])
    }

    /// Runs SQL in the database, as somebody may who is no node.
    pub async fn execute(&self, statements: &str) -> Result<()> {
        admin(&self.url, statements.to_owned()).await
    }

    /// The single number that a query finds.
    pub async fn number(&self, select: &str) -> Result<i64> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let number = sqlx::query_scalar(AssertSqlSafe(select.to_owned()));
        let number = number.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(number)
    }

    /// A copy of the database as it is now; for a moment nobody is let into it.
    pub async fn back_up(&self) -> Result<BackUp> {
        let copy = BackUp(format!("{}_copy", self.name));
        self.admin(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)).await?;
        self.terminate_sessions().await?;
        self.admin(format!("CREATE DATABASE {} TEMPLATE {}", copy.0, self.name)).await?;
        self.admin(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name)).await?;
        Ok(copy)
    }

    /// From now on whoever connects meets the copy.
    pub async fn restore(&self, copy: BackUp) -> Result<()> {
        let (name, copy) = (&self.name, copy.0);
        self.admin(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
        self.terminate_sessions().await?;
        self.admin(format!("ALTER DATABASE {name} RENAME TO {name}_lost")).await?;
        self.admin(format!("ALTER DATABASE {copy} RENAME TO {name}")).await
    }

    async fn admin(&self, statement: String) -> Result<()> {
        admin(&self.admin_url, statement).await
    }

    /// Keeps everybody from reading and writing these tables until what is returned is dropped.
    pub async fn hold_tables(&self, tables: &str) -> Result<HeldTables> {
        let mut connection = PgConnection::connect(&self.url).await.context("connect")?;
        let statement = format!("BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE");
        raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(HeldTables(connection))
    }

    /// Ends every session in the database from the server's side, as an administrator would.
    pub async fn terminate_sessions(&self) -> Result<()> {
        let statement = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        );
        admin(&self.admin_url, statement).await
    }
}

/// Tables that nobody else can touch. Its end closes the connection, which undoes it.
#[derive(Debug)]
pub struct HeldTables(#[expect(dead_code, reason = "held for its end")] PgConnection);

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if !self.drop_after {
            return;
        }
        let url = self.admin_url.clone();
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // The test's runtime may be ending; a thread of its own has a runtime of its own.
        let dropped = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(admin(&url, statement))
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("a test database stays behind: {error:#}"),
            Err(_) => eprintln!("a test database stays behind"),
        }
    }
}

impl Keeper {
    fn start(port: u16) -> Result<Self> {
        let binaries = binaries()?;
        let directory = std::env::temp_dir().join(format!("weir-pg-{}", Uuid::now_v7().simple()));
        fs::create_dir(&directory).context("make a directory for the server")?;
        let made = Self::start_in(&binaries, &directory, port);
        if made.is_err() {
            // The keeper, had it started, would do this.
            fs::remove_dir_all(&directory).ok();
        }
        made
    }

    fn start_in(binaries: &Path, directory: &Path, port: u16) -> Result<Self> {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let user = server_user()?;
        if let Some((uid, gid)) = user {
            chown(directory, Some(uid), Some(gid))?;
        }
        let as_user = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(directory).env("LC_ALL", "C");
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = as_user(&binaries.join("initdb"))
            .args(["--auth=trust", "--username=weir", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("-D")
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .output()
            .context("run initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut process = as_user(Path::new("/bin/sh"))
            .args(["-c", include_str!("keeper.sh"), "keeper"])
            .arg(binaries.join("postgres"))
            .arg(directory)
            .args(server_arguments(directory, port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal is for the tests; the keeper cleans up after them.
            .process_group(0)
            .spawn()
            .context("start the keeper")?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("the keeper's answers")?);
        Ok(Self { orders, answers, process })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the keeper is gone")?;
        writeln!(orders, "{order}").with_context(|| format!("order {order}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).with_context(|| format!("answer to {order}"))?;
        ensure!(answer.trim() == "done", "the keeper ended at {order}");
        Ok(())
    }
}

impl Drop for Keeper {
    /// Waits for the cleaning up, so that a test that ends leaves nothing.
    fn drop(&mut self) {
        drop(self.orders.take());
        self.process.wait().ok();
    }
}

/// Small and quick to start. A commit is answered when it is written, as in production; only the
/// wait for the disk is left out, because no test pulls the plug of the machine.
fn server_arguments(directory: &Path, port: u16) -> Vec<String> {
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", directory.display()),
        "max_connections=200".to_owned(),
        "shared_buffers=64MB".to_owned(),
        "synchronous_commit=on".to_owned(),
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
        "timezone=UTC".to_owned(),
    ];
    settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
}

/// The directory of `initdb` and `postgres`: on the PATH, or the newest where distributions put
/// them.
fn binaries() -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    on_path
        .chain(versions.into_iter().map(|(_, directory)| directory))
        .find(|directory| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file()))
        .context("neither DATABASE_URL nor the binaries of a Postgres server (initdb, postgres)")
}

/// Postgres refuses to run as root: then the first of these users that the machine has. `None` when
/// we are not root.
fn server_user() -> Result<Option<(u32, u32)>> {
    // Whoever owns our own entry in /proc is who we are.
    let ours = fs::metadata("/proc/self").context("who are we")?;
    if std::os::unix::fs::MetadataExt::uid(&ours) != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("read the users")?;
    for name in ["postgres", "nobody"] {
        let found = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name));
        if let Some([_, _, uid, gid, ..]) = found.as_deref() {
            return Ok(Some((uid.parse()?, gid.parse()?)));
        }
    }
    bail!("we are root, and there is no user that Postgres could run as")
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

async fn admin(url: &str, statement: String) -> Result<()> {
    let mut connection = PgConnection::connect(url).await.context("connect as administrator")?;
    // The names in it are ours.
    raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
