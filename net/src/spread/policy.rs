//! When a core gives connections away, and to whom.
//!
//! Owns [`Policy`] and the state of one core's decision. Pure: it is given loads and says moves; it knows no
//! clock, no socket and no other core's decision. A core gives away while it has more than its share:
//! ```text
//! Resting --above the mean by `start`--> Giving --above by less than `stop`--> Resting
//! ```
//! Invariant: a move is planned only if, by what is known, the one who gives has no less than the one who
//! gets afterwards: two cores do not throw a connection to and fro.

use std::time::Duration;

use super::loads::Load;

/// What loads are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// The number of connections: where all are alike.
    #[default]
    Connections,
    /// The share of time in which the core worked: where some are far more work than others. It takes
    /// [`Balancer::measure`](super::Balancer::measure) on each core.
    Busy,
}

/// When connections are given away. The defaults are careful: to move one costs the caches of two cores.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// What loads are compared by (connections).
    pub measure: Measure,
    /// Thousandths of the mean by which a core has to be above it before it gives any away (250)…
    pub start_permille: u32,
    /// … and goes on until it is above by no more than so many (100).
    pub stop_permille: u32,
    /// Whatever the mean, so many connections (2), or thousandths of a core's time (here 50 for each of
    /// them), above it are left alone: half of that once it gives.
    pub slack: u32,
    /// Connections that a core gives away in one period, at most (16).
    pub moves_max: usize,
    /// How long a core goes by one look at the loads (200 ms), and the time over which business is measured.
    pub period: Duration,
    /// A connection that has moved stays where it is for so long (2 s).
    pub stay: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            measure: Measure::default(),
            start_permille: 250,
            stop_permille: 100,
            slack: 2,
            moves_max: 16,
            period: Duration::from_millis(200),
            stay: Duration::from_secs(2),
        }
    }
}

/// Thousandths of a core's time that are as good as one connection of [`Policy::slack`].
const BUSY_SLACK: u64 = 50;

/// Scores are counted in thousandths of a connection, or of a thousandth of time.
const UNIT: u64 = 1000;

/// One core's decision, from one period to the next.
#[derive(Debug, Default)]
pub(super) struct Decision {
    giving: bool,
}

impl Decision {
    /// The cores to which core `me` is to give a connection each, in this period, the first one first.
    pub(super) fn plan(&mut self, policy: &Policy, me: usize, loads: &[Load]) -> Vec<usize> {
        let score = |load: &Load| match policy.measure {
            Measure::Connections => load.connections as u64 * UNIT,
            Measure::Busy => u64::from(load.busy_permille) * UNIT,
        };
        let mut scores: Vec<u64> = loads.iter().map(score).collect();
        let mean = scores.iter().sum::<u64>() / scores.len() as u64;
        let (slack, one) = match policy.measure {
            Measure::Connections => (u64::from(policy.slack) * UNIT, UNIT),
            Measure::Busy => (
                u64::from(policy.slack) * BUSY_SLACK * UNIT,
                scores[me] / loads[me].connections.max(1) as u64,
            ),
        };
        let above = |permille: u32, slack| mean + slack + mean * u64::from(permille) / 1000;
        let limit = if self.giving {
            above(policy.stop_permille, slack / 2)
        } else {
            above(policy.start_permille, slack)
        };
        self.giving = scores[me] > limit;
        if !self.giving || one == 0 {
            return Vec::new();
        }
        // Half of what is too much: others may give to the same core, and what was given shows late.
        let too_many = (scores[me] - mean) / one;
        let moves = usize::try_from(too_many.div_ceil(2)).unwrap_or(usize::MAX);
        let mut plan = Vec::new();
        for _ in 0..moves.min(policy.moves_max) {
            let others = (0..scores.len()).filter(|core| *core != me);
            let Some(least) = others.min_by_key(|core| scores[*core]) else { break };
            if scores[least] + one > scores[me] - one {
                break;
            }
            scores[least] += one;
            scores[me] -= one;
            plan.push(least);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(connections: &[usize]) -> Vec<Load> {
        connections.iter().map(|n| Load { connections: *n, busy_permille: 0 }).collect()
    }

    /// Repeatable numbers below `n`.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Cores with connections that cost so many thousandths of a core each.
    struct Machine {
        cores: Vec<Vec<u32>>,
        decisions: Vec<Decision>,
        policy: Policy,
    }

    impl Machine {
        fn new(cores: usize, policy: Policy) -> Self {
            let decisions = (0..cores).map(|_| Decision::default()).collect();
            Self { cores: vec![Vec::new(); cores], decisions, policy }
        }

        /// What a core would like to do, also if it is more than it can.
        fn wanted(&self, core: usize) -> u32 {
            self.cores[core].iter().sum()
        }

        fn loads(&self, noise: u64, rng: &mut Rng) -> Vec<Load> {
            let load = |core: usize| {
                let busy = self.wanted(core).min(1000);
                let noise = busy as u64 * rng.below(2 * noise + 1) / 1000;
                Load { connections: self.cores[core].len(), busy_permille: busy + noise as u32 }
            };
            (0..self.cores.len()).map(load).collect()
        }

        /// One period: all decide by the same look, each gives any of its connections; how many moved.
        fn period(&mut self, noise: u64, rng: &mut Rng) -> usize {
            let loads = self.loads(noise, rng);
            let mut moved = 0;
            for me in 0..self.cores.len() {
                for to in self.decisions[me].plan(&self.policy, me, &loads) {
                    let any = rng.below(self.cores[me].len() as u64) as usize;
                    let connection = self.cores[me].swap_remove(any);
                    self.cores[to].push(connection);
                    moved += 1;
                }
            }
            moved
        }

        fn spread(&self) -> (usize, usize) {
            let counts = || self.cores.iter().map(Vec::len);
            (counts().min().unwrap(), counts().max().unwrap())
        }
    }

    #[test]
    fn balance_all_on_one_core_of_many_is_spread_and_then_left_alone() {
        for cores in [2, 3, 16, 128] {
            let mut rng = Rng(cores as u64);
            let mut machine = Machine::new(cores, Policy::default());
            machine.cores[0] = vec![1; 20 * cores];
            let mut moves = 0;
            let mut periods = 0;
            loop {
                let moved = machine.period(0, &mut rng);
                moves += moved;
                periods += 1;
                if moved == 0 {
                    break;
                }
                assert!(periods < 1000, "{cores} cores do not settle: {:?}", machine.spread());
            }
            let (_, most) = machine.spread();
            assert!(most <= 25, "{cores} cores: {most} where 20 are the mean");
            // Each goes once, or hardly more.
            assert!(moves <= 20 * cores, "{cores} cores: {moves} moves");
            assert_eq!((0..10).map(|_| machine.period(0, &mut rng)).sum::<usize>(), 0);
        }
    }

    #[test]
    fn balance_moves_of_a_period_are_bounded() {
        let policy = Policy { moves_max: 3, ..Policy::default() };
        let plan = Decision::default().plan(&policy, 0, &loads(&[100, 0]));
        assert_eq!(plan, [1, 1, 1]);
        assert!(Decision::default().plan(&policy, 1, &loads(&[100, 0])).is_empty());
    }

    #[test]
    fn balance_begins_late_and_ends_early() {
        let policy = Policy::default();
        // 40 on average: 52 is the limit, with the slack of 2.
        let (below, above, between) = (loads(&[52, 28]), loads(&[54, 26]), loads(&[47, 33]));
        let mut decision = Decision::default();
        assert!(decision.plan(&policy, 0, &below).is_empty());
        assert!(!decision.plan(&policy, 0, &above).is_empty());
        assert!(!decision.plan(&policy, 0, &between).is_empty(), "it goes on once it gives");
        assert!(decision.plan(&policy, 0, &loads(&[45, 35])).is_empty());
        assert!(
            decision.plan(&policy, 0, &between).is_empty(),
            "and begins anew only when far above"
        );
    }

    #[test]
    fn balance_by_work_when_some_connections_are_heavy() {
        let policy = Policy { measure: Measure::Busy, ..Policy::default() };
        for seed in 1..=20 {
            let mut rng = Rng(seed);
            let mut machine = Machine::new(8, policy.clone());
            // Five heavy ones of 120 land on one core with many light ones; equal counts everywhere else.
            for core in 0..8 {
                machine.cores[core] = vec![2; 50];
            }
            machine.cores[3].extend([120; 6]);
            let mut moves = 0;
            for _ in 0..100 {
                moves += machine.period(30, &mut rng);
            }
            let most = (0..8).map(|core| machine.wanted(core)).max().unwrap();
            // 190 is the mean; one heavy one more or less is what there is.
            assert!(most <= 420, "seed {seed}: {most} after {moves} moves");
            let late: usize = (0..50).map(|_| machine.period(30, &mut rng)).sum();
            assert!(late <= 60, "seed {seed}: {late} moves of 50 periods when all was well");
        }
    }

    #[test]
    fn balance_one_hot_connection_is_not_thrown_about() {
        let policy = Policy { measure: Measure::Busy, ..Policy::default() };
        let mut rng = Rng(7);
        let mut machine = Machine::new(4, policy);
        machine.cores[0] = vec![900];
        let moved: usize = (0..100).map(|_| machine.period(30, &mut rng)).sum();
        assert_eq!(moved, 0, "it would only be somewhere else");
    }

    #[test]
    fn balance_follows_connections_that_come_and_go() {
        let mut rng = Rng(11);
        let mut machine = Machine::new(16, Policy::default());
        let (mut moves, mut worst) = (0, 0);
        for period in 0..2000 {
            // All new ones come to two cores, as a bad hash or one card queue would have it.
            for _ in 0..8 {
                let core = rng.below(2) as usize;
                machine.cores[core].push(1);
            }
            for _ in 0..8 {
                let core = rng.below(16) as usize;
                if period > 100 && !machine.cores[core].is_empty() {
                    machine.cores[core].pop();
                }
            }
            moves += machine.period(0, &mut rng);
            if period > 200 {
                let mean = machine.cores.iter().map(Vec::len).sum::<usize>() / 16;
                worst = worst.max(machine.spread().1 - mean);
            }
        }
        // It gives half of what is too much: 8 a period come, so about twice that stands above at most.
        assert!(worst <= 40, "{worst} above the mean");
        assert!(moves <= 2000 * 9, "{moves} moves for 16,000 connections");
    }
}
