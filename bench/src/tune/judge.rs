//! What is looked at, given a goal and what the defaults do.
//!
//! Owns that rule. A latency with a bound asks two questions: where the defaults miss the bound, the latency
//! itself is what counts; where they hold it, the server's CPU per request does, among those that hold it
//! too. It is decided once, from the defaults' first blocks, and told.

use std::time::Duration;

use crate::peers::interval::median;
use crate::peers::run::Measured;
use crate::report::units::time_ns;
use crate::trial::goal::{Goal, Point};

/// The figure that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its key among a run's figures.
    pub key: &'static str,
    /// What it is.
    pub words: String,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// What must be held beside it.
    pub bound: Option<(Point, Duration)>,
}

/// How a figure is called and printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// Its key.
    pub key: &'static str,
    /// Its name.
    pub words: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether less of it is better.
    pub less_is_better: bool,
}

/// The figures of a run that are told, the order of tables.
pub const FIGURES: [Named; 7] = [
    Named { key: "cpu_ns_per_request", words: "CPU per request", unit: "ns", less_is_better: true },
    Named {
        key: "requests_per_s",
        words: "requests per second",
        unit: "/s",
        less_is_better: false,
    },
    Named { key: "p50_us", words: "p50", unit: "µs", less_is_better: true },
    Named { key: "p90_us", words: "p90", unit: "µs", less_is_better: true },
    Named { key: "p99_us", words: "p99", unit: "µs", less_is_better: true },
    Named { key: "p999_us", words: "p99.9", unit: "µs", less_is_better: true },
    Named { key: "p9999_us", words: "p99.99", unit: "µs", less_is_better: true },
];

impl Judged {
    /// By the goal, and what the reference did in the blocks so far.
    pub fn of(goal: &Goal, reference: &[&Measured]) -> Judged {
        let plain = |key, words: &str, less_is_better| Judged {
            key,
            words: words.to_owned(),
            less_is_better,
            bound: None,
        };
        match goal {
            Goal::Cpu => plain("cpu_ns_per_request", "server CPU per request", true),
            Goal::MaxRate => plain("requests_per_s", "requests per second", false),
            Goal::Latency(point, None) => plain(point.key, point.name, true),
            Goal::Latency(point, Some(bound)) => {
                let did = point.median_us(reference.iter().copied());
                match did.is_some_and(|us| us < bound_us(*bound)) {
                    true => Judged {
                        bound: Some((*point, *bound)),
                        ..plain("cpu_ns_per_request", "server CPU per request", true)
                    },
                    false => plain(point.key, point.name, true),
                }
            }
        }
    }

    /// Whether runs hold what must be held.
    pub fn holds<'a>(&self, runs: impl Iterator<Item = &'a Measured>) -> bool {
        match self.bound {
            None => true,
            Some((point, bound)) => point.median_us(runs).is_some_and(|us| us < bound_us(bound)),
        }
    }

    /// What was decided, in a sentence.
    pub fn explained(&self, goal: &Goal) -> String {
        match (goal.bounded(), self.bound) {
            (Some((point, bound)), Some(_)) => format!(
                "the defaults hold {} < {}: looked for the least server CPU per request that still does",
                point.name,
                time_ns(bound.as_nanos() as f64)
            ),
            (Some((point, bound)), None) => format!(
                "the defaults miss {} < {}: looked for the lowest {}",
                point.name,
                time_ns(bound.as_nanos() as f64),
                point.name
            ),
            _ if self.less_is_better => format!("looked for the least {}", self.words),
            _ => format!("looked for the most {}", self.words),
        }
    }
}

impl Point {
    /// Its median over runs, in µs.
    pub fn median_us<'a>(&self, runs: impl Iterator<Item = &'a Measured>) -> Option<f64> {
        let values: Vec<f64> = runs.filter_map(|run| run.figures.get(self.key).copied()).collect();
        (!values.is_empty()).then(|| median(&values))
    }
}

fn bound_us(bound: Duration) -> f64 {
    bound.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(p99_us: f64) -> Measured {
        let mut run = Measured::default();
        run.figures.insert("p99_us".into(), p99_us);
        run
    }

    #[test]
    fn a_bound_that_the_defaults_miss_is_what_counts() {
        let goal = "p99<2ms".parse().unwrap();
        let runs = [run(1_900.0), run(2_500.0), run(2_100.0)];
        let judged = Judged::of(&goal, &runs.iter().collect::<Vec<_>>());
        assert_eq!((judged.key, judged.bound), ("p99_us", None));
        assert!(judged.explained(&goal).contains("the defaults miss p99 < 2.00 ms"));
    }

    #[test]
    fn a_bound_that_they_hold_must_be_held_for_less_cpu() {
        let goal = "p99<2ms".parse().unwrap();
        let runs = [run(1_900.0), run(2_500.0), run(1_100.0)];
        let judged = Judged::of(&goal, &runs.iter().collect::<Vec<_>>());
        assert_eq!(judged.key, "cpu_ns_per_request");
        assert!(judged.holds([run(1_999.0)].iter()));
        assert!(!judged.holds([run(2_000.0)].iter()));
        assert!(!judged.holds([].iter()), "who has no figures holds nothing");
        assert!(
            judged.explained(&goal).contains("hold p99 < 2.00 ms: looked for the least server CPU")
        );
    }

    #[test]
    fn other_goals_are_their_own_figures() {
        let of = |text: &str| Judged::of(&text.parse().unwrap(), &[]);
        assert_eq!((of("cpu").key, of("cpu").less_is_better), ("cpu_ns_per_request", true));
        assert_eq!((of("max-rate").key, of("max-rate").less_is_better), ("requests_per_s", false));
        assert_eq!(of("p99.9").key, "p999_us");
        assert!(of("p50").holds([].iter()));
    }
}
