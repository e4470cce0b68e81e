//! Nothing stays behind: processes and directories of a test process that ends, however it ends.
//!
//! Role: a small shell process watches a pipe from the test process. Nodes announce their process ids
//! on it. The pipe closes even when the test process is killed; the shell then ends the nodes that
//! still run and removes the directory that all temporary files of this process lie in.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use uuid::Uuid;

const SCRIPT: &str = r#"
pids=" "
while read -r order pid; do
    case $order in
    began) pids="$pids$pid " ;;
    ended) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -9 "$pid"; done
rm -rf "$1"
"#;

struct Watchdog {
    root: PathBuf,
    orders: Mutex<ChildStdin>,
    /// Kept, not waited for: it is to outlive this process.
    _process: Child,
}

static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();

fn watchdog() -> &'static Watchdog {
    WATCHDOG.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("weir-tests-{}", Uuid::now_v7().simple()));
        fs::create_dir(&root).expect("the directory for temporary files can be written");
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "weir-tests-watchdog"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Of a group of its own, so that Ctrl-C ends the tests and leaves it to clean up.
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        let orders = process.stdin.take().expect("it was asked for a pipe");
        Watchdog { root, orders: Mutex::new(orders), _process: process }
    })
}

fn tell(order: &str, pid: u32) {
    let mut orders = watchdog().orders.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(orders, "{order} {pid}").expect("the watchdog outlives the tests");
}

/// A process to end if this one cannot.
pub(crate) fn began(pid: u32) {
    tell("began", pid);
}

/// That process is gone; its number may belong to another soon.
pub(crate) fn ended(pid: u32) {
    tell("ended", pid);
}

/// A directory of one test, removed with this value.
#[derive(Debug)]
pub struct TestDirectory(PathBuf);

impl TestDirectory {
    /// A new, empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::new_without_default, reason = "a default that touches the disk surprises")]
    pub fn new() -> Self {
        let path = watchdog().root.join(Uuid::now_v7().simple().to_string());
        fs::create_dir(&path).expect("the test process's directory can be written");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        // The watchdog removes what could not be removed now.
        fs::remove_dir_all(&self.0).ok();
    }
}
