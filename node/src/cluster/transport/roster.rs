//! Who should be linked, who is, and when to try again. No I/O, no time of its own.
//!
//! The one with the smaller incarnation dials, so two nodes never dial each other at once. Whoever
//! membership has not named is tolerated for a while, since it may know of us first; whoever it named
//! and names no more is not let in again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use weir_config::limits::{PEER_BACKOFF_MAX, PEER_UNNAMED_FOR};

use super::link::Link;
use super::{LinkView, PeerAddress};

/// The first pause; it doubles up to `PEER_BACKOFF_MAX`.
const BACKOFF_MIN: Duration = Duration::from_millis(40);
/// Boots that were put out and are remembered, the latest. A node that comes back has a new one, so
/// this many restarts may go on at once.
const PUT_OUT_MAX: usize = 1_024;

/// Peers of one node.
pub(super) struct Roster {
    me: Uuid,
    wanted: HashMap<Uuid, Wanted>,
    links: HashMap<Uuid, Arc<Link>>,
    /// Who is being dialled, or let in.
    busy: HashSet<Uuid>,
    put_out: VecDeque<Uuid>,
}

/// The answer to a peer that dialled.
pub(super) enum Entry {
    /// Come in.
    Yes,
    /// Once its old link is gone, if it has one already.
    AfterLink(Option<Arc<Link>>),
    /// It was put out, goes by another name, or should wait to be dialled.
    No,
}

struct Wanted {
    address: PeerAddress,
    failures: u32,
    /// On the transport's stopwatch.
    not_before: Duration,
}

impl Roster {
    /// Nobody yet.
    pub(super) fn new(me: Uuid) -> Self {
        Self {
            me,
            wanted: HashMap::new(),
            links: HashMap::new(),
            busy: HashSet::new(),
            put_out: VecDeque::new(),
        }
    }

    /// Who should be linked from now on. Returns the links to cut.
    pub(super) fn want(&mut self, peers: Vec<PeerAddress>) -> Vec<Arc<Link>> {
        let mut before = std::mem::take(&mut self.wanted);
        for address in peers.into_iter().filter(|peer| peer.incarnation != self.me) {
            let incarnation = address.incarnation;
            let known = before.remove(&incarnation).filter(|known| known.address == address);
            let fresh = Wanted { address, failures: 0, not_before: Duration::ZERO };
            self.wanted.insert(incarnation, known.unwrap_or(fresh));
        }
        before.retain(|incarnation, _| !self.wanted.contains_key(incarnation));
        self.put_out.retain(|incarnation| !self.wanted.contains_key(incarnation));
        self.put_out.extend(before.keys());
        let forgotten = self.put_out.len().saturating_sub(PUT_OUT_MAX);
        self.put_out.drain(..forgotten);
        before.keys().filter_map(|incarnation| self.links.get(incarnation).cloned()).collect()
    }

    /// Whom to dial now; each is busy until [`Self::idle`].
    pub(super) fn due(&mut self, now: Duration) -> Vec<PeerAddress> {
        let Self { me, wanted, links, busy, .. } = self;
        let is_due = |(incarnation, peer): &(&Uuid, &Wanted)| {
            *me < **incarnation
                && now >= peer.not_before
                && !links.contains_key(*incarnation)
                && !busy.contains(*incarnation)
        };
        let due: Vec<_> =
            wanted.iter().filter(is_due).map(|(_, one)| one.address.clone()).collect();
        busy.extend(due.iter().map(|peer| peer.incarnation));
        due
    }

    /// Whether a peer that dialled may come in, by what it proved; it is busy from then on.
    pub(super) fn let_in(&mut self, incarnation: Uuid, node_id: &str) -> Entry {
        let wanted = self.wanted.get(&incarnation);
        let is_somebody_else = wanted.is_some_and(|one| one.address.node_id != node_id);
        if incarnation >= self.me || is_somebody_else || self.put_out.contains(&incarnation) {
            Entry::No
        } else if self.busy.insert(incarnation) {
            Entry::Yes
        } else {
            Entry::AfterLink(self.link(incarnation))
        }
    }

    /// Where membership says that a peer is.
    pub(super) fn address(&self, incarnation: Uuid) -> Option<&PeerAddress> {
        self.wanted.get(&incarnation).map(|one| &one.address)
    }

    /// A dial, or a link, ended. `failed` makes the next dial wait: longer each time, and by `jitter`
    /// (0 to 1) less, so that many nodes do not try at once.
    pub(super) fn idle(&mut self, incarnation: Uuid, failed: bool, now: Duration, jitter: f64) {
        self.busy.remove(&incarnation);
        let Some(peer) = self.wanted.get_mut(&incarnation) else { return };
        peer.failures = if failed { peer.failures.saturating_add(1) } else { 1 };
        let pause = BACKOFF_MIN.saturating_mul(1 << (peer.failures - 1).min(16));
        peer.not_before = now + pause.min(PEER_BACKOFF_MAX).mul_f64(1.0 - jitter / 2.0);
    }

    /// The link to this peer.
    pub(super) fn link(&self, incarnation: Uuid) -> Option<Arc<Link>> {
        self.links.get(&incarnation).cloned()
    }

    /// The link of this number.
    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Link>> {
        // A cluster has a few dozen nodes.
        self.links.values().find(|link| link.number == number).cloned()
    }

    /// A link begins.
    pub(super) fn add(&mut self, link: Arc<Link>) {
        let before = self.links.insert(link.peer, link);
        debug_assert!(before.is_none(), "two links to one peer");
    }

    /// A link ended.
    pub(super) fn remove(&mut self, link: &Arc<Link>) {
        if self.links.get(&link.peer).is_some_and(|one| Arc::ptr_eq(one, link)) {
            self.links.remove(&link.peer);
        }
    }

    /// Links that membership has not named for too long.
    pub(super) fn overstayed(&self) -> Vec<Arc<Link>> {
        let overstayed = |link: &&Arc<Link>| {
            !self.wanted.contains_key(&link.peer) && link.age() > PEER_UNNAMED_FOR
        };
        self.links.values().filter(overstayed).cloned().collect()
    }

    /// Every peer that should be linked or is, in order.
    pub(super) fn views(&self) -> Vec<LinkView> {
        let unlinked = self.wanted.keys().filter(|peer| !self.links.contains_key(peer));
        let down = |&incarnation: &Uuid| LinkView {
            incarnation,
            connected: false,
            suspect: false,
            round_trip: None,
        };
        let mut views: Vec<_> = self.links.values().map(|link| link.view()).collect();
        views.extend(unlinked.map(down));
        views.sort_unstable_by_key(|view| view.incarnation);
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u128) -> PeerAddress {
        PeerAddress {
            node_id: format!("n{number}"),
            incarnation: Uuid::from_u128(number),
            cluster: format!("127.0.0.1:{number}"),
        }
    }

    fn roster(me: u128, peers: &[u128]) -> Roster {
        let mut roster = Roster::new(Uuid::from_u128(me));
        roster.want(peers.iter().map(|&number| peer(number)).collect());
        roster
    }

    fn due(roster: &mut Roster, millis: u64) -> Vec<u128> {
        let mut due: Vec<_> = roster
            .due(Duration::from_millis(millis))
            .iter()
            .map(|one| one.incarnation.as_u128())
            .collect();
        due.sort_unstable();
        due
    }

    fn enters(roster: &mut Roster, incarnation: Uuid, node_id: &str) -> bool {
        matches!(roster.let_in(incarnation, node_id), Entry::Yes)
    }

    #[test]
    fn the_smaller_dials_the_larger_once_at_a_time_and_never_itself() {
        let mut roster = roster(5, &[3, 5, 7, 9]);
        assert_eq!(due(&mut roster, 0), [7, 9]);
        assert_eq!(due(&mut roster, 0), [0; 0]);
        assert!(enters(&mut roster, Uuid::from_u128(3), "n3"));
        assert!(!enters(&mut roster, Uuid::from_u128(7), "n7"), "the larger is dialled");
    }

    #[test]
    fn a_peer_that_fails_is_tried_ever_more_rarely_but_for_ever() {
        let mut roster = roster(1, &[2]);
        let two = Uuid::from_u128(2);
        let mut now = Duration::ZERO;
        for pause_ms in [40, 80, 160, 320, 640, 1_280, 2_000, 2_000, 2_000] {
            assert_eq!(roster.due(now).len(), 1);
            roster.idle(two, true, now, 0.0);
            now += Duration::from_millis(pause_ms - 1);
            assert_eq!(roster.due(now).len(), 0, "{pause_ms}");
            now += Duration::from_millis(1);
        }
        assert_eq!(roster.due(now).len(), 1);
        // A link that worked resets it, and jitter makes the pause shorter, at most by half.
        roster.idle(two, false, now, 1.0);
        assert_eq!(roster.due(now + Duration::from_millis(19)).len(), 0);
        assert_eq!(roster.due(now + Duration::from_millis(20)).len(), 1);
    }

    #[test]
    fn a_peer_that_was_put_out_stays_out_until_it_is_named_again() {
        let mut roster = roster(5, &[3]);
        let three = Uuid::from_u128(3);
        roster.want(vec![]);
        assert!(!enters(&mut roster, three, "n3"));
        roster.want(vec![peer(3)]);
        assert!(enters(&mut roster, three, "n3"));
    }

    #[test]
    fn a_peer_is_let_in_before_it_is_named_but_not_under_another_name() {
        let mut roster = roster(5, &[3]);
        assert!(enters(&mut roster, Uuid::from_u128(2), "new"));
        assert!(!enters(&mut roster, Uuid::from_u128(2), "new"), "it is being let in");
        assert!(!enters(&mut roster, Uuid::from_u128(3), "other"));
        assert!(!enters(&mut roster, Uuid::from_u128(5), "n5"), "that is this node");
    }

    #[test]
    fn those_put_out_are_remembered_within_a_limit() {
        let mut roster = roster(u128::MAX, &[]);
        for number in 0..3 * PUT_OUT_MAX as u128 {
            roster.want(vec![peer(number)]);
        }
        assert_eq!(roster.put_out.len(), PUT_OUT_MAX);
    }

    #[test]
    fn another_address_of_the_same_boot_is_tried_at_once() {
        let mut roster = roster(1, &[2]);
        assert_eq!(due(&mut roster, 0), [2]);
        roster.idle(Uuid::from_u128(2), true, Duration::ZERO, 0.0);
        roster.want(vec![PeerAddress { cluster: "127.0.0.2:9".to_owned(), ..peer(2) }]);
        assert_eq!(due(&mut roster, 0), [2]);
    }
}
