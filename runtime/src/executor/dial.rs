//! Whether to spin before a park, learnt from what spinning brought.
//!
//! Owns the dial. A sleep and a wake are the dearest thing on a core, in latency and in CPU; a spin of at
//! most what they cost is at worst twice the optimum, whatever comes (the ski-rental bound). The dial keeps
//! below that bound by not spinning where it does not pay:
//! - it spins while at least half of the recent spins met an event (a moving average);
//! - when that stops, it tries again only after so many parks, doubling with each try in vain up to
//!   [`TRY_AFTER_MAX`]: a core whose gaps are long spends next to nothing on finding that out, and an idle
//!   one nothing;
//! - a try that meets an event halves the distance to the next, so a new load is found within a few
//!   hundred parks, and an idle core's parks are rare.
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
}

/// What a sleep and a wake cost about, and so the longest spin. Measured on virtual machines: 4 to 8 µs of
/// CPU and 8 to 20 µs of latency for a park that another core ends.
pub(super) const SPIN_NS_MAX: u64 = 16_000;

const ONE: u32 = 1 << 16;
const TRY_AFTER_MIN: u32 = 8;
const TRY_AFTER_MAX: u32 = 1024;

impl Dial {
    pub(super) fn new(spin: Spin) -> Self {
        Self {
            spin,
            won: Cell::new(0),
            pause: Cell::new(TRY_AFTER_MIN),
            try_after: Cell::new(TRY_AFTER_MIN),
        }
    }

    /// How long to spin before this park, in ns; 0 for not at all.
    pub(super) fn plan(&self) -> u64 {
        match self.spin {
            Spin::Off => 0,
            Spin::Fixed(d) => d.as_nanos() as u64,
            Spin::Dial if self.won.get() >= ONE / 2 => SPIN_NS_MAX,
            Spin::Dial => {
                let pause = self.pause.get();
                if pause == 0 {
                    return SPIN_NS_MAX;
                }
                self.pause.set(pause - 1);
                0
            }
        }
    }

    /// A planned spin met an event, or did not.
    pub(super) fn spun(&self, won: bool) {
        let average = self.won.get();
        let trusted = average >= ONE / 2;
        if won {
            // Two wins in a row from nothing make a habit; a habit survives a loss among four.
            self.won.set(average + (ONE - average) / 4 + u32::from(!trusted) * (ONE / 8));
            self.try_after.set((self.try_after.get() / 2).max(TRY_AFTER_MIN));
            self.pause.set(0);
            return;
        }
        self.won.set(average - average / 4);
        if self.won.get() < ONE / 2 {
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
            let plan = dial.plan();
            if plan > 0 {
                spins += 1;
                dial.spun(gap <= plan);
            }
        }
        spins
    }

    #[test]
    fn short_gaps_are_spun_and_long_ones_are_not() {
        let dial = Dial::new(Spin::Dial);
        assert!(play(&dial, 10_000, SPIN_NS_MAX / 2) > 9_900);
        let spins = play(&dial, 100_000, SPIN_NS_MAX * 10);
        assert!(spins < 120, "{spins} spins in vain");
        let back = play(&dial, 2_000, SPIN_NS_MAX / 2);
        assert!(back > 900, "a new load is found within a thousand parks: {back}");
    }

    #[test]
    fn off_never_spins_and_fixed_always_does() {
        assert_eq!(play(&Dial::new(Spin::Off), 100, 1), 0);
        assert_eq!(play(&Dial::new(Spin::Fixed(Duration::from_micros(5))), 100, 1_000_000), 100);
    }

    #[test]
    fn the_average_stays_in_range() {
        let dial = Dial::new(Spin::Dial);
        for i in 0..100_000u32 {
            dial.spun(i % 7 != 0);
            assert!(dial.won.get() <= ONE, "{}", dial.won.get());
        }
    }
}
