//! A slow and obvious model of the meter, and random histories on which both must agree.
//!
//! Lists and maps, nothing forgotten, nothing clever: every number is a sum over what happened. The
//! store commits at once, so that escrow never shows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_core::meter::EntryKind::Usage;
use weir_core::plan::{Pattern, Plan, Quota, RateLimit};
use weir_core::rate::Algorithm::{FixedWindow, SlidingWindow, TokenBucket};
use weir_core::units::{Micros, Span};

use crate::world::{Story, amounts, asks, asks_also, entry, plan, quota, rate, soft};

const SECOND: i64 = 1_000_000;
const TTL: i64 = 60 * SECOND;

struct ModelQuota {
    requests: bool,
    cap: Option<i64>,
    limit: i64,
    length: i64,
    used: BTreeMap<i64, i64>,
    /// (period, when it returns, units)
    holds: Vec<(i64, i64, i64)>,
}

enum Kind {
    Fixed,
    Sliding,
    Bucket,
}

struct ModelRate {
    requests: bool,
    get_only: bool,
    kind: Kind,
    limit: i64,
    window: i64,
    /// (when, units)
    charged: Vec<(i64, i64)>,
}

struct Model {
    quotas: Vec<ModelQuota>,
    rates: Vec<ModelRate>,
}

fn the_plan() -> Plan {
    let of_requests = |quota: Quota| Quota { meter: "requests".into(), ..quota };
    let mut plan = plan(vec![
        quota("requests", 40, "PT1H"),
        of_requests(soft(120, quota("daily", 70, "P1D"))),
        quota("tokens", 300, "PT2H"),
        Quota { meter: "tokens".into(), ..soft(None, quota("soft", 100, "P1D")) },
    ]);
    let get = Pattern { method: Some("GET".into()), path: None };
    plan.rates = vec![
        rate("fixed", FixedWindow, 15, 60),
        RateLimit { meter: "tokens".into(), ..rate("tokens", FixedWindow, 90, 600) },
        rate("bucket", TokenBucket, 20, 60),
        RateLimit { pattern: get, ..rate("get", SlidingWindow, 12, 60) },
    ];
    plan
}

fn the_model() -> Model {
    let quota = |requests, cap, limit, hours: i64| ModelQuota {
        requests,
        cap,
        limit,
        length: hours * 3_600 * SECOND,
        used: BTreeMap::new(),
        holds: Vec::new(),
    };
    let rate = |requests, get_only, kind, limit, seconds: i64| ModelRate {
        requests,
        get_only,
        kind,
        limit,
        window: seconds * SECOND,
        charged: Vec::new(),
    };
    Model {
        quotas: vec![
            quota(true, Some(40), 40, 1),
            quota(true, Some(120), 70, 24),
            quota(false, Some(300), 300, 2),
            quota(false, None, 100, 24),
        ],
        rates: vec![
            rate(true, false, Kind::Fixed, 15, 60),
            rate(false, false, Kind::Fixed, 90, 600),
            rate(true, false, Kind::Bucket, 20, 60),
            rate(true, true, Kind::Sliding, 12, 60),
        ],
    }
}

impl ModelQuota {
    fn used(&self, now: i64) -> i64 {
        self.used.get(&now.div_euclid(self.length)).copied().unwrap_or(0)
    }

    fn pending(&self, now: i64) -> i64 {
        let period = now.div_euclid(self.length);
        self.holds.iter().filter(|h| h.0 == period && now < h.1).map(|h| h.2).sum()
    }

    fn refuses(&self, now: i64, amount: Option<i64>, peek: bool) -> bool {
        let Some(cap) = self.cap else { return false };
        let taken = self.used(now) + self.pending(now);
        match amount {
            None => !peek && taken >= cap,
            Some(0) => false,
            Some(amount) => taken + amount > cap,
        }
    }

    fn hold(&mut self, now: i64, amount: i64) {
        let width = TTL / 8;
        let due = (now + TTL + width - 1).div_euclid(width) * width;
        self.holds.push((now.div_euclid(self.length), due, amount));
    }

    fn event(&mut self, now: i64, at: i64, amount: i64, charged: bool) {
        if charged {
            *self.used.entry(at.div_euclid(self.length)).or_default() += amount;
        }
        let period = now.div_euclid(self.length);
        let mut left = if at.div_euclid(self.length) == period { amount } else { 0 };
        for hold in self.holds.iter_mut().filter(|h| h.0 == period && now < h.1) {
            let part = hold.2.min(left);
            hold.2 -= part;
            left -= part;
        }
    }
}

impl ModelRate {
    /// What could pass now, by walking through all that was ever charged.
    fn remaining(&self, now: i64) -> i64 {
        let in_window = |n: i64| -> i64 {
            self.charged.iter().filter(|c| c.0.div_euclid(self.window) == n).map(|c| c.1).sum()
        };
        let index = now.div_euclid(self.window);
        let used = match self.kind {
            Kind::Fixed => in_window(index),
            Kind::Sliding => {
                let left = self.window - now.rem_euclid(self.window);
                in_window(index) + (in_window(index - 1) * left + self.window - 1) / self.window
            }
            Kind::Bucket => {
                // In microseconds of refilling: a unit takes `window / limit`.
                let unit = self.window / self.limit;
                let mut missing = 0;
                let mut seen = i64::MIN / 2;
                for &(at, units) in self.charged.iter().chain([&(now, 0)]) {
                    missing = (missing - (at - seen)).max(0) + units * unit;
                    seen = at;
                }
                (missing + unit - 1) / unit
            }
        };
        self.limit - used
    }
}

#[derive(Clone, Debug)]
enum Step {
    Check { cost: Option<u64>, tokens: Option<u64>, get: bool },
    Event { requests: i64, tokens: u64, ahead: i64, charged: bool },
    Wait(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        3 => 0i64..3 * SECOND,
        3 => 0i64..40 * SECOND,
        1 => 0i64..3_600 * SECOND,
        1 => 0i64..40 * 3_600 * SECOND,
    ];
    let ahead = prop_oneof![
        6 => -60 * SECOND..=0,
        1 => -30 * 3_600 * SECOND..=0,
        1 => 0..=300 * SECOND,
    ];
    prop_oneof![
        6 => (prop::option::of(0u64..9), prop::option::of(0u64..40), any::<bool>())
            .prop_map(|(cost, tokens, get)| Step::Check { cost, tokens, get }),
        3 => (0i64..9, 0u64..40, ahead, prop::bool::weighted(0.8)).prop_map(
            |(requests, tokens, ahead, charged)| Step::Event { requests, tokens, ahead, charged }
        ),
        3 => wait.prop_map(Step::Wait),
    ]
}

struct Both {
    story: Story,
    model: Model,
}

impl Both {
    fn check(&mut self, cost: Option<u64>, tokens: Option<u64>, get: bool) {
        let now = self.story.now.get();
        let mut check = asks(cost.unwrap_or(1));
        check.cost = cost.map(crate::world::units);
        check.method = Some(if get { "GET" } else { "POST" }.into());
        if let Some(tokens) = tokens {
            check.others = asks_also(0, &[("tokens", tokens)]).others;
        }
        let decision = self.story.ask(&check);

        let requests = cost.unwrap_or(1).cast_signed();
        let tokens = tokens.map(u64::cast_signed);
        let peek = requests == 0 && tokens.unwrap_or(0) == 0;
        let amount = |of_requests| if of_requests { Some(requests) } else { tokens };
        let mut violated = (0, 0);
        for (index, quota) in self.model.quotas.iter().enumerate() {
            violated.0 |= u16::from(quota.refuses(now, amount(quota.requests), peek)) << index;
        }
        for (index, rate) in self.model.rates.iter().enumerate() {
            let refuses = amount(rate.requests).unwrap_or(0) > rate.remaining(now).max(0);
            violated.1 |= u32::from(refuses && (get || !rate.get_only)) << index;
        }
        let allowed = violated == (0, 0);
        if allowed && !peek {
            for quota in &mut self.model.quotas {
                quota.hold(now, amount(quota.requests).unwrap_or(0));
            }
            for rate in self.model.rates.iter_mut().filter(|rate| get || !rate.get_only) {
                rate.charged.push((now, amount(rate.requests).unwrap_or(0)));
            }
        }

        assert_eq!((decision.violated.quotas, decision.violated.rates), violated);
        assert_eq!(decision.allowed, allowed);
        let over = |q: &ModelQuota| q.used(now) + q.pending(now) > q.limit;
        assert_eq!(decision.overage, allowed && self.model.quotas.iter().any(over));
        for (view, quota) in decision.quotas.iter().zip(&self.model.quotas) {
            let numbers = (view.used.get(), view.pending.get());
            assert_eq!(
                numbers,
                (quota.used(now).cast_unsigned(), quota.pending(now).cast_unsigned())
            );
        }
        let shown: Vec<usize> = decision.rates.iter().map(|r| usize::from(r.index)).collect();
        assert_eq!(shown, if get { vec![0, 1, 2, 3] } else { vec![0, 1, 2] });
        for view in &decision.rates {
            let remaining = self.model.rates[usize::from(view.index)].remaining(now);
            assert_eq!(view.remaining.get().cast_signed(), remaining, "rate {}", view.index);
        }
    }

    fn event(&mut self, requests: i64, tokens: u64, ahead: i64, charged: bool) {
        let now = self.story.now.get();
        self.story.row_with(|seq, _| {
            let mut row = entry(seq, Usage, Micros::from_micros(now + ahead), requests);
            row.others = amounts(&[("tokens", tokens)]);
            row.charged = charged;
            row
        });
        for quota in &mut self.model.quotas {
            let amount = if quota.requests { requests } else { tokens.cast_signed() };
            quota.event(now, now + ahead, amount, charged);
        }
    }

    /// Every period of every quota, wherever its parts are.
    fn compare_periods(&mut self) {
        self.story.commit();
        let state = self.story.meter.checkpoint(self.story.now, false).state;
        for (counter, quota) in state.counters.iter().zip(&mut self.model.quotas) {
            let period = |at: Micros| at.get().div_euclid(quota.length);
            let mut sums = BTreeMap::from([(period(counter.period_start), counter.used)]);
            for early in &counter.early {
                *sums.entry(period(early.start)).or_default() += early.units;
            }
            for past in self.story.past.iter().filter(|past| *past.quota == *counter.quota) {
                *sums.entry(period(past.start)).or_default() += past.units;
            }
            sums.retain(|_, units| *units > 0);
            quota.used.retain(|_, units| *units > 0);
            let expected: BTreeMap<i64, u64> = quota
                .used
                .iter()
                .map(|(&period, &units)| (period, units.cast_unsigned()))
                .collect();
            assert_eq!(sums, expected, "quota {}", counter.quota);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn the_meter_does_what_a_slow_and_obvious_model_does(
        steps in prop::collection::vec(any_step(), 1..150),
    ) {
        let mut both = Both { story: Story::on(the_plan()), model: the_model() };
        for step in steps {
            match step {
                Step::Check { cost, tokens, get } => both.check(cost, tokens, get),
                Step::Event { requests, tokens, ahead, charged } => {
                    both.event(requests, tokens, ahead, charged);
                }
                Step::Wait(micros) => {
                    let now = both.story.now.plus(Span::from_micros(micros));
                    both.story.until(now);
                }
            }
        }
        both.compare_periods();
    }
}
