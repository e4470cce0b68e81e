//! Row 3: one step of the state machine, nothing around it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use uuid::Uuid;
use weir_core::calendar::Zone;
use weir_core::meter::{Answer, Check, Command, Meter, Wants};
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, Span};
use weir_node::catalog::plan_document;

use super::{Bench, fixture};
use crate::figures::{Spread, length};
use crate::table::Row;

/// Meters in turn: 10,000 of them do not fit a core's cache, as in a node.
const METERS: usize = 10_000;
/// Time from one round to the next: ten checks a second for every meter.
const STEP: Span = Span::from_micros(100_000);
/// A moment in the middle of a month, so that no period ends on the way.
const START: Micros = Micros::from_seconds(1_795_000_000);

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = bench.count(500, 100);
    let spread = measure(METERS, rounds)?;
    let hot = measure(1, rounds * 1_000)?;
    let applies = rounds * METERS;
    Ok(vec![
        Row::judged(
            3,
            "",
            spread.median,
            format!("{:.0} ns (min {:.0})", spread.median, spread.min),
        )
        .how(format!(
            "{applies} checks in this process, {METERS} meters in turn, a hard quota and a token \
                 bucket; escrow extended between the timed rounds; median of {rounds} rounds; one \
                 meter alone, clock reads included: {:.0} ns",
            hot.median
        ))
        .value("one_meter_ns", hot.median),
    ])
}

/// Nanoseconds of one apply, a value for each round.
fn measure(meters: usize, rounds: usize) -> Result<Spread> {
    let plan = plan_document::parse(fixture::PLAN.as_bytes(), PlanId::from_uuid(Uuid::nil()), 1);
    let plan = Arc::new(plan.context("read the plan")?);
    let mut now = START;
    let mut all: Vec<Meter> = (0..meters)
        .map(|_| {
            // Each subscription has terms of its own; only the plan is shared.
            let terms = Arc::new(Terms::new(plan.clone(), &Zone::utc(), START, None, &[]));
            let mut meter = Meter::new(terms, now);
            meter.apply(now, Command::Check(&Check::default()));
            persist(&mut meter, now);
            meter
        })
        .collect();
    let check = Check::default();
    let mut per_apply = Vec::with_capacity(rounds);
    let mut waiting: Vec<usize> = Vec::with_capacity(meters);
    let mut undecided = 0;
    for _ in 0..rounds {
        now = now.plus(STEP);
        let begun = Instant::now();
        for (index, meter) in all.iter_mut().enumerate() {
            let outcome = meter.apply(now, Command::Check(black_box(&check)));
            undecided +=
                usize::from(!matches!(outcome.answer, Answer::Decided(ref d) if d.allowed));
            if outcome.wants == Wants::CheckpointNow {
                waiting.push(index);
            }
        }
        per_apply.push(begun.elapsed().as_secs_f64() * 1e9 / length(meters));
        for index in waiting.drain(..) {
            persist(&mut all[index], now);
        }
    }
    let checks = meters * rounds;
    ensure!(undecided * 100 < checks, "{undecided} of {checks} checks waited or were refused");
    Ok(Spread::of(&per_apply))
}

/// What a store that commits at once would do.
fn persist(meter: &mut Meter, now: Micros) {
    drop(meter.checkpoint(now, false));
    meter.apply(now, Command::Confirm);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_decides_nearly_every_check_itself() {
        let spread = measure(3, 50).expect("it measures");
        assert!(spread.min > 0.0);
    }
}
