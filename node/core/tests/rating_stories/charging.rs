//! The overage job: charged is what grew, once, whatever runs twice or dies half-way.

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_core::price::Overage;
use weir_core::rating::{Amount, Booked, Charge, Charged, Correction, correction};
use weir_core::units::SubscriptionId;

use crate::book::{cents, dollars, per_unit, period, rated, units, usd, volume};

/// What a store keeps: each charge under its key, which is unique.
#[derive(Default)]
struct Ledger(BTreeMap<String, Charge>);

impl Ledger {
    /// False when the key was there.
    fn write(&mut self, charge: Charge) -> bool {
        let subscription = SubscriptionId::from_uuid(Uuid::from_u128(7));
        let key = charge.key(subscription, "requests", &period(0, 100));
        let is_new = !self.0.contains_key(&key);
        self.0.entry(key).or_insert(charge);
        is_new
    }

    fn charged(&self) -> Charged {
        let mut charges: Vec<Charge> = self.0.values().copied().collect();
        charges.sort_by_key(|charge| charge.number);
        charges.into_iter().fold(Charged::default(), Charged::with)
    }
}

/// Where a run ends.
#[derive(Clone, Copy, Debug)]
enum Dies {
    BeforeItWrites,
    BeforeItHears,
    Not,
}

/// When a run at the same time writes.
#[derive(Clone, Copy, Debug)]
enum Rival {
    First,
    Last,
    None,
}

fn amount(price: &Overage, used: u64) -> Amount {
    rated(usd(), price, 100, used).amount
}

#[test]
fn each_run_charges_what_grew_since_the_last_one() {
    let price = per_unit("0.013");
    let mut ledger = Ledger::default();
    // (used, what this run charges)
    for (used, expected) in [
        (80, None),
        (100, None),
        (101, Some(1)),
        (101, None),
        (150, Some(64)),
        (150, None),
        (1_100, Some(1_235)),
    ] {
        let charge = ledger.charged().next(amount(&price, used));
        assert_eq!(charge.map(|charge| charge.amount), expected.map(cents), "{used} used");
        if let Some(charge) = charge {
            assert!(ledger.write(charge));
        }
    }
    assert_eq!(ledger.charged(), Charged { count: 3, amount: dollars("13.00") });
}

#[test]
fn a_lower_volume_price_gives_back_what_is_too_much() {
    let price = volume(&[(10, "1", "0"), (0, "0.10", "0")]);
    let mut ledger = Ledger::default();
    for (used, expected) in [(110, "10.00"), (111, "-8.90"), (200, "8.90")] {
        let charge = ledger.charged().next(amount(&price, used)).expect("it changed");
        assert_eq!(charge.amount, dollars(expected), "{used} used");
        ledger.write(charge);
    }
    assert_eq!(ledger.charged().amount, dollars("10.00"));
}

#[test]
fn two_nodes_at_once_and_a_crash_at_every_step_come_to_one_clean_run() {
    let price = per_unit("0.02");
    let days = [120, 120, 400, 401, 1_000];
    let clean = amount(&price, 1_000);
    // A run reads, writes, and hears that it wrote. It may die before any of these, and what it wrote
    // without hearing of it is written again as it was; a second one, which read at the same time and
    // saw more use, writes before it, after it, or not at all.
    for dies in [Dies::BeforeItWrites, Dies::BeforeItHears, Dies::Not] {
        for dies_on in 0..days.len() {
            for rival in [Rival::First, Rival::Last, Rival::None] {
                let mut ledger = Ledger::default();
                for (day, used) in days.into_iter().enumerate() {
                    let charged = ledger.charged();
                    let mine = charged.next(amount(&price, used));
                    let rivals = charged.next(amount(&price, used + 7));
                    let dies = if day == dies_on { dies } else { Dies::Not };
                    let mine = match dies {
                        Dies::BeforeItWrites => vec![],
                        Dies::BeforeItHears => vec![mine, mine],
                        Dies::Not => vec![mine],
                    };
                    let writes = match rival {
                        Rival::First => [vec![rivals], mine].concat(),
                        Rival::Last => [mine, vec![rivals]].concat(),
                        Rival::None => mine,
                    };
                    let written = writes.into_iter().flatten().filter(|c| ledger.write(*c)).count();
                    assert!(written <= 1, "one of them has the number: {dies:?} {rival:?}");
                }
                let before = ledger.charged();
                let last = before.next(clean);
                assert!(last.is_none_or(|charge| ledger.write(charge)));
                assert_eq!(ledger.charged().amount, clean, "{dies:?} {dies_on} {rival:?}");
                assert!(before.amount <= clean + dollars("0.14"), "nothing was charged twice");
            }
        }
    }
}

#[test]
fn charges_of_other_periods_quotas_and_subscriptions_have_other_keys() {
    let charge = Charged::default().next(cents(1)).expect("a cent is due");
    let key = |subscription: u128, quota: &str, start: i64, charge: &Charge| {
        let subscription = SubscriptionId::from_uuid(Uuid::from_u128(subscription));
        charge.key(subscription, quota, &period(start, 100))
    };
    let second = Charged { count: 1, amount: cents(0) }.next(cents(1)).expect("a cent is due");
    let keys = [
        key(1, "a", 0, &charge),
        key(2, "a", 0, &charge),
        key(1, "b", 0, &charge),
        key(1, "a", 1, &charge),
        key(1, "a", 0, &second),
    ];
    for (index, one) in keys.iter().enumerate() {
        assert!(!keys[index + 1..].contains(one), "{one} names two charges");
    }
    // The amount is not in the key: the same charge computed a little later must not pass as new.
    let more = Charged::default().next(cents(5)).expect("five cents are due");
    assert_eq!(key(1, "a", 0, &charge), key(1, "a", 0, &more));
}

#[test]
fn what_comes_after_a_period_is_closed_is_a_line_that_names_it() {
    let march = period(0, 100);
    let price = volume(&[(10, "1", "0"), (0, "0.10", "0")]);
    let booked = |used| Booked { used: units(used), amount: amount(&price, used) };
    let line = |units, amount| Some(Correction { corrects: march, units, amount: dollars(amount) });
    assert_eq!(correction(march, booked(105), booked(105)), None);
    assert_eq!(correction(march, booked(105), booked(107)), line(2, "2.00"));
    // Free units are told as well: the counter of the closed period changed.
    assert_eq!(correction(march, booked(50), booked(60)), line(10, "0.00"));
    assert_eq!(correction(march, booked(110), booked(120)), line(10, "-8.00"));
    assert_eq!(correction(march, booked(105), booked(102)), line(-3, "-3.00"));
}

#[test]
fn corrections_one_after_the_other_come_to_what_one_would() {
    let march = period(0, 100);
    let price = per_unit("0.0033");
    let booked = |used| Booked { used: units(used), amount: amount(&price, used) };
    let steps = [101, 102, 350, 351, 900, 901];
    let mut sum = Amount::ZERO;
    for pair in steps.windows(2) {
        let line = correction(march, booked(pair[0]), booked(pair[1])).expect("units changed");
        sum = sum + line.amount;
    }
    let once = correction(march, booked(101), booked(901)).expect("units changed");
    assert_eq!(sum, once.amount);
}
