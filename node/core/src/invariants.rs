//! What must always hold, named once.
//!
//! Role: the one list that debug assertions, property tests, the simulator's oracles and the fault
//! suite refer to, so that a red test says which promise was broken. The texts are DESIGN.md §1.

/// A promise of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// INV-1: every event id answered 2xx is in the ledger exactly once.
    LostNothing,
    /// INV-2: `used` of a period is the sum of its distinct charged rows and audited adjustments.
    CountedOnce,
    /// INV-3: on a hard plan admitted units never exceed the limit, on all nodes together.
    NeverOver,
    /// INV-4: no write with an older epoch is accepted after a newer one.
    OneWriter,
    /// INV-5: within a period `used` falls only by an audited adjustment; `remaining >= 0`.
    Monotone,
    /// INV-6: every queue, buffer, cache, batch and retry has a limit.
    Bounded,
    /// INV-7: a hot or broken subscription does not slow another.
    Isolated,
    /// INV-8: after faults heal everything answers again, with no manual step.
    Recovers,
    /// INV-9: the same rows and plan versions give the same periods, charges and notices.
    PricedRight,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::LostNothing,
        Self::CountedOnce,
        Self::NeverOver,
        Self::OneWriter,
        Self::Monotone,
        Self::Bounded,
        Self::Isolated,
        Self::Recovers,
        Self::PricedRight,
    ];

    /// The name used in messages and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LostNothing => "INV-1 lost nothing",
            Self::CountedOnce => "INV-2 counted once",
            Self::NeverOver => "INV-3 never over",
            Self::OneWriter => "INV-4 one writer",
            Self::Monotone => "INV-5 monotone",
            Self::Bounded => "INV-6 bounded",
            Self::Isolated => "INV-7 isolated",
            Self::Recovers => "INV-8 recovers",
            Self::PricedRight => "INV-9 priced right",
        }
    }
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Asserts an invariant in debug builds, naming it in the panic.
#[macro_export]
macro_rules! holds {
    ($invariant:expr, $condition:expr, $($detail:tt)+) => {
        debug_assert!(
            $condition,
            "{} broken: {}",
            $crate::invariants::Invariant::name($invariant),
            format_args!($($detail)+)
        );
    };
}
