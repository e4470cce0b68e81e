//! What was measured, and how it stands against the design.
//!
//! Role: [`GOALS`] is the part of the design's table (§8) that is measured here; every bench answers
//! with [`Row`]s that name a goal by its number. Nothing here measures, nothing here fails: a figure
//! that misses is a row that says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// One line of the design's table.
#[derive(Debug)]
pub struct Goal {
    /// Its number, as in `--only`.
    pub number: u8,
    /// What is measured.
    pub what: &'static str,
    /// What it must reach, in words.
    pub must: &'static str,
    /// What is aimed at, in words.
    pub aim: &'static str,
    /// The same as numbers: must, aim. The order of the two says which way is better.
    bounds: (f64, f64),
}

/// The goals, in the order of their numbers from 1.
pub const GOALS: [Goal; 13] = [
    goal(1, "HTTP check ÷ `/livez`, requests/s", ("≥ 70 %", "≥ 90 %"), (0.70, 0.90)),
    goal(2, "server CPU per HTTP check ÷ per `/livez`", ("≤ 1.5×", "≤ 1.15×"), (1.5, 1.15)),
    goal(3, "core `apply` for a check", ("≤ 250 ns", "≤ 100 ns"), (250.0, 100.0)),
    goal(4, "in-process check through the actor, p50", ("≤ 5 µs", "≤ 2 µs"), (5.0, 2.0)),
    goal(5, "events durable through HTTP ÷ bare client", ("≥ 35 %", "≥ 60 %"), (0.35, 0.60)),
    goal(6, "checkpoint, rows/s", ("≥ 50,000", "≥ 150,000"), (50_000.0, 150_000.0)),
    goal(
        7,
        "1,000 requests/s open loop",
        ("0 lost, queues flat, check p99 ≤ 10 ms", "p99 ≤ 2 ms"),
        (10.0, 2.0),
    ),
    goal(8, "memory per resident subscription", ("≤ 14 KB", "≤ 10 KB"), (14.0, 10.0)),
    goal(9, "activation from the store, a second", ("≥ 3,000", "≥ 10,000"), (3_000.0, 10_000.0)),
    goal(10, "check through a non-owner ÷ local, requests/s", ("≥ 50 %", "≥ 70 %"), (0.50, 0.70)),
    // The design names no aim here; this one is ours.
    goal(11, "check through a non-owner, p50", ("+ ≤ 150 µs", "+ ≤ 100 µs"), (150.0, 100.0)),
    goal(12, "owner killed -9: checks fail for, at most", ("≤ 7 s", "≤ 5 s"), (7.0, 5.0)),
    goal(
        13,
        "rolling restart under load",
        ("0 failed, 0 lost, check p99 ≤ 50 ms", "p99 ≤ 10 ms"),
        (50.0, 10.0),
    ),
];

const fn goal(
    number: u8,
    what: &'static str,
    (must, aim): (&'static str, &'static str),
    bounds: (f64, f64),
) -> Goal {
    Goal { number, what, must, aim, bounds }
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As good as aimed at.
    Ok,
    /// Good enough, not as good as aimed at.
    BelowAim,
    /// Not good enough.
    Miss,
    /// For orientation: the design says nothing of it.
    Shown,
    /// It could not be measured.
    Broken,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BelowAim => "below aim",
            Self::Miss => "MISS",
            Self::Shown => "for orientation",
            Self::Broken => "BROKEN",
        }
    }
}

/// One measured line.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Number of its goal.
    pub number: u8,
    /// What was measured.
    pub what: String,
    /// On which store, where that matters.
    pub store: &'static str,
    /// The figure, for people.
    pub measured: String,
    /// What it must reach.
    pub must: &'static str,
    /// What is aimed at.
    pub aim: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// How it was measured.
    pub how: String,
    /// The figures, for machines.
    pub values: BTreeMap<&'static str, f64>,
}

impl Goal {
    /// How `value` stands.
    pub fn judge(&self, value: f64) -> Verdict {
        let (must, aim) = self.bounds;
        // Turned round when less is better; a figure that is no number reaches nothing.
        let sign = if aim >= must { 1.0 } else { -1.0 };
        if sign * value >= sign * aim {
            Verdict::Ok
        } else if sign * value >= sign * must {
            Verdict::BelowAim
        } else {
            Verdict::Miss
        }
    }
}

impl Row {
    /// A figure that is held to goal `number`.
    pub fn judged(number: u8, store: &'static str, value: f64, measured: String) -> Self {
        let mut row = Self::shown(number, store, "", measured);
        row.verdict = goal_of(number).judge(value);
        row.values.insert("value", value);
        row
    }

    /// A figure beside goal `number`, for orientation.
    pub fn shown(number: u8, store: &'static str, what: &str, measured: String) -> Self {
        let goal = goal_of(number);
        let is_goal = what.is_empty();
        Self {
            number,
            what: if is_goal { goal.what } else { what }.to_owned(),
            store,
            measured,
            must: if is_goal { goal.must } else { "" },
            aim: if is_goal { goal.aim } else { "" },
            verdict: Verdict::Shown,
            how: String::new(),
            values: BTreeMap::new(),
        }
    }

    /// A goal whose bench failed.
    pub fn broken(number: u8, why: &anyhow::Error) -> Self {
        let mut row = Self::shown(number, "", "", format!("{why:#}").replace(['|', '\n'], " "));
        row.verdict = Verdict::Broken;
        row
    }

    /// Says how it was measured.
    #[must_use]
    pub fn how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }

    /// Adds a figure for machines.
    #[must_use]
    pub fn value(mut self, name: &'static str, value: f64) -> Self {
        self.values.insert(name, value);
        self
    }
}

fn goal_of(number: u8) -> &'static Goal {
    GOALS.iter().find(|goal| goal.number == number).unwrap_or(&GOALS[0])
}

/// The rows as a Markdown table, and below it how each was measured.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from("| # | what | store | measured | must | aim | verdict |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let Row { number, what, store, measured, must, aim, verdict, .. } = row;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {number} | {what} | {store} | {measured} | {must} | {aim} | {} |",
            verdict.as_str()
        );
    }
    text.push_str("\nHow:\n");
    for row in rows.iter().filter(|row| !row.how.is_empty()) {
        let store = if row.store.is_empty() { String::new() } else { format!(" ({})", row.store) };
        let _ = writeln!(text, "- {}{store}: {}", row.number, row.how);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_in_the_direction_of_its_goal() {
        for (number, value, verdict) in [
            (1, 0.90, Verdict::Ok),
            (1, 0.89, Verdict::BelowAim),
            (1, 0.69, Verdict::Miss),
            (2, 1.15, Verdict::Ok),
            (2, 1.2, Verdict::BelowAim),
            (2, 1.6, Verdict::Miss),
            (2, f64::NAN, Verdict::Miss),
            (1, f64::NAN, Verdict::Miss),
        ] {
            assert_eq!(goal_of(number).judge(value), verdict, "goal {number}: {value}");
        }
    }

    #[test]
    fn every_goal_has_the_number_of_its_place_and_an_aim_beyond_its_must() {
        for (place, goal) in (1..).zip(&GOALS) {
            assert_eq!(goal.number, place);
            assert_eq!(goal.judge(goal.bounds.1), Verdict::Ok, "{}", goal.what);
            assert_eq!(goal.judge(goal.bounds.0), Verdict::BelowAim, "{}", goal.what);
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_tells_how() {
        let row = Row::judged(9, "SQLite", 5_000.0, "5,000".to_owned()).how("counted");
        let text = markdown(&[row]);
        assert!(
            text.contains("| 9 | activation from the store, a second | SQLite | 5,000 |"),
            "{text}"
        );
        assert!(text.contains("- 9 (SQLite): counted"), "{text}");
    }
}
