//! When an open loop wants each request sent.
//!
//! Owns the arithmetic: exact over any length of run, in whole nanoseconds with a carried remainder.
//! Connections take turns: with N of them, connection i sends requests i, i + N, i + 2N … of the whole,
//! so that requests are as evenly apart as the clock allows. Knows no clock.

/// The intended times of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next_ns: u64,
    /// What the exact next time is above `next_ns`, in 1/rate of a nanosecond.
    remainder: u64,
    step_ns: u64,
    step_remainder: u64,
    rate: u64,
}

impl Schedule {
    /// Of connection `index` of `connections`, which make `rate` requests per second together.
    pub fn new(begin_ns: u64, rate: u64, index: u64, connections: u64) -> Schedule {
        const SECOND_NS: u64 = 1_000_000_000;
        // 100,000 connections are 1e14: far from the end of the type.
        let (phase, step) = (index * SECOND_NS, connections * SECOND_NS);
        Schedule {
            next_ns: begin_ns + phase / rate,
            remainder: phase % rate,
            step_ns: step / rate,
            step_remainder: step % rate,
            rate,
        }
    }

    /// The time of the next request.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.next_ns += self.step_ns;
        self.remainder += self.step_remainder;
        if self.remainder >= self.rate {
            self.remainder -= self.rate;
            self.next_ns += 1;
        }
    }

    /// How many requests are due before `end_ns`, from the next one on.
    pub fn due_before(&self, end_ns: u64) -> u64 {
        let Some(left_ns) = end_ns.checked_sub(self.next_ns).filter(|left| *left > 0) else {
            return 0;
        };
        let step =
            u128::from(self.step_ns) * u128::from(self.rate) + u128::from(self.step_remainder);
        let left = u128::from(left_ns) * u128::from(self.rate) - u128::from(self.remainder);
        left.div_ceil(step) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drifts() {
        let mut schedule = Schedule::new(1_000, 7, 0, 3);
        (0..7_000_000).for_each(|_| schedule.advance());
        assert_eq!(schedule.next_ns(), 1_000 + 3_000_000 * 1_000_000_000);
    }

    #[test]
    fn connections_take_turns() {
        let mut all: Vec<u64> = (0..64)
            .flat_map(|index| {
                let mut schedule = Schedule::new(0, 50_000, index, 64);
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
        let mut schedule = Schedule::new(500, 3, 1, 2);
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
