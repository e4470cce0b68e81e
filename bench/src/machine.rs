//! The machine that is measured on, and what a process on it uses (Linux's `/proc`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use uuid::Uuid;

/// Linux reports processor time in hundredths of a second, whatever its own timer (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// What a figure depends on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// Their name.
    pub processor: String,
    /// Kernel's version.
    pub kernel: String,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Processes that ran or wanted to, over the minute before the first bench.
    pub load_before: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next().and_then(|number| number.parse::<u64>().ok()));
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: memory_kib.unwrap_or_default().div_ceil(1024 * 1024),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Self { cores, processor, kernel, memory_gib, load_before } = self;
        format!(
            "{cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, load before {load_before}"
        )
    }
}

/// User and system time that a process has used so far.
pub fn processor_time(process: u32) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{process}/stat")).context("read /proc/PID/stat")?;
    ticks(&stat).map(|ticks| TICK * ticks).context("understand /proc/PID/stat")
}

/// The 14th and 15th field; the name before them may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Bytes of memory that a process has resident.
pub fn resident_bytes(process: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{process}/status")).context("read /proc/PID/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("understand /proc/PID/status")? * 1024)
}

/// A directory that is gone when the value is.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one where temporary files go.
    pub fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("weir-bench-{}", Uuid::now_v7().simple()));
        fs::create_dir(&path).context("make a directory for the bench")?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} stays behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_hostile_name() {
        let stat = "17 (a) R (b) S 1 17 17 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("17 (cut) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory_and_its_directory_goes_with_it() {
        assert!(resident_bytes(std::process::id()).expect("ours") > 0);
        let scratch = Scratch::make().expect("a directory");
        let path = scratch.path().to_owned();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
