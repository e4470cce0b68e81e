//! Billing: charges overage as it grows and closes periods whose grace is over.
//!
//! Role: jobs over the store. They need no subscription in memory and no shard: what a period counts is
//! read in one snapshot of the database (checkpoint, ledger after it, periods that ended) and reckoned by
//! the same state machine that decides. Amounts are functions of that (`core::rating`), so a run may come
//! at any time, twice, or die anywhere; the next one ends at the same sums.
//!
//! ```text
//!   lease ─▶ page of ids ─▶ states ─▶ accounts ─▶ priced ─▶ change ─▶ one transaction a subscription:
//!     ▲          │        (snapshot)  (account)   (price)   (change)   lease ▸ accounts ▸ charges ▸ messages
//!     └──────────┘ next page; memory holds one
//! ```
//! One boot at a time, by a lease in the store that every write names (INV-4 for jobs). Callers: `http`
//! (by hand, and reads), `app` (the timer).

mod account;
mod change;
mod price;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_core::rating::Amount;
use weir_core::units::{Micros, ShardId, Span, SubscriptionId};
use weir_store::billing::{BillingState, JobLease};
use weir_store::{Error, Store};

use crate::catalog::{Catalog, PlanLookupError};
use crate::clock::Clock;
use crate::metrics::{Metrics, chain};
use crate::shard::{LoadError, restore};

pub use account::{Account, Part};
pub use change::{kind, lines};
pub use price::{Fee, Priced};

/// Both jobs write the same accounts, so they share one lease.
const LEASE: &str = "billing";
/// Subscriptions read at once: an answer of some hundred KB. More: a slow page and a larger answer;
/// fewer: a round trip for every few.
const PAGE: u32 = 128;
/// How long a lease lasts without a write; a killed run keeps others waiting for so long. Longer than
/// reading and writing a subscription takes by far.
pub const LEASE_FOR: Span = Span::from_seconds(30);
/// Settled periods that are read again for late units at once; the rest waits for a checkpoint.
const NAMED_MAX: usize = 1_000;
/// How long a run waits for another one to end, and how often it looks.
const LEASE_PATIENCE: Duration = Duration::from_secs(8);
const LEASE_LOOK: Duration = Duration::from_millis(50);
/// How often the timer looks whether a run is due, at most.
const TIMER_LOOK_MAX: Duration = Duration::from_secs(30);
/// How long a run that the timer began may take before another node thinks that it died. It only delays
/// the next try: two at once change nothing.
const RUN_FOR: Span = Span::from_seconds(900);
/// When a run that failed is tried again.
const RETRY_AFTER: Span = Span::from_seconds(60);

/// What can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Charges what grew.
    Overage,
    /// Closes periods whose grace is over, and corrects closed ones.
    Rollover,
}

impl Job {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overage => "overage",
            Self::Rollover => "rollover",
        }
    }
}

/// Why a run did not end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Another run goes on.
    #[error("another billing run goes on")]
    Busy,
    /// The store did not answer, or the lease was lost to another run.
    #[error("billing stopped half way; the next run goes on")]
    Store(#[from] Error),
}

/// Why a subscription could not be reckoned.
#[derive(Debug, thiserror::Error)]
pub enum ReckonError {
    /// Its state could not be made.
    #[error("the state could not be restored")]
    State(#[from] LoadError),
    /// The store did not answer.
    #[error("it could not be read")]
    Store(#[from] Error),
    /// A plan that it used could not be had.
    #[error("a plan that it used could not be read")]
    Plan(#[from] PlanLookupError),
    /// What is stored of it cannot be.
    #[error("the account is damaged: {0}")]
    Damaged(String),
}

/// What a run did, or has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Subscriptions looked at.
    pub subscriptions: u64,
    /// Periods that were reckoned.
    pub periods: u64,
    /// Charges written, corrections too.
    pub charges: u64,
    /// Of them corrections of closed periods.
    pub corrections: u64,
    /// Sum of the charges by currency.
    pub charged: BTreeMap<String, Amount>,
    /// Periods closed.
    pub closed: u64,
    /// Subscriptions that could not be billed; the log says why, the next run tries again.
    pub failed: u64,
}

/// A run under way.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Report>>);

impl Progress {
    /// As far as it is.
    pub fn report(&self) -> Report {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs of this node.
#[derive(Clone)]
pub struct Billing {
    store: Arc<dyn Store>,
    catalog: Arc<Catalog>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    holder: Uuid,
    grace: Span,
    lease: Span,
}

impl std::fmt::Debug for Billing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Billing").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// What billing works with.
#[derive(Debug)]
pub struct BillingParts {
    /// What it reads and writes.
    pub store: Arc<dyn Store>,
    /// Plans.
    pub catalog: Arc<Catalog>,
    /// Time.
    pub clock: Arc<Clock>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// This boot.
    pub holder: Uuid,
    /// How long after its end a period counts late events.
    pub grace: Span,
    /// How long a run's lease lasts without a write, [`LEASE_FOR`] outside of tests.
    pub lease: Span,
}

impl Billing {
    /// Nothing runs until asked.
    pub fn new(parts: BillingParts) -> Self {
        let BillingParts { store, catalog, clock, metrics, holder, grace, lease } = parts;
        Self { store, catalog, clock, metrics, holder, grace, lease }
    }

    /// How long after its end a period counts late events.
    pub const fn grace(&self) -> Span {
        self.grace
    }

    /// Runs a job over every subscription. Waits a little for another run to end.
    pub async fn run(&self, job: Job, progress: &Progress) -> Result<(), JobError> {
        let lease = self.lease().await?;
        self.metrics.billing_began();
        let done = self.run_with(job, &lease, progress).await;
        // Free for the next; one that is lost already, or a store that is away, frees itself.
        if let Err(error) = self.store.keep_job(&lease, Micros::EPOCH).await {
            tracing::debug!(error = %chain(&error), "the lease of a run ends by itself");
        }
        done
    }

    async fn run_with(
        &self,
        job: Job,
        lease: &JobLease,
        progress: &Progress,
    ) -> Result<(), JobError> {
        let mut after = None;
        loop {
            let ids = self.store.subscription_ids(after, PAGE).await?;
            let Some(&last) = ids.last() else { return Ok(()) };
            if !self.store.keep_job(lease, self.lease_until()).await? {
                return Err(overtaken());
            }
            let wanted: Vec<_> = ids.iter().map(|&id| self.placed(id)).collect();
            for state in self.store.billing_states(&wanted, &[]).await? {
                self.bill(job, lease, &state, progress).await?;
            }
            after = Some(last);
        }
    }

    /// Bills one subscription. One that cannot be billed does not keep others from it (INV-7); a store
    /// that is away, or a lost lease, ends the run.
    async fn bill(
        &self,
        job: Job,
        lease: &JobLease,
        state: &BillingState,
        progress: &Progress,
    ) -> Result<(), JobError> {
        let now = self.clock.now();
        let made = match self.reckon(state, now).await {
            Ok(accounts) => {
                let moment = change::Moment { now, grace: self.grace, until: self.lease_until() };
                change::of(job, &state.loaded.subscription, &accounts, moment)
                    .map(|change| (accounts.len(), change))
            }
            Err(error) => Err(error),
        };
        let done = match made {
            Ok((periods, change)) => self.write(lease, periods, &change, progress).await,
            Err(error) => Err(error),
        };
        let (charges, closed) = match done {
            Ok(written) => written,
            Err(ReckonError::Store(error)) if error.is_away() || is_overtaken(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                self.metrics.billing_failed();
                let subscription = state.loaded.subscription.id;
                tracing::error!(%subscription, error = %chain(&error), "could not be billed");
                progress.locked().failed += 1;
                (0, 0)
            }
        };
        let mut report = progress.locked();
        report.subscriptions += 1;
        self.metrics.billed(report.subscriptions, charges, closed);
        Ok(())
    }

    /// Writes what a subscription's periods come to; returns how many charges and closed periods.
    async fn write(
        &self,
        lease: &JobLease,
        periods: usize,
        change: &change::Change,
        progress: &Progress,
    ) -> Result<(u64, u64), ReckonError> {
        if !change.is_empty() {
            self.store.bill(lease, &change.rows).await?;
        }
        let mut report = progress.locked();
        report.periods += periods as u64;
        change.add_to(&mut report);
        Ok((change.charges(), change.closed))
    }

    /// One subscription's periods that are not settled, priced, as they stand in the store now.
    pub async fn accounts(&self, id: SubscriptionId) -> Result<Vec<Priced>, AccountsError> {
        let states = self.store.billing_states(&[self.placed(id)], &[]).await?;
        let Some(state) = states.first() else { return Ok(Vec::new()) };
        Ok(self.reckon(state, self.clock.now()).await?)
    }

    async fn reckon(&self, state: &BillingState, now: Micros) -> Result<Vec<Priced>, ReckonError> {
        let mut restored = restore(&self.catalog, now, &state.loaded).await?;
        let mut accounts = account::of(state, &mut restored, now);
        let is_unknown = |account: &&Account| !account.stored && !account.runs;
        let unknown = accounts.iter().filter(is_unknown);
        let unknown: Vec<_> =
            unknown.map(|one| (one.row.quota.clone(), one.row.start)).take(NAMED_MAX).collect();
        if !unknown.is_empty() {
            // Late units that no checkpoint has told yet may lie in periods that were settled. They are
            // read once more with those, all in one snapshot again.
            let placed = self.placed(state.loaded.subscription.id);
            let states = self.store.billing_states(&[placed], &unknown).await?;
            let Some(state) = states.first() else { return Ok(Vec::new()) };
            restored = restore(&self.catalog, now, &state.loaded).await?;
            accounts = account::of(state, &mut restored, now);
        }
        let mut priced = Vec::with_capacity(accounts.len());
        for account in accounts {
            priced.push(price::of(&self.catalog, &restored.definition, account).await?);
        }
        Ok(priced)
    }

    fn placed(&self, id: SubscriptionId) -> (SubscriptionId, ShardId) {
        (id, self.catalog.shard_of(id))
    }

    fn lease_until(&self) -> Micros {
        self.clock.now().plus(self.lease)
    }

    async fn lease(&self) -> Result<JobLease, JobError> {
        let stopwatch = Clock::stopwatch();
        loop {
            let (now, until) = (self.clock.now(), self.lease_until());
            if let Some(lease) = self.store.take_job(LEASE, self.holder, now, until).await? {
                return Ok(lease);
            }
            if stopwatch.elapsed() > LEASE_PATIENCE {
                return Err(JobError::Busy);
            }
            tokio::time::sleep(LEASE_LOOK).await;
        }
    }

    // ---- the timer ----

    /// Runs a job whenever one is due in the cluster, until told to stop.
    pub async fn keep_running(self, job: Job, every: Duration, stop: CancellationToken) {
        let look = every.min(TIMER_LOOK_MAX);
        loop {
            tokio::select! {
                () = tokio::time::sleep(look) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.run_if_due(job, every) => {}
                // Dropped where it stands: the next run goes on.
                () = stop.cancelled() => return,
            }
        }
    }

    /// The plan of runs is a lease as well: whoever finds that it has run out takes it, and holds it
    /// until the next run is due.
    async fn run_if_due(&self, job: Job, every: Duration) {
        let (name, now) = (format!("timer/{}", job.as_str()), self.clock.now());
        let taken = self.store.take_job(&name, self.holder, now, now.plus(RUN_FOR)).await;
        let Ok(Some(due)) = taken else { return };
        let progress = Progress::default();
        let next = match self.run(job, &progress).await {
            Ok(()) => {
                let report = progress.report();
                tracing::info!(
                    job = job.as_str(),
                    charges = report.charges,
                    closed = report.closed,
                    failed = report.failed,
                    "billing run done"
                );
                now.plus(Span::from(every))
            }
            Err(error) => {
                tracing::warn!(job = job.as_str(), error = %chain(&error), "billing run ended early");
                self.clock.now().plus(RETRY_AFTER)
            }
        };
        if let Err(error) = self.store.keep_job(&due, next).await {
            tracing::debug!(error = %chain(&error), "the next run comes when this one's time is over");
        }
    }
}

/// Why a subscription's periods could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The store did not answer.
    #[error("periods could not be read")]
    Store(#[from] Error),
    /// They could not be reckoned.
    #[error("periods could not be reckoned")]
    Reckon(#[from] ReckonError),
}

/// Whether another run has the lease now.
fn is_overtaken(error: &Error) -> bool {
    matches!(error, Error::Conflict { with: "job", .. })
}

fn overtaken() -> JobError {
    JobError::Store(Error::Conflict { operation: "bill", with: "job" })
}
