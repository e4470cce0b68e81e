//! Where a shard is served now, while it may be moving.

use std::time::Duration;

use uuid::Uuid;
use weir_core::units::ShardId;

use super::{RouteError, Router};
use crate::clock::{Clock, Stopwatch};
use crate::cluster::Peers;
use crate::ownership::{MOVE_PATIENCE, Service};

/// Pause before a place is looked for again. More: a request that came during a move waits longer than
/// the move. Less: waiting requests keep the node busy.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an owner that cannot be reached is tried. More: callers wait for a dead node instead of
/// applying their fail policy. Less: a link that is made anew fails requests.
const UNREACHED_PATIENCE: Duration = Duration::from_millis(400);

/// Where.
pub(super) enum Place<'a> {
    /// On this node.
    Here,
    /// On another.
    There(&'a Peers, Uuid),
}

/// The search for whoever serves a shard; bounded in time.
pub(super) struct Search<'a> {
    router: &'a Router,
    shard: ShardId,
    since: Stopwatch,
    hint: Option<Uuid>,
    pause: bool,
    /// Who was asked before, and did not serve it.
    sent_from: Option<Uuid>,
    /// Since when nobody who was asked could be reached.
    unreached: Option<Stopwatch>,
}

impl<'a> Search<'a> {
    pub(super) fn begin(router: &'a Router, shard: ShardId) -> Self {
        let since = Clock::stopwatch();
        Self { router, shard, since, hint: None, pause: false, sent_from: None, unreached: None }
    }

    /// The next place to ask.
    ///
    /// # Errors
    /// [`RouteError::NoOwner`] when nobody serves the shard for too long.
    pub(super) async fn next(&mut self) -> Result<Place<'a>, RouteError> {
        let router = self.router;
        loop {
            if std::mem::take(&mut self.pause) {
                tokio::time::sleep(PAUSE).await;
            }
            if router.ownership.serves(self.shard) {
                self.pause = true;
                return Ok(Place::Here);
            }
            let Some(peers) = &router.peers else { return Err(RouteError::NoOwner) };
            let elapsed = self.since.elapsed();
            // Whoever waited for the end of a move is sent there even when it took long.
            if let Some(boot) = self.hint.take().filter(|_| elapsed <= 2 * MOVE_PATIENCE) {
                return Ok(Place::There(peers, boot));
            }
            if elapsed > MOVE_PATIENCE {
                return Err(RouteError::NoOwner);
            }
            let owner = peers.owner(self.shard);
            match owner {
                Some(boot)
                    if boot != peers.me()
                        && router.ownership.service(self.shard) == Service::Absent =>
                {
                    return Ok(Place::There(peers, boot));
                }
                // On its way here or away.
                Some(_) => {
                    router.ownership.awaited(self.shard, || peers.owner(self.shard)).await;
                    self.pause = true;
                }
                None => self.pause = true,
            }
        }
    }

    /// The one that was asked does not serve it; perhaps this one does.
    pub(super) fn not_there(&mut self, asked: Uuid, owner: Option<Uuid>) {
        let me = self.router.peers.as_ref().map(Peers::me);
        // This node knows best what it serves; and two that send to each other have not heard yet.
        let is_news = owner.is_some() && owner != me && owner != self.sent_from;
        self.hint = owner.filter(|_| is_news);
        self.sent_from = Some(asked);
        self.pause = !is_news;
        self.unreached = None;
    }

    /// The one that was asked could not be reached, or nothing is lost by asking again.
    ///
    /// # Errors
    /// [`RouteError::NoOwner`] when that has gone on for too long.
    pub(super) fn not_reached(&mut self) -> Result<(), RouteError> {
        self.pause = true;
        let since = self.unreached.get_or_insert_with(Clock::stopwatch);
        if since.elapsed() > UNREACHED_PATIENCE { Err(RouteError::NoOwner) } else { Ok(()) }
    }
}
