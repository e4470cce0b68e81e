//! The outbox: nothing is sent twice by two workers, nothing is forgotten by a dead one.

use std::sync::Arc;

use uuid::Uuid;
use weir_core::units::SubscriptionId;
use weir_store::outbox::{
    Addressed, ClaimedDelivery, DeliveryClaim, DeliveryStatus, Destination, Ending,
    FinishedDelivery, LANE_DELIVERIES_MAX, NotificationFilter, NotificationRow,
};
use weir_store::rows::{CheckpointBatch, OutboxRow, SubscriptionRow};
use weir_store::{Error, Reach, Store};

use crate::fixture::{
    Fixture, MINUTE, NOON, SECOND, at, audit, batch, everything, subscription_id,
};

crate::on_both_engines!(
    a_message_is_addressed_once_and_carries_what_is_needed_to_send_it,
    what_nobody_wants_is_finished_at_once,
    what_matters_most_leaves_first_and_then_the_oldest,
    of_a_lane_only_the_first_is_claimed,
    a_claim_that_runs_out_comes_back_and_its_late_end_changes_nothing,
    the_same_claim_again_holds_what_it_held,
    a_retry_waits_for_its_time,
    what_was_not_tried_costs_no_attempt,
    a_busy_endpoint_is_left_alone,
    a_message_is_what_its_channels_are,
    what_was_given_up_is_sent_again_and_what_arrived_is_not,
    what_is_pending_is_not_sent_again,
    a_full_lane_gives_up_and_says_so,
    lists_are_filtered_and_read_page_by_page,
    workers_at_the_same_moment_share_and_never_double,
    addressing_at_the_same_moment_makes_one_delivery_a_channel,
    two_channels_that_end_at_the_same_moment_finish_the_message,
);

const WEBHOOK: &str = "webhook";
const EMAIL: &str = "email";
/// How long claims last here.
const HELD: i64 = MINUTE;

/// A subscription with so many messages, all of one moment, in the order of their ids.
struct Outbox {
    fixture: Fixture,
    subscription: SubscriptionRow,
    owner: crate::fixture::Owner,
    batches: std::sync::atomic::AtomicI64,
}

impl Outbox {
    async fn new(fixture: Fixture) -> Self {
        let owner = fixture.owner("a", &[0]).await;
        let subscription = fixture.subscription("default").await;
        Self { fixture, subscription, owner, batches: 0.into() }
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.fixture.store
    }

    /// Enqueues as a checkpoint does.
    async fn enqueue(&self, messages: Vec<OutboxRow>) {
        let number = 1 + self.batches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let batch = CheckpointBatch { outbox: messages, ..batch(number, vec![]) };
        self.store().checkpoint(&self.owner.fence, &batch).await.expect("enqueue");
    }

    fn message(&self) -> OutboxRow {
        message(self.subscription.id)
    }

    /// Enqueues and addresses so many; their ids.
    async fn addressed(&self, count: usize, channels: &[&str]) -> Vec<Uuid> {
        let messages: Vec<_> = (0..count).map(|_| self.message()).collect();
        let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
        self.enqueue(messages).await;
        let addressed: Vec<_> = ids.iter().map(|&id| to(id, channels)).collect();
        self.store().address(&addressed, at(NOON)).await.expect("address");
        ids
    }

    async fn claim(&self, now: i64, limit: u32) -> (Uuid, Vec<ClaimedDelivery>) {
        let claim = claim(now, limit);
        let taken = self.store().claim_deliveries(&claim).await.expect("claim");
        (claim.id, taken)
    }

    async fn finish(&self, claim: Uuid, taken: &ClaimedDelivery, ending: Ending, now: i64) -> bool {
        let error = (ending != Ending::Delivered).then(|| "no".to_owned());
        let finished = FinishedDelivery {
            claim,
            message: taken.message,
            channel: taken.channel.clone(),
            ending,
            error,
            at: at(now),
        };
        self.store().finish_deliveries(&[finished]).await.expect("finish") == [true]
    }

    async fn seen(&self, id: Uuid) -> NotificationRow {
        let found = self.store().find_notification(id, &everything()).await.expect("find");
        found.expect("the message is there")
    }
}

fn message(subscription: SubscriptionId) -> OutboxRow {
    let id = Uuid::now_v7();
    OutboxRow {
        id,
        subscription,
        kind: "quota_warning".to_owned(),
        priority: 5,
        idempotency_key: id.to_string(),
        payload: r#"{"used":80}"#.to_owned(),
        created_at: at(NOON),
    }
}

fn to(id: Uuid, channels: &[&str]) -> Addressed {
    let destination = |channel: &&str| Destination {
        channel: (*channel).to_owned(),
        endpoint: format!("{channel}.example"),
    };
    Addressed { id, destinations: channels.iter().map(destination).collect() }
}

fn claim(now: i64, limit: u32) -> DeliveryClaim {
    DeliveryClaim {
        id: Uuid::now_v7(),
        now: at(now),
        until: at(now + HELD),
        busy: Vec::new(),
        limit,
    }
}

fn ids(taken: &[ClaimedDelivery]) -> Vec<Uuid> {
    taken.iter().map(|one| one.message).collect()
}

async fn a_message_is_addressed_once_and_carries_what_is_needed_to_send_it(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let sent = outbox.message();
    outbox.enqueue(vec![sent.clone()]).await;
    let found = outbox.store().unaddressed(10).await.expect("unaddressed");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].kind.as_str()), (sent.id, "quota_warning"));
    assert_eq!(found[0].webhook_url, outbox.subscription.webhook_url);
    assert_eq!(found[0].user_email, outbox.subscription.user_email);
    assert!(outbox.claim(NOON, 10).await.1.is_empty(), "not addressed, not sent");

    for channels in [&[WEBHOOK, EMAIL][..], &["another"][..]] {
        outbox.store().address(&[to(sent.id, channels)], at(NOON)).await.expect("address");
    }
    assert!(outbox.store().unaddressed(10).await.expect("unaddressed").is_empty());
    let (_, taken) = outbox.claim(NOON, 10).await;
    let channels: Vec<_> = taken.iter().map(|one| one.channel.as_str()).collect();
    assert_eq!(channels, [EMAIL, WEBHOOK], "the first answer stands");
    let one = &taken[1];
    assert_eq!((one.message, one.subscription), (sent.id, sent.subscription));
    assert_eq!((&one.kind, &one.payload), (&sent.kind, &sent.payload));
    assert_eq!((one.attempts, one.created_at), (1, sent.created_at));
    assert_eq!(one.endpoint, "webhook.example");
    assert_eq!(one.webhook_url, outbox.subscription.webhook_url);
    assert_eq!(one.user_email, outbox.subscription.user_email);
}

async fn what_nobody_wants_is_finished_at_once(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let id = outbox.addressed(1, &[]).await[0];
    let seen = outbox.seen(id).await;
    assert_eq!((seen.status, seen.attempts), (DeliveryStatus::Delivered, 0));
    assert_eq!(seen.finished_at, Some(at(NOON)));
    assert!(seen.deliveries.is_empty());
    assert_eq!(outbox.store().outbox_depth().await.expect("depth").pending, 0);
}

async fn what_matters_most_leaves_first_and_then_the_oldest(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    // (priority, seconds), each of a subscription of its own, so that no lane orders them.
    let mut expected = Vec::new();
    for (priority, seconds) in [(1, 9), (5, 0), (5, 3), (7, 1)] {
        let row = outbox.fixture.subscription("default").await;
        let created_at = at(NOON + seconds * SECOND);
        expected.push(OutboxRow { priority, created_at, ..message(row.id) });
    }
    for place in [2, 0, 3, 1] {
        outbox.enqueue(vec![expected[place].clone()]).await;
    }
    let found = outbox.store().unaddressed(10).await.expect("unaddressed");
    let expected: Vec<Uuid> = expected.iter().map(|message| message.id).collect();
    assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), expected);
    let addressed: Vec<_> = found.iter().map(|one| to(one.id, &[WEBHOOK])).collect();
    outbox.store().address(&addressed, at(NOON)).await.expect("address");
    for pair in expected.chunks(2) {
        assert_eq!(ids(&outbox.claim(NOON + MINUTE, 2).await.1), pair);
    }
    let depth = outbox.store().outbox_depth().await.expect("depth");
    assert_eq!((depth.pending, depth.oldest), (4, Some(at(NOON))));
}

async fn of_a_lane_only_the_first_is_claimed(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let sent = outbox.addressed(3, &[WEBHOOK]).await;
    let mut now = NOON;
    for id in sent {
        let (claim, taken) = outbox.claim(now, 10).await;
        assert_eq!(ids(&taken), [id]);
        assert!(outbox.claim(now, 10).await.1.is_empty(), "the rest waits for its end");
        // A failure keeps the order as well: the next waits until this one is through.
        assert!(outbox.finish(claim, &taken[0], Ending::Retry(at(now + SECOND)), now).await);
        assert!(outbox.claim(now, 10).await.1.is_empty(), "and through its pauses");
        now += SECOND;
        let (claim, taken) = outbox.claim(now, 10).await;
        assert_eq!(ids(&taken), [id]);
        assert!(outbox.finish(claim, &taken[0], Ending::Delivered, now).await);
    }
    assert!(outbox.claim(now + MINUTE, 10).await.1.is_empty());
}

async fn a_claim_that_runs_out_comes_back_and_its_late_end_changes_nothing(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let id = outbox.addressed(1, &[WEBHOOK]).await[0];
    // The first worker is killed here, or so it seems.
    let (first, taken) = outbox.claim(NOON, 10).await;
    assert!(outbox.claim(NOON + HELD - 1, 10).await.1.is_empty(), "it is held");
    let (second, again) = outbox.claim(NOON + HELD, 10).await;
    assert_eq!((ids(&again), again[0].attempts), (vec![id], 2));
    for ending in [Ending::Dead, Ending::Delivered, Ending::Released] {
        assert!(!outbox.finish(first, &taken[0], ending, NOON).await, "{ending:?}, too late");
    }
    assert_eq!(outbox.seen(id).await.status, DeliveryStatus::Pending);
    assert!(outbox.finish(second, &again[0], Ending::Delivered, NOON + HELD).await);
    assert!(!outbox.finish(second, &again[0], Ending::Dead, NOON + HELD).await, "once");
    let seen = outbox.seen(id).await;
    assert_eq!((seen.status, seen.attempts), (DeliveryStatus::Delivered, 2));
    assert!(outbox.claim(NOON + 9 * HELD, 10).await.1.is_empty());
}

async fn the_same_claim_again_holds_what_it_held(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    outbox.addressed(1, &[WEBHOOK, EMAIL]).await;
    let first = claim(NOON, 1);
    let taken = outbox.store().claim_deliveries(&first).await.expect("claim");
    let later = DeliveryClaim { until: at(NOON + 3 * HELD), limit: 10, ..first.clone() };
    let again = outbox.store().claim_deliveries(&later).await.expect("claim again");
    assert_eq!(again, taken, "nothing more, and no attempt more");
    let (_, others) = outbox.claim(NOON + 2 * HELD, 10).await;
    assert_eq!(others.len(), 1, "what it holds is held longer");
    assert_ne!(others[0].channel, taken[0].channel);
}

async fn a_retry_waits_for_its_time(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let id = outbox.addressed(1, &[WEBHOOK]).await[0];
    let (claim, taken) = outbox.claim(NOON, 1).await;
    assert!(outbox.finish(claim, &taken[0], Ending::Retry(at(NOON + MINUTE)), NOON).await);
    let seen = outbox.seen(id).await;
    assert_eq!((seen.status, seen.attempts), (DeliveryStatus::Pending, 1));
    assert_eq!(seen.last_error.as_deref(), Some("no"));
    assert_eq!(seen.deliveries[0].next_attempt_at, at(NOON + MINUTE));
    assert!(outbox.claim(NOON + MINUTE - 1, 1).await.1.is_empty());
    let (claim, taken) = outbox.claim(NOON + MINUTE, 1).await;
    assert_eq!(taken[0].attempts, 2);
    assert!(outbox.finish(claim, &taken[0], Ending::Delivered, NOON + MINUTE).await);
    let seen = outbox.seen(id).await;
    assert_eq!((seen.status, seen.attempts), (DeliveryStatus::Delivered, 2));
    assert_eq!((seen.last_error, seen.finished_at), (None, Some(at(NOON + MINUTE))));
}

async fn what_was_not_tried_costs_no_attempt(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    outbox.addressed(1, &[WEBHOOK]).await;
    for _ in 0..3 {
        let (claim, taken) = outbox.claim(NOON, 1).await;
        assert_eq!(taken[0].attempts, 1);
        assert!(outbox.finish(claim, &taken[0], Ending::Released, NOON).await);
    }
}

async fn a_busy_endpoint_is_left_alone(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    outbox.addressed(1, &[WEBHOOK, EMAIL]).await;
    let busy = |names: &[&str]| names.iter().map(|name| format!("{name}.example")).collect();
    for (names, expected) in [(&[WEBHOOK, EMAIL][..], 0), (&[EMAIL][..], 1), (&[WEBHOOK][..], 1)] {
        let claim = DeliveryClaim { busy: busy(names), ..claim(NOON, 10) };
        let taken = outbox.store().claim_deliveries(&claim).await.expect("claim");
        assert_eq!(taken.len(), expected, "without {names:?}");
        assert!(taken.iter().all(|one| !names.contains(&one.channel.as_str())));
    }
}

async fn a_message_is_what_its_channels_are(fixture: Fixture) {
    use DeliveryStatus::{Dead, Delivered, Pending};
    let outbox = Outbox::new(fixture).await;
    let retry = Ending::Retry(at(NOON + SECOND));
    // The ends of two channels, and the message after each.
    let stories = [
        (Ending::Delivered, Pending, Ending::Delivered, Delivered),
        (Ending::Dead, Pending, Ending::Delivered, Dead),
        (Ending::Delivered, Pending, Ending::Dead, Dead),
        (Ending::Dead, Pending, Ending::Dead, Dead),
        (retry, Pending, Ending::Dead, Pending),
        (Ending::Dead, Pending, retry, Pending),
    ];
    for (first, between, second, after) in stories {
        let row = outbox.fixture.subscription("default").await;
        let sent = message(row.id);
        outbox.enqueue(vec![sent.clone()]).await;
        let addressed = [to(sent.id, &[WEBHOOK, EMAIL])];
        outbox.store().address(&addressed, at(NOON)).await.expect("address");
        let (claim, taken) = outbox.claim(NOON, 2).await;
        assert!(outbox.finish(claim, &taken[0], first, NOON).await);
        assert_eq!(outbox.seen(sent.id).await.status, between, "{first:?}");
        assert!(outbox.finish(claim, &taken[1], second, NOON).await);
        let seen = outbox.seen(sent.id).await;
        assert_eq!(seen.status, after, "{first:?}, {second:?}");
        assert_eq!(seen.finished_at.is_some(), after != Pending);
        assert_eq!(seen.last_error.is_some(), after != Delivered);
    }
}

async fn what_was_given_up_is_sent_again_and_what_arrived_is_not(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let id = outbox.addressed(1, &[WEBHOOK, EMAIL]).await[0];
    let (claim, taken) = outbox.claim(NOON, 2).await;
    assert!(outbox.finish(claim, &taken[0], Ending::Delivered, NOON).await);
    assert!(outbox.finish(claim, &taken[1], Ending::Dead, NOON).await);
    let entry = audit();
    outbox.store().redeliver(id, at(NOON + SECOND), &entry).await.expect("redeliver");
    let audited = outbox.store().list_audit(None, None, 1).await.expect("audit").data;
    assert_eq!(audited[0].id, entry.id);
    let seen = outbox.seen(id).await;
    assert_eq!((seen.status, seen.finished_at), (DeliveryStatus::Pending, None));
    // As whoever addresses would: all channels; the one that arrived stays as it is.
    outbox.store().address(&[to(id, &[WEBHOOK, EMAIL])], at(NOON)).await.expect("address");
    let (claim, taken) = outbox.claim(NOON + SECOND, 2).await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((taken[0].channel.as_str(), taken[0].attempts), (WEBHOOK, 1));
    assert!(outbox.finish(claim, &taken[0], Ending::Delivered, NOON + SECOND).await);
    assert_eq!(outbox.seen(id).await.status, DeliveryStatus::Delivered);

    // Nothing was given up: all of it again.
    outbox.store().redeliver(id, at(NOON + MINUTE), &audit()).await.expect("redeliver");
    outbox.store().address(&[to(id, &[WEBHOOK, EMAIL])], at(NOON)).await.expect("address");
    assert_eq!(outbox.claim(NOON + MINUTE, 9).await.1.len(), 2);
}

async fn what_is_pending_is_not_sent_again(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let redeliver = async |id| outbox.store().redeliver(id, at(NOON), &audit()).await;
    assert!(matches!(redeliver(Uuid::now_v7()).await, Err(Error::NotFound { .. })));
    let id = outbox.addressed(1, &[WEBHOOK]).await[0];
    let pending = |answer| matches!(answer, Err(Error::Conflict { with: "pending", .. }));
    assert!(pending(redeliver(id).await));
    let (claim, taken) = outbox.claim(NOON, 1).await;
    assert!(pending(redeliver(id).await), "while it is sent");
    assert!(outbox.finish(claim, &taken[0], Ending::Dead, NOON).await);
    redeliver(id).await.expect("redeliver");
    assert!(pending(redeliver(id).await), "it is on its way again");
    let entries = outbox.fixture.number("SELECT count(*) FROM audit_log WHERE action = 'test'");
    let expected = 2 + 1;
    assert_eq!(entries.await, expected, "plan, subscription, and what was done");
}

async fn a_full_lane_gives_up_and_says_so(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let most = LANE_DELIVERIES_MAX as usize;
    let sent = outbox.addressed(most, &[WEBHOOK]).await;
    assert_eq!(outbox.seen(sent[most - 1]).await.status, DeliveryStatus::Pending);
    let more = outbox.addressed(1, &[WEBHOOK, EMAIL]).await[0];
    let seen = outbox.seen(more).await;
    let status = |channel: &str| {
        seen.deliveries.iter().find(|one| one.channel == channel).map(|one| one.status)
    };
    assert_eq!(status(WEBHOOK), Some(DeliveryStatus::Dead));
    assert_eq!(status(EMAIL), Some(DeliveryStatus::Pending), "another lane has room");
    assert!(seen.last_error.is_some_and(|error| error.contains("too many")));
}

async fn lists_are_filtered_and_read_page_by_page(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let other = outbox.fixture.subscription("other").await;
    let mut sent = vec![outbox.message(), outbox.message(), message(other.id)];
    "overage_charge".clone_into(&mut sent[1].kind);
    outbox.enqueue(sent.clone()).await;
    outbox.store().address(&[to(sent[0].id, &[])], at(NOON)).await.expect("address");
    let everything = NotificationFilter { limit: 10, ..NotificationFilter::default() };
    let tenant = Reach { tenant: Some("other".to_owned()), subscriptions: None };
    let named = Reach { tenant: None, subscriptions: Some(vec![outbox.subscription.id]) };
    let stories = [
        (everything.clone(), vec![2, 1, 0]),
        (NotificationFilter { reach: tenant, ..everything.clone() }, vec![2]),
        (NotificationFilter { reach: named, ..everything.clone() }, vec![1, 0]),
        (NotificationFilter { subscription: Some(other.id), ..everything.clone() }, vec![2]),
        (
            NotificationFilter { subscription: Some(subscription_id()), ..everything.clone() },
            vec![],
        ),
        (
            NotificationFilter { kind: Some("overage_charge".to_owned()), ..everything.clone() },
            vec![1],
        ),
        (
            NotificationFilter { status: Some(DeliveryStatus::Delivered), ..everything.clone() },
            vec![0],
        ),
        (
            NotificationFilter { status: Some(DeliveryStatus::Pending), ..everything.clone() },
            vec![2, 1],
        ),
        (NotificationFilter { before: Some(sent[2].id), ..everything.clone() }, vec![1, 0]),
    ];
    for (filter, expected) in stories {
        let page = outbox.store().list_notifications(&filter).await.expect("list");
        let found: Vec<_> = page.data.iter().map(|row| row.id).collect();
        let expected: Vec<_> = expected.into_iter().map(|index: usize| sent[index].id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let short = NotificationFilter { limit: 2, ..everything };
    let page = outbox.store().list_notifications(&short).await.expect("list");
    assert_eq!((page.data.len(), page.more), (2, true));
    assert_eq!(page.data[0].tenant, "other");
    assert_eq!(page.data[0].payload, sent[2].payload);
    let out_of_reach = Reach { tenant: Some("other".to_owned()), subscriptions: None };
    let hidden = outbox.store().find_notification(sent[0].id, &out_of_reach).await.expect("find");
    assert_eq!(hidden, None);
}

/// Workers that claim and deliver until nothing is due; how often each message was sent.
async fn workers_at_the_same_moment_share_and_never_double(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    let mut sent = Vec::new();
    for _ in 0..6 {
        let row = outbox.fixture.subscription("default").await;
        sent.extend((0..5).map(|_| message(row.id)));
    }
    outbox.enqueue(sent.clone()).await;
    let addressed: Vec<_> = sent.iter().map(|one| to(one.id, &[WEBHOOK])).collect();
    outbox.store().address(&addressed, at(NOON)).await.expect("address");
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (store, log) = (outbox.store().clone(), log.clone());
            tokio::spawn(async move {
                for _ in 0..1_000 {
                    let claim = claim(NOON, 3);
                    let taken = store.claim_deliveries(&claim).await.expect("claim");
                    log.lock().expect("no panic under it").extend(ids(&taken));
                    let finished: Vec<_> = taken.iter().map(|one| delivered(&claim, one)).collect();
                    let held = store.finish_deliveries(&finished).await.expect("finish");
                    assert!(held.iter().all(|held| *held));
                    if store.outbox_depth().await.expect("depth").pending == 0 {
                        return;
                    }
                }
                panic!("the queue does not empty");
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
    let log = log.lock().expect("no panic under it").clone();
    let mut once = log.clone();
    once.sort_unstable();
    let mut expected: Vec<_> = sent.iter().map(|one| one.id).collect();
    expected.sort_unstable();
    assert_eq!(once, expected, "each once");
    for lane in sent.chunks(5) {
        let order = |id: Uuid| log.iter().position(|one| *one == id);
        let places: Vec<_> = lane.iter().map(|one| order(one.id)).collect();
        assert!(places.is_sorted(), "a lane leaves in its order: {places:?}");
    }
}

fn delivered(claim: &DeliveryClaim, taken: &ClaimedDelivery) -> FinishedDelivery {
    FinishedDelivery {
        claim: claim.id,
        message: taken.message,
        channel: taken.channel.clone(),
        ending: Ending::Delivered,
        error: None,
        at: claim.now,
    }
}

async fn addressing_at_the_same_moment_makes_one_delivery_a_channel(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    for _ in 0..10 {
        let sent: Vec<_> = (0..8).map(|_| outbox.message()).collect();
        outbox.enqueue(sent.clone()).await;
        let nodes: Vec<_> = (0..3)
            .map(|node| {
                let store = outbox.store().clone();
                let mut messages: Vec<_> =
                    sent.iter().map(|one| to(one.id, &[WEBHOOK, EMAIL])).collect();
                // Each in an order of its own: they must not wait for one another in a ring.
                messages.rotate_left(node * 3);
                tokio::spawn(async move { store.address(&messages, at(NOON)).await })
            })
            .collect();
        for node in nodes {
            node.await.expect("a node").expect("address");
        }
        for message in sent {
            assert_eq!(outbox.seen(message.id).await.deliveries.len(), 2);
        }
    }
}

async fn two_channels_that_end_at_the_same_moment_finish_the_message(fixture: Fixture) {
    let outbox = Outbox::new(fixture).await;
    for round in 0..20 {
        let id = outbox.addressed(1, &[WEBHOOK, EMAIL]).await[0];
        let claim = claim(NOON, 2);
        let taken = outbox.store().claim_deliveries(&claim).await.expect("claim");
        assert_eq!(taken.len(), 2);
        let ends: Vec<_> = taken
            .iter()
            .map(|one| {
                let (store, finished) = (outbox.store().clone(), delivered(&claim, one));
                tokio::spawn(async move { store.finish_deliveries(&[finished]).await })
            })
            .collect();
        for end in ends {
            assert_eq!(end.await.expect("a worker").expect("finish"), [true]);
        }
        let status = outbox.seen(id).await.status;
        assert_eq!(status, DeliveryStatus::Delivered, "round {round}: neither missed the other");
    }
}
