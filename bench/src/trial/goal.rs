//! What is asked of a server: a percentile below a bound, little CPU, a high rate.
//!
//! Owns the words of `--goal`. An error names what would be right, or the nearest to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::parse::duration;
use crate::report::units::time_ns;

/// A goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// A percentile of the latency as low as can be; with a bound it is enough to be below that, and
    /// less server CPU counts then.
    Latency(Point, Option<Duration>),
    /// The least server CPU per request.
    Cpu,
    /// The most requests per second.
    MaxRate,
}

/// A percentile of the latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// `p99`.
    pub name: &'static str,
    /// Its figure of a run, in µs.
    pub key: &'static str,
    /// Answers in a run below which it is but the luck of a few: ten beyond it.
    pub answers_min: u64,
}

/// The percentiles that a run reports.
pub const POINTS: [Point; 5] = [
    Point { name: "p50", key: "p50_us", answers_min: 20 },
    Point { name: "p90", key: "p90_us", answers_min: 100 },
    Point { name: "p99", key: "p99_us", answers_min: 1_000 },
    Point { name: "p99.9", key: "p999_us", answers_min: 10_000 },
    Point { name: "p99.99", key: "p9999_us", answers_min: 100_000 },
];

const CPU: &str = "cpu";
const MAX_RATE: &str = "max-rate";

/// Further off it would be a guess.
const NEAR: usize = 2;

impl Goal {
    /// Its percentile, if it is one.
    pub fn point(&self) -> Option<Point> {
        match self {
            Goal::Latency(point, _) => Some(*point),
            Goal::Cpu | Goal::MaxRate => None,
        }
    }

    /// Its percentile and bound, if it has both.
    pub fn bounded(&self) -> Option<(Point, Duration)> {
        match self {
            Goal::Latency(point, Some(bound)) => Some((*point, *bound)),
            _ => None,
        }
    }
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Goal, String> {
        let text = text.trim();
        let Some(at) = text.find(['<', '=', '>']) else {
            return match text {
                CPU => Ok(Goal::Cpu),
                MAX_RATE => Ok(Goal::MaxRate),
                name => point(name).map(|point| Goal::Latency(point, None)),
            };
        };
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let bound =
            rest.strip_prefix("<=").or_else(|| rest.strip_prefix('<')).ok_or_else(|| {
                format!("'{text}': a goal is what should be below a bound, as p99<2ms")
            })?;
        if [CPU, MAX_RATE].contains(&name) {
            return Err(format!("'{name}' takes no bound: write --goal {name}"));
        }
        let point = point(name)?;
        let bound = duration(bound)?;
        if bound.is_zero() {
            return Err(format!("'{text}': no latency is below 0"));
        }
        Ok(Goal::Latency(point, Some(bound)))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Latency(point, None) => f.write_str(point.name),
            Goal::Latency(point, Some(bound)) => {
                write!(f, "{} < {}", point.name, time_ns(bound.as_nanos() as f64))
            }
            Goal::Cpu => f.write_str(CPU),
            Goal::MaxRate => f.write_str(MAX_RATE),
        }
    }
}

/// Percentile and bound of a goal that a rate either holds or does not.
pub fn bounded(goal: &Goal) -> Result<(Point, Duration), String> {
    goal.bounded().ok_or_else(|| {
        format!(
            "the goal '{goal}' has no bound, so that every rate holds it: write a percentile below a time, as \
             p99<2ms"
        )
    })
}

fn point(name: &str) -> Result<Point, String> {
    if let Some(point) = POINTS.into_iter().find(|point| point.name == name) {
        return Ok(point);
    }
    let names = POINTS.map(|point| point.name);
    let is_percentile = name.strip_prefix('p').is_some_and(|rest| rest.parse::<f64>().is_ok());
    if is_percentile {
        return Err(format!("'{name}' is not among what a run reports: {}", names.join(", ")));
    }
    let all = names.into_iter().chain([CPU, MAX_RATE]);
    let near = all.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    Err(match near.filter(|(distance, known)| *distance <= NEAR && *distance < known.len()) {
        Some((_, known)) => format!("'{name}' is no goal; did you mean {known}?"),
        None => format!(
            "'{name}' is no goal: write p99<2ms (or {}), cpu, or max-rate",
            names.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match text.parse::<Goal>() {
            Ok(goal) => goal.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn goals_as_people_write_them() {
        for (text, goal) in [
            ("p99<2ms", "p99 < 2.00 ms"),
            (" p99.9 <= 500us ", "p99.9 < 500 µs"),
            ("p50 < 1m", "p50 < 60.0 s"),
            ("p90", "p90"),
            ("cpu", "cpu"),
            ("max-rate", "max-rate"),
        ] {
            assert_eq!(parsed(text), goal);
        }
        let point = "p99.9<1ms".parse::<Goal>().unwrap().bounded().unwrap();
        assert_eq!((point.0.key, point.1), ("p999_us", Duration::from_millis(1)));
        assert_eq!("p99".parse::<Goal>().unwrap().bounded(), None);
    }

    #[test]
    fn what_is_no_goal_is_told_with_what_would_be() {
        for (text, part) in [
            ("p98<2ms", "'p98' is not among what a run reports: p50, p90, p99"),
            ("p99<2", "10s, 500ms or 2m"),
            ("p99>2ms", "below a bound, as p99<2ms"),
            ("p99=2ms", "below a bound"),
            ("p99<0", "no latency is below 0"),
            ("cpu<5us", "'cpu' takes no bound"),
            ("maxrate", "did you mean max-rate?"),
            ("cpi", "did you mean cpu?"),
            ("99<2ms", "did you mean p99?"),
            ("throughput", "'throughput' is no goal: write p99<2ms"),
            ("", "'' is no goal: write"),
        ] {
            let said = parsed(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn a_search_needs_a_bound() {
        assert!(bounded(&"p99<2ms".parse().unwrap()).is_ok());
        for text in ["p99", "cpu", "max-rate"] {
            assert!(
                bounded(&text.parse().unwrap()).unwrap_err().contains("has no bound"),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for text in [
            "",
            " ",
            "<",
            "<=",
            "p99<",
            "p99<<2ms",
            "p99<2",
            "p99<-2ms",
            "p99<NaN",
            "p99<infs",
            "p99<1e400s",
            "p99<99999999999999999999s",
            "p99>2ms",
            "p99=2ms",
            "p99<2ms<3ms",
            "p\u{669}<2ms",
            "cpu<2ms",
            "max-rate<1",
            "p99<\u{1f600}",
            "p99<0ms",
            "\0",
            "p99<2 fortnights",
        ] {
            let refused = text.parse::<Goal>();
            assert!(refused.as_ref().is_err_and(|why| !why.is_empty()), "{text:?}: {refused:?}");
        }
    }
}
