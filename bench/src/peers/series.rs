//! The runs of a comparison: blocks, order within them, repeats.
//!
//! Owns the sequence. Within a block everybody runs once, in an order drawn from the seed; a disturbed
//! run is repeated on the spot, at most twice. Who is not disturbed and lost answers, or did not reach the
//! rate, has failed in that block: to repeat until it does would choose its best runs. Who gives no figures at
//! all in two blocks is not tried a third time.

use std::collections::{BTreeMap, HashMap};

use crate::peers::child::Trouble;
use crate::peers::contenders::Contender;
use crate::peers::draw::Draw;
use crate::peers::results::{Run, WorkloadResults};
use crate::peers::run::Measured;
use crate::peers::workloads::Workload;

/// Attempts beyond the first, for a run that was disturbed.
pub const REPEATS: usize = 2;

/// Failures after which a contender is not tried again.
const FAILURES_MAX: usize = 2;

/// What is told about a run before it begins.
#[derive(Debug)]
pub struct Step<'a> {
    /// From 0.
    pub block: usize,
    /// From 0.
    pub attempt: usize,
    /// Who runs.
    pub who: &'a Contender,
}

/// Who takes part in a workload, and why others can't.
pub fn participants<'a>(
    contenders: &'a [Contender],
    workload: &Workload,
) -> (Vec<&'a Contender>, BTreeMap<String, String>) {
    let mut part = Vec::new();
    let mut unsupported = BTreeMap::new();
    for who in contenders {
        match who.takes_part(workload) {
            Ok(true) => part.push(who),
            Ok(false) => {}
            Err(why) => drop(unsupported.insert(who.id.clone(), why)),
        }
    }
    (part, unsupported)
}

/// Runs all blocks of a workload into `into`; false if it was interrupted.
pub fn run(
    contenders: &[Contender],
    workload: &Workload,
    (seed, blocks): (u64, usize),
    into: &mut WorkloadResults,
    mut once: impl FnMut(&Step<'_>) -> Result<Measured, Trouble>,
) -> bool {
    let (part, unsupported) = participants(contenders, workload);
    into.unsupported = unsupported;
    let mut failures: HashMap<&str, usize> = HashMap::new();
    for block in 0..blocks {
        let order = Draw::new(seed, &format!("{}/{block}", workload.name)).order(part.len());
        for who in order.into_iter().map(|i| part[i]) {
            if failures.get(who.id.as_str()).is_some_and(|count| *count >= FAILURES_MAX) {
                continue;
            }
            for attempt in 0..=REPEATS {
                let outcome = match once(&Step { block, attempt, who }) {
                    Err(Trouble::Interrupted) => return false,
                    outcome => outcome,
                };
                let broken = outcome.is_err();
                let run = record(block, attempt, who, outcome);
                let disturbed = !run.marks.is_empty();
                into.runs.push(run);
                if broken {
                    *failures.entry(who.id.as_str()).or_default() += 1;
                }
                if broken || !disturbed {
                    break;
                }
            }
        }
    }
    true
}

fn record(
    block: usize,
    attempt: usize,
    who: &Contender,
    outcome: Result<Measured, Trouble>,
) -> Run {
    let (measured, error) = match outcome {
        Ok(measured) => (measured, None),
        Err(Trouble::Failed(words)) => (Measured::default(), Some(words)),
        Err(Trouble::Interrupted) => (Measured::default(), Some("interrupted".into())),
    };
    Run {
        block,
        attempt,
        contender: who.id.clone(),
        figures: measured.figures,
        marks: measured.usage.marks,
        disturbance: measured.usage.disturbance,
        note: measured.note,
        faults: measured.usage.faults,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::contenders::{Launch, broken, served};
    use crate::peers::workloads::find;

    fn contenders() -> Vec<Contender> {
        let launch = || Launch::Epoll { binary: "epoll-echo".into() };
        let mut all: Vec<Contender> =
            (0..6).map(|i| served(&format!("c{i}"), "default", "", launch())).collect();
        all.push(broken("lost", "peer-lost".into(), "did not build".into()));
        all
    }

    fn empty() -> WorkloadResults {
        let (name, runs) = ("echo-64".into(), Vec::new());
        WorkloadResults { name, rate: None, runs, unsupported: BTreeMap::new() }
    }

    fn series(once: impl FnMut(&Step<'_>) -> Result<Measured, Trouble>) -> (bool, WorkloadResults) {
        let mut into = empty();
        let all = contenders();
        let whole = run(&all, find("echo-64").unwrap(), (11, 5), &mut into, once);
        (whole, into)
    }

    fn disturbed(share: f64) -> Measured {
        let mut measured = Measured::default();
        measured.usage.foreign(share);
        measured
    }

    #[test]
    fn each_block_has_everyone_once_in_an_order_of_its_own() {
        let (whole, results) = series(|_| Ok(Measured::default()));
        assert!(whole);
        assert_eq!(results.runs.len(), 30);
        let order = |block: usize| -> Vec<&str> {
            let of = results.runs.iter().filter(|run| run.block == block);
            of.map(|run| run.contender.as_str()).collect()
        };
        for block in 0..5 {
            let mut sorted = order(block);
            sorted.sort_unstable();
            assert_eq!(sorted, ["c0", "c1", "c2", "c3", "c4", "c5"]);
        }
        assert!((1..5).any(|block| order(block) != order(0)));
        assert_eq!(results.runs, series(|_| Ok(Measured::default())).1.runs, "the seed decides");
        assert_eq!(results.unsupported["lost"], "did not build");
    }

    #[test]
    fn a_disturbed_run_is_repeated_twice_at_most_and_stays_marked() {
        let (_, results) = series(|step| {
            let shares = [0.5, 0.2, 0.3];
            Ok(match (step.who.id.as_str(), step.block) {
                ("c1", 0) => disturbed(shares[step.attempt]),
                ("c2", 1) if step.attempt == 0 => disturbed(0.5),
                _ => disturbed(0.0),
            })
        });
        let attempts = |who: &str, block| {
            results.runs.iter().filter(|r| r.contender == who && r.block == block).count()
        };
        assert_eq!((attempts("c1", 0), attempts("c1", 1)), (3, 1));
        assert_eq!((attempts("c2", 1), attempts("c3", 1)), (2, 1));
        let kept = results.counting("c1")[&0];
        assert_eq!((kept.attempt, kept.marks.len()), (1, 1), "the least disturbed one, marked");
        assert!(results.counting("c2")[&1].marks.is_empty());
    }

    #[test]
    fn who_fails_is_tried_again_once_and_told() {
        let (whole, results) = series(|step| match step.who.id.as_str() {
            "c4" => Err(Trouble::Failed("no ring".into())),
            _ => Ok(Measured::default()),
        });
        assert!(whole);
        let failed: Vec<usize> =
            results.runs.iter().filter(|r| r.contender == "c4").map(|r| r.block).collect();
        assert_eq!(failed, [0, 1]);
        assert_eq!(results.failed("c4"), ["no ring", "no ring"]);
    }

    #[test]
    fn who_does_not_keep_up_has_failed_in_that_block_and_is_not_run_until_it_does() {
        let (_, results) = series(|step| {
            let mut measured = disturbed(0.0);
            match (step.who.id.as_str(), step.block, step.attempt) {
                ("c1", 0, _) => measured.usage.faults.push("90 of 100 reached".into()),
                // Others were there, and it kept up; without them it did not.
                ("c2", 1, 0) => measured = disturbed(0.5),
                ("c2", 1, _) => measured.usage.faults.push("80 of 100 reached".into()),
                ("c3", ..) => measured.usage.faults.push("1 never answered".into()),
                // Others were there each time: nobody knows whose doing it was.
                ("c4", 2, _) => {
                    measured = disturbed(0.5);
                    measured.usage.faults.push("70 of 100 reached".into());
                }
                ("c5", 3, 0) => measured = disturbed(0.5),
                ("c5", 3, _) => return Err(Trouble::Failed("no start".into())),
                _ => {}
            }
            Ok(measured)
        });
        let of = |who: &str| results.runs.iter().filter(|run| run.contender == who).count();
        let blocks = |who: &str| results.counting(who).into_keys().collect::<Vec<_>>();
        assert_eq!((of("c1"), blocks("c1")), (5, vec![1, 2, 3, 4]));
        assert_eq!((of("c2"), blocks("c2")), (6, vec![0, 2, 3, 4]), "the calm attempt counts");
        assert_eq!((of("c3"), blocks("c3")), (5, vec![]), "it runs, and is tried in each block");
        assert_eq!(results.failed("c2"), ["80 of 100 reached"]);
        assert_eq!((of("c4"), blocks("c4")), (7, vec![0, 1, 3, 4]));
        assert!(results.failed("c4").is_empty());
        assert_eq!(
            (of("c5"), blocks("c5")),
            (6, vec![0, 1, 2, 3, 4]),
            "the one with figures counts"
        );
        assert_eq!(results.failed("c5"), ["no start"]);
    }

    #[test]
    fn an_interrupt_ends_the_series_and_keeps_what_there_is() {
        let mut left = 8;
        let (whole, results) = series(|_| {
            left -= 1;
            if left == 0 { Err(Trouble::Interrupted) } else { Ok(Measured::default()) }
        });
        assert!(!whole);
        assert_eq!(results.runs.len(), 7);
    }
}
