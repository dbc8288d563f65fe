//! The highest rate of a search: two of them compared.
//!
//! Owns what is known of such a rate, and how sure a difference is. A search leaves two rates that were run
//! in blocks: one that holds and one that does not, and what the server can do is between them. Another
//! search of the same server ends at other rates, since the curve is noisy where it is steep: each bracket
//! counts for as wide again on either side (a test has the share of searches that differ by chance then).

use serde_json::Value;

use crate::compare::{Row, Says, says};
use crate::peers::interval::{BLOCKS_MIN, Ratio};

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Highest {
    /// As it was told; 0 where no rate holds.
    pub rate: f64,
    /// What surely holds; 0 if it is not confirmed.
    low: f64,
    /// What surely does not, if that is known.
    above: Option<f64>,
    /// Runs whose majority decides.
    runs: usize,
}

/// What the row is called.
const FIGURE: &str = "highest rate";

impl Highest {
    /// That of a search; none where nothing is known of the server.
    pub fn of(search: &Value) -> Option<Highest> {
        let (rate, above) = (search["highest"].as_f64(), search["above"].as_f64());
        let ending = search["ending"].as_str()?;
        let (rate, low, above) = match (ending, rate) {
            ("found", Some(rate)) => (rate, rate, above),
            // What holds beside a generator at its limit, or beside others, holds.
            ("generator_limit" | "disturbed", Some(rate)) => (rate, rate, None),
            ("nothing_holds", None) => (0.0, 0.0, above),
            (_, rate) => (rate?, 0.0, None),
        };
        let runs = search["runs_per_rate"].as_u64().unwrap_or(0) as usize;
        Some(Highest { rate, low, above, runs })
    }

    /// From where to where it may be, were it searched again.
    fn range(&self) -> (f64, f64) {
        match self.above {
            Some(above) if self.low > 0.0 => {
                let width = above / self.low;
                (self.low / width, above * width)
            }
            above => (self.low, above.unwrap_or(f64::INFINITY)),
        }
    }
}

/// B's beside A's.
pub fn row(a: &Highest, b: &Highest, threshold: f64) -> Row {
    let blocks = a.runs.min(b.runs);
    let ((a_low, a_high), (b_low, b_high)) = (a.range(), b.range());
    let ratio =
        Ratio { median: b.rate / a.rate, low: b_low / a_high, high: b_high / a_low, blocks };
    let whole = [ratio.median, ratio.low, ratio.high].iter().all(|r| r.is_finite() && *r > 0.0);
    let says = match says(&ratio, false, threshold) {
        _ if blocks < BLOCKS_MIN => Says::CanNotTell,
        // An end that is not known leaves more open than noise does.
        Says::Unresolved if !whole => Says::CanNotTell,
        says => says,
    };
    Row {
        of: String::new(),
        figure: FIGURE.into(),
        unit: "/s".into(),
        less_is_better: false,
        a: a.rate,
        b: b.rate,
        samples_a: a.runs,
        samples_b: b.runs,
        ratio: (whole && blocks >= BLOCKS_MIN).then_some(ratio),
        says,
    }
}

/// Where the rates differ, so do the latencies, whatever the servers are like: nothing follows from those.
pub fn leave_out(rows: &mut [Row], a: &Highest, b: &Highest) -> Option<String> {
    if a.rate == b.rate {
        return None;
    }
    for row in rows.iter_mut().filter(|row| row.figure != FIGURE) {
        row.says = Says::OtherRate;
    }
    Some(
        "each search's figures are of its own highest rate: where those differ, the rates are compared, and \
         the figures at them are shown and not judged"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::results::sample;
    use crate::trial::synthetic::Synthetic;

    fn found(change: impl FnOnce(&mut Synthetic)) -> Highest {
        Highest::of(&serde_json::to_value(sample::results(change)).unwrap()).unwrap()
    }

    /// A server that does a share of what the sample's does.
    fn slower(seed: u64, p99_us: fn(Option<u64>) -> f64) -> Highest {
        found(|runner| {
            *runner = Synthetic { p99_us, ..Synthetic::noisy(0.4, seed) };
        })
    }

    fn queue(rate: Option<u64>, most: f64) -> f64 {
        100.0 / (1.0 - rate.unwrap_or(60_000) as f64 / most).max(0.001)
    }

    #[test]
    fn two_searches_of_one_server_seldom_differ_and_a_slower_one_is_found() {
        let of = |p99_us| (0..40).map(|seed| slower(seed, p99_us)).collect::<Vec<_>>();
        let all = of(|rate| queue(rate, 80_000.0));
        let slower = of(|rate| queue(rate, 68_000.0));
        let share = |a: &[Highest], b: &[Highest], is: &[Says]| {
            let pairs = || a.iter().flat_map(|a| b.iter().map(move |b| row(a, b, 0.0).says));
            pairs().filter(|says| is.contains(says)).count() as f64 / pairs().count() as f64
        };
        let by_chance = share(&all, &all, &[Says::Worse, Says::Better]);
        let found = share(&all, &slower, &[Says::Worse]);
        println!("{by_chance} by chance, {found} found");
        assert!(by_chance < 0.05, "{by_chance}");
        assert!(found > 0.95, "{found}");
    }

    #[test]
    fn what_is_not_known_is_not_judged() {
        let known = |low: f64, above| Highest { rate: low, low, above, runs: 5 };
        let says = |a: &Highest, b: &Highest| row(a, b, 0.0).says;
        let a = known(70_000.0, Some(72_000.0));
        assert_eq!(says(&a, &known(70_000.0, Some(72_000.0))), Says::Unresolved);
        assert_eq!(says(&a, &known(50_000.0, Some(51_000.0))), Says::Worse);
        assert_eq!(says(&a, &known(50_000.0, None)), Says::CanNotTell, "it may do more");
        assert_eq!(says(&a, &known(90_000.0, None)), Says::Better, "and that is enough");
        assert_eq!(says(&known(90_000.0, None), &a), Says::Worse);
        let few = Highest { runs: 3, ..known(50_000.0, Some(51_000.0)) };
        assert_eq!(says(&a, &few), Says::CanNotTell);
        let none = found(|runner| runner.p99_us = |_| 9e3);
        assert_eq!((none.rate, says(&a, &none), says(&none, &a)), (0.0, Says::Worse, Says::Better));
        let limited = found(|runner| runner.generator_max = 50_000);
        assert_eq!(limited.above, None);
        let early = found(|runner| runner.runs_left = Some(6));
        assert_eq!(says(&a, &early), Says::CanNotTell, "nothing of it is confirmed: {early:?}");
        let nothing = sample::results(|runner| runner.generator_max = 0);
        assert_eq!(Highest::of(&serde_json::to_value(nothing).unwrap()), None);
    }
}
