//! The snapshot of a subscription, in three versions.
//!
//! Role: the meter's state ⇄ its wire family. What is written is the newest; older ones are read for ever,
//! since a subscription may rest for as long.

use bincode::{Decode, Encode};
use uuid::Uuid;
use weir_core::meter::{
    CounterState, MeterState, Mode, NamedState, Reason, Remembered, Verdict, Violated,
};
use weir_core::quota::{Cut, Hold, OtherPeriod, PricedBy};
use weir_core::rate::RateParts;
use weir_core::units::{Micros, PlanId, ReservationId, Seq, Span, Units};

use super::numbers::Numbered as _;
use super::{CodecError, decode, encode};

/// Versions of the snapshot's layout; the second has what is remembered of recent decisions, the third
/// the plan and the terms before the last.
const SNAPSHOT_VERSIONS: [u8; 3] = [1, 2, 3];

#[derive(Encode, Decode)]
struct SnapshotV1 {
    plan_version: u32,
    last_seq: u64,
    at: i64,
    counters: Vec<CounterV1>,
    rates: Vec<(String, RateV1)>,
    named: Vec<NamedV1>,
}

#[derive(Encode, Decode)]
struct SnapshotV2 {
    first: SnapshotV1,
    recent: Vec<RecentV2>,
}

#[derive(Encode, Decode)]
struct SnapshotV3 {
    second: SnapshotV2,
    plan: u128,
    /// Per counter.
    cuts: Vec<Vec<CutV3>>,
}

#[derive(Encode, Decode)]
struct CutV3 {
    until: i64,
    plan: u128,
    version: u32,
    quota: String,
    overage_from: Option<u64>,
    used_at_end: u64,
}

#[derive(Encode, Decode)]
struct RecentV2 {
    id: u128,
    until: i64,
    allowed: bool,
    reason: u8,
    mode: u8,
    overage: bool,
    violated: (u16, u32),
    retry_after: i64,
    reservation: Option<u128>,
}

#[derive(Encode, Decode)]
struct CounterV1 {
    quota: String,
    meter: String,
    period_start: i64,
    period_end: i64,
    used: u64,
    escrow_hi: u64,
    escrow_next: u64,
    holds: Vec<(i64, u64)>,
    fired: u16,
    limit: Option<u64>,
    limit_version: u32,
    overage_from: Option<u64>,
    /// Up to here nothing was overage; since the third version that is told by cuts, and this is 0.
    overage_floor: u64,
    early: Vec<(i64, i64, u64)>,
}

#[derive(Encode, Decode)]
enum RateV1 {
    TokenBucket { seen: i64, missing: u64, fraction: u64 },
    SlidingWindow { seen: i64, previous: u64, current: u64 },
    FixedWindow { seen: i64, used: u64 },
}

#[derive(Encode, Decode)]
struct NamedV1 {
    id: u128,
    expires_at: i64,
    amounts: Vec<(String, u64)>,
}

/// A subscription's state as bytes.
pub fn encode_snapshot(state: &MeterState) -> Vec<u8> {
    let first = SnapshotV1 {
        plan_version: state.plan_version,
        last_seq: state.last_seq.0,
        at: state.at.get(),
        counters: state.counters.iter().map(counter_to_wire).collect(),
        rates: state.rates.iter().map(|(name, rate)| (name.clone(), rate_to_wire(*rate))).collect(),
        named: state
            .named
            .iter()
            .map(|named| NamedV1 {
                id: named.id.uuid().as_u128(),
                expires_at: named.expires_at.get(),
                amounts: named.amounts.clone(),
            })
            .collect(),
    };
    let recent = state.recent.iter().map(recent_to_wire).collect();
    let cuts = state.counters.iter().map(|counter| counter.cuts.iter().map(cut_to_wire).collect());
    let third = SnapshotV3 {
        second: SnapshotV2 { first, recent },
        plan: state.plan.uuid().as_u128(),
        cuts: cuts.collect(),
    };
    encode(SNAPSHOT_VERSIONS[2], &third)
}

/// A subscription's state from bytes.
pub fn decode_snapshot(bytes: &[u8]) -> Result<MeterState, CodecError> {
    let SnapshotV3 { second: SnapshotV2 { first: wire, recent }, plan, cuts } = any_version(bytes)?;
    let damaged = || CodecError::Damaged { what: "snapshot", source: None };
    let recent: Option<Vec<Remembered>> = recent.iter().map(recent_from_wire).collect();
    let (at, version) = (wire.at, wire.plan_version);
    if cuts.len() != wire.counters.len() {
        return Err(damaged());
    }
    let counters = wire.counters.into_iter().zip(cuts);
    let counters = counters.map(|(counter, cuts)| counter_from_wire(counter, cuts, at, version));
    Ok(MeterState {
        plan: PlanId::from_uuid(Uuid::from_u128(plan)),
        plan_version: wire.plan_version,
        last_seq: Seq(wire.last_seq),
        at: Micros::from_micros(wire.at),
        counters: counters.collect(),
        rates: wire.rates.into_iter().map(|(name, rate)| (name, rate_from_wire(&rate))).collect(),
        named: wire
            .named
            .into_iter()
            .map(|named| NamedState {
                id: ReservationId::from_uuid(Uuid::from_u128(named.id)),
                expires_at: Micros::from_micros(named.expires_at),
                amounts: named.amounts,
            })
            .collect(),
        recent: recent.ok_or_else(damaged)?,
    })
}

/// A snapshot of any version in the newest one's layout.
fn any_version(bytes: &[u8]) -> Result<SnapshotV3, CodecError> {
    let [first, second, third] = SNAPSHOT_VERSIONS;
    let second = match bytes.first() {
        Some(&version) if version == first => {
            SnapshotV2 { first: decode("snapshot", first, bytes)?, recent: Vec::new() }
        }
        Some(&version) if version == second => decode("snapshot", second, bytes)?,
        _ => return decode("snapshot", third, bytes),
    };
    let cuts = second.first.counters.iter().map(|_| Vec::new()).collect();
    Ok(SnapshotV3 { second, plan: 0, cuts })
}

fn cut_to_wire(cut: &Cut) -> CutV3 {
    CutV3 {
        until: cut.until.get(),
        plan: cut.by.plan.uuid().as_u128(),
        version: cut.by.version,
        quota: cut.by.quota.to_string(),
        overage_from: cut.by.overage_from.map(Units::get),
        used_at_end: cut.used_at_end.get(),
    }
}

fn cut_from_wire(wire: CutV3) -> Cut {
    Cut {
        until: Micros::from_micros(wire.until),
        by: PricedBy {
            plan: PlanId::from_uuid(Uuid::from_u128(wire.plan)),
            version: wire.version,
            quota: wire.quota.into(),
            overage_from: wire.overage_from.map(Units::clamped),
        },
        used_at_end: Units::clamped(wire.used_at_end),
    }
}

fn recent_to_wire(entry: &Remembered) -> RecentV2 {
    let verdict = &entry.verdict;
    RecentV2 {
        id: entry.id,
        until: entry.until.get(),
        allowed: verdict.allowed,
        reason: verdict.reason.number(),
        mode: verdict.mode.number(),
        overage: verdict.overage,
        violated: (verdict.violated.quotas, verdict.violated.rates),
        retry_after: verdict.retry_after.get(),
        reservation: verdict.reservation.map(|id| id.uuid().as_u128()),
    }
}

fn recent_from_wire(wire: &RecentV2) -> Option<Remembered> {
    let (quotas, rates) = wire.violated;
    let verdict = Verdict {
        allowed: wire.allowed,
        reason: Reason::from_number(wire.reason)?,
        mode: Mode::from_number(wire.mode)?,
        overage: wire.overage,
        violated: Violated { quotas, rates },
        retry_after: Span::from_micros(wire.retry_after),
        reservation: wire.reservation.map(|id| ReservationId::from_uuid(Uuid::from_u128(id))),
    };
    Some(Remembered { id: wire.id, until: Micros::from_micros(wire.until), verdict })
}

fn counter_to_wire(state: &CounterState) -> CounterV1 {
    CounterV1 {
        quota: state.quota.clone(),
        meter: state.meter.clone(),
        period_start: state.period_start.get(),
        period_end: state.period_end.get(),
        used: state.used,
        escrow_hi: state.escrow_hi,
        escrow_next: state.escrow_next,
        holds: state.holds.iter().map(|hold| (hold.expires_at.get(), hold.units.get())).collect(),
        fired: state.fired,
        limit: state.limit,
        limit_version: state.limit_version,
        overage_from: state.overage_from,
        overage_floor: 0,
        early: state.early.iter().map(|e| (e.start.get(), e.end.get(), e.units)).collect(),
    }
}

/// `at` and `version` are the snapshot's: what an older one calls a floor was used freely before then.
fn counter_from_wire(wire: CounterV1, cuts: Vec<CutV3>, at: i64, version: u32) -> CounterState {
    let mut cuts: Vec<Cut> = cuts.into_iter().map(cut_from_wire).collect();
    if wire.overage_floor > 0 {
        let free = Units::clamped(wire.overage_floor);
        let plan = PlanId::from_uuid(Uuid::nil());
        let quota = wire.quota.as_str().into();
        let by = PricedBy { plan, version, quota, overage_from: Some(free) };
        cuts.insert(0, Cut { until: Micros::from_micros(at), by, used_at_end: free });
    }
    let hold = |(expires_at, units)| Hold {
        expires_at: Micros::from_micros(expires_at),
        units: Units::clamped(units),
    };
    let early = |(start, end, units)| OtherPeriod {
        start: Micros::from_micros(start),
        end: Micros::from_micros(end),
        units,
    };
    CounterState {
        quota: wire.quota,
        meter: wire.meter,
        period_start: Micros::from_micros(wire.period_start),
        period_end: Micros::from_micros(wire.period_end),
        used: wire.used,
        escrow_hi: wire.escrow_hi,
        escrow_next: wire.escrow_next,
        holds: wire.holds.into_iter().map(hold).collect(),
        fired: wire.fired,
        limit: wire.limit,
        limit_version: wire.limit_version,
        overage_from: wire.overage_from,
        cuts,
        early: wire.early.into_iter().map(early).collect(),
    }
}

const fn rate_to_wire(parts: RateParts) -> RateV1 {
    match parts {
        RateParts::TokenBucket { seen_micros: seen, missing, fraction } => {
            RateV1::TokenBucket { seen, missing, fraction }
        }
        RateParts::SlidingWindow { seen_micros: seen, previous, current } => {
            RateV1::SlidingWindow { seen, previous, current }
        }
        RateParts::FixedWindow { seen_micros: seen, used } => RateV1::FixedWindow { seen, used },
    }
}

const fn rate_from_wire(wire: &RateV1) -> RateParts {
    match *wire {
        RateV1::TokenBucket { seen: seen_micros, missing, fraction } => {
            RateParts::TokenBucket { seen_micros, missing, fraction }
        }
        RateV1::SlidingWindow { seen: seen_micros, previous, current } => {
            RateParts::SlidingWindow { seen_micros, previous, current }
        }
        RateV1::FixedWindow { seen: seen_micros, used } => {
            RateParts::FixedWindow { seen_micros, used }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> MeterState {
        MeterState {
            plan: PlanId::from_uuid(Uuid::nil()),
            plan_version: 3,
            last_seq: Seq(300),
            at: Micros::from_seconds(1_700_000_000),
            counters: vec![CounterState {
                quota: "requests".into(),
                meter: "requests".into(),
                period_start: Micros::from_seconds(1_698_796_800),
                period_end: Micros::from_seconds(1_701_388_800),
                used: 512,
                escrow_hi: 600,
                escrow_next: 32,
                holds: vec![Hold { expires_at: Micros::from_seconds(9), units: Units::ONE }],
                fired: 1,
                limit: Some(10_000),
                limit_version: 2,
                overage_from: Some(10_000),
                cuts: vec![cut_of_floor()],
                early: vec![OtherPeriod {
                    start: Micros::from_seconds(10),
                    end: Micros::from_seconds(20),
                    units: 5,
                }],
            }],
            rates: vec![
                ("a".into(), RateParts::TokenBucket { seen_micros: -1, missing: 2, fraction: 3 }),
                ("b".into(), RateParts::SlidingWindow { seen_micros: 1, previous: 2, current: 3 }),
                ("c".into(), RateParts::FixedWindow { seen_micros: 1, used: 2 }),
            ],
            named: vec![NamedState {
                id: ReservationId::from_uuid(Uuid::from_u128(7)),
                expires_at: Micros::from_seconds(30),
                amounts: vec![("requests".into(), 4)],
            }],
            recent: Vec::new(),
        }
    }

    /// What a floor of the first versions is read as.
    fn cut_of_floor() -> Cut {
        let by = PricedBy {
            plan: PlanId::from_uuid(Uuid::nil()),
            version: 3,
            quota: "requests".into(),
            overage_from: Units::new(7),
        };
        Cut { until: Micros::from_seconds(1_700_000_000), by, used_at_end: Units::clamped(7) }
    }

    /// As the third version writes it.
    fn state_with_cuts() -> MeterState {
        let by = PricedBy {
            plan: PlanId::from_uuid(Uuid::from_u128(6)),
            version: 2,
            quota: "calls".into(),
            overage_from: Units::new(100),
        };
        let until = Micros::from_seconds(1_699_000_000);
        let mut state = state_with_recent();
        state.plan = PlanId::from_uuid(Uuid::from_u128(9));
        state.counters[0].cuts = vec![Cut { until, by, used_at_end: Units::clamped(150) }];
        state
    }

    fn state_with_recent() -> MeterState {
        let verdict = Verdict {
            allowed: false,
            reason: Reason::QuotaExceeded,
            mode: Mode::Enforced,
            overage: false,
            violated: Violated { quotas: 1, rates: 2 },
            retry_after: Span::from_seconds(3),
            reservation: Some(ReservationId::from_uuid(Uuid::from_u128(8))),
        };
        let recent = Remembered { id: 5, until: Micros::from_seconds(40), verdict };
        MeterState { recent: vec![recent], ..state() }
    }

    #[test]
    fn the_golden_snapshot_never_changes() {
        let first = bytes_of(GOLDEN_SNAPSHOT);
        assert_eq!(decode_snapshot(&first).ok(), Some(state()), "as the first version wrote it");
        let rest = GOLDEN_SNAPSHOT.strip_prefix("01").expect("a version");
        let second = bytes_of(&format!("02{rest}{GOLDEN_RECENT}"));
        let read = decode_snapshot(&second).ok();
        assert_eq!(read, Some(state_with_recent()), "as the second version wrote it");
        let third = encode_snapshot(&state_with_cuts());
        assert_eq!(decode_snapshot(&third).ok(), Some(state_with_cuts()));
        // Its floor is told by cuts.
        let counters = rest.replacen("01fb102707", "01fb102700", 1);
        assert_eq!(hex(&third), format!("03{counters}{GOLDEN_RECENT}{GOLDEN_CUTS}"));
        let bytes = second;
        // A reason that nobody has.
        let mut odd = bytes;
        let at = odd.len() - (GOLDEN_RECENT.len() / 2 - 8);
        odd[at] = 99;
        assert!(decode_snapshot(&odd).is_err());
    }

    #[test]
    fn bytes_cut_anywhere_or_made_longer_are_refused() {
        let bytes = encode_snapshot(&state_with_cuts());
        for length in 0..bytes.len() {
            assert!(decode_snapshot(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode_snapshot(&longer).is_err());
        let mut newer = bytes;
        newer[0] = 4;
        assert!(matches!(decode_snapshot(&newer), Err(CodecError::Version { version: 4, .. })));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
    }

    const GOLDEN_CUTS: &str = "090101fd0060f28676120c0006020563616c6c73016496";
    const GOLDEN_RECENT: &str = "0105fc00b4c404000201000102fc808d5b000108";
    const GOLDEN_SNAPSHOT: &str = concat!(
        "0103fb2c01fd00803c3048140c0001087265717565737473087265717565737473fd00809ee71712",
        "0c00fd000019e6ce160c00fb0002fb58022001fc80a81201010101fb10270201fb10270701fc002d",
        "3101fc005a6202050301610001020301620102020301630202020107fc0087930301087265717565",
        "73747304",
    );
}
