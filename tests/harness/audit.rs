//! What a load saw, held against the ledger and the counters.
//!
//! With *S* the events answered 200 and *U* the ones without an answer: everything in *S* is in the
//! ledger, each id once, nothing is there that is in neither, and what every node says was used is the
//! number of rows. On a hard plan no more passed than its limit: every plan of a load keeps its holds for
//! longer than the load, so none comes back.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;

use crate::cluster::Cluster;
use crate::load::{FAILURES_TOLD, Fate, Metered};

/// Checks at once when what is left of a limit is taken.
const TAKEN_AT_ONCE: u64 = 16;

/// What a load saw, or several of them.
#[derive(Debug, Default)]
pub struct History {
    /// What happened to each subscription.
    pub subscriptions: Vec<(Metered, Fate)>,
    /// The first checks that failed, in words.
    pub failures: Vec<String>,
}

/// The figures of a story.
#[derive(Debug, Default)]
pub struct Audit {
    /// Events that were acknowledged and are not in the ledger.
    pub lost: usize,
    /// Rows beyond one of an id, or of an id that was never sent.
    pub double: usize,
    /// Units beyond the limits of hard plans.
    pub over_admitted: u64,
    /// Units of hard plans that nobody was given: a successor holds back what its predecessor may have
    /// let through.
    pub withheld: u64,
    /// Checks without a decision.
    pub failed_checks: u64,
    /// Checks of closed plans that found no escrow in time.
    pub unsecured: u64,
    /// Checks that passed.
    pub allowed: u64,
    /// Events acknowledged.
    pub acknowledged: usize,
    /// Events without an answer.
    pub unknown: usize,
    /// Longest time between two decisions about one subscription: the middle one of them all.
    pub unavailable_p50: Duration,
    /// The longest of them all.
    pub unavailable_max: Duration,
    /// How long checks took that were decided, of a hundred the second longest: in a planned move that is
    /// how long its shard was frozen.
    pub check_p99: Duration,
    /// The longest.
    pub check_max: Duration,
    /// Longest time from a fault until every subscription was decided about again.
    pub recovery: Duration,
}

impl History {
    /// What another load saw as well.
    pub fn join(&mut self, other: Self) {
        self.subscriptions.extend(other.subscriptions);
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_TOLD);
    }

    /// Compares with the ledger, and with what every node that runs says was used; then takes what is
    /// left of every limit.
    ///
    /// # Panics
    /// When something is lost, double or over, with the figures.
    pub async fn audit(&self, story: &str, cluster: &Cluster) -> Audit {
        let mut audit = Audit::default();
        let mut gaps = Vec::new();
        let mut took = Vec::new();
        for (metered, fate) in &self.subscriptions {
            audit.hold_against_the_ledger(metered, fate, cluster).await;
            if let Some(limit) = metered.limit {
                let admitted = fate.allowed + take_the_rest(metered, limit, cluster).await;
                audit.over_admitted += admitted.saturating_sub(limit);
                audit.withheld += limit.saturating_sub(admitted);
            }
            audit.failed_checks += fate.failed;
            audit.unsecured += fate.unsecured;
            audit.allowed += fate.allowed;
            audit.acknowledged += fate.acknowledged.len();
            audit.unknown += fate.unknown.len();
            took.extend(&fate.took);
            gaps.push(longest_gap(fate));
            audit.recovery = audit.recovery.max(recovery(fate));
        }
        gaps.sort_unstable();
        audit.unavailable_p50 = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        audit.unavailable_max = gaps.last().copied().unwrap_or_default();
        took.sort_unstable();
        audit.check_p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
        audit.check_max = took.last().copied().unwrap_or_default();
        println!("{story}: {audit}");
        for failure in &self.failures {
            println!("{story}: failed: {failure}");
        }
        let exact = (audit.lost, audit.double, audit.over_admitted);
        assert_eq!(exact, (0, 0, 0), "{story}: {audit}");
        assert!(audit.allowed > 0 && audit.acknowledged > 0, "{story}: no load: {audit}");
        audit
    }
}

impl Audit {
    async fn hold_against_the_ledger(&mut self, metered: &Metered, fate: &Fate, cluster: &Cluster) {
        let running = cluster.running();
        let subscription = &metered.subscription;
        let rows = cluster.via(running[0]).records(&subscription.id, "").await;
        let ids: Vec<&str> =
            rows.iter().map(|row| row["id"].as_str().expect("a row has an id")).collect();
        let kept: BTreeSet<&str> = ids.iter().copied().collect();
        let is_sent = |id: &&&str| fate.acknowledged.contains(**id) || fate.unknown.contains(**id);
        self.lost += fate.acknowledged.iter().filter(|id| !kept.contains(id.as_str())).count();
        self.double += ids.len() - kept.iter().filter(is_sent).count();
        for index in running {
            cluster.via(index).await_used(&subscription.key, ids.len() as u64).await;
        }
    }
}

/// How many more pass until one is refused, asked of every node in turn.
async fn take_the_rest(metered: &Metered, limit: u64, cluster: &Cluster) -> u64 {
    let callers: Vec<_> = cluster.running().into_iter().map(|index| cluster.via(index)).collect();
    let mut passed = 0;
    while passed <= limit {
        let asked = callers.iter().cycle().take(usize::try_from(TAKEN_AT_ONCE).expect("small"));
        let checks = asked.map(|caller| caller.check(&metered.subscription.key));
        let decisions = join_all(checks).await;
        let more = decisions.iter().filter(|decision| decision["allowed"] == true).count() as u64;
        passed += more;
        if more < TAKEN_AT_ONCE {
            break;
        }
    }
    passed
}

fn longest_gap(fate: &Fate) -> Duration {
    let mut moments = fate.decided_at.clone();
    moments.extend(fate.time.iter().flat_map(|(begun, ended)| [*begun, *ended]));
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Longest time from a fault to the next decision.
fn recovery(fate: &Fate) -> Duration {
    let Some((_, ended)) = fate.time else { return Duration::ZERO };
    let after = |&fault| {
        let first = fate.decided_at.iter().filter(|at| **at > fault).min();
        first.copied().unwrap_or(ended) - fault
    };
    fate.faults.iter().map(after).max().unwrap_or_default()
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {}, double {}, over-admitted {}, failed checks {}, unavailability p50 {:.1?} max \
             {:.1?}, recovery {:.1?}, check p99 {:.1?} max {:.1?} (allowed {}, acknowledged {}, unknown {}, withheld {}, \
             unsecured {})",
            self.lost,
            self.double,
            self.over_admitted,
            self.failed_checks,
            self.unavailable_p50,
            self.unavailable_max,
            self.recovery,
            self.check_p99,
            self.check_max,
            self.allowed,
            self.acknowledged,
            self.unknown,
            self.withheld,
            self.unsecured,
        )
    }
}
