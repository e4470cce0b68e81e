//! Which node should own which shard: a proposal that every node works out alike.
//!
//! Role: pure; the node's membership asks it. What it says is only a wish: who may own a shard is
//! decided by a compare-and-set in the database. So nodes with different views, or builds that hash
//! differently, can waste a move but never share a shard.
//!
//! Invariants: the numbers of shards of any two nodes differ by at most one; a shard stays where it
//! is unless its node is gone or has more than its share. Shards without a node, and those that are
//! too many, go to the first node in the order of a consistent-hash ring that has room. So a node
//! that joins takes exactly its share from the others, and nothing else moves.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};
use xxhash_rust::xxh3::Xxh3;

/// Points of one node on the ring. More: building the ring takes longer (0.1 ms for ten nodes). Fewer:
/// the order of preference is uneven, and the shares have to be mended by more moves.
const POINTS: usize = 256;

/// Proposes an owner for every shard, as an index into `nodes`.
///
/// `nodes` are the names of those that may own shards, each once, in any order; the answer does not
/// depend on it. `current` has for every shard its present owner, if that is one of them. `None` for
/// all when there are no nodes.
pub fn propose(nodes: &[&str], current: &[Option<usize>]) -> Vec<Option<usize>> {
    if nodes.is_empty() {
        return vec![None; current.len()];
    }
    let ring = StaticHashRing::new(
        Xxh3Ring,
        nodes.iter().enumerate().map(|(index, name)| Node {
            key: *name,
            value: index,
            quantity: POINTS,
        }),
    );
    let preferences: Vec<Vec<usize>> = (0..current.len())
        .map(|shard| ring.calc_candidates(&(shard as u64)).map(|node| node.value).collect())
        .collect();
    let mut room = Room::new(nodes, current);
    let mut proposed = vec![None; current.len()];
    // Those that would go to their node anyway stay first, so that what moves is what the ring would
    // have put elsewhere.
    for rank in 0..nodes.len() {
        for (shard, owner) in current.iter().enumerate() {
            let Some(owner) = *owner else { continue };
            if preferences[shard].get(rank) == Some(&owner) && room.take(owner) {
                proposed[shard] = Some(owner);
            }
        }
    }
    for (shard, proposal) in proposed.iter_mut().enumerate() {
        if proposal.is_none() {
            *proposal = preferences[shard].iter().copied().find(|&node| room.take(node));
        }
    }
    debug_assert!(proposed.iter().all(Option::is_some), "the shares add up to all shards");
    proposed
}

/// How many shards each node may still take: its share, rounded down, and of those that have to take
/// one more the nodes that have it already.
struct Room(Vec<usize>);

impl Room {
    fn new(nodes: &[&str], current: &[Option<usize>]) -> Self {
        let (share, extra) = (current.len() / nodes.len(), current.len() % nodes.len());
        let mut held = vec![0_usize; nodes.len()];
        for owner in current.iter().flatten() {
            held[*owner] += 1;
        }
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by(|&a, &b| held[b].cmp(&held[a]).then_with(|| nodes[a].cmp(nodes[b])));
        let mut room = vec![share; nodes.len()];
        for &node in &order[..extra] {
            room[node] += 1;
        }
        Self(room)
    }

    fn take(&mut self, node: usize) -> bool {
        let has_room = self.0[node] > 0;
        self.0[node] -= usize::from(has_room);
        has_room
    }
}

/// The ring's hash over bytes that are the same on every machine and in every release of Rust, which
/// the standard library does not promise of `Hash` for numbers and text.
struct Xxh3Ring;

impl RingHash for Xxh3Ring {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        digest(item)
    }

    fn hash_vnode<K: Hash>(&self, key: &K, vnode_seq: usize) -> u64 {
        digest(&(key, vnode_seq as u64))
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = LittleEndian(Xxh3::new());
    value.hash(&mut hasher);
    hasher.finish()
}

struct LittleEndian(Xxh3);

impl Hasher for LittleEndian {
    fn finish(&self) -> u64 {
        self.0.digest()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARDS: usize = 1_024;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("weir-{index}")).collect()
    }

    fn fresh(names: &[String]) -> Vec<Option<usize>> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        propose(&names, &[None; SHARDS])
    }

    fn counts(owners: &[Option<usize>], nodes: usize) -> Vec<usize> {
        let mut counts = vec![0; nodes];
        for owner in owners {
            counts[owner.expect("every shard has one")] += 1;
        }
        counts
    }

    #[test]
    fn every_node_has_its_share_within_two_percent() {
        for nodes in [1, 3, 5, 10, 50] {
            let counts = counts(&fresh(&names(nodes)), nodes);
            let (least, most) =
                (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
            assert!(most - least <= 1, "{nodes} nodes: {counts:?}");
        }
        let even = SHARDS.div_ceil(10);
        assert!(
            counts(&fresh(&names(10)), 10).iter().all(|count| count.abs_diff(even) * 50 <= even)
        );
    }

    #[test]
    fn a_node_that_joins_takes_its_share_and_nothing_else_moves() {
        for nodes in [1, 2, 3, 5, 9] {
            let all = names(nodes + 1);
            let before = fresh(&all[..nodes]);
            let refs: Vec<&str> = all.iter().map(String::as_str).collect();
            let after = propose(&refs, &before);
            let moved: Vec<usize> =
                (0..SHARDS).filter(|&shard| after[shard] != before[shard]).collect();
            assert!(moved.iter().all(|&shard| after[shard] == Some(nodes)), "only to the new one");
            let ideal = SHARDS.div_ceil(nodes + 1);
            assert!(moved.len() * 4 <= ideal * 5, "{} moved, ideal {ideal}", moved.len());
        }
    }

    #[test]
    fn the_shards_of_a_node_that_left_go_to_the_others_and_nothing_else_moves() {
        let all = names(4);
        let before = fresh(&all);
        let left: Vec<Option<usize>> =
            before.iter().map(|owner| owner.filter(|&node| node < 3)).collect();
        let refs: Vec<&str> = all[..3].iter().map(String::as_str).collect();
        let after = propose(&refs, &left);
        let stayed = (0..SHARDS).filter(|&shard| left[shard].is_some());
        assert!(stayed.into_iter().all(|shard| after[shard] == left[shard]));
        let counts = counts(&after, 3);
        assert!(counts.iter().all(|&count| (341..=342).contains(&count)), "{counts:?}");
    }

    /// Worked out once; another answer means that builds would propose different owners.
    #[test]
    fn the_proposal_is_the_same_for_ever() {
        let owners = propose(&["a", "b", "c"], &[None; 16]);
        let owners: Vec<usize> = owners.into_iter().flatten().collect();
        assert_eq!(owners, GOLDEN);
    }

    const GOLDEN: [usize; 16] = [2, 0, 2, 0, 2, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1];

    proptest! {
        #[test]
        fn shares_are_even_and_a_settled_map_stays(
            nodes in 1..12_usize,
            current in prop::collection::vec(prop::option::of(0..12_usize), 0..300),
        ) {
            let names = names(nodes);
            let refs: Vec<&str> = names.iter().map(String::as_str).collect();
            let current: Vec<Option<usize>> =
                current.into_iter().map(|owner| owner.filter(|&node| node < nodes)).collect();
            let first = propose(&refs, &current);
            let counts = counts(&first, nodes);
            let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            prop_assert!(spread <= 1);
            prop_assert_eq!(&propose(&refs, &first), &first, "nothing moves twice");
            // The order in which nodes are listed is of no importance.
            let reversed: Vec<&str> = refs.iter().rev().copied().collect();
            let turned: Vec<Option<usize>> =
                current.iter().map(|owner| owner.map(|node| nodes - 1 - node)).collect();
            let mirrored: Vec<Option<usize>> = propose(&reversed, &turned)
                .into_iter()
                .map(|owner| owner.map(|node| nodes - 1 - node))
                .collect();
            prop_assert_eq!(mirrored, first);
        }
    }
}
