//! A small pool of connections that never waits for a connection it gives up.
//!
//! Role: hands a connection to one [`Session`](super::session::Session) at a time. sqlx's own pool
//! pings a connection each time it comes back, without a limit in time and holding its place: one
//! more round trip per call, and a place lost for as long as the server is frozen. Here a
//! connection that failed or was abandoned is dropped on the spot, and a loss makes every idle one
//! suspect at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::{AGE_MAX, Brake, Conn, Opening, open};
use crate::failure::Failure;

/// A connection that lay idle for longer is asked whether it still answers. Shorter, and a busy
/// store pays a round trip for nothing; longer, and more calls after a restart meet a dead
/// connection.
const ASK_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Connections to one database.
pub(super) struct Connections {
    opening: Opening,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    generation: AtomicU64,
    acquire_timeout: Duration,
}

struct Idle {
    origin: Origin,
    since: Instant,
    brake: Brake,
    connection: Conn,
}

#[derive(Clone, Copy)]
struct Origin {
    born: Instant,
    generation: u64,
}

/// A connection in use. Dropping it closes the connection; [`Lease::give_back`] keeps it.
pub(super) struct Lease {
    home: Arc<Connections>,
    origin: Origin,
    brake: Brake,
    connection: Conn,
    place: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `size` connections at a time, each to be had within `acquire_timeout`.
    pub(super) fn new(opening: Opening, size: u16, acquire_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            opening,
            places: Arc::new(Semaphore::new(usize::from(size.max(1)))),
            idle: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
            acquire_timeout,
        })
    }

    /// A connection, kept or new.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease, Failure> {
        timeout(self.acquire_timeout, self.acquire_unbounded())
            .await
            .unwrap_or(Err(Failure::NoConnection))
    }

    /// Drops the idle connections, and those in use when they come back: the server went away, so
    /// they are most likely dead as well.
    pub(super) fn suspect_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        let idle = std::mem::take(&mut *self.lock_idle());
        drop(idle);
    }

    async fn acquire_unbounded(self: &Arc<Self>) -> Result<Lease, Failure> {
        let place =
            Arc::clone(&self.places).acquire_owned().await.map_err(|_| Failure::NoConnection)?;
        // Each turn takes one connection out of a bounded list.
        while let Some(mut idle) = self.pop_idle() {
            if idle.since.elapsed() < ASK_AFTER_IDLE || idle.connection.ping().await.is_ok() {
                let Idle { origin, brake, connection, .. } = idle;
                return Ok(Lease { home: Arc::clone(self), origin, brake, connection, place });
            }
            self.suspect_all();
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let (connection, brake) = open(&self.opening).await?;
        let origin = Origin { born: Instant::now(), generation };
        Ok(Lease { home: Arc::clone(self), origin, brake, connection, place })
    }

    /// The connection used last, so that a burst's extra ones grow old and go.
    fn pop_idle(&self) -> Option<Idle> {
        let mut idle = self.lock_idle();
        idle.retain(|kept| kept.origin.born.elapsed() < AGE_MAX);
        idle.pop()
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut Conn {
        &mut self.connection
    }

    /// Keeps the connection for the next call. Only when nothing of this call is under way on it.
    pub(super) fn give_back(self) {
        let Self { home, origin, brake, connection, place } = self;
        if origin.generation == home.generation.load(Ordering::Relaxed) {
            home.lock_idle().push(Idle { origin, since: Instant::now(), brake, connection });
        }
        // The place is free only once the connection lies there, or one too many would be opened.
        drop(place);
    }

    /// The server went away under this connection.
    pub(super) fn discard_as_lost(self) {
        self.home.suspect_all();
    }
}
