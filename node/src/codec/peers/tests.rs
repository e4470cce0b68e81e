//! Stories of bodies between nodes: bytes that never change, any value there and back, hostile bytes.

use std::fmt::Debug;

use smallvec::smallvec;
use weir_config::limits::{
    EVENT_ID_CHARS_MAX, METHOD_BYTES_MAX, NAME_CHARS_MAX, PATH_BYTES_MAX, QUANTITIES_MAX,
    USER_AGENT_BYTES_MAX,
};
use weir_core::units::{Epoch, Seq, UNITS_MAX, Units};
use weir_store::rows::{OutcomeKind, RowKind};

use super::*;

mod any;

fn subscription(id: u128) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(id))
}

fn reservation(id: u128) -> ReservationId {
    ReservationId::from_uuid(Uuid::from_u128(id))
}

fn units(count: u64) -> Units {
    Units::new(count).expect("within range")
}

fn check() -> Check {
    Check {
        cost: Some(units(300)),
        others: smallvec![("tokens".into(), units(UNITS_MAX))],
        method: Some("GET".into()),
        path: Some("/v1/a".into()),
        request_id: Some(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        reserve: Some(reservation(9)),
        degraded: false,
    }
}

fn row() -> LedgerRow {
    LedgerRow {
        subscription: subscription(7),
        shard: ShardId(513),
        seq: Seq(0),
        event_id: "e1".into(),
        kind: RowKind::Commit,
        event_time: Micros::from_seconds(1_700_000_000),
        recorded_at: Micros::from_seconds(1_700_000_001),
        units: -5,
        quantities: Some(r#"{"tokens":7}"#.into()),
        charged: true,
        outcome: OutcomeKind::Aborted,
        reservation: Some(reservation(1)),
        key_id: Some(Uuid::from_u128(2)),
        api_id: Some("api".into()),
        api_path: "/v1".into(),
        method: "PUT".into(),
        status_code: Some(404),
        success: Some(false),
        response_time_us: Some(12_500),
        request_size: Some(100),
        response_size: Some(70_000),
        user_agent: Some("curl".into()),
        ip_address: Some("::1".into()),
        country: Some("DE".into()),
    }
}

/// Every text and number of a row as long as it can be.
fn longest_row(event: usize) -> LedgerRow {
    let meters = (0..QUANTITIES_MAX).map(|meter| format!("\"{meter:064}\":{UNITS_MAX}"));
    let meters: Vec<_> = meters.collect();
    LedgerRow {
        subscription: subscription(u128::MAX),
        shard: ShardId(u16::MAX),
        event_id: format!("{event:𝟎>EVENT_ID_CHARS_MAX$}"),
        event_time: Micros::from_micros(i64::MIN),
        recorded_at: Micros::from_micros(i64::MIN),
        units: i64::MIN,
        quantities: Some(format!("{{{}}}", meters.join(","))),
        reservation: Some(reservation(u128::MAX)),
        key_id: Some(Uuid::max()),
        api_id: Some("𝟎".repeat(NAME_CHARS_MAX)),
        api_path: "p".repeat(PATH_BYTES_MAX),
        method: "M".repeat(METHOD_BYTES_MAX),
        status_code: Some(i16::MIN),
        response_time_us: Some(i64::MIN),
        request_size: Some(i64::MIN),
        response_size: Some(i64::MIN),
        user_agent: Some("u".repeat(USER_AGENT_BYTES_MAX)),
        ip_address: Some("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".into()),
        ..row()
    }
}

fn standing() -> Standing {
    Standing {
        plan: PlanId::from_uuid(Uuid::from_u128(0xabcd)),
        plan_version: 3,
        allowed: false,
        reason: Reason::RateLimited,
        mode: Mode::Shadow,
        overage: true,
        violated: Violated { quotas: 1, rates: 1 << 31 },
        retry_after: Span::from_micros(1_500_000),
        reservation: Some(reservation(9)),
        quotas: smallvec![QuotaView {
            limit: Some(units(10_000)),
            used: units(512),
            pending: units(4),
            period_start: Micros::from_seconds(1_698_796_800),
            reset_at: Micros::from_seconds(1_701_388_800),
            overage_from: Some(units(9_000)),
            overage_floor: units(7),
        }],
        rates: smallvec![RateView {
            index: 31,
            remaining: units(4),
            reset_at: Micros::from_micros(-1),
        }],
    }
}

fn owners() -> Tell {
    let owned = Owner { incarnation: Some(Uuid::from_u128(5)), epoch: Epoch(300) };
    Tell::Owners(vec![(ShardId(0), Owner::default()), (ShardId(1_023), owned)])
}

fn asks() -> Vec<(Ask, &'static str)> {
    vec![
        (
            Ask::Check { subscription: subscription(1), check: check() },
            concat!(
                "01000101fb2c010106746f6b656e73fdffffffffffff1f00010347455401052f76312f6101fe100f",
                "0e0d0c0b0a090807060504030201",
                "0109"
            ),
        ),
        (
            Ask::Check { subscription: subscription(1), check: Check::default() },
            "010001000000000000",
        ),
        (Ask::Usage { subscription: subscription(300) }, "0101fb2c01"),
        (
            Ask::Record { rows: vec![row()] },
            concat!(
                "01020107fb010202653104fd00803c3048140c00fd80045b3048140c0009010c7b22746f6b656e73",
                "223a377d0103010101020103617069032f76310350555401fb2803010001fba86101c801fce02202",
                "0001046375726c01033a3a3101024445",
            ),
        ),
        (Ask::Changed(Change::Plan(PlanId::from_uuid(Uuid::from_u128(1)))), "01030001"),
        (Ask::Changed(Change::Subscription(subscription(2))), "01030102"),
        (
            Ask::Changed(Change::Key([0x11; 32])),
            "0103021111111111111111111111111111111111111111111111111111111111111111",
        ),
        (
            Ask::Changed(Change::Token([0x22; 32])),
            "0103032222222222222222222222222222222222222222222222222222222222222222",
        ),
        (
            Ask::Pass {
                to: Uuid::from_u128(6),
                within: Duration::from_secs(2),
                body: b"ask".to_vec(),
            },
            "010406fbd0070361736b",
        ),
    ]
}

fn replies() -> Vec<(Reply, &'static str)> {
    let at = Micros::from_seconds(1_700_000_000);
    let nothing =
        Standing { reservation: None, quotas: smallvec![], rates: smallvec![], ..standing() };
    vec![
        (
            Reply::Decided(standing()),
            concat!(
                "0100fbcdab030003020101fc00000080fcc0c62d0001090101fb1027fb000204fd00809ee717120c",
                "00fd000019e6ce160c0001fb282307011f0401",
            ),
        ),
        (
            Reply::Used { standing: nothing, at },
            "0101fbcdab030003020101fc00000080fcc0c62d00000000fd00803c3048140c00",
        ),
        (Reply::Undecided(Undecided::Busy), "010201"),
        (Reply::Undecided(Undecided::StoreAway), "010202"),
        (Reply::Undecided(Undecided::NotFound), "010203"),
        (Reply::Undecided(Undecided::NotLoaded), "010204"),
        (Reply::Undecided(Undecided::Failed), "010205"),
        (Reply::Recorded(vec![Recorded::New, Recorded::Duplicate]), "0103020102"),
        (Reply::NotRecorded(RecordError::Busy), "010401"),
        (Reply::NotRecorded(RecordError::Away), "010402"),
        (Reply::NotRecorded(RecordError::Fenced), "010403"),
        (Reply::NotRecorded(RecordError::NotHere), "010404"),
        (Reply::NotHere(None), "010500"),
        (Reply::NotHere(Some(Uuid::from_u128(5))), "01050105"),
        (Reply::Done, "0106"),
        (Reply::Unreadable, "0107"),
        (Reply::Passed(b"answer".to_vec()), "010806616e73776572"),
        (Reply::NotPassed, "0109"),
        (Reply::NoAnswer, "010a"),
    ]
}

const GOLDEN_OWNERS: &str = "010002000000fbff030105fb2c01";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// How an ask reads; a check knows no equality.
fn shown<T: Debug>(value: Result<T, CodecError>) -> Option<String> {
    value.ok().map(|value| format!("{value:?}"))
}

#[test]
fn the_golden_bodies_never_change() {
    for (ask, golden) in asks() {
        let bytes = encode_ask(&ask);
        assert_eq!(hex(&bytes), golden, "{ask:?}");
        assert_eq!(shown(decode_ask(&bytes)), Some(format!("{ask:?}")));
    }
    for (reply, golden) in replies() {
        let bytes = encode_reply(&reply);
        assert_eq!(hex(&bytes), golden, "{reply:?}");
        assert_eq!(decode_reply(&bytes).ok(), Some(reply));
    }
    let bytes = encode_tell(&owners());
    assert_eq!(hex(&bytes), GOLDEN_OWNERS);
    assert_eq!(decode_tell(&bytes).ok(), Some(owners()));
}

#[test]
fn the_numbers_of_reasons_modes_kinds_and_outcomes_never_change() {
    // (value, its number); what comes after the last is nobody's, and so is zero.
    fn check<T: crate::codec::numbers::Numbered + Debug + PartialEq>(values: &[T]) {
        for (number, value) in (1..).zip(values) {
            assert_eq!((value.number(), T::from_number(number)), (number, Some(*value)));
        }
        let end = u8::try_from(values.len()).expect("a few");
        for number in std::iter::once(0).chain(end + 1..=u8::MAX) {
            assert_eq!(T::from_number(number), None, "{number}");
        }
    }
    check(&[
        Reason::Ok,
        Reason::QuotaExceeded,
        Reason::RateLimited,
        Reason::UnknownKey,
        Reason::KeyRevoked,
        Reason::Suspended,
        Reason::NotStarted,
        Reason::Ended,
        Reason::TooManyReservations,
    ]);
    check(&[Mode::Enforced, Mode::Shadow, Mode::Degraded]);
    check(&[Recorded::New, Recorded::Duplicate]);
    check(&[RowKind::Usage, RowKind::Adjustment, RowKind::Reset, RowKind::Commit]);
    check(&[OutcomeKind::Served, OutcomeKind::Denied, OutcomeKind::Aborted]);
}

#[test]
fn nobody_passes_on_for_longer_than_the_longest_time() {
    let within = PASS_WITHIN_MAX + Duration::from_secs(1);
    let ask = encode_ask(&Ask::Pass { to: Uuid::max(), within, body: Vec::new() });
    assert!(matches!(decode_ask(&ask), Ok(Ask::Pass { within: PASS_WITHIN_MAX, .. })));
}

#[test]
fn what_only_the_receiver_knows_is_not_sent() {
    let degraded = Check { degraded: true, ..check() };
    let ask = encode_ask(&Ask::Check { subscription: subscription(1), check: degraded });
    assert!(matches!(decode_ask(&ask), Ok(Ask::Check { check, .. }) if !check.degraded));
    let rows = vec![LedgerRow { seq: Seq(12), ..row() }];
    let ask = encode_ask(&Ask::Record { rows });
    assert!(matches!(decode_ask(&ask), Ok(Ask::Record { rows }) if rows == [row()]));
    let elsewhere = encode_reply(&Reply::Undecided(Undecided::NotHere));
    assert_eq!(decode_reply(&elsewhere).ok(), Some(Reply::NotHere(None)));
}

#[test]
fn bodies_cut_anywhere_made_longer_or_of_another_version_are_refused() {
    fn check<T: Debug>(bytes: &[u8], decode: fn(&[u8]) -> Result<T, CodecError>) {
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes of {bytes:?}");
        }
        let longer = [bytes, &[0]].concat();
        assert!(decode(&longer).is_err(), "{longer:?}");
        let newer = [&[2], &bytes[1..]].concat();
        assert!(matches!(decode(&newer), Err(CodecError::Version { version: 2, .. })));
    }
    for (ask, _) in asks() {
        check(&encode_ask(&ask), decode_ask);
    }
    for (reply, _) in replies() {
        check(&encode_reply(&reply), decode_reply);
    }
    check(&encode_tell(&owners()), decode_tell);
}

#[test]
fn numbers_that_mean_nothing_are_damage() {
    // A variant, an undecided, a recorded, a record error that nobody has.
    for bytes in [&[1, 8][..], &[1, 2, 0], &[1, 2, 6], &[1, 3, 1, 3], &[1, 4, 5]] {
        assert!(matches!(decode_reply(bytes), Err(CodecError::Damaged { .. })), "{bytes:?}");
    }
    // A count above the largest: one for the cost of a check, one for another meter's.
    let most = [0xfd, 0, 0, 0, 0, 0, 0, 0x20, 0];
    let cost = [&[1, 0, 1, 1][..], &most, &[0, 0, 0, 0, 0]].concat();
    let other = [&[1, 0, 1, 0, 1, 1, b'x'][..], &most, &[0, 0, 0, 0]].concat();
    for bytes in [cost, other] {
        assert!(matches!(decode_ask(&bytes), Err(CodecError::Damaged { source: None, .. })));
        let within: Vec<u8> =
            bytes.iter().map(|&byte| if byte == 0x20 { 0x1f } else { byte }).collect();
        assert!(decode_ask(&within).is_ok(), "{within:?}");
    }
}

#[test]
fn a_length_that_claims_more_than_there_is_allocates_nothing() {
    let huge = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    // Other meters of a check, its method, rows, the text of a row.
    for start in [&[1, 0, 1, 0][..], &[1, 0, 1, 0, 0, 1], &[1, 2], &[1, 2, 1, 0, 0]] {
        assert!(decode_ask(&[start, &huge].concat()).is_err(), "{start:?}");
    }
    // Quotas of a standing, its rates, recorded rows.
    let quotas = [1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
    for start in [&quotas[..], &[&quotas[..], &[0]].concat(), &[1, 3]] {
        assert!(decode_reply(&[start, &huge].concat()).is_err(), "{start:?}");
    }
    assert!(decode_tell(&[&[1, 0][..], &huge].concat()).is_err());
}

#[test]
fn more_rows_or_owners_than_one_body_may_carry_are_refused() {
    let small = LedgerRow { event_id: String::new(), user_agent: None, ..row() };
    for (count, taken) in [(RECORD_ROWS_MAX, true), (RECORD_ROWS_MAX + 1, false)] {
        let rows = vec![small.clone(); count];
        assert_eq!(decode_ask(&encode_ask(&Ask::Record { rows })).is_ok(), taken, "{count} rows");
        let recorded = Reply::Recorded(vec![Recorded::New; count]);
        assert_eq!(decode_reply(&encode_reply(&recorded)).is_ok(), taken, "{count} recorded");
    }
    let owner = Owner { incarnation: Some(Uuid::max()), epoch: Epoch(u64::MAX) };
    for (count, taken) in [(OWNERS_MAX, true), (OWNERS_MAX + 1, false)] {
        let bytes = encode_tell(&Tell::Owners(vec![(ShardId(u16::MAX), owner); count]));
        assert!(bytes.len() <= PEER_BODY_BYTES_MAX);
        assert_eq!(decode_tell(&bytes).is_ok(), taken, "{count} owners");
    }
    let above = [&[ASK_VERSION][..], &vec![0; PEER_BODY_BYTES_MAX]].concat();
    assert!(matches!(decode_ask(&above), Err(CodecError::Damaged { source: None, .. })));
}

#[test]
fn rows_at_their_limits_are_split_in_order_and_each_part_fits() {
    let rows: Vec<LedgerRow> = (0..RECORD_ROWS_MAX).map(longest_row).collect();
    let chunks = record_chunks(rows.clone());
    assert_eq!(chunks.concat().len(), rows.len());
    assert!(chunks.concat().iter().map(|row| &row.event_id).eq(rows.iter().map(|r| &r.event_id)));
    for chunk in &chunks {
        let bytes = encode_ask(&Ask::Record { rows: chunk.clone() });
        assert!(!chunk.is_empty() && decode_ask(&bytes).is_ok());
        // As it is sent, and as it is passed on.
        let within = PASS_WITHIN_MAX;
        let passed = encode_ask(&Ask::Pass { to: Uuid::max(), within, body: bytes });
        assert!(passed.len() <= PEER_BODY_BYTES_MAX, "{} bytes", passed.len());
        assert!(decode_ask(&passed).is_ok());
    }
    // No part but the last has room for another row.
    let (_, full) = chunks.split_last().expect("there are parts");
    let room = |chunk: &Vec<LedgerRow>| {
        let taken: usize = chunk.iter().map(rows::bytes_at_most).sum();
        RECORD_BYTES_MAX - HEAD_BYTES - taken
    };
    assert!(!full.is_empty());
    assert!(full.iter().all(|chunk| room(chunk) < rows::bytes_at_most(&rows[0])));
}

#[test]
fn ordinary_rows_are_split_by_their_number_alone() {
    let ordinary = LedgerRow {
        event_id: "gateway-7:018c5b1e-7d3f-7a51-9d5b-000000000001".into(),
        api_path: "/v1/projects/4711/generate/image".into(),
        user_agent: Some("u".repeat(250)),
        ..row()
    };
    for (count, parts) in [
        (0, vec![]),
        (1, vec![1]),
        (RECORD_ROWS_MAX, vec![RECORD_ROWS_MAX]),
        (2 * RECORD_ROWS_MAX + 1, vec![RECORD_ROWS_MAX, RECORD_ROWS_MAX, 1]),
    ] {
        let chunks = record_chunks(vec![ordinary.clone(); count]);
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), parts, "{count} rows");
    }
}

#[test]
fn a_row_too_large_for_any_body_is_alone_and_harms_no_other() {
    let monster = LedgerRow { api_path: "p".repeat(PEER_BODY_BYTES_MAX), ..row() };
    let chunks = record_chunks(vec![row(), monster, row(), row()]);
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn a_decision_told_by_its_plan_is_the_same_decision() {
    use crate::catalog::plan_document::parse;

    let document = br#"{"name":"p","quotas":[{"name":"q","meter":"requests","limit":10}]}"#;
    let plan = Arc::new(parse(document, standing().plan, 3).expect("a plan"));
    let decision = standing().into_decision(plan.clone());
    assert_eq!((decision.plan.id, decision.plan.version), (plan.id, plan.version));
    assert_eq!(Standing::of(&decision), standing());
}
