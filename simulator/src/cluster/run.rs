//! A run from the first process to the last: with a load and its verdict, or until told to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::fleet::{Fleet, LOOK_EVERY};
use super::injector::{Deeds, Watch, inject};
use super::options::Options;
use super::outcome::ClusterReport;
use crate::client::{Endpoint, Healed, bearer};
use crate::load::{self, Access, Escort, Notes};
use crate::progress::to_stderr;
use crate::{Error, clock};

/// A node that ended is started again after this long: time to see its shards go to the others.
const REVIVE_AFTER: Duration = Duration::from_secs(10);

/// What is told once the nodes serve.
#[derive(Debug)]
pub struct Up<'a> {
    /// Name, address, process id and log of each node.
    pub nodes: Vec<(String, Endpoint, u32, std::path::PathBuf)>,
    /// The options of the run.
    pub options: &'a Options,
}

/// Starts the nodes, drives the load while faults happen, and ends the nodes. `loading` makes the
/// load's options for the nodes' addresses; none when stopped before there was anything to judge.
pub fn run(
    options: &Options,
    stop: &Arc<AtomicBool>,
    told: impl FnOnce(&Up<'_>),
    loading: impl FnOnce(Access) -> load::Options,
) -> Result<Option<ClusterReport>, Error> {
    let Some(mut fleet) = Fleet::start(options, stop)? else { return Ok(None) };
    told(&up(&fleet, options)?);
    let token = bearer(&options.admin_token)?;
    let targets = fleet.targets()?;
    let access = Access { targets, gateway: token.clone(), admin: token };
    let load_options = loading(access);
    let (began, when_began) = mpsc::sync_channel(1);
    let escort = Escort { began, healed: Healed::default(), notes: Notes::default() };
    let duration = load_options.duration;
    let (fleet, deeds, load) = std::thread::scope(|scope| {
        let (healed, notes) = (escort.healed.clone(), escort.notes.clone());
        let injecting = scope.spawn(move || {
            // A load that fails before it begins hangs up.
            let Ok(began) = when_began.recv() else { return (fleet, Deeds::default()) };
            let until = Some(began + duration);
            let watch = Watch { began, until, stop, healed: &healed, notes: &notes };
            let deeds = inject(&mut fleet, options, &watch);
            (fleet, deeds)
        });
        let notes = escort.notes.clone();
        let load = load::run_escorted(&load_options, stop, &escort);
        drop(escort);
        let (fleet, deeds) = injecting.join().map_err(|_| Error::Panicked("fault"))?;
        if !options.quiet {
            for line in notes.take() {
                to_stderr(&line);
            }
        }
        Ok::<_, Error>((fleet, deeds, load))
    })?;
    let Deeds { faults, mut problems } = deeds;
    problems.extend(fleet.end(options.quiet));
    Ok(Some(ClusterReport::of(options, faults, problems, load?)))
}

/// Starts the nodes and keeps them up, with faults if any are asked for, until stopped. What nodes
/// did wrong.
pub fn idle(
    options: &Options,
    stop: &Arc<AtomicBool>,
    told: impl FnOnce(&Up<'_>),
) -> Result<Vec<String>, Error> {
    let Some(mut fleet) = Fleet::start(options, stop)? else { return Ok(Vec::new()) };
    told(&up(&fleet, options)?);
    let notes = Notes::default();
    let mut problems = std::thread::scope(|scope| {
        // Hung up when this is over, however it ends.
        let (open, hung_up) = mpsc::sync_channel::<()>(0);
        let (notes, quiet) = (&notes, options.quiet);
        scope.spawn(move || {
            while hung_up.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                for line in notes.take().iter().filter(|_| !quiet) {
                    to_stderr(line);
                }
            }
        });
        let problems = keep_up(&mut fleet, options, stop, notes);
        drop(open);
        problems
    })?;
    problems.extend(fleet.end(options.quiet));
    Ok(problems)
}

fn keep_up(
    fleet: &mut Fleet,
    options: &Options,
    stop: &AtomicBool,
    notes: &Notes,
) -> Result<Vec<String>, Error> {
    if !options.intervals.is_empty() {
        let healed = Healed::default();
        let watch = Watch { began: clock::now(), until: None, stop, healed: &healed, notes };
        return Ok(inject(fleet, options, &watch).problems);
    }
    let mut down_since = vec![None; fleet.nodes.len()];
    while !stop.load(Ordering::Relaxed) {
        for (node, down) in fleet.nodes.iter_mut().zip(&mut down_since) {
            if let Some(status) = node.ended() {
                *down = Some(clock::now());
                notes.say(format!(
                    "{} ended ({status}): the others take over; it starts again in {} s",
                    node.name,
                    REVIVE_AFTER.as_secs()
                ));
            }
            if down.is_some_and(|since| clock::now() >= since + REVIVE_AFTER) {
                *down = None;
                node.spawn()?;
            }
            if node.cluster.is_none() && node.pid().is_some() {
                match node.is_listening() {
                    Ok(true) => notes.say(format!(
                        "{} is back, process {}",
                        node.name,
                        node.pid().unwrap_or_default()
                    )),
                    Ok(false) => {}
                    Err(error) => {
                        *down = Some(clock::now());
                        notes.say(error.chain());
                    }
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(Vec::new())
}

fn up<'a>(fleet: &Fleet, options: &'a Options) -> Result<Up<'a>, Error> {
    let endpoints = fleet.targets()?;
    let nodes = fleet.nodes.iter().zip(endpoints.iter()).map(|(node, endpoint)| {
        (node.name.clone(), endpoint.clone(), node.pid().unwrap_or_default(), node.log.clone())
    });
    Ok(Up { nodes: nodes.collect(), options })
}
