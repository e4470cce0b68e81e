//! Where terms changed while a counter went on: what was counted under each of them.
//!
//! Role: a unit is priced by the terms that it was used under, also long after they went. Every change
//! that moves a price or the start of overage leaves a [`Cut`]; an event is counted before or after it
//! by its own time, so that neither a late report nor a crash moves a unit from one price to another.
//! Cuts outlive their period (with nothing counted), because events of it may still come. At most
//! [`CUTS_MAX`] are kept; beyond it the oldest joins the one after it.
//!
//! ```text
//!   used   0 ───── 90 │ ─────── 150 │ ────── 260          cut, cut, and what is counted now
//!          terms 1    until       until    terms in force
//! ```

use std::sync::Arc;

use super::OtherPeriod;
use crate::rating::overage_units_of;
use crate::units::{Micros, PlanId, Span, Units};

/// Changes of price remembered per counter. More: a plan that is changed all day grows what each of
/// its subscriptions holds in memory. Fewer: the earliest of that many changes in one period is priced
/// by the one after it.
pub const CUTS_MAX: usize = 16;
/// How long a cut with nothing counted is kept: events may be that late by default, and some days.
const KEPT: Span = Span::from_seconds(45 * 86_400);

/// Which price a unit has: a quota in a version of a plan, and where its overage starts (a limit of
/// the subscription's own may move that).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PricedBy {
    /// The plan; nil in what was persisted before this was kept, and then the one in force.
    pub plan: PlanId,
    /// Its version.
    pub version: u32,
    /// Name of the quota in it.
    pub quota: Arc<str>,
    /// Where overage starts; `None` = nowhere.
    pub overage_from: Option<Units>,
}

/// Terms that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// From here on they no longer held.
    pub until: Micros,
    /// What they were.
    pub by: PricedBy,
    /// What the running period's counter stood at when they went.
    pub used_at_end: Units,
}

/// A part of a period that was counted under the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The period, and the units of this part of it.
    pub other: OtherPeriod,
    /// When these terms went; [`Micros::MAX`] when they held to the period's end.
    pub until: Micros,
    /// What they were; `None` = those in force.
    pub by: Option<PricedBy>,
}

impl From<OtherPeriod> for Counted {
    fn from(other: OtherPeriod) -> Self {
        Self { other, until: Micros::MAX, by: None }
    }
}

/// The cuts of a counter, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts(Vec<Cut>);

impl Cuts {
    /// From what was persisted, in order of time.
    pub fn from_list(mut list: Vec<Cut>) -> Self {
        list.sort_by_key(|cut| cut.until);
        Self(list)
    }

    /// All of them.
    pub fn list(&self) -> &[Cut] {
        &self.0
    }

    /// Terms went at `until`, with so much counted under them and those before.
    pub(super) fn add(&mut self, until: Micros, by: PricedBy, used: Units) {
        let until = self.0.last().map_or(until, |last| last.until.max(until));
        self.0.push(Cut { until, by, used_at_end: used });
        if self.0.len() > CUTS_MAX {
            // Its units stay counted below the next cut, which now begins where this one did.
            self.0.remove(0);
        }
    }

    /// Units of an event at `at` in the running period.
    pub(super) fn count(&mut self, at: Micros, units: Units) {
        for cut in self.0.iter_mut().rev().take_while(|cut| cut.until > at) {
            cut.used_at_end = cut.used_at_end.saturating_add(units);
        }
    }

    /// The counter came down: the latest units are taken back first.
    pub(super) fn hold_at(&mut self, used: Units) {
        for cut in &mut self.0 {
            cut.used_at_end = cut.used_at_end.min(used);
        }
    }

    /// The period is over: its parts, in order. Nothing is counted under any cut from now on.
    pub(super) fn end(&mut self, period: OtherPeriod, now: Micros) -> Vec<Counted> {
        let parts = self.parts(period);
        for cut in &mut self.0 {
            cut.used_at_end = Units::ZERO;
        }
        self.0.retain(|cut| cut.until.plus(KEPT) > now);
        parts
    }

    fn parts(&self, period: OtherPeriod) -> Vec<Counted> {
        let mut parts: Vec<Counted> = Vec::new();
        let mut begins = 0;
        for cut in &self.0 {
            let units = cut.used_at_end.get().saturating_sub(begins);
            begins = begins.max(cut.used_at_end.get());
            if units > 0 || (cut.until > period.start && cut.until < period.end) {
                let other = OtherPeriod { units, ..period };
                let until = until_in(cut.until, period.end);
                parts.push(Counted { other, until, by: Some(cut.by.clone()) });
            }
        }
        let other = OtherPeriod { units: period.units.saturating_sub(begins), ..period };
        // When the last terms held tells what of their fee is due.
        if other.units > 0 || !parts.is_empty() {
            parts.push(other.into());
        }
        parts
    }

    /// The terms that an event of another period lies under, as a part of that period.
    pub fn part_at(&self, at: Micros, other: OtherPeriod) -> Counted {
        match self.0.iter().find(|cut| cut.until > at) {
            Some(cut) => {
                Counted { other, until: until_in(cut.until, other.end), by: Some(cut.by.clone()) }
            }
            None => other.into(),
        }
    }

    /// Units of the running period beyond what each of its terms includes; `now` is where overage
    /// starts by those in force.
    pub fn overage(&self, used: Units, now: Option<Units>) -> Units {
        let parts = self.0.iter().map(|cut| (cut.by.overage_from, cut.used_at_end));
        let parts: Vec<_> = parts.chain([(now, used)]).collect();
        overage_units_of(&parts)
            .iter()
            .fold(Units::ZERO, |sum, over| sum.saturating_add(Units::clamped(*over)))
    }
}

/// Terms that went after a period ended held to its end.
fn until_in(until: Micros, end: Micros) -> Micros {
    if until >= end { Micros::MAX } else { until }
}
