//! The search on made-up servers.

use super::*;
use crate::trial::goal::POINTS;
use crate::trial::synthetic::Synthetic;

/// A queue with room for 80,000 requests a second: the nearer, the longer.
fn queue(rate: Option<u64>) -> f64 {
    const MOST: f64 = 80_000.0;
    match rate {
        None => 600.0,
        Some(rate) if (rate as f64) < MOST * 0.999 => 100.0 / (1.0 - rate as f64 / MOST),
        Some(_) => 500_000.0,
    }
}

/// Where the p99 of that is 2 ms.
const TRUE_RATE: f64 = 76_000.0;

fn plan(budget_s: u64) -> Plan {
    Plan {
        point: POINTS[2],
        bound: Duration::from_millis(2),
        changes: Vec::new(),
        runs: 5,
        near: 1.03,
        budget: Duration::from_secs(budget_s),
        seconds: 0.6,
        seed: 1,
    }
}

fn found(runner: &mut Synthetic, plan: &Plan) -> Found {
    search(runner, plan, &mut |_, _| ()).unwrap()
}

#[test]
fn the_highest_rate_that_holds_is_found_within_the_precision() {
    for seed in 0..20 {
        let mut runner = Synthetic { p99_us: queue, ..Synthetic::noisy(0.1, seed) };
        let found = found(&mut runner, &plan(300));
        assert_eq!(found.ending, Ending::Found, "{found:?}");
        let rate = found.highest.unwrap() as f64;
        // Ten percent of the latency are half a percent of the rate there.
        assert!((TRUE_RATE * 0.955..=TRUE_RATE * 1.015).contains(&rate), "{rate}");
        assert!(found.above.unwrap() as f64 <= rate * 1.031);
        let at = found.points.iter().find(|at| Some(at.rate) == found.highest).unwrap();
        assert_eq!(at.confirming, 5);
    }
}

#[test]
fn time_is_kept_whatever_a_run_takes() {
    for (budget, cost_ms) in [(2, 900), (10, 900), (30, 2_000), (60, 300), (5, 7_000)] {
        let cost = Duration::from_millis(cost_ms);
        let mut runner = Synthetic { p99_us: queue, cost, ..Synthetic::noisy(0.1, 1) };
        let found = found(&mut runner, &plan(budget));
        let took = runner.elapsed;
        assert!(took <= Duration::from_secs(budget) + 2 * cost, "{took:?} of {budget} s");
        assert!(budget > 10 || found.ending == Ending::TooShort, "{found:?}");
    }
}

#[test]
fn a_generator_that_is_the_limit_is_told_and_what_is_below_holds() {
    let mut runner =
        Synthetic { p99_us: queue, generator_max: 60_000, ..Synthetic::noisy(0.05, 2) };
    let found = found(&mut runner, &plan(300));
    assert_eq!(found.ending, Ending::GeneratorLimit);
    let rate = found.highest.unwrap();
    assert!((57_000..=60_000).contains(&rate), "{rate}");
}

/// What misses at a rate that was tried before misses for another reason.
struct Turns {
    inner: Synthetic,
    /// Whether the generator is the limit when a rate that misses is tried, and when it is confirmed.
    limited: (bool, bool),
    tried: std::collections::BTreeMap<u64, usize>,
}

impl Runner for Turns {
    fn run(&mut self, ask: &Ask<'_>) -> Result<Measured, Trouble> {
        let mut measured = self.inner.run(ask)?;
        let Some(rate) = ask.rate else { return Ok(measured) };
        let tried = self.tried.entry(rate).or_default();
        *tried += 1;
        // Three of five are the majority, and the others are not run.
        let limited = if *tried <= 3 { self.limited.0 } else { self.limited.1 };
        if limited && measured.figures["p99_us"] > 2_000.0 {
            measured.figures.insert("generator_limited".into(), 1.0);
        }
        Ok(measured)
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed
    }
}

#[test]
fn the_confirmation_says_why_the_upper_end_misses() {
    for (limited, ending) in
        [((false, true), Ending::GeneratorLimit), ((true, false), Ending::Found)]
    {
        let inner = Synthetic { p99_us: queue, ..Synthetic::noisy(0.0, 1) };
        let mut runner = Turns { inner, limited, tried: Default::default() };
        let found = search(&mut runner, &plan(300), &mut |_, _| ()).unwrap();
        assert_eq!(found.ending, ending, "{limited:?}");
        let above = found.points.iter().find(|at| Some(at.rate) == found.above).unwrap();
        let generator = above.holds(&plan(300)) == Holds::Generator;
        assert_eq!(generator, limited.1, "and its runs say the same");
    }
}

#[test]
fn where_nothing_holds_it_ends_and_says_so() {
    let mut runner = Synthetic { p99_us: |_| 5_000.0, ..Synthetic::calm() };
    let found = found(&mut runner, &plan(300));
    assert_eq!((found.ending, found.highest), (Ending::NothingHolds, None));
    assert_eq!(found.points[0].rate, RATE_MIN);
}

#[test]
fn a_wrong_turn_is_put_right_by_the_confirmation() {
    // The server gets a fifth slower after 30 runs: what held before does not when it is confirmed.
    let mut runner = Synthetic { p99_us: queue, drift: 0.5, ..Synthetic::noisy(0.1, 3) };
    let found = found(&mut runner, &plan(600));
    let at = found.points.iter().find(|at| Some(at.rate) == found.highest).unwrap();
    if found.ending == Ending::Found {
        assert_eq!(at.holds(&plan(600)), Holds::Yes, "{found:?}");
    }
    assert!(runner.elapsed <= Duration::from_secs(602));
}

#[test]
fn an_interrupt_ends_it_anywhere_and_a_failure_at_once() {
    for runs in 0..12 {
        let mut runner =
            Synthetic { p99_us: queue, runs_left: Some(runs), ..Synthetic::noisy(0.1, 1) };
        assert_eq!(found(&mut runner, &plan(300)).ending, Ending::Interrupted);
    }
    let mut broken = Synthetic { fails: |_| true, ..Synthetic::calm() };
    let outcome = search(&mut broken, &plan(300), &mut |_, _| ());
    assert_eq!(outcome.unwrap_err(), Trouble::Failed("it would not".into()));
}

#[test]
fn a_run_holds_only_if_the_rate_was_reached_and_all_was_answered() {
    let plan = plan(1);
    let run = |figures: &[(&str, f64)]| {
        let mut measured = Measured::default();
        for (key, value) in [("p99_us", 100.0), ("rate_reached", 1.0)].iter().chain(figures) {
            measured.figures.insert(key.to_string(), *value);
        }
        plan.holds(50_000, &Ok(measured))
    };
    assert_eq!(run(&[]), Holds::Yes);
    assert_eq!(run(&[("p99_us", 2_000.0)]), Holds::No);
    assert_eq!(run(&[("rate_reached", 0.95)]), Holds::No);
    assert_eq!(run(&[("unanswered", 1.0)]), Holds::No);
    assert_eq!(run(&[("p99_us", 9e6), ("generator_limited", 1.0)]), Holds::Generator);
    assert_eq!(plan.holds(50_000, &Err("it failed".into())), Holds::No);
}

#[test]
fn a_majority_ends_the_voting_as_soon_as_it_is_certain() {
    use Holds::{Generator, No, Yes};
    assert_eq!(decided(&[Yes, Yes], 5), None);
    assert_eq!(decided(&[Yes, No, Yes, Yes], 5), Some(Yes));
    assert_eq!(decided(&[No, No, No], 5), Some(No));
    assert_eq!(decided(&[Yes, Yes, No, No, Generator], 5), Some(No), "no majority is no yes");
    assert_eq!(decided(&[Yes, Generator, Generator, No, Generator], 5), Some(Generator));
    assert_eq!(decided(&[Yes], 1), Some(Yes));
}

#[test]
fn rates_have_three_digits() {
    assert_eq!((round(76_543), round(999), round(12), round(1_004)), (76_500, 999, 12, 1_000));
}
