//! Stories of one node, step by step, against a small database that does what the SQL does.

use uuid::Uuid;

use super::*;
use crate::units::{Epoch, Micros, ShardId, Span};

const SHARDS: u16 = 8;
const LEASE: Span = Span::from_seconds(5);

/// The first half of the names gets the first half of the shards, and so on: easy to foresee.
fn by_blocks(names: &[&str], current: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut sorted: Vec<usize> = (0..names.len()).collect();
    sorted.sort_by_key(|&index| names[index]);
    let block = current.len().div_ceil(names.len().max(1)).max(1);
    (0..current.len()).map(|shard| sorted.get(shard / block).copied()).collect()
}

fn settings() -> Settings {
    Settings {
        lease: LEASE,
        renew_every: Span::from_seconds(1),
        look_every: Span::from_seconds(1),
        settle: Span::from_seconds(2),
        moves_max: 2,
        propose: by_blocks,
    }
}

fn boot(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn at(seconds: i64) -> Micros {
    Micros::from_micros(seconds * 1_000_000)
}

fn member(number: u128, state: MemberState, expired: bool) -> Member {
    Member { name: format!("n{number}"), incarnation: boot(number), state, expired }
}

fn up(number: u128) -> Member {
    member(number, MemberState::Up, false)
}

fn view(members: &[Member], owners: [(u128, u64); SHARDS as usize]) -> View {
    let owner = |(number, epoch)| Owner {
        incarnation: (number > 0).then(|| boot(number)),
        epoch: Epoch(epoch),
    };
    View { members: members.to_vec(), owners: owners.into_iter().map(owner).collect() }
}

fn shards(numbers: &[u16]) -> Vec<ShardId> {
    numbers.iter().copied().map(ShardId).collect()
}

/// A node that owns what `owners` says of it, at second 0, with renewals kept up until `now`.
fn settled(members: &[Member], owners: [(u128, u64); 8]) -> Node {
    let mut node = Node::joined(boot(1), SHARDS, settings(), at(0));
    node.step(at(0), Input::Looked(Some(view(members, owners))));
    let mine: Vec<(ShardId, Epoch)> = owners
        .iter()
        .enumerate()
        .filter(|(_, (number, _))| *number == 1)
        .map(|(index, (_, epoch))| (ShardId(u16::try_from(index).unwrap_or(0)), Epoch(epoch + 1)))
        .collect();
    let wanted = mine.iter().map(|(shard, _)| *shard).collect();
    node.step(at(0), Input::Claimed { wanted, got: mine });
    keep(&mut node, 0, 10);
    node
}

fn keep(node: &mut Node, from: i64, to: i64) {
    for second in from..to {
        node.step(at(second), Input::Tick);
        node.step(at(second), Input::Renewed(Renewal::Held));
    }
}

const NOBODY: (u128, u64) = (0, 0);

#[test]
fn the_first_node_claims_everything_and_serves_what_it_got() {
    let mut node = Node::joined(boot(1), SHARDS, settings(), at(0));
    assert_eq!(node.step(at(0), Input::Tick), [Effect::Renew, Effect::Look]);
    let effects = node.step(at(0), Input::Looked(Some(view(&[up(1)], [NOBODY; 8]))));
    let all = shards(&[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(effects, [Effect::Claim(all.clone())]);
    let got = vec![(ShardId(3), Epoch(1))];
    let effects = node.step(at(0), Input::Claimed { wanted: all, got });
    let mine = Owner { incarnation: Some(boot(1)), epoch: Epoch(1) };
    assert_eq!(
        effects,
        [Effect::Serve(ShardId(3), Epoch(1)), Effect::Tell(vec![(ShardId(3), mine)])]
    );
    assert_eq!(node.slot(ShardId(3)), Slot::Held(Epoch(1)));
    assert_eq!(node.slot(ShardId(4)), Slot::Absent, "another was faster");
}

#[test]
fn the_shards_of_a_silent_node_are_taken_after_a_whole_lease_in_touch() {
    let dead = member(2, MemberState::Up, true);
    let owners = [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 1)];
    let mut node = Node::joined(boot(1), SHARDS, settings(), at(0));
    let early = node.step(at(1), Input::Looked(Some(view(&[up(1), dead.clone()], owners))));
    assert_eq!(early[0], Effect::Claim(shards(&[0, 1, 2, 3])), "only what is its own already");
    keep(&mut node, 1, 6);
    let effects = node.step(at(6), Input::Looked(Some(view(&[up(1), dead], owners))));
    assert_eq!(effects[..2], [Effect::Bury, Effect::Claim(shards(&[4, 5, 6, 7]))]);
}

#[test]
fn a_node_that_lost_touch_waits_a_whole_lease_again() {
    let dead = member(2, MemberState::Up, true);
    let owners = [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 1)];
    let mut node = settled(&[up(1), up(2)], owners);
    // Nobody could reach the database from second 10 to 30; both leases ran out.
    node.step(at(30), Input::Tick);
    node.step(at(30), Input::Renewed(Renewal::Held));
    let effects = node.step(at(30), Input::Looked(Some(view(&[up(1), dead.clone()], owners))));
    assert!(!effects.contains(&Effect::Bury), "{effects:?}");
    keep(&mut node, 31, 36);
    let effects = node.step(at(36), Input::Looked(Some(view(&[up(1), dead], owners))));
    assert!(effects.contains(&Effect::Bury), "{effects:?}");
}

#[test]
fn a_move_freezes_hands_over_tells_and_releases() {
    let both = [up(1), up(2)];
    let mine = [(1, 1); 8];
    let mut node = settled(&both[..1], mine);
    let effects = node.step(at(10), Input::Looked(Some(view(&both, [(1, 2); 8]))));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Freeze(_))), "it has just come");
    keep(&mut node, 11, 13);
    let effects = node.step(at(13), Input::Looked(Some(view(&both, [(1, 2); 8]))));
    assert_eq!(effects[..2], [Effect::Freeze(ShardId(4)), Effect::Freeze(ShardId(5))]);
    let effects = node.step(at(13), Input::Flushed(shards(&[4, 5])));
    let offer = vec![(ShardId(4), Epoch(2)), (ShardId(5), Epoch(2))];
    assert_eq!(effects, [Effect::HandOver(boot(2), offer)]);
    let taken = Some(vec![(ShardId(4), Epoch(3)), (ShardId(5), Epoch(3))]);
    let effects = node.step(at(13), Input::HandedOver { offered: shards(&[4, 5]), taken });
    let theirs = Owner { incarnation: Some(boot(2)), epoch: Epoch(3) };
    assert_eq!(
        effects,
        [
            Effect::Tell(vec![(ShardId(4), theirs), (ShardId(5), theirs)]),
            Effect::Release(ShardId(4)),
            Effect::Release(ShardId(5)),
            Effect::Freeze(ShardId(6)),
            Effect::Freeze(ShardId(7)),
        ],
        "the heir hears first; the next move follows at once"
    );
    assert_eq!(node.owner(ShardId(4)), theirs);
}

/// A node in the middle of giving shard 4 to node 2, whose answer was lost.
fn asking() -> Node {
    let both = [up(1), up(2)];
    let mut node = settled(&both, [(1, 1); 8]);
    node.step(at(10), Input::Looked(Some(view(&both, [(1, 2); 8]))));
    node.step(at(10), Input::NotFlushed(shards(&[5])));
    node.step(at(10), Input::Flushed(shards(&[4])));
    node.step(at(10), Input::Looked(None));
    let effects = node.step(at(10), Input::HandedOver { offered: shards(&[4]), taken: None });
    assert_eq!(effects, [Effect::Look], "at once, not when the next look is due");
    node
}

#[test]
fn a_lost_hand_over_that_happened_is_found_out() {
    let mut node = asking();
    let mut owners = [(1, 2); 8];
    owners[4] = (2, 3);
    let effects = node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], owners))));
    assert!(effects.contains(&Effect::Release(ShardId(4))), "{effects:?}");
    assert_eq!(node.slot(ShardId(4)), Slot::Absent);
}

#[test]
fn a_lost_hand_over_that_did_not_happen_can_never_happen_later() {
    let mut node = asking();
    let effects = node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], [(1, 2); 8]))));
    assert_eq!(effects[0], Effect::Claim(shards(&[4])), "the epoch is raised first");
    let got = vec![(ShardId(4), Epoch(3))];
    let effects = node.step(at(10), Input::Claimed { wanted: shards(&[4]), got });
    assert_eq!(effects[0], Effect::Thaw(ShardId(4), Epoch(3)));
    assert_eq!(node.slot(ShardId(4)), Slot::Held(Epoch(3)));
}

#[test]
fn a_hand_over_that_beats_the_raised_epoch_is_asked_for_again() {
    let mut node = asking();
    node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], [(1, 2); 8]))));
    let effects = node.step(at(10), Input::Claimed { wanted: shards(&[4]), got: Vec::new() });
    assert!(!effects.iter().any(|e| matches!(e, Effect::Thaw(..))), "{effects:?}");
    let mut owners = [(1, 2); 8];
    owners[4] = (2, 3);
    node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], owners))));
    assert_eq!(node.slot(ShardId(4)), Slot::Absent);
}

#[test]
fn a_heir_that_is_heard_of_while_the_epoch_is_being_raised_ends_the_move() {
    let mut node = asking();
    node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], [(1, 2); 8]))));
    // The hand-over has happened after all, and the heir says so before the refusal comes.
    let theirs = Owner { incarnation: Some(boot(2)), epoch: Epoch(4) };
    node.step(at(10), Input::Told(vec![(ShardId(4), theirs)]));
    node.step(at(10), Input::Claimed { wanted: shards(&[4]), got: Vec::new() });
    let mut owners = [(1, 2); 8];
    owners[4] = (2, 4);
    let effects = node.step(at(11), Input::Looked(Some(view(&[up(1), up(2)], owners))));
    assert!(effects.contains(&Effect::Release(ShardId(4))), "{effects:?}");
    assert_eq!(node.slot(ShardId(4)), Slot::Absent);
}

#[test]
fn a_shard_that_a_peer_tells_is_another_s_ends_a_node_that_serves_it() {
    // Cut from the database, it would not hear it there.
    let mut node = settled(&[up(1), up(2)], [(1, 2); 8]);
    node.step(at(10), Input::Renewed(Renewal::Away));
    let old = Owner { incarnation: Some(boot(2)), epoch: Epoch(2) };
    let effects = node.step(at(11), Input::Told(vec![(ShardId(4), old)]));
    assert!(!effects.contains(&Effect::Lost), "old news: {effects:?}");
    let theirs = Owner { incarnation: Some(boot(2)), epoch: Epoch(4) };
    assert_eq!(node.step(at(12), Input::Told(vec![(ShardId(4), theirs)])), [Effect::Lost]);
    assert!(!node.is_trusted(at(12)));
}

#[test]
fn a_shard_that_everybody_leaves_to_another_is_taken_in_the_end() {
    let owners = [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 1)];
    let mut node = settled(&[up(1), up(2), up(3)], owners);
    // The hash leaves the dead node's shards to the third, which proposes someone else, and waits.
    let seen = [up(1), member(2, MemberState::Gone, true), up(3)];
    let mut look = |second: i64| {
        node.step(at(second), Input::Tick);
        node.step(at(second), Input::Renewed(Renewal::Held));
        let effects = node.step(at(second), Input::Looked(Some(view(&seen, owners))));
        let claims = effects.into_iter().find(|effect| matches!(effect, Effect::Claim(_)));
        claims.map(|claims| (second, claims))
    };
    let taken = (10..40).find_map(&mut look);
    assert_eq!(taken, Some((20, Effect::Claim(shards(&[4, 5, 6, 7])))), "after two leases");
}

#[test]
fn a_database_that_refuses_at_once_is_not_asked_without_a_pause() {
    let mut node = asking();
    let effects = node.step(at(10), Input::Looked(None));
    assert!(!effects.contains(&Effect::Look), "it was asked in this very moment: {effects:?}");
    let soon = at(10).plus(Span::from_micros(settings().look_every.get() / 10));
    assert!(node.step(soon, Input::Tick).contains(&Effect::Look), "well before the next is due");
}

#[test]
fn a_heir_claims_as_soon_as_it_is_told() {
    let mut node = settled(&[up(1), up(2)], [(2, 1); 8]);
    let mine = Owner { incarnation: Some(boot(1)), epoch: Epoch(2) };
    let effects = node.step(at(10), Input::Told(vec![(ShardId(0), mine)]));
    assert_eq!(effects[0], Effect::Claim(shards(&[0])));
    let again = node.step(at(10), Input::Told(vec![(ShardId(0), mine)]));
    assert!(!again.iter().any(|e| matches!(e, Effect::Claim(_))), "once is enough: {again:?}");
}

#[test]
fn older_news_change_nothing() {
    let mut node = settled(&[up(1), up(2)], [(2, 5); 8]);
    let old = Owner { incarnation: Some(boot(1)), epoch: Epoch(4) };
    let effects = node.step(at(10), Input::Told(vec![(ShardId(0), old)]));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Claim(_))), "{effects:?}");
    assert_eq!(node.owner(ShardId(0)).incarnation, Some(boot(2)));
}

#[test]
fn a_node_that_was_declared_dead_does_nothing_more() {
    let mut node = settled(&[up(1)], [(1, 1); 8]);
    assert_eq!(node.step(at(10), Input::Renewed(Renewal::Gone)), [Effect::Lost]);
    assert_eq!(node.step(at(11), Input::Tick), []);
    assert!(!node.is_trusted(at(11)));
}

#[test]
fn a_shard_taken_from_a_node_that_thinks_it_lives_ends_it() {
    let mut node = settled(&[up(1), up(2)], [(1, 1); 8]);
    let mut owners = [(1, 2); 8];
    owners[0] = (2, 3);
    let effects = node.step(at(10), Input::Looked(Some(view(&[up(1), up(2)], owners))));
    assert_eq!(effects, [Effect::Lost]);
}

#[test]
fn a_draining_node_gives_everything_away() {
    let both = [up(1), up(2)];
    let mut node = settled(&both, [(1, 1); 8]);
    node.step(at(10), Input::Looked(Some(view(&both[..1], [(1, 2); 8]))));
    assert!(!node.has_heirs());
    node.step(at(10), Input::Looked(Some(view(&both, [(1, 2); 8]))));
    keep(&mut node, 11, 13);
    let draining = [member(1, MemberState::Draining, false), up(2)];
    let mut effects = node.step(at(13), Input::Looked(Some(view(&draining, [(1, 2); 8]))));
    let mut given = 0;
    while let Some(next) = effects.iter().find_map(|effect| match effect {
        Effect::Freeze(shard) => Some(*shard),
        _ => None,
    }) {
        effects.retain(|effect| *effect != Effect::Freeze(next));
        let offered = match node.step(at(13), Input::Flushed(vec![next]))[..] {
            [Effect::HandOver(to, ref shards)] if to == boot(2) => shards.clone(),
            ref other => panic!("not handed over: {other:?}"),
        };
        let taken = Some(vec![(next, Epoch(offered[0].1.0 + 1))]);
        effects.extend(node.step(at(13), Input::HandedOver { offered: vec![next], taken }));
        given += 1;
    }
    assert_eq!(given, 8);
    assert!(node.is_empty());
}
