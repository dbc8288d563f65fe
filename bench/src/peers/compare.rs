//! From the runs of a workload to rows of figures, ratios and verdicts.
//!
//! Owns who is compared with whom. Part one: ours as it comes, and everybody who doesn't spin. Where
//! ours also
//! ran without its spin, part two is that one and the same others. What spins is apart, with ours that
//! spins as
//! long. Draws nothing.

use crate::peers::contenders::Contender;
use crate::peers::interval::{Ratio, Verdict, median};
use crate::peers::results::{Results, Run, WorkloadResults};
use crate::peers::workloads::{self, Figure, Workload};

/// A workload's results, put side by side.
#[derive(Debug)]
pub struct Comparison {
    /// What was run.
    pub workload: &'static Workload,
    /// Requests per second of an open loop.
    pub rate: Option<u64>,
    /// The parts that have any rows.
    pub parts: Vec<Part>,
    /// Contender and reason: those that have no figures, or not in all blocks.
    pub failures: Vec<(String, String)>,
    /// What peers said about how they did it.
    pub notes: Vec<(String, String)>,
}

/// Contenders that are compared with one reference.
#[derive(Debug)]
pub struct Part {
    /// What they have in common.
    pub title: &'static str,
    /// Ours among them.
    pub reference: Option<String>,
    /// The reference first, the others by their headline figure, the best first.
    pub rows: Vec<Row>,
}

/// A contender's figures.
#[derive(Debug)]
pub struct Row {
    /// Its id.
    pub who: String,
    /// Whether the others are compared with it.
    pub is_reference: bool,
    /// Whether it is a variant of ours.
    pub is_ours: bool,
    /// In the order of the workload's figures.
    pub cells: Vec<Option<Cell>>,
    /// Blocks with figures.
    pub blocks: usize,
    /// Of them, those that stayed disturbed.
    pub disturbed: usize,
}

/// A figure of a contender.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Over the blocks.
    pub median: f64,
    /// The best of the blocks: noise only ever adds.
    pub best: f64,
    /// The reference's over this one's.
    pub against: Option<(Ratio, Verdict)>,
}

/// Title of the first part.
pub const AS_THEY_COME: &str = "as they come";
/// Errors that are told of each contender.
const ERRORS_TOLD: usize = 2;
const WITHOUT_SPIN: &str = "coreloop kept from spinning";
const SPINNING: &str = "those that spin before they sleep";

/// All workloads of the results that this program knows.
pub fn all(results: &Results) -> Vec<Comparison> {
    results.workloads.iter().filter_map(|workload| compare(results, workload)).collect()
}

/// One of them; `None` if this program does not know it.
pub fn compare(results: &Results, ran: &WorkloadResults) -> Option<Comparison> {
    let workload = workloads::find(&ran.name)?;
    let took_part = |who: &&Contender| !ran.counting(&who.id).is_empty();
    let there: Vec<&Contender> = results.contenders.iter().filter(took_part).collect();
    let ours = |variant: &str| there.iter().copied().find(|c| c.is_ours() && c.variant == variant);
    let plain: Vec<&Contender> =
        there.iter().copied().filter(|c| !c.is_ours() && !c.spins).collect();
    let spinning: Vec<&Contender> = there.iter().copied().filter(|c| c.spins).collect();
    let mut parts = Vec::new();
    let mut part = |title, reference: Option<&Contender>, others: &[&Contender]| {
        let rows = rows(workload, ran, reference, others);
        if !rows.is_empty() {
            parts.push(Part { title, reference: reference.map(|who| who.id.clone()), rows });
        }
    };
    let default = ours("default");
    part(AS_THEY_COME, default, &plain);
    if let Some(still) = ours("spin-off") {
        part(WITHOUT_SPIN, Some(still), &plain);
    }
    if !spinning.is_empty() {
        let reference = spinning.iter().copied().find(|who| who.is_ours()).or(default);
        let mut others: Vec<&Contender> = spinning.clone();
        others.extend(
            default.filter(|who| Some(who.id.as_str()) != reference.map(|r| r.id.as_str())),
        );
        others.retain(|who| Some(who.id.as_str()) != reference.map(|r| r.id.as_str()));
        part(SPINNING, reference, &others);
    }
    let failures = failures(results, ran);
    let notes = there.iter().filter_map(|who| {
        let runs = ran.counting(&who.id);
        let note = runs.values().find_map(|run| run.note.clone())?;
        Some((who.id.clone(), note))
    });
    Some(Comparison { workload, rate: ran.rate, parts, failures, notes: notes.collect() })
}

fn failures(results: &Results, ran: &WorkloadResults) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    for who in &results.contenders {
        let failed = ran.failed(&who.id);
        if !failed.is_empty() {
            let mut errors = failed.clone();
            errors.sort_unstable();
            errors.dedup();
            let words = format!("failed {}: {}", times(failed.len()), in_short(&errors));
            failures.push((who.id.clone(), words));
        }
    }
    failures.extend(ran.unsupported.iter().map(|(who, why)| (who.clone(), why.clone())));
    failures
}

/// The first of them: what was counted differs from run to run, and makes each a different one.
fn in_short(errors: &[&str]) -> String {
    // One more is named rather than counted.
    if errors.len() <= ERRORS_TOLD + 1 {
        return errors.join("; ");
    }
    let (told, others) = errors.split_at(ERRORS_TOLD);
    format!("{}; and {} others", told.join("; "), others.len())
}

fn times(count: usize) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}

fn rows(
    workload: &Workload,
    ran: &WorkloadResults,
    reference: Option<&Contender>,
    others: &[&Contender],
) -> Vec<Row> {
    let row = |who: &Contender| {
        let runs = ran.counting(&who.id);
        let cells = workload.figures.iter().map(|figure| {
            let against = reference.filter(|reference| reference.id != who.id);
            cell(ran, figure, &who.id, against.map(|r| r.id.as_str()))
        });
        Row {
            who: who.id.clone(),
            is_reference: reference.is_some_and(|reference| reference.id == who.id),
            is_ours: who.is_ours(),
            cells: cells.collect(),
            blocks: runs.len(),
            disturbed: runs.values().filter(|run| !run.marks.is_empty()).count(),
        }
    };
    let mut rows: Vec<Row> = others.iter().map(|who| row(who)).collect();
    let less = workload.figures[0].less_is_better;
    let weight = |row: &Row| match row.cells[0] {
        Some(cell) if less => cell.median,
        Some(cell) => -cell.median,
        None => f64::INFINITY,
    };
    rows.sort_by(|a, b| weight(a).total_cmp(&weight(b)));
    if let Some(reference) = reference {
        rows.insert(0, row(reference));
    }
    rows
}

fn cell(
    ran: &WorkloadResults,
    figure: &Figure,
    who: &str,
    reference: Option<&str>,
) -> Option<Cell> {
    let theirs = ran.counting(who);
    let of = |run: &&Run| run.figures.get(figure.key).copied();
    let values: Vec<f64> = theirs.values().filter_map(of).collect();
    let best = values.iter().copied().reduce(match figure.less_is_better {
        true => f64::min,
        false => f64::max,
    })?;
    let against = reference.and_then(|reference| {
        let ours = ran.counting(reference);
        let pairs: Vec<(f64, f64)> = theirs
            .iter()
            .filter_map(|(block, run)| Some((of(ours.get(block)?)?, of(run)?)))
            .collect();
        let ratio = Ratio::of(&pairs)?;
        Some((ratio, ratio.verdict(figure.less_is_better)))
    });
    Some(Cell { median: median(&values), best, against })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::results::sample;

    fn row<'a>(part: &'a Part, who: &str) -> &'a Row {
        part.rows.iter().find(|row| row.who == who).unwrap()
    }

    #[test]
    fn everybody_is_compared_with_ours_and_failures_are_told() {
        let all = all(&sample::results());
        let closed = &all[0];
        assert_eq!(closed.parts.len(), 1, "nobody spins there");
        let part = &closed.parts[0];
        assert!(part.rows[0].is_reference && part.rows[0].who == "coreloop");
        assert_eq!(part.rows[1].who, "monoio flags", "the best of the others comes first");
        let (ratio, verdict) = row(part, "tokio").cells[0].unwrap().against.unwrap();
        assert_eq!(verdict, Verdict::Ahead);
        assert!(ratio.high < 0.93 && ratio.low > 0.86, "{ratio:?}");
        let (_, verdict) = row(part, "monoio flags").cells[0].unwrap().against.unwrap();
        assert_eq!(verdict, Verdict::Unresolved);
        let (_, verdict) = row(part, "tokio").cells[1].unwrap().against.unwrap();
        assert_eq!(verdict, Verdict::Ahead, "a higher rate is better");
        let told: Vec<&str> = closed.failures.iter().map(|(who, _)| who.as_str()).collect();
        assert_eq!(told, ["smol", "ringline"]);
        assert!(closed.failures[0].1.contains("boom"));
    }

    #[test]
    fn what_spins_is_a_part_of_its_own() {
        let all = all(&sample::results());
        let parts = &all[1].parts;
        let names = |part: &Part| part.rows.iter().map(|r| r.who.clone()).collect::<Vec<_>>();
        assert_eq!(names(&parts[0]), ["coreloop", "tokio"]);
        assert_eq!(names(&parts[1]), ["coreloop spin-off", "tokio"]);
        assert_eq!(names(&parts[2]), ["coreloop spin-50us", "coreloop", "glommio spin"]);
    }

    #[test]
    fn a_repeat_replaces_a_disturbed_run_and_nothing_is_counted_twice() {
        let all = all(&sample::results());
        let tokio = row(&all[0].parts[0], "tokio");
        assert_eq!((tokio.blocks, tokio.disturbed), (5, 0));
        assert!(tokio.cells[0].unwrap().median < 6_000.0);
    }

    #[test]
    fn without_ours_there_are_figures_but_no_ratios() {
        let mut results = sample::results();
        results.contenders.retain(|who| !who.is_ours());
        let all = all(&results);
        assert_eq!(all[0].parts[0].reference, None);
        assert!(row(&all[0].parts[0], "tokio").cells[0].unwrap().against.is_none());
    }
}
