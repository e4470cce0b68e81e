//! Ends the nodes when this process cannot: a panic runs destructors, `kill -9` does not.
//!
//! A small shell process watches a pipe from this process. It hears which processes began and ended;
//! the pipe closes however this process ends, and the shell then kills what still runs.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::Error;

const SCRIPT: &str = r#"
pids=" "
while read -r order pid; do
    case $order in
    began) pids="$pids$pid " ;;
    ended) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -s KILL "$pid"; done
"#;

/// The shell process. Dropped last, when every node has told its end.
#[derive(Debug)]
pub(super) struct Guard {
    /// None once closed, which is what the shell waits for.
    orders: Mutex<Option<ChildStdin>>,
    process: Child,
}

impl Guard {
    pub(super) fn start() -> Result<Self, Error> {
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "weir-sim-guard"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Of a group of its own: Ctrl-C is for us, and the nodes end in order.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { what: "a shell to guard the nodes", source })?;
        let orders = Mutex::new(process.stdin.take());
        Ok(Self { orders, process })
    }

    /// A process to end if we cannot.
    pub(super) fn began(&self, pid: u32) {
        self.tell("began", pid);
    }

    /// It is gone; its number may belong to another soon.
    pub(super) fn ended(&self, pid: u32) {
        self.tell("ended", pid);
    }

    fn tell(&self, order: &str, pid: u32) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = orders.as_mut() {
            // Somebody killed the shell: then only our destructors are left, which suffice unless
            // we are killed, too.
            let _ = writeln!(orders, "{order} {pid}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It has read the end of its orders and ends; a zombie of ours must not stay.
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn what_was_not_told_to_have_ended_is_killed() {
        let (mut left, mut ended) = (sleeper(), sleeper());
        let guard = Guard::start().unwrap();
        guard.began(left.id());
        guard.began(ended.id());
        guard.ended(ended.id());
        drop(guard);
        assert!(!left.wait().unwrap().success(), "it was killed");
        assert_eq!(ended.try_wait().unwrap(), None, "it was not ours any more");
        ended.kill().unwrap();
        ended.wait().unwrap();
    }
}
