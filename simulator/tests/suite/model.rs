//! The cluster in memory: it keeps its promises, and each drill shows that the judge would notice.
//!
//! Counts are such that all of it takes less than half a minute on two busy cores.

use std::process::Command;

use weir_core::invariants::Invariant;
use weir_sim::model::{Batch, Break, Options, Promise, run, run_many, run_traced};

/// Events under faults: some twenty seconds, ten leases.
const STEPS: u64 = 4_000;
/// Runs without a drill.
const RUNS: u64 = 3_000;
/// Runs within which each drill must be noticed; the rarest is noticed in one of two hundred.
const DRILL_RUNS: u64 = 1_000;

fn play(breaks: Option<Break>, steps: u64, count: u64) -> Batch {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    run_many(Options { seed: 1, steps, breaks }, count, threads, &mut |_| {})
}

#[test]
fn thousands_of_seeds_keep_every_promise() {
    let batch = play(None, STEPS, RUNS);
    assert_eq!(batch.red, None, "replay it with `weir-sim model --steps 4000 --trace --seed …`");
    assert_eq!(batch.runs, RUNS);
    // What never happens proves nothing.
    let figures = batch.figures;
    let happened = [
        figures.allowed,
        figures.refused,
        figures.unknown,
        figures.events,
        figures.takeovers,
        figures.hand_overs,
        figures.fenced,
        figures.buried,
    ];
    assert!(happened.iter().all(|&count| count >= RUNS / 3), "{figures:?}");
    assert!(figures.faults > RUNS, "{figures:?}");
}

#[track_caller]
fn check_drill(breaks: Break, steps: u64, promise: Promise) {
    let batch = play(Some(breaks), steps, DRILL_RUNS);
    let broken = batch.red.as_ref().and_then(|red| red.violation.as_ref());
    let is_expected = broken.is_some_and(|broken| broken.promise == promise);
    assert!(is_expected, "{breaks:?} was noticed as {broken:?} in {} runs", batch.runs);
}

#[test]
fn a_store_without_its_fence_is_noticed() {
    check_drill(Break::Fence, STEPS, Promise::Invariant(Invariant::OneWriter));
}

#[test]
fn an_owner_that_does_not_raise_its_epoch_is_noticed() {
    check_drill(Break::SelfBump, STEPS, Promise::Consent);
}

#[test]
fn a_successor_that_withholds_nothing_is_noticed() {
    check_drill(Break::Escrow, STEPS, Promise::Invariant(Invariant::NeverOver));
}

#[test]
fn a_ledger_that_takes_an_event_twice_is_noticed() {
    check_drill(Break::Dedupe, STEPS, Promise::Invariant(Invariant::LostNothing));
}

#[test]
fn a_zombie_that_never_stops_deciding_is_noticed() {
    check_drill(Break::Zombie, 5 * STEPS, Promise::Invariant(Invariant::NeverOver));
}

#[test]
fn a_seed_is_the_same_run_every_time_and_another_seed_is_another() {
    let options = Options { seed: 7, steps: 3_000, breaks: None };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let report = run_traced(options, &mut first);
    assert_eq!(run_traced(options, &mut second), report);
    assert!(first == second, "two traces of one seed differ");
    assert_eq!(run(options), report, "reading along changes nothing");
    assert!(report.steps > options.steps, "the recovery is played too");
    assert_ne!(run(Options { seed: 8, ..options }).figures, report.figures);
}

fn weir_sim(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-sim")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_red_seed_exits_1_and_says_how_to_replay_it() {
    let many = ["model", "--seeds", "50", "--steps", "4000", "--break", "dedupe", "--quiet"];
    let (code, said) = weir_sim(&many);
    assert_eq!(code, Some(1), "{said}");
    let replay = said.lines().find_map(|line| line.strip_prefix("replay: weir-sim "));
    let replay: Vec<&str> = replay.unwrap_or_default().split(' ').collect();
    let (code, replayed) = weir_sim(&replay);
    assert_eq!(code, Some(1), "{replayed}");
    let verdict = |text: &str| {
        text.lines().find(|line| line.starts_with("MODEL RED: ")).map(ToOwned::to_owned)
    };
    assert!(verdict(&said).is_some_and(|verdict| verdict.contains("INV-1")), "{said}");
    assert_eq!(verdict(&replayed), verdict(&said));
    assert!(replayed.lines().count() > 100, "a trace comes before the verdict");
}

#[test]
fn a_green_run_exits_0() {
    let (code, said) = weir_sim(&["model", "--seed", "7", "--steps", "2000"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("MODEL OK: every promise was kept\n"), "{said}");
    let (code, _) = weir_sim(&["model", "--steps", "0"]);
    assert_eq!(code, Some(2), "no steps are no run");
}
