//! Whether to spin before a park, and how long: learnt from what sleeping costs and spinning brings.
//!
//! Owns the dial. A sleep and a wake are the dearest thing on a core, in latency and in CPU. The dial
//! measures what a park costs in CPU (one in [`SAMPLE_EVERY`], by the thread's CPU clock) and never spins
//! longer than [`WORTH_NUM`]/[`WORTH_DEN`] of that, but for rare tries, so that a spin in vain at most
//! multiplies what the park costs anyway, whatever comes (the ski-rental bound). It keeps below that bound by
//! not spinning where it does not pay:
//! - it spins while at least half of the recent spins met an event (a moving average);
//! - when that stops, it tries again only after so many parks, doubling with each try in vain up to
//!   [`TRY_AFTER_MAX`]: a core whose gaps are long spends next to nothing on finding that out, and an idle
//!   one nothing;
//! - a try that meets an event halves the distance to the next, so a new load is found within about a
//!   thousand parks, and an idle core's parks are rare;
//! - where other cores' messages wake it, a try lasts as long as a wake may take, and is repeated if it is
//!   met late. Two cores that answer each other each find that a short one is in vain, as long as the other
//!   sleeps and is slow to wake; while one keeps awake, the other's tries are met soon, and then its own;
//! - it does not spin where a core that has had nothing to do meets several completions at once. One sleep is
//!   then shared by all of them, and gathers the next ones meanwhile; a spin has each taken up by itself, in
//!   turns of their own, which costs more than the sleep and is hardly sooner.
//!
//! Knows neither clock nor ring; the park reports to it.

use std::cell::Cell;
use std::time::Duration;

/// What a core does before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Sleeps at once.
    Off,
    /// Learns whether a spin pays.
    Dial,
    /// Spins so long before each sleep, whatever it brings. A core that always spins uses a whole CPU.
    Fixed(Duration),
}

pub(super) struct Dial {
    spin: Spin,
    /// Share of recent spins that met an event, in 1/[`ONE`].
    won: Cell<u32>,
    /// Parks until the next try, and how many the next pause will have.
    pause: Cell<u32>,
    try_after: Cell<u32>,
    /// CPU that a park costs, in ns, a moving average; and parks until it is measured again.
    park_cost_ns: Cell<u64>,
    sample_in: Cell<u32>,
    /// Completions since the last rest, and how many there are between two: a moving average, in 1/[`ONE`].
    reaped: Cell<u32>,
    gathered: Cell<u32>,
    /// Of the spin that was planned last: whether it may take longer than one pays; and how many more of
    /// those there are in this try.
    long: Cell<bool>,
    long_left: Cell<u32>,
    /// Rests running that another core's message ended, and those until that is news again.
    calls: Cell<u32>,
    news_in: Cell<u32>,
}

/// The longest spin, as a multiple of a park's CPU: with 3/2, a core that always spins in vain uses at most
/// 2.5 times what it would use without.
const WORTH_NUM: u64 = 3;
const WORTH_DEN: u64 = 2;

/// Bounds of a spin, whatever was measured.
const SPIN_NS_MIN: u64 = 4_000;
const SPIN_NS_MAX: u64 = 60_000;

/// What a park is taken to cost before one was measured.
const PARK_COST_NS_FIRST: u64 = 6_000;

/// Parks between two whose CPU is measured: two readings of a clock that takes a system call each.
const SAMPLE_EVERY: u32 = 32;

/// Completions between two rests, on average, above which a core does not spin: a receive and a send for each
/// of six requests. Measured: 64 connections that each wait for their answer bring 34 and more, and a spin
/// brings nothing there; at random at 70 % of what the core can do they bring 6 to 13, and a spin takes 14 %
/// off the median (for a tenth of CPU).
const GATHERS: u32 = 12;
/// As many at most are counted of one busy stretch: a long one by itself says nothing of the next.
const GATHERED_MAX: u32 = 48;

const ONE: u32 = 1 << 16;
const TRY_AFTER_MIN: u32 = 8;
const TRY_AFTER_MAX: u32 = 1024;

/// Long spins in a try of a core that others' messages wake, if each is met.
const LONG_SPINS: u32 = 8;
/// So many rests that messages ended, one after the other, are a new load: of two cores that begin to answer
/// each other both see that at the same time, and so try at the same time.
const CALLS_NEW: u32 = 8;

impl Dial {
    pub(super) fn new(spin: Spin) -> Self {
        Self {
            spin,
            won: Cell::new(0),
            pause: Cell::new(TRY_AFTER_MIN),
            try_after: Cell::new(TRY_AFTER_MIN),
            park_cost_ns: Cell::new(PARK_COST_NS_FIRST),
            sample_in: Cell::new(0),
            reaped: Cell::new(0),
            gathered: Cell::new(0),
            long: Cell::new(false),
            long_left: Cell::new(0),
            calls: Cell::new(0),
            news_in: Cell::new(0),
        }
    }

    /// Whether the CPU of this park is wanted; see [`park_cost`](Self::park_cost).
    pub(super) fn wants_sample(&self) -> bool {
        if self.spin != Spin::Dial {
            return false;
        }
        let left = self.sample_in.get();
        self.sample_in.set(if left == 0 { SAMPLE_EVERY } else { left - 1 });
        left == 0
    }

    /// A park with nothing to submit took so much CPU.
    pub(super) fn park_cost(&self, ns: u64) {
        let average = self.park_cost_ns.get();
        self.park_cost_ns.set(average - average / 4 + ns.min(SPIN_NS_MAX) / 4);
    }

    /// The longest spin that may pay, in ns.
    pub(super) fn spin_ns_max(&self) -> u64 {
        let worth = self.park_cost_ns.get() * WORTH_NUM / WORTH_DEN;
        worth.clamp(SPIN_NS_MIN, SPIN_NS_MAX)
    }

    /// A turn has taken so many completions.
    #[inline]
    pub(super) fn reaped(&self, completions: u32) {
        self.reaped.set(self.reaped.get().saturating_add(completions));
    }

    /// How long to spin before this park, in ns; 0 for not at all. `called`: another core's message ended the
    /// last rest.
    #[inline]
    pub(super) fn plan(&self, called: bool) -> u64 {
        match self.spin {
            Spin::Off => 0,
            Spin::Fixed(d) => d.as_nanos() as u64,
            Spin::Dial => self.learnt(self.reaped.take(), called),
        }
    }

    fn learnt(&self, reaped: u32, called: bool) -> u64 {
        if self.gathers(reaped) {
            return 0;
        }
        if self.is_habit() {
            return self.spin_ns_max();
        }
        self.note_call(reaped, called);
        self.plan_try(called)
    }

    fn is_habit(&self) -> bool {
        self.won.get() >= ONE / 2
    }

    fn plan_try(&self, called: bool) -> u64 {
        let pause = self.pause.get();
        if pause > 0 {
            self.pause.set(pause - 1);
            return 0;
        }
        let long = called || self.long_left.get() > 0;
        self.long.set(long);
        if long { SPIN_NS_MAX } else { self.spin_ns_max() }
    }

    /// Notes what ended the last rest. Messages that are a new load are worth a new try.
    fn note_call(&self, reaped: u32, called: bool) {
        self.news_in.set(self.news_in.get().saturating_sub(1));
        match (called, reaped) {
            (true, _) => self.calls.set(self.calls.get().saturating_add(1)),
            // A message that a spin met, or a timer.
            (false, 0) => return,
            (false, _) => self.calls.set(0),
        }
        if self.calls.get() == CALLS_NEW && self.news_in.get() == 0 {
            self.news_in.set(TRY_AFTER_MAX);
            self.try_after.set(TRY_AFTER_MIN);
            self.pause.set(0);
        }
    }

    /// Notes how many completions came since the last rest; whether several come to each.
    fn gathers(&self, reaped: u32) -> bool {
        let reaped = reaped.min(GATHERED_MAX);
        let average = self.gathered.get();
        let average = average - average / 8 + reaped * (ONE / 8);
        self.gathered.set(average);
        average > GATHERS * ONE
    }

    /// A planned spin was met by an event after so long, or was not.
    pub(super) fn spun(&self, met: Option<u64>) {
        let long = self.long.take();
        match met {
            Some(took) if !long || took <= self.spin_ns_max() => self.met_soon(),
            Some(_) if self.stays_long() => {}
            _ => self.in_vain(),
        }
    }

    /// An event came, and a spin would have met it or did.
    pub(super) fn met_soon(&self) {
        let average = self.won.get();
        // Two wins in a row from nothing make a habit; a habit survives a loss among four.
        self.won.set(average + (ONE - average) / 4 + u32::from(!self.is_habit()) * (ONE / 8));
        self.try_after.set((self.try_after.get() / 2).max(TRY_AFTER_MIN));
        self.pause.set(0);
    }

    /// A long spin was met, though too late to pay; whether the next one is to be long again.
    fn stays_long(&self) -> bool {
        let left = self.long_left.get().checked_sub(1).unwrap_or(LONG_SPINS - 1);
        self.long_left.set(left);
        left > 0
    }

    fn in_vain(&self) {
        self.long_left.set(0);
        self.won.set(self.won.get() - self.won.get() / 4);
        if !self.is_habit() {
            self.won.set(0);
            self.pause.set(self.try_after.get());
            self.try_after.set((self.try_after.get() * 2).min(TRY_AFTER_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `parks` parks whose events come after `gap` ns; gives how many spins were planned.
    fn play(dial: &Dial, parks: u32, gap: u64) -> u32 {
        let mut spins = 0;
        for _ in 0..parks {
            let plan = dial.plan(false);
            if plan > 0 {
                spins += 1;
                dial.spun((gap <= plan).then_some(gap));
            }
        }
        spins
    }

    #[test]
    fn short_gaps_are_spun_and_long_ones_are_not() {
        let dial = Dial::new(Spin::Dial);
        let worth = dial.spin_ns_max();
        assert!(play(&dial, 10_000, worth / 2) > 9_900);
        let spins = play(&dial, 100_000, worth * 10);
        assert!(spins < 120, "{spins} spins in vain");
        let back = play(&dial, 2_000, worth / 2);
        assert!(back > 900, "a new load is found within a thousand parks: {back}");
    }

    #[test]
    fn where_several_completions_come_at_once_a_sleep_gathers_them() {
        let dial = Dial::new(Spin::Dial);
        let short = dial.spin_ns_max() / 2;
        assert!(play(&dial, 100, short) > 80, "none at all: messages of other cores");
        let play_with = |parks, completions| {
            let spins = (0..parks).map(|_| {
                // In two turns.
                dial.reaped(completions / 2);
                dial.reaped(completions - completions / 2);
                play(&dial, 1, short)
            });
            spins.sum::<u32>()
        };
        assert_eq!(play_with(100, 3), 100, "one request and a half");
        assert_eq!(play_with(100, 12), 100, "as many as there may be");
        let first = play_with(100, 24);
        assert!(first <= 8, "soon noticed: {first}");
        assert_eq!(play_with(1_000, 24), 0);
        let back = play_with(100, 2);
        assert!((90..100).contains(&back), "and soon forgotten: {back}");
        assert_eq!(play_with(1, u32::MAX), 1, "one long stretch is none");
        assert_eq!(play_with(100, 2), 100);
    }

    #[test]
    fn off_never_spins_and_fixed_always_does() {
        assert_eq!(play(&Dial::new(Spin::Off), 100, 1), 0);
        assert_eq!(play(&Dial::new(Spin::Fixed(Duration::from_micros(5))), 100, 1_000_000), 100);
    }

    #[test]
    fn the_longest_spin_follows_what_a_park_costs() {
        let dial = Dial::new(Spin::Dial);
        (0..50).for_each(|_| dial.park_cost(20_000));
        assert!((29_000..=30_000).contains(&dial.spin_ns_max()), "{}", dial.spin_ns_max());
        (0..50).for_each(|_| dial.park_cost(0));
        assert_eq!(dial.spin_ns_max(), SPIN_NS_MIN);
        (0..50).for_each(|_| dial.park_cost(u64::MAX));
        assert_eq!(dial.spin_ns_max(), SPIN_NS_MAX);
    }

    #[test]
    fn the_average_stays_in_range() {
        let dial = Dial::new(Spin::Dial);
        for i in 0..100_000u32 {
            dial.spun((i % 7 != 0).then_some(0));
            assert!(dial.won.get() <= ONE, "{}", dial.won.get());
        }
    }

    /// A core that waits for another one's messages.
    struct Side {
        dial: Dial,
        since: u64,
        plan: u64,
        called: bool,
        spun_ns: u64,
    }

    /// From a message to what it has its receiver do, where that is awake; where it sleeps.
    const AWAKE_NS: u64 = 250;
    const ASLEEP_NS: u64 = 27_000;

    impl Side {
        fn new() -> Self {
            let dial = Dial::new(Spin::Dial);
            Self { dial, since: 0, plan: 0, called: false, spun_ns: 0 }
        }

        fn rests(&mut self, now: u64) {
            self.since = now;
            self.dial.reaped(u32::from(self.called));
            self.plan = self.dial.plan(self.called);
        }

        /// A message comes at this time; when the core has dealt with it, which it rests after.
        fn hears(&mut self, at: u64) -> u64 {
            let gap = at.saturating_sub(self.since);
            self.called = gap > self.plan;
            self.spun_ns += gap.min(self.plan);
            if self.plan > 0 {
                self.dial.spun((!self.called).then_some(gap));
            }
            let done = at.max(self.since) + if self.called { ASLEEP_NS } else { AWAKE_NS };
            self.rests(done);
            done
        }
    }

    /// Has the two answer each other; ns of a round trip in the mean.
    fn ping_pong(pair: &mut [Side; 2], trips: u64) -> u64 {
        let began = pair[0].since;
        let mut now = began;
        for _ in 0..trips {
            now = pair[1].hears(now);
            now = pair[0].hears(now);
        }
        (now - began) / trips
    }

    #[test]
    fn two_cores_that_answer_each_other_find_out_that_they_should_keep_awake() {
        // Whatever either has done before: with 0 to 20,000 parks in vain behind it.
        for before in [(0, 0), (0, 3), (7, 0), (100, 2_000), (20_000, 0), (20_000, 19_777)] {
            let mut pair = [Side::new(), Side::new()];
            play(&pair[0].dial, before.0, 1_000_000);
            play(&pair[1].dial, before.1, 1_000_000);
            ping_pong(&mut pair, 2_000);
            let trip = ping_pong(&mut pair, 1_000);
            assert!(trip < 3 * AWAKE_NS, "{trip} ns after {before:?}");
            // One of them is kept from running for a while, again and again.
            for _ in 0..8 {
                let asked = pair[0].since;
                let late = pair[1].hears(asked + 5_000_000);
                pair[0].hears(late);
            }
            ping_pong(&mut pair, 300);
            let trip = ping_pong(&mut pair, 1_000);
            assert!(trip < 3 * AWAKE_NS, "{trip} ns after a disturbance after {before:?}");
        }
    }

    #[test]
    fn messages_that_come_whatever_a_core_does_have_it_spin_for_next_to_nothing() {
        for gap in [20_000, 40_000, 59_000, 100_000, 1_000_000] {
            let mut side = Side::new();
            for n in 1..=20_000 {
                // Not sooner because it is awake.
                side.hears(n * (gap + ASLEEP_NS));
            }
            let share = side.spun_ns as f64 / (20_000 * (gap + ASLEEP_NS)) as f64;
            assert!(share < 0.01, "{share} of the time with messages {gap} ns apart");
        }
    }
}
