//! What a search for a rate leaves behind, as plain data: the JSON, from which the text is made too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::series::Series;
use crate::peers::interval::median;
use crate::peers::run::Measured;
use crate::search::bisect::{At, Ending, Found, Holds, Plan};
use crate::trial::Head;
use crate::tune::judge::FIGURES;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What was run, on what.
    #[serde(flatten)]
    pub head: Head,
    /// Settings of the server, as given.
    pub settings: Vec<String>,
    /// How it ended.
    pub ending: Ending,
    /// Requests per second: the highest rate that holds the goal.
    pub highest: Option<u64>,
    /// The lowest above it that does not.
    pub above: Option<u64>,
    /// What a closed loop reached.
    pub closed: f64,
    /// The percentile of the goal.
    pub percentile: String,
    /// What it must be below, in µs.
    pub bound_us: f64,
    /// Runs at a rate, whose majority decides.
    pub runs_per_rate: usize,
    /// All rates that were tried, the lowest first.
    pub points: Vec<Point>,
    /// Figures at the highest rate that holds, for `compare`.
    pub series: Vec<Series>,
}

/// A rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Requests per second.
    pub rate: u64,
    /// Whether it holds.
    pub holds: Holds,
    /// Its runs.
    pub runs: Vec<RunAt>,
}

/// A run at a rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunAt {
    /// Whether it held.
    pub holds: Holds,
    /// Figures by key.
    pub figures: BTreeMap<String, f64>,
    /// What disturbed it.
    pub marks: Vec<String>,
    /// What the server failed at.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Why it has no figures.
    pub error: Option<String>,
}

impl Results {
    /// Puts them together.
    pub fn new(mut head: Head, plan: &Plan, found: &Found, settings: Vec<String>) -> Results {
        let point = |at: &At| Point {
            rate: at.rate,
            holds: at.holds(plan),
            runs: at.runs.iter().map(|run| run_at(plan, at.rate, run)).collect(),
        };
        let points: Vec<Point> = found.points.iter().map(point).collect();
        let runs = || points.iter().flat_map(|point| &point.runs);
        head.runs = runs().count();
        head.disturbed = runs().filter(|run| !run.marks.is_empty()).count();
        let at = found.points.iter().find(|at| Some(at.rate) == found.highest);
        if let Some(at) = at {
            let goal = crate::trial::goal::Goal::Latency(plan.point, Some(plan.bound));
            head.notes.extend(crate::trial::few_answers(&goal, at.rate as f64 * plan.seconds));
        }
        head.interrupted = found.ending == Ending::Interrupted;
        let ending = match found.ending {
            Ending::Found | Ending::NothingHolds if misses_disturbed(found) => Ending::Disturbed,
            ending => ending,
        };
        Results {
            head,
            settings,
            ending,
            highest: found.highest,
            above: found.above,
            closed: found.closed,
            percentile: plan.point.name.into(),
            bound_us: plan.bound.as_secs_f64() * 1e6,
            runs_per_rate: plan.runs,
            points,
            series: at.map(series).unwrap_or_default(),
        }
    }
}

impl Point {
    /// The median of a figure over its runs.
    pub fn median(&self, key: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.runs.iter().filter_map(|run| run.figures.get(key).copied()).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// Runs that held.
    pub fn held(&self) -> usize {
        self.runs.iter().filter(|run| run.holds == Holds::Yes).count()
    }
}

fn run_at(plan: &Plan, rate: u64, run: &Result<Measured, String>) -> RunAt {
    let (measured, error) = match run {
        Ok(run) => (run.clone(), None),
        Err(why) => (Measured::default(), Some(why.clone())),
    };
    let Measured { figures, usage, .. } = measured;
    let holds = plan.holds(rate, run);
    RunAt { holds, figures, marks: usage.marks, faults: usage.faults, error }
}

/// Whether most of the runs that say where it ends stayed disturbed: those at the lowest rate that missed,
/// or all where none held. What held among disturbances would hold without them.
fn misses_disturbed(found: &Found) -> bool {
    let ends = |at: &&At| found.highest.is_none() || Some(at.rate) == found.above;
    let runs = || found.points.iter().filter(ends).flat_map(At::deciding);
    let disturbed = runs().flatten().filter(|run| !run.usage.marks.is_empty());
    disturbed.count() * 2 > runs().count()
}

fn series(at: &At) -> Vec<Series> {
    let runs: Vec<&Measured> = at.deciding().iter().filter_map(|run| run.as_ref().ok()).collect();
    let series = FIGURES.iter().map(|figure| Series {
        of: "at the highest rate".into(),
        figure: figure.words.into(),
        unit: figure.unit.into(),
        less_is_better: figure.less_is_better,
        samples: runs.iter().filter_map(|run| run.figures.get(figure.key).copied()).collect(),
    });
    series.filter(|series| !series.samples.is_empty()).collect()
}

#[cfg(test)]
pub mod sample {
    //! Searches made up for the tests.

    use std::time::Duration;

    use super::*;
    use crate::search::bisect::search;
    use crate::trial::goal::POINTS;
    use crate::trial::synthetic::Synthetic;

    /// On a server that gets slower towards 80,000 requests a second.
    pub fn results(change: impl FnOnce(&mut Synthetic)) -> Results {
        let mut runner = Synthetic {
            p99_us: |rate| 100.0 / (1.0 - rate.unwrap_or(60_000) as f64 / 80_000.0).max(0.001),
            ..Synthetic::noisy(0.05, 3)
        };
        change(&mut runner);
        let plan = Plan {
            point: POINTS[2],
            bound: Duration::from_millis(2),
            changes: Vec::new(),
            runs: 5,
            near: 1.03,
            budget: Duration::from_secs(300),
            seconds: 0.6,
            seed: 1,
        };
        let found = search(&mut runner, &plan, &mut |_, _| ()).unwrap();
        let head = Head { command: "search".into(), ..crate::tune::results::sample::head() };
        Results::new(head, &plan, &found, vec!["spin=off".into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_as_they_were_written() {
        let results = sample::results(|_| ());
        let text = serde_json::to_string_pretty(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        assert_eq!(results.ending, Ending::Found);
        let loud = sample::results(|runner| runner.foreign = 0.5);
        assert_eq!((loud.ending, loud.highest), (Ending::Disturbed, results.highest));
        let loud = sample::results(|runner| (runner.foreign, runner.p99_us) = (0.5, |_| 9e3));
        assert_eq!((loud.ending, loud.highest), (Ending::Disturbed, None));
        // A miss for which the server alone is to blame: soon answered, but not all of it.
        let slow = sample::results(|runner| (runner.capacity, runner.p99_us) = (50_000, |_| 100.0));
        assert_eq!((slow.ending, slow.head.disturbed), (Ending::Found, 0));
        let (highest, above) = (slow.highest.unwrap(), slow.above.unwrap());
        assert!((48_000..52_500).contains(&highest) && above as f64 <= highest as f64 * 1.03);
        let missed = slow.points.iter().find(|point| point.rate == above).unwrap();
        assert!(missed.runs.iter().all(|run| run.faults == ["it fell behind"]));
        assert_eq!(results.head.runs, results.points.iter().map(|p| p.runs.len()).sum::<usize>());
        let p99 = results.series.iter().find(|series| series.figure == "p99").unwrap();
        assert_eq!(p99.samples.len(), 5, "those that confirmed it");
        assert!(p99.samples.iter().filter(|us| **us < 2_000.0).count() >= 3);
    }
}
