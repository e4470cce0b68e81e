//! When each request is due (open loop) and the thread that keeps to it.
//!
//! Arrival number `i` has one exact due time that does not depend on how the server does; a request
//! that waits for a connection is measured from its due time, so a slow server cannot hide behind
//! the requests it kept from being sent (coordinated omission).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use super::scenario::{Draw, Workload};
use super::table::Table;
use crate::clock;
use crate::numbers::{float, whole};

/// The pacer sleeps at least this long: finer costs a wake-up per arrival and the kernel's timer
/// slack is of this size anyway.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The pacer looks up this often even when the next arrival is far away, to notice a stop.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How late the kernel wakes a sleeper, about: its default timer slack and a little for the switch.
const WAKE_UP: Duration = Duration::from_micros(60);
/// Arrivals at least this far apart are met exactly; the spin then costs a tenth of a core at most.
const LONE_FROM: Duration = Duration::from_micros(600);

/// Waves: in each period a part of the time carries a share of the arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wave {
    /// Length of a wave.
    pub(super) period: Duration,
    /// Part of the period that is busy, 0 to 1.
    pub(super) on_time: f64,
    /// Share of the arrivals that fall into it, 0 to 1.
    pub(super) on_share: f64,
}

impl Wave {
    /// No waves.
    pub(super) const FLAT: Self =
        Self { period: Duration::from_secs(1), on_time: 1.0, on_share: 1.0 };

    /// Bends an even schedule: where `even` would be, had arrivals come in waves.
    fn bend(&self, even: Duration) -> Duration {
        let period = self.period.as_secs_f64();
        let even = even.as_secs_f64();
        let wave = (even / period).floor();
        let share = (even - wave * period) / period;
        let place = if share < self.on_share || self.on_share >= 1.0 {
            share * self.on_time / self.on_share
        } else {
            let off_time = 1.0 - self.on_time;
            self.on_time + (share - self.on_share) * off_time / (1.0 - self.on_share)
        };
        Duration::from_secs_f64((wave + place) * period)
    }

    /// For a closed loop: how long connection `number` of `total` pauses at `since_start`; zero when
    /// it is to send. In the quiet part only as many connections run as its share asks for.
    pub(super) fn pause(&self, since_start: Duration, number: usize, total: usize) -> Duration {
        let period = self.period.as_secs_f64();
        let place = (since_start.as_secs_f64() / period).fract();
        if place < self.on_time || self.on_time >= 1.0 {
            return Duration::ZERO;
        }
        let busy_rate = self.on_share / self.on_time;
        let quiet_rate = (1.0 - self.on_share) / (1.0 - self.on_time);
        let quiet_connections = whole(float(crate::numbers::count(total)) * quiet_rate / busy_rate);
        if crate::numbers::count(number) < quiet_connections {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - place) * period)
    }
}

/// Due times of an open loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    per_second: f64,
    wave: Wave,
}

impl Schedule {
    /// Arrivals at `per_second`, bent into waves.
    pub(super) fn new(per_second: f64, wave: Wave) -> Self {
        Self { per_second, wave }
    }

    /// When arrival number `index` is due, since the start.
    pub(super) fn due(&self, index: u64) -> Duration {
        self.wave.bend(Duration::from_secs_f64(float(index) / self.per_second))
    }
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// When it should be sent.
    pub(super) due_at: Instant,
    /// What it is.
    pub(super) draw: Draw,
}

/// Requests that are due and wait for a connection; bounded, overflow is counted.
#[derive(Debug)]
pub(super) struct Arrivals {
    waiting: Mutex<VecDeque<Arrival>>,
    waiting_max: usize,
    ready: Notify,
    ended: AtomicBool,
    overflow: AtomicU64,
}

impl Arrivals {
    /// An empty queue for at most `waiting_max` arrivals.
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            waiting_max,
            ready: Notify::new(),
            ended: AtomicBool::new(false),
            overflow: AtomicU64::new(0),
        }
    }

    /// The next arrival; none when the schedule is over and nothing waits.
    pub(super) async fn next(&self) -> Option<Arrival> {
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            // Registered before looking, so that an arrival in between is not missed.
            ready.as_mut().enable();
            if let Some(arrival) = self.lock().pop_front() {
                return Some(arrival);
            }
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            ready.await;
        }
    }

    /// Gives up on what still waits, counting it as overflow.
    pub(super) fn abandon(&self) {
        let abandoned = self.lock().drain(..).count();
        self.overflow.fetch_add(crate::numbers::count(abandoned), Ordering::Relaxed);
    }

    /// Arrivals that were never sent: no room, or abandoned at the end.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    fn offer(&self, due: &[Arrival]) {
        let room = {
            let mut waiting = self.lock();
            let room = self.waiting_max.saturating_sub(waiting.len()).min(due.len());
            waiting.extend(&due[..room]);
            room
        };
        for _ in 0..room {
            self.ready.notify_one();
        }
        let left_over = crate::numbers::count(due.len() - room);
        self.overflow.fetch_add(left_over, Ordering::Relaxed);
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.ready.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a schedule; runs on a thread of its own because tokio's timers are a millisecond wide.
pub(super) struct Pacer<'a> {
    /// Due times.
    pub(super) schedule: Schedule,
    /// What to draw.
    pub(super) workload: Workload,
    /// Where draws come from.
    pub(super) random: ChaCha8Rng,
    /// The first arrival is due then.
    pub(super) start: Instant,
    /// No arrival is due after this long.
    pub(super) duration: Duration,
    /// The subscriptions to draw from; it may grow meanwhile.
    pub(super) table: &'a Table,
    /// Set when the run is to end early.
    pub(super) stop: &'a AtomicBool,
}

impl Pacer<'_> {
    /// Offers every arrival at its time and then ends the queue. Returns how many there were.
    pub(super) fn run(mut self, arrivals: &Arrivals) -> u64 {
        let mut index = 0;
        let mut due = Vec::new();
        loop {
            let now = clock::now();
            let next_due = loop {
                let offset = self.schedule.due(index);
                let due_at = self.start + offset;
                if offset >= self.duration || due_at > now {
                    break (offset < self.duration).then_some(due_at);
                }
                let draw = self.workload.draw(&mut self.random, self.table.live());
                due.push(Arrival { due_at, draw });
                index += 1;
            };
            arrivals.offer(&due);
            due.clear();
            let Some(next_due) = next_due else { break };
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            sleep_towards(next_due);
        }
        arrivals.end();
        index
    }
}

/// Sleeps until `due_at` or for the longest nap. A lone arrival is worth a short spin, because the
/// kernel wakes a sleeper about its timer slack late, which would count as the server's latency;
/// where arrivals are dense the spin would cost the server its core.
fn sleep_towards(due_at: Instant) {
    let wait = due_at.saturating_duration_since(clock::now());
    if wait < LONE_FROM {
        std::thread::sleep(wait.max(SLEEP_MIN));
        return;
    }
    std::thread::sleep(wait.saturating_sub(WAKE_UP).min(SLEEP_MAX));
    if wait <= SLEEP_MAX {
        while clock::now() < due_at {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scenario::Scenario;
    use rand::SeedableRng as _;

    fn ms(schedule: &Schedule, index: u64) -> u128 {
        schedule.due(index).as_millis()
    }

    #[test]
    fn an_even_schedule_is_exact_and_does_not_drift() {
        let schedule = Schedule::new(1_000.0, Wave::FLAT);
        for index in [0, 1, 999, 1_000, 86_400_000] {
            let due = schedule.due(index).as_micros();
            assert!(due.abs_diff(u128::from(index) * 1_000) <= 1, "{index}: {due}");
        }
    }

    #[test]
    fn a_burst_sends_all_in_the_first_half_of_each_period() {
        let wave = Workload::new(Scenario::Burst).wave();
        let schedule = Schedule::new(100.0, wave);
        assert_eq!(ms(&schedule, 0), 0);
        assert_eq!(ms(&schedule, 100), 500);
        assert!(ms(&schedule, 199) < 1_000);
        assert_eq!(ms(&schedule, 200), 2_000);
    }

    #[test]
    fn waves_keep_the_mean_rate_and_the_order() {
        for scenario in [Scenario::Burst, Scenario::Mixed, Scenario::Steady] {
            let schedule = Schedule::new(1_000.0, Workload::new(scenario).wave());
            let due: Vec<_> = (0..20_000).map(|index| schedule.due(index)).collect();
            assert!(due.is_sorted(), "{scenario}");
            let first_ten = due.iter().filter(|due| due.as_secs() < 10).count();
            assert!((9_999..=10_001).contains(&first_ten), "{scenario}: {first_ten}");
        }
    }

    #[test]
    fn a_closed_loop_pauses_in_the_quiet_part_of_a_wave() {
        let second = Duration::from_secs(1);
        let burst = Workload::new(Scenario::Burst).wave();
        assert_eq!(burst.pause(second / 2, 0, 8), Duration::ZERO);
        assert_eq!(burst.pause(second * 3 / 2, 0, 8), second / 2);
        let mixed = Workload::new(Scenario::Mixed).wave();
        let running =
            (0..9).filter(|&number| mixed.pause(second * 3 / 2, number, 9).is_zero()).count();
        assert_eq!(running, 3, "a third goes on: 25 % against 75 %");
        assert_eq!(Wave::FLAT.pause(second * 3 / 2, 0, 8), Duration::ZERO);
    }

    #[test]
    fn what_finds_no_room_is_counted_as_overflow() {
        let arrivals = Arrivals::new(10);
        let pacer = Pacer {
            schedule: Schedule::new(1_000_000.0, Wave::FLAT),
            workload: Workload::new(Scenario::Steady),
            random: ChaCha8Rng::seed_from_u64(1),
            start: clock::now(),
            duration: Duration::from_micros(500),
            table: &Table::new(Vec::new(), 0),
            stop: &AtomicBool::new(false),
        };
        let offered = pacer.run(&arrivals);
        assert_eq!((offered, arrivals.overflow()), (500, 490));
        arrivals.abandon();
        assert_eq!(arrivals.overflow(), 500);
    }
}
