//! When an open loop wants each request sent.
//!
//! Owns the arithmetic. *Even*: exact over any length of run, in whole nanoseconds with a carried
//! remainder; connections take turns: with N of them, connection i sends requests i, i + N, i + 2N … of
//! the whole, so that requests are as evenly apart as the clock allows. *Poisson*: each connection draws
//! its own gaps from an exponential distribution, and together they are one Poisson process of the whole
//! rate; the draws depend on the connection's number alone, so that every run has the same. Knows no
//! clock.

/// The intended times of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next_ns: u64,
    gaps: Gaps,
}

/// What lies between two requests of a connection.
#[derive(Clone, Copy, Debug)]
enum Gaps {
    Even {
        /// What the exact next time is above `next_ns`, in 1/rate of a nanosecond.
        remainder: u64,
        step_ns: u64,
        step_remainder: u64,
        rate: u64,
    },
    Poisson {
        /// What the exact next time is above `next_ns`.
        remainder_ns: f64,
        mean_ns: f64,
        state: u64,
    },
}

const SECOND_NS: u64 = 1_000_000_000;

impl Schedule {
    /// Evenly apart: of connection `index` of `connections`, which make `rate` requests per second
    /// together.
    pub fn even(begin_ns: u64, rate: u64, index: u64, connections: u64) -> Schedule {
        // 100,000 connections are 1e14: far from the end of the type.
        let (phase, step) = (index * SECOND_NS, connections * SECOND_NS);
        let gaps = Gaps::Even {
            remainder: phase % rate,
            step_ns: step / rate,
            step_remainder: step % rate,
            rate,
        };
        Schedule { next_ns: begin_ns + phase / rate, gaps }
    }

    /// At random, with the same mean.
    pub fn poisson(begin_ns: u64, rate: u64, index: u64, connections: u64) -> Schedule {
        let mean_ns = connections as f64 * SECOND_NS as f64 / rate as f64;
        // Neighbouring seeds give unrelated sequences: the first steps mix them.
        let state = index.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        let gaps = Gaps::Poisson { remainder_ns: 0.0, mean_ns, state };
        let mut schedule = Schedule { next_ns: begin_ns, gaps };
        // The first request is as far from the beginning as any from the one before it.
        schedule.advance();
        schedule
    }

    /// The time of the next request.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        match &mut self.gaps {
            Gaps::Even { remainder, step_ns, step_remainder, rate } => {
                self.next_ns += *step_ns;
                *remainder += *step_remainder;
                if *remainder >= *rate {
                    *remainder -= *rate;
                    self.next_ns += 1;
                }
            }
            Gaps::Poisson { remainder_ns, mean_ns, state } => {
                let exact_ns = *remainder_ns - *mean_ns * open_unit(state).ln();
                self.next_ns += exact_ns as u64;
                *remainder_ns = exact_ns.fract();
            }
        }
    }

    /// How many requests are due before `end_ns`, from the next one on.
    pub fn due_before(&self, end_ns: u64) -> u64 {
        let Some(left_ns) = end_ns.checked_sub(self.next_ns).filter(|left| *left > 0) else {
            return 0;
        };
        match self.gaps {
            Gaps::Even { remainder, step_ns, step_remainder, rate } => {
                let step = u128::from(step_ns) * u128::from(rate) + u128::from(step_remainder);
                let left = u128::from(left_ns) * u128::from(rate) - u128::from(remainder);
                left.div_ceil(step) as u64
            }
            Gaps::Poisson { .. } => {
                let mut ahead = *self;
                let mut due = 0;
                while ahead.next_ns < end_ns {
                    due += 1;
                    ahead.advance();
                }
                due
            }
        }
    }
}

/// A random number above 0 and at most 1 (SplitMix64).
fn open_unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((z >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drifts() {
        let mut schedule = Schedule::even(1_000, 7, 0, 3);
        (0..7_000_000).for_each(|_| schedule.advance());
        assert_eq!(schedule.next_ns(), 1_000 + 3_000_000 * 1_000_000_000);
    }

    #[test]
    fn connections_take_turns() {
        let mut all: Vec<u64> = (0..64)
            .flat_map(|index| {
                let mut schedule = Schedule::even(0, 50_000, index, 64);
                std::iter::repeat_with(move || {
                    let at = schedule.next_ns();
                    schedule.advance();
                    at
                })
                .take(100)
            })
            .collect();
        all.sort_unstable();
        assert!(all.iter().zip(0u64..).all(|(at, i)| *at == i * 20_000));
    }

    #[test]
    fn what_is_due_is_counted() {
        for start in [Schedule::even(500, 3, 1, 2), Schedule::poisson(500, 300, 1, 2)] {
            let mut schedule = start;
            let mut due = 0;
            let end_ns = 20_000_000_000;
            let counted = schedule.due_before(end_ns);
            while schedule.next_ns() < end_ns {
                due += 1;
                schedule.advance();
            }
            assert_eq!(counted, due);
            assert_eq!(schedule.due_before(end_ns), 0);
        }
    }

    /// The times within `seconds` of all of 64 connections at 10,000 a second, in order.
    fn random_times(seconds: u64) -> Vec<u64> {
        let mut all = Vec::new();
        for index in 0..64 {
            let mut schedule = Schedule::poisson(0, 10_000, index, 64);
            while schedule.next_ns() < seconds * SECOND_NS {
                all.push(schedule.next_ns());
                schedule.advance();
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let all = random_times(20);
        // 200,000 with a deviation of 447.
        assert!((198_000..202_000).contains(&all.len()), "{}", all.len());
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean; of even gaps it would be 0.
        assert!((0.98..1.02).contains(&(variance.sqrt() / mean)), "{}", variance.sqrt() / mean);
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((0.36..0.376).contains(&longer), "1/e of the gaps are above the mean: {longer}");
    }

    #[test]
    fn random_arrivals_are_the_same_in_every_run() {
        assert_eq!(random_times(1), random_times(1));
        let first = |index| Schedule::poisson(0, 1_000, index, 2).next_ns();
        assert_ne!(first(0), first(1));
    }
}
