//! Stories of two ends of a link, without a network between them.

use super::*;

/// Everything that one end would send now, as the other gets it.
fn frames(outbox: &mut Outbox) -> Vec<Frame> {
    std::iter::from_fn(|| outbox.next_frame(7)).collect()
}

fn outcome(receiver: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
    receiver.try_recv().ok()
}

#[test]
fn messages_leave_in_order_and_in_batches_of_so_many() {
    let mut outbox = Outbox::default();
    for number in 0..150_u8 {
        outbox.tell(vec![number]).unwrap();
    }
    let frames = frames(&mut outbox);
    let sizes: Vec<_> = frames.iter().map(|frame| frame.messages.len()).collect();
    assert_eq!(sizes, [64, 64, 22]);
    let order: Vec<_> = frames.into_iter().flat_map(|frame| frame.messages).collect();
    assert_eq!(order, (0..150).map(|number| PeerMessage::Tell(vec![number])).collect::<Vec<_>>());
}

#[test]
fn a_batch_has_so_many_bytes_and_a_larger_body_goes_alone() {
    let mut outbox = Outbox::default();
    for bytes in [1, PEER_BATCH_BYTES_MAX, PEER_BODY_BYTES_MAX, 1, PEER_BATCH_BYTES_MAX - 1, 1] {
        outbox.tell(vec![0; bytes]).unwrap();
    }
    let sizes: Vec<_> = frames(&mut outbox)
        .iter()
        .map(|frame| frame.messages.iter().map(body_bytes).collect::<Vec<_>>())
        .collect();
    let (batch, body) = (PEER_BATCH_BYTES_MAX, PEER_BODY_BYTES_MAX);
    assert_eq!(sizes, [vec![1], vec![batch], vec![body], vec![1, batch - 1], vec![1]]);
}

#[test]
fn a_full_window_of_requests_takes_no_more_until_one_is_answered() {
    let mut outbox = Outbox::default();
    let mut waiting: Vec<_> =
        (0..PEER_WINDOW_MESSAGES).map(|_| outbox.request(vec![1]).unwrap()).collect();
    assert_eq!(outbox.request(vec![1]).err(), Some(PeerRefusal::WindowFull));
    assert_eq!(outbox.tell(vec![1]), Err(PeerRefusal::WindowFull));
    // That it was sent, or that its caller went, makes no room: the peer is still at work.
    let sent: usize = frames(&mut outbox).iter().map(|frame| frame.messages.len()).sum();
    assert_eq!(sent, PEER_WINDOW_MESSAGES);
    let mut first = waiting.remove(0);
    drop(waiting);
    assert_eq!(outbox.tell(vec![1]), Err(PeerRefusal::WindowFull));
    outbox.answered(1, Some(vec![2])).unwrap();
    assert_eq!(outcome(&mut first), Some(Ok(vec![2])));
    assert_eq!(outbox.tell(vec![1]), Ok(()));
}

#[test]
fn the_windows_bytes_are_kept_and_come_back() {
    let mut outbox = Outbox::default();
    let body = vec![0; PEER_BODY_BYTES_MAX];
    let fit = PEER_WINDOW_BYTES / PEER_BODY_BYTES_MAX;
    for _ in 0..fit {
        outbox.tell(body.clone()).unwrap();
    }
    assert_eq!(outbox.request(body.clone()).err(), Some(PeerRefusal::WindowFull));
    frames(&mut outbox);
    outbox.heard(1, 0).unwrap();
    assert!(outbox.request(body.clone()).is_ok());
    assert_eq!(outbox.tell(body), Err(PeerRefusal::WindowFull));
    outbox.heard(fit as u64, 0).unwrap();
    outbox.answered(1, None).unwrap();
    assert_eq!(outbox.bytes, 0, "nothing is under way");
}

#[test]
fn a_body_above_the_cap_is_refused_whatever_the_window() {
    let body = vec![0; PEER_BODY_BYTES_MAX + 1];
    assert_eq!(Outbox::default().tell(body), Err(PeerRefusal::TooLarge));
}

#[test]
fn an_end_tells_what_was_not_sent_from_what_may_have_been() {
    let mut outbox = Outbox::default();
    let mut sent = outbox.request(vec![1]).unwrap();
    frames(&mut outbox);
    let mut queued = outbox.request(vec![2]).unwrap();
    outbox.close();
    assert_eq!(outcome(&mut sent), Some(Err(PeerError::Unknown)));
    assert_eq!(outcome(&mut queued), Some(Err(PeerError::NotSent)));
    assert_eq!(outbox.request(vec![3]).err(), Some(PeerRefusal::NoLink));
    assert_eq!(outbox.next_frame(7), None);
}

#[test]
fn a_peer_hears_what_was_dealt_with_before_its_window_is_full() {
    let (mut a, mut b) = (Outbox::default(), Outbox::default());
    let mut told = 0;
    // Ten windows of tells, with nothing sent back but what must be said.
    for _ in 0..10 * PEER_WINDOW_MESSAGES {
        a.tell(vec![1]).expect("the window never fills");
        for frame in frames(&mut a) {
            for _ in frame.messages {
                told += 1;
                b.dealt_with_tell(1);
            }
        }
        for frame in frames(&mut b) {
            assert_eq!(frame.messages, []);
            a.heard(frame.told, frame.answered).unwrap();
        }
    }
    assert_eq!(told, 10 * PEER_WINDOW_MESSAGES);
}

#[test]
fn large_answers_that_were_taken_are_said_before_many() {
    let (mut a, mut b) = (Outbox::default(), Outbox::default());
    for id in 1..=2 {
        drop(a.request(vec![]).unwrap());
        b.answer(id, Some(vec![0; PEER_BODY_BYTES_MAX]));
    }
    frames(&mut a);
    for frame in frames(&mut b) {
        for message in frame.messages {
            let PeerMessage::Answer(id, body) = message else { panic!("{message:?}") };
            a.answered(id, Some(body)).unwrap();
        }
    }
    let said = a.next_frame(7).expect("two megabytes are worth a frame");
    assert_eq!(b.heard(said.told, said.answered), Ok(2 * PEER_BODY_BYTES_MAX));
}

#[test]
fn counts_that_do_not_add_up_are_out_of_step() {
    let mut outbox = Outbox::default();
    outbox.tell(vec![1]).unwrap();
    assert_eq!(outbox.heard(2, 0), Err(OutOfStep), "one was told");
    outbox.heard(1, 0).unwrap();
    assert_eq!(outbox.heard(0, 0), Err(OutOfStep), "counts never fall");
    assert_eq!(outbox.heard(1, 1), Err(OutOfStep), "nothing was answered");
    assert_eq!(outbox.answered(1, None), Err(OutOfStep), "nothing was asked");
}

#[test]
fn a_full_window_still_pings_and_a_flood_of_pings_is_answered_within_a_limit() {
    let mut outbox = Outbox::default();
    for _ in 0..PEER_WINDOW_MESSAGES {
        outbox.tell(vec![]).unwrap();
    }
    for number in 0..10_000 {
        outbox.urge(PeerMessage::Pong(number));
    }
    let frame = outbox.next_frame(7).unwrap();
    let pongs = frame.messages.iter().filter(|one| matches!(one, PeerMessage::Pong(_))).count();
    assert_eq!(pongs, PEER_BATCH_MESSAGES_MAX);
    assert_eq!(frame.messages[0], PeerMessage::Pong(0), "they go first");
}
