//! Any body there and back, and any bytes at all.

use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop, prop_oneof, proptest};

use super::*;

fn any_units() -> impl Strategy<Value = Units> {
    prop_oneof![Just(0), Just(UNITS_MAX), 0..=UNITS_MAX].prop_map(units)
}

fn any_moment() -> impl Strategy<Value = Micros> {
    any::<i64>().prop_map(Micros::from_micros)
}

fn any_uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,20}", ".{240,300}"]
}

fn any_check() -> impl Strategy<Value = Check> {
    let other = (any_text().prop_map(String::into_boxed_str), any_units());
    let text = || option::of(any_text().prop_map(String::into_boxed_str));
    let others = prop::collection::vec(other, 0..4);
    let ids = (option::of(any::<u128>()), option::of(any::<u128>()));
    (option::of(any_units()), others, text(), text(), ids).prop_map(
        |(cost, others, method, path, (request_id, reserve))| Check {
            cost,
            others: others.into(),
            method,
            path,
            request_id,
            reserve: reserve.map(reservation),
            degraded: false,
        },
    )
}

fn any_row() -> impl Strategy<Value = LedgerRow> {
    use weir_store::rows::{OutcomeKind as O, RowKind as K};

    let kind = prop_oneof![Just(K::Usage), Just(K::Adjustment), Just(K::Reset), Just(K::Commit)];
    let outcome = prop_oneof![Just(O::Served), Just(O::Denied), Just(O::Aborted)];
    let head = (any_uuid(), any::<u16>(), any_text(), kind, outcome, any::<bool>());
    let times = (any_moment(), any_moment(), any::<i64>());
    let ids = (option::of(any_uuid()), option::of(any_uuid()));
    let texts = prop::collection::vec(option::of(any_text()), 5..6);
    let places = (any_text(), any_text(), texts);
    let counts = prop::collection::vec(option::of(any::<i64>()), 3..4);
    let status = (option::of(any::<i16>()), option::of(any::<bool>()), counts);
    (head, times, ids, places, status).prop_map(|(head, times, ids, places, status)| {
        let (id, shard, event_id, kind, outcome, charged) = head;
        let (event_time, recorded_at, units) = times;
        let (api_path, method, texts) = places;
        let (status_code, success, counts) = status;
        LedgerRow {
            subscription: SubscriptionId::from_uuid(id),
            shard: ShardId(shard),
            seq: Seq(0),
            event_id,
            kind,
            event_time,
            recorded_at,
            units,
            quantities: texts[0].clone(),
            charged,
            outcome,
            reservation: ids.0.map(ReservationId::from_uuid),
            key_id: ids.1,
            api_id: texts[1].clone(),
            api_path,
            method,
            status_code,
            success,
            response_time_us: counts[0],
            request_size: counts[1],
            response_size: counts[2],
            user_agent: texts[2].clone(),
            ip_address: texts[3].clone(),
            country: texts[4].clone(),
        }
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any_uuid().prop_map(|id| Change::Plan(PlanId::from_uuid(id))),
        any_uuid().prop_map(|id| Change::Subscription(SubscriptionId::from_uuid(id))),
        any::<[u8; 32]>().prop_map(Change::Key),
        any::<[u8; 32]>().prop_map(Change::Token),
    ]
}

fn any_ask() -> BoxedStrategy<Ask> {
    let subscription = || any_uuid().prop_map(SubscriptionId::from_uuid);
    prop_oneof![
        (subscription(), any_check())
            .prop_map(|(subscription, check)| Ask::Check { subscription, check }),
        subscription().prop_map(|subscription| Ask::Usage { subscription }),
        prop::collection::vec(any_row(), 0..4).prop_map(|rows| Ask::Record { rows }),
        any_change().prop_map(Ask::Changed),
        (any_uuid(), 0..=60_000_u64, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(to, millis, body)| Ask::Pass { to, within: Duration::from_millis(millis), body }
        ),
    ]
    .boxed()
}

fn any_quota() -> impl Strategy<Value = QuotaView> {
    let counts = (any_units(), any_units(), any_units());
    (option::of(any_units()), option::of(any_units()), counts, any_moment(), any_moment()).prop_map(
        |(limit, overage_from, (used, pending, overage_floor), period_start, reset_at)| QuotaView {
            limit,
            used,
            pending,
            period_start,
            reset_at,
            overage_from,
            overage_floor,
        },
    )
}

fn any_rate() -> impl Strategy<Value = RateView> {
    (any::<u16>(), any_units(), any_moment()).prop_map(|(index, remaining, reset_at)| RateView {
        index,
        remaining,
        reset_at,
    })
}

fn any_standing() -> impl Strategy<Value = Standing> {
    use weir_core::meter::{Mode as M, Reason as R};

    let reason = prop_oneof![Just(R::Ok), Just(R::QuotaExceeded), Just(R::TooManyReservations)];
    let mode = prop_oneof![Just(M::Enforced), Just(M::Shadow), Just(M::Degraded)];
    let plan = (any_uuid(), any::<u32>());
    let told = (any::<bool>(), reason, mode, any::<bool>());
    let violated = (any::<u16>(), any::<u32>(), 0..=i64::MAX, option::of(any_uuid()));
    let quotas = prop::collection::vec(any_quota(), 0..=16);
    let rates = prop::collection::vec(any_rate(), 0..=32);
    (plan, told, violated, quotas, rates).prop_map(|(plan, told, violated, quotas, rates)| {
        let (allowed, reason, mode, overage) = told;
        let (violated_quotas, violated_rates, retry_after, reservation) = violated;
        Standing {
            plan: PlanId::from_uuid(plan.0),
            plan_version: plan.1,
            allowed,
            reason,
            mode,
            overage,
            violated: Violated { quotas: violated_quotas, rates: violated_rates },
            retry_after: Span::from_micros(retry_after),
            reservation: reservation.map(ReservationId::from_uuid),
            quotas: quotas.into(),
            rates: rates.into(),
        }
    })
}

fn any_reply() -> BoxedStrategy<Reply> {
    let recorded = prop_oneof![Just(Recorded::New), Just(Recorded::Duplicate)];
    prop_oneof![
        any_standing().prop_map(Reply::Decided),
        (any_standing(), any_moment()).prop_map(|(standing, at)| Reply::Used { standing, at }),
        prop::collection::vec(recorded, 0..=RECORD_ROWS_MAX).prop_map(Reply::Recorded),
        option::of(any_uuid()).prop_map(Reply::NotHere),
    ]
    .boxed()
}

fn any_tell() -> impl Strategy<Value = Tell> {
    let owner = (any::<u16>(), option::of(any_uuid()), any::<u64>()).prop_map(
        |(shard, incarnation, epoch)| (ShardId(shard), Owner { incarnation, epoch: Epoch(epoch) }),
    );
    prop::collection::vec(owner, 0..40).prop_map(Tell::Owners)
}

/// Whatever these bytes are, it is an error, or a value that is written and read as the same.
fn harmless(bytes: &[u8]) {
    if let Ok(ask) = decode_ask(bytes) {
        assert_eq!(shown(decode_ask(&encode_ask(&ask))), Some(format!("{ask:?}")));
    }
    if let Ok(reply) = decode_reply(bytes) {
        assert_eq!(decode_reply(&encode_reply(&reply)).ok(), Some(reply));
    }
    if let Ok(tell) = decode_tell(bytes) {
        assert_eq!(decode_tell(&encode_tell(&tell)).ok(), Some(tell));
    }
}

proptest! {
    #[test]
    fn any_ask_there_and_back_is_the_same(ask in any_ask(), at in any::<usize>(), bit in 0..8_u8) {
        let mut bytes = encode_ask(&ask);
        assert_eq!(shown(decode_ask(&bytes)), Some(format!("{ask:?}")));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        harmless(&bytes);
    }

    #[test]
    fn any_reply_there_and_back_is_the_same(
        reply in any_reply(), at in any::<usize>(), bit in 0..8_u8,
    ) {
        let mut bytes = encode_reply(&reply);
        let back = decode_reply(&bytes);
        assert_eq!(back.ok(), Some(reply));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        harmless(&bytes);
    }

    #[test]
    fn any_tell_there_and_back_is_the_same(tell in any_tell()) {
        assert_eq!(decode_tell(&encode_tell(&tell)).ok(), Some(tell));
    }

    #[test]
    fn a_row_is_never_longer_than_its_estimate(row in any_row()) {
        let most = HEAD_BYTES + rows::bytes_at_most(&row);
        let bytes = encode_ask(&Ask::Record { rows: vec![row] });
        assert!(bytes.len() <= most, "{} bytes, {most} at most", bytes.len());
    }

    #[test]
    fn any_bytes_are_a_body_or_an_error(
        kind in 0..9_u8, rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        harmless(&[&[1, kind][..], &rest].concat());
    }
}
