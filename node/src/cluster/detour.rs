//! The way round one link that is down: another peer passes a question on.
//!
//! Role: chooses who passes on, and remembers for a moment that nobody can, so that a node that died does
//! not make its peers ask each other about it for every request. No I/O.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::transport::LinkView;
use crate::clock::{Clock, Stopwatch};

/// How long a peer that nobody could reach is not asked for by a detour. More: a link that is cut costs
/// that much longer. Less: a dead node's requests are multiplied by those who pass them on.
const CLOSED_FOR: Duration = Duration::from_millis(200);
/// Peers that are tried, one after the other. In a cluster of three there is one.
const TRIED_MAX: usize = 2;

/// What is known of ways round.
#[derive(Debug, Default)]
pub(super) struct Detours {
    closed: Mutex<HashMap<Uuid, Stopwatch>>,
}

impl Detours {
    /// Whom to ask to pass something on to `to`, in this order; nobody while its link is well.
    pub(super) fn to(&self, to: Uuid, links: &[LinkView]) -> Vec<Uuid> {
        let is_well = |link: &&LinkView| link.connected && !link.suspect;
        let is_closed = self.lock().get(&to).is_some_and(|since| since.elapsed() < CLOSED_FOR);
        if is_closed || links.iter().filter(is_well).any(|link| link.incarnation == to) {
            return Vec::new();
        }
        let mut peers: Vec<_> = links.iter().filter(is_well).collect();
        // The nearest first: the others may be busy, or half gone themselves.
        peers.sort_by_key(|link| link.round_trip.unwrap_or(Duration::MAX));
        peers.iter().take(TRIED_MAX).map(|link| link.incarnation).collect()
    }

    /// Nobody could reach it.
    pub(super) fn close(&self, to: Uuid) {
        let mut closed = self.lock();
        // Boots come and go.
        closed.retain(|_, since| since.elapsed() < CLOSED_FOR);
        closed.insert(to, Clock::stopwatch());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Stopwatch>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u128, connected: bool, suspect: bool, trip_ms: u64) -> LinkView {
        let round_trip = Some(Duration::from_millis(trip_ms));
        LinkView { incarnation: Uuid::from_u128(number), connected, suspect, round_trip }
    }

    fn ways(detours: &Detours, to: u128, links: &[LinkView]) -> Vec<u128> {
        detours.to(Uuid::from_u128(to), links).iter().map(Uuid::as_u128).collect()
    }

    #[test]
    fn the_nearest_peers_whose_links_are_well_pass_on_and_never_the_goal_itself() {
        let detours = Detours::default();
        let down = link(1, false, false, 1);
        let others = [
            link(2, true, false, 9),
            link(3, true, true, 1),
            link(4, true, false, 2),
            link(5, true, false, 5),
        ];
        let links: Vec<_> = [down].into_iter().chain(others).collect();
        assert_eq!(ways(&detours, 1, &links), [4, 5]);
        assert_eq!(ways(&detours, 3, &links), [4, 5], "a suspect link is no way, nor is its peer");
        assert_eq!(ways(&detours, 7, &links), [4, 5], "who is not known may be known to others");
    }

    #[test]
    fn a_link_that_is_well_needs_no_way_round() {
        let detours = Detours::default();
        assert_eq!(ways(&detours, 1, &[link(1, true, false, 1), link(2, true, false, 1)]), [0; 0]);
    }

    #[test]
    fn whom_nobody_reached_is_not_asked_for_at_once_again() {
        let detours = Detours::default();
        let links = [link(1, false, false, 1), link(2, true, false, 1), link(3, false, false, 1)];
        detours.close(Uuid::from_u128(1));
        assert_eq!(ways(&detours, 1, &links), [0; 0]);
        assert_eq!(ways(&detours, 3, &links), [2]);
    }
}
