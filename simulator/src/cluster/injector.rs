//! Makes the faults, one at a time, and measures how long the cluster needs to be whole again.
//!
//! ```text
//!            kill ──────────────┐ (at once, or when the others have its shards)
//! whole ───► SIGTERM ─► exit 0 ─┼─► start again ─► up, owns shards ─► whole
//!            SIGSTOP ─► SIGCONT ┘ (it must end by itself)
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fleet::{Fleet, LOOK_EVERY, WHOLE_MAX, end_in_order};
use super::options::Options;
use super::outcome::FaultReport;
use super::schedule::{Fault, Kind, Restart, Schedule};
use crate::Error;
use crate::client::Healed;
use crate::clock;
use crate::load::Notes;
use crate::numbers::{float, millis};

/// A zombie notices at its first own step that its lease is over.
const ZOMBIE_MAX: Duration = Duration::from_secs(10);
/// Another process may have a node's port when it comes back; then it is asked again.
const START_TRIES: u32 = 5;

/// Until when, and for whom.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    /// The load's start, from which times are counted.
    pub(super) began: Instant,
    /// No fault begins after this; none: until stopped.
    pub(super) until: Option<Instant>,
    /// Set by Ctrl-C, or when the load is over.
    pub(super) stop: &'a AtomicBool,
    /// Sends connections home.
    pub(super) healed: &'a Healed,
    /// What people see of it.
    pub(super) notes: &'a Notes,
}

/// What was done, and what nodes did wrong.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) faults: Vec<FaultReport>,
    pub(super) problems: Vec<String>,
}

/// Makes the faults of the schedule until it is over, then leaves the cluster whole.
pub(super) fn inject(fleet: &mut Fleet, options: &Options, watch: &Watch<'_>) -> Deeds {
    let mut injector = Injector { fleet, options, watch, deeds: Deeds::default() };
    for fault in Schedule::new(options.seed, options.nodes, &options.intervals) {
        if !injector.wait_until(watch.began + fault.due) {
            break;
        }
        match injector.play(fault) {
            Ok(report) => {
                let is_whole = report.whole_after_millis.is_some();
                injector.deeds.faults.push(report);
                if !is_whole {
                    break;
                }
            }
            Err(error) => {
                injector.deeds.problems.push(error.chain());
                break;
            }
        }
        watch.healed.announce();
    }
    injector.deeds
}

struct Injector<'a> {
    fleet: &'a mut Fleet,
    options: &'a Options,
    watch: &'a Watch<'a>,
    deeds: Deeds,
}

impl Injector<'_> {
    /// False when it is over before that time.
    fn wait_until(&mut self, due: Instant) -> bool {
        loop {
            let now = clock::now();
            let is_over = self.watch.until.is_some_and(|until| now >= until || due >= until);
            if is_over || self.watch.stop.load(Ordering::Relaxed) {
                return false;
            }
            if now >= due {
                return true;
            }
            self.notice_ends(None);
            std::thread::sleep(LOOK_EVERY.min(due - now));
        }
    }

    fn play(&mut self, fault: Fault) -> Result<FaultReport, Error> {
        let former = self.fleet.nodes[fault.node].cluster.clone().unwrap_or_default();
        let at = clock::now();
        let mut report = FaultReport {
            at_millis: millis(at.saturating_duration_since(self.watch.began)),
            kind: fault.kind,
            node: self.fleet.nodes[fault.node].name.clone(),
            restart: fault.restart,
            taken_over_after_millis: None,
            whole_after_millis: None,
            failing_for_millis: 0,
            failed_checks: 0,
        };
        let said = match (fault.kind, fault.restart) {
            (Kind::Kill, Restart::AtOnce) => "kill -9, started again at once",
            (Kind::Kill, Restart::AfterTakeover) => "kill -9, started again after the fail-over",
            (Kind::Stop, _) => "SIGTERM",
            (Kind::Pause, _) => "SIGSTOP for longer than its lease",
        };
        self.say(report.at_millis, &format!("{}: {said}", report.node));
        match fault.kind {
            Kind::Kill => {
                self.fleet.nodes[fault.node].kill();
            }
            Kind::Stop => {
                let problem = end_in_order(&mut self.fleet.nodes[fault.node]);
                self.deeds.problems.extend(problem);
            }
            Kind::Pause => self.sleep_and_wake(fault.node, &former, at, &mut report)?,
        }
        self.recover(fault, &former, at, &mut report)?;
        Ok(report)
    }

    /// A node that sleeps past its lease, and wakes up when others have its shards.
    fn sleep_and_wake(
        &mut self,
        place: usize,
        former: &str,
        at: Instant,
        report: &mut FaultReport,
    ) -> Result<(), Error> {
        self.fleet.nodes[place].signal("STOP")?;
        let address = self.fleet.nodes[place].cluster.take();
        while clock::now() < at + self.options.pause() {
            self.look_for_takeover(former, at, report);
            self.notice_ends(Some(place));
            std::thread::sleep(LOOK_EVERY);
        }
        let node = &mut self.fleet.nodes[place];
        node.cluster = address;
        node.signal("CONT")?;
        match node.wait(ZOMBIE_MAX) {
            // Success would mean that somebody told it to end.
            Some(status) if !status.success() => {}
            Some(status) => {
                let problem = format!("{} lost its lease and ended with {status}", node.name);
                self.deeds.problems.push(problem);
            }
            None => {
                node.kill();
                let problem = format!("{} lost its lease, served on and was killed", node.name);
                self.deeds.problems.push(problem);
            }
        }
        Ok(())
    }

    /// Starts the node again and waits until the cluster is whole.
    fn recover(
        &mut self,
        fault: Fault,
        former: &str,
        at: Instant,
        report: &mut FaultReport,
    ) -> Result<(), Error> {
        let give_up_at = clock::now() + WHOLE_MAX;
        let mut tries = 0;
        loop {
            self.look_for_takeover(former, at, report);
            self.notice_ends(Some(fault.node));
            let node = &mut self.fleet.nodes[fault.node];
            if node.pid().is_none() {
                let may_start =
                    fault.restart == Restart::AtOnce || report.taken_over_after_millis.is_some();
                if may_start {
                    tries += 1;
                    node.spawn()?;
                }
            } else {
                match node.is_listening() {
                    Ok(true) if self.fleet.is_whole() => break,
                    Err(error) if tries >= START_TRIES => return Err(error),
                    // Not yet; or it has ended, and the next round starts it again.
                    Ok(_) | Err(_) => {}
                }
            }
            if clock::now() >= give_up_at {
                let seconds = WHOLE_MAX.as_secs();
                let name = &report.node;
                let problem = format!("not whole {seconds} s after the fault at {name}");
                self.deeds.problems.push(problem);
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.look_for_takeover(former, at, report);
        let whole = millis(clock::now() - at);
        report.whole_after_millis = Some(whole);
        let now = report.at_millis + whole;
        self.say(now, &format!("{}: whole after {:.1} s", report.node, float(whole) / 1_000.0));
        Ok(())
    }

    fn look_for_takeover(&self, former: &str, at: Instant, report: &mut FaultReport) {
        if report.taken_over_after_millis.is_none()
            && self.fleet.state().is_some_and(|state| state.is_taken_over(former))
        {
            report.taken_over_after_millis = Some(millis(clock::now() - at));
        }
    }

    /// Nodes that end without our doing are told and started again.
    fn notice_ends(&mut self, ours: Option<usize>) {
        for (place, node) in self.fleet.nodes.iter_mut().enumerate() {
            if ours == Some(place) {
                continue;
            }
            let name = node.name.clone();
            if let Some(status) = node.ended() {
                let log = node.log.display();
                self.deeds.problems.push(format!("{name} ended by itself, {status}: see {log}"));
            }
            let revived = match node.pid() {
                None => node.spawn(),
                Some(_) => node.is_listening().map(drop),
            };
            if let Err(error) = revived {
                self.deeds.problems.push(error.chain());
            }
        }
    }

    fn say(&self, at_millis: u64, what: &str) {
        let seconds = float(at_millis) / 1_000.0;
        self.watch.notes.say(format!("{:<9} {seconds:>5.1} s  {what}", "fault"));
    }
}
