//! The programs under test: built once a test process, found beside the tests, run to their end.
//!
//! `WEIR_TEST_BINARIES` names a directory of programs to test instead, such as those of a release.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::watchdog;

/// Longest time for a program that is to end by itself.
const RUN_TIMEOUT: Duration = Duration::from_mins(3);

/// Programs that were built by this process.
static BUILT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The `weir` program.
pub fn weir() -> PathBuf {
    program("weir-node", "weir")
}

/// A program of this workspace, up to date.
///
/// # Panics
/// When it does not compile.
pub fn program(package: &'static str, name: &'static str) -> PathBuf {
    if let Some(given) = std::env::var_os("WEIR_TEST_BINARIES") {
        return Path::new(&given).join(name);
    }
    let this = std::env::current_exe().expect("a running program has a path");
    // target/PROFILE/deps/suite-HASH
    let profile = this.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let path = profile.join(name);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(name) {
        return path;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package, "--bin", name]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // What `cargo test` says of this package; a build script that looks at it would run anew, and
    // half of the dependencies be compiled anew, at every change between the two commands.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    match profile.file_name().and_then(|profile| profile.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    let output = command.output().expect("cargo can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not compile:\n{errors}");
    built.insert(name);
    path
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Finished {
    /// Asserts the exit code and returns what was printed.
    ///
    /// # Panics
    /// When the code is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a program to its end, without the `WEIR_` variables of this process.
///
/// # Panics
/// When it cannot be started or does not end.
pub async fn run(mut command: Command) -> Finished {
    isolate(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program can be started");
    let pid = child.id();
    watchdog::began(pid);
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(output) = tokio::time::timeout(RUN_TIMEOUT, waiting).await else {
        signal(pid, "KILL");
        panic!("{command:?} still runs after {RUN_TIMEOUT:?}");
    };
    let output: Output =
        output.expect("waiting does not panic").expect("a child can be waited for");
    watchdog::ended(pid);
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Hides the settings of whoever runs the tests; those of the command itself stay.
pub(crate) fn isolate(command: &mut Command) {
    let own: BTreeSet<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy().starts_with("WEIR_");
        if ours && !own.contains(&name) {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1");
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "process {pid} took no SIG{name}");
}
