//! Candidates beside the defaults in a given number of blocks: what each of them does, and nothing
//! searched.
//!
//! Owns that form of `tune` and its table. Each block runs the defaults and every candidate once, in an
//! order drawn from the seed.

use std::time::Duration;

use serde::Serialize;

use crate::compare::series::Series;
use crate::peers::child::Trouble;
use crate::peers::interval::{BLOCKS_MIN, Ratio, median};
use crate::peers::run::Measured;
use crate::report::paint::{Paint, Tone};
use crate::trial;
use crate::trial::goal::Goal;
use crate::trial::words::{RatioRow, figure, foot, head, paragraph, ratios};
use crate::trial::{Ask, Head, Runner, few_answers};
use crate::tune::contest::{Contest, Ended, Log, RunLog, Terms, behind};
use crate::tune::judge::{FIGURES, Judged};
use crate::tune::space::Candidate;
use crate::tune::stages::Rate;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which figures: that of the goal, and the server's CPU per request.
    pub goal: Goal,
    /// Where orders and samples come from.
    pub seed: u64,
    /// Time for all of it.
    pub budget: Duration,
    /// How many blocks.
    pub blocks: usize,
    /// Who.
    pub candidates: Vec<Candidate>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What was run, on what.
    #[serde(flatten)]
    pub head: Head,
    /// Requests per second of an open loop.
    pub rate: Option<u64>,
    /// How it ended.
    pub outcome: Ending,
    /// A figure of a candidate each.
    pub rows: Vec<Row>,
    /// What failed, and how.
    pub failed: Vec<(String, String)>,
    /// The figures of all who ran, for `compare`.
    pub series: Vec<Series>,
    /// Every run in its order.
    pub log: Vec<RunLog>,
}

/// How a series of pairs ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All blocks were run, and each candidate has enough of them.
    Whole,
    /// So they were, but most of them were disturbed.
    Disturbed,
    /// A candidate has too few runs: they failed.
    TooFew,
    /// The time was over before all blocks were run.
    TooShort,
    /// Ctrl-C.
    Interrupted,
}

/// A candidate beside the defaults, in one figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who.
    pub candidate: String,
    /// The figure.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// The median of the defaults; none without a run of them that counts.
    pub defaults: Option<f64>,
    /// The median with it.
    pub with_it: Option<f64>,
    /// With it over the defaults; none of too few blocks.
    pub ratio: Option<Ratio>,
    /// Whether the server kept up with the load in most runs; the others do not count.
    pub keeps_up: bool,
}

/// Time that so many runs of `seconds` take on a machine that is not too busy.
pub fn time_for(candidates: usize, blocks: usize, seconds: f64) -> Duration {
    Duration::from_secs_f64(((candidates + 1) * blocks) as f64 * (seconds + 1.5) * 1.5)
}

/// Runs all of it.
///
/// # Errors
/// If not even the defaults run.
pub fn pairs<R: Runner>(
    runner: &mut R,
    plan: &Plan,
    rate: Rate,
    mut head: Head,
    watch: &mut dyn FnMut(Duration, &str),
) -> Result<Results, Trouble> {
    let began = runner.elapsed();
    watch(began, "a first run, which does not count");
    let fixed = if let Rate::Fixed(rate) = rate { Some(rate) } else { None };
    let first = trial::first(runner, &Ask { changes: &[], rate: fixed })?;
    let rate = first.as_ref().map_or(fixed, |first| rate.after(first));
    let terms = Terms { seed: plan.seed, rate, until: began + plan.budget };
    let mut contest = Contest::new("pairs", Candidate::new([]), plan.candidates.clone());
    let mut log = Log::default();
    let ended = match first {
        None => Ended::Interrupted,
        Some(_) => contest.blocks(runner, plan.blocks, terms, &mut log, watch),
    };
    head.interrupted = ended == Ended::Interrupted;
    if ended == Ended::Time {
        head.notes.push("the budget was over before all blocks were run".into());
    }
    head.runs = log.runs.len();
    head.disturbed = log.disturbed();
    head.took_s = runner.elapsed().as_secs_f64();
    let answers = |run: &RunLog| run.figures.get("answers").copied();
    let answers: Vec<f64> = log.runs.iter().filter_map(answers).collect();
    if !answers.is_empty() {
        head.notes.extend(few_answers(&plan.goal, median(&answers)));
    }
    head.notes.extend(behind(&log.runs, &contest.reference.label()));
    let rows = rows(&contest, plan);
    let enough = rows.iter().all(|row| row.ratio.is_some_and(|r| r.blocks >= BLOCKS_MIN));
    let outcome = match ended {
        Ended::Interrupted => Ending::Interrupted,
        Ended::Time => Ending::TooShort,
        Ended::Whole if !enough => Ending::TooFew,
        Ended::Whole if head.disturbed * 2 > head.runs => Ending::Disturbed,
        Ended::Whole => Ending::Whole,
    };
    let (failed, series) = (log.errors(), series(&contest));
    Ok(Results { head, rate, outcome, rows, failed, series, log: log.runs })
}

fn series(contest: &Contest) -> Vec<Series> {
    let reference = [(contest.reference.label(), &contest.reference_runs)];
    let entries = contest.entries.iter().map(|entry| (entry.candidate.label(), &entry.runs));
    let mut all = Vec::new();
    for (of, runs) in reference.into_iter().chain(entries) {
        all.extend(FIGURES.iter().map(|named| Series {
            of: of.clone(),
            figure: named.words.into(),
            unit: named.unit.into(),
            less_is_better: named.less_is_better,
            samples: runs.values().filter_map(|run| run.figures.get(named.key).copied()).collect(),
        }));
    }
    all.retain(|series| !series.samples.is_empty());
    all
}

fn rows(contest: &Contest, plan: &Plan) -> Vec<Row> {
    let wanted = Judged::of(&plan.goal, &[]).key;
    let mut rows = Vec::new();
    for named in FIGURES.iter().filter(|f| f.key == wanted || f.key == "cpu_ns_per_request") {
        let judged = Judged {
            key: named.key,
            words: named.words.into(),
            less_is_better: named.less_is_better,
            bound: None,
        };
        let middle = |runs: &mut dyn Iterator<Item = &Measured>| {
            let values: Vec<f64> = runs.filter_map(|r| r.figures.get(named.key).copied()).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        for (at, entry) in contest.entries.iter().enumerate() {
            rows.push(Row {
                candidate: entry.candidate.label(),
                figure: named.words.into(),
                unit: named.unit.into(),
                less_is_better: named.less_is_better,
                defaults: middle(&mut contest.reference_runs.values()),
                with_it: middle(&mut entry.runs.values()),
                ratio: contest.ratio(at, &judged),
                keeps_up: entry.keeps_up(),
            });
        }
    }
    rows
}

/// The table of each figure.
pub fn text(results: &Results, paint: Paint) -> String {
    let mut out = head(&results.head, "tune --pairs", results.rate, paint);
    for named in FIGURES {
        let of: Vec<&Row> = results.rows.iter().filter(|row| row.figure == named.words).collect();
        if of.is_empty() {
            continue;
        }
        let title = format!("{}: with it ÷ that of the defaults", named.words);
        out += &format!("\n{}", paragraph(&title, Tone::Strong, paint));
        let printed = of.iter().map(|row| RatioRow {
            label: row.candidate.clone(),
            cells: [row.defaults, row.with_it]
                .map(|value| value.map_or("–".into(), |value| figure(value, &row.unit)))
                .into(),
            ratio: row.ratio,
            less_is_better: row.less_is_better,
            word: match row.ratio {
                _ if !row.keeps_up => "fell behind".into(),
                Some(ratio) if ratio.blocks < BLOCKS_MIN => "few blocks".into(),
                Some(_) => String::new(),
                None => "no figures".into(),
            },
        });
        out += &ratios(&["", "defaults", "with it"], &printed.collect::<Vec<_>>(), paint);
    }
    for (who, why) in &results.failed {
        out += &paragraph(&format!("{who} failed: {why}"), Tone::Warn, paint);
    }
    let words = match results.outcome {
        Ending::Whole => None,
        Ending::Disturbed => Some("most of these runs were disturbed: nothing of this is known"),
        Ending::TooFew => Some("who has fewer than five blocks is not judged"),
        Ending::TooShort => Some("the time was over: the blocks up to then count"),
        Ending::Interrupted => Some("ended early: the blocks up to then count"),
    };
    if let Some(words) = words {
        out += &paragraph(words, Tone::Warn, paint);
    }
    out.push('\n');
    out + &foot(&results.head, paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::synthetic::Synthetic;

    fn plan(blocks: usize) -> Plan {
        let candidates =
            vec![Candidate::single("stats", "off"), Candidate::single("stats", "histograms")];
        let budget = Duration::from_secs(1_000);
        Plan { goal: "p50".parse().unwrap(), seed: 3, budget, blocks, candidates }
    }

    fn run(runner: &mut Synthetic, plan: &Plan) -> Results {
        let head = crate::tune::results::sample::tuned().head;
        pairs(runner, plan, Rate::Closed, head, &mut |_, _| ()).unwrap()
    }

    #[test]
    fn every_candidate_is_told_however_it_does() {
        let mut runner = Synthetic { drift: 0.3, ..Synthetic::noisy(0.005, 1) };
        runner.effects = |changes| match changes.first() {
            Some((_, value)) if value == "off" => 0.97,
            Some(_) => 1.05,
            None => 1.0,
        };
        let results = run(&mut runner, &plan(9));
        assert_eq!((results.head.runs, runner.runs), (27, 28), "and the one that does not count");
        let of = |who: &str, figure: &str| {
            let mut rows = results.rows.iter();
            let row = rows.find(|row| row.candidate == who && row.figure == figure);
            row.unwrap().ratio.unwrap()
        };
        let (off, full) =
            (of("stats=off", "CPU per request"), of("stats=histograms", "CPU per request"));
        assert!((off.median - 0.97).abs() < 0.01 && off.high < 1.0, "{off:?}");
        assert!((full.median - 1.05).abs() < 0.01 && full.low > 1.0, "{full:?}");
        assert!(results.rows.iter().any(|row| row.figure == "p50"), "the goal's figure, too");
        assert_eq!(results.outcome, Ending::Whole);
        let written = serde_json::to_value(&results).unwrap();
        let side = crate::compare::read::parse(&written).unwrap();
        let of = |who: &str| side.series.iter().filter(|series| series.of == who).count();
        assert!(of("defaults") > 1 && of("defaults") == of("stats=off"), "{side:?}");
        assert!(side.series.iter().all(|series| series.samples.len() == 9), "{side:?}");
        let text = text(&results, Paint { columns: 80, colour: false });
        assert!(text.contains("stats=off") && text.contains("worse"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn an_interrupt_and_a_budget_end_it_with_what_there_is() {
        let mut runner = Synthetic { runs_left: Some(8), ..Synthetic::calm() };
        let results = run(&mut runner, &plan(9));
        assert!(results.head.interrupted && results.head.runs == 7, "{:?}", results.head);
        assert_eq!(results.outcome, Ending::Interrupted);
        let mut runner = Synthetic { runs_left: Some(0), ..Synthetic::calm() };
        let results = run(&mut runner, &plan(9));
        assert_eq!((results.outcome, results.head.runs), (Ending::Interrupted, 0), "at once");
        let written = serde_json::to_value(&results).unwrap();
        let row = &written["rows"][0];
        assert!(row["defaults"].is_null() && row["with_it"].is_null(), "{row}");
        let mut runner = Synthetic::calm();
        let results = run(&mut runner, &Plan { budget: Duration::from_secs(10), ..plan(9) });
        assert!(runner.elapsed() <= Duration::from_secs(11));
        assert!(results.head.notes.iter().any(|note| note.contains("the budget was over")));
        assert_eq!(results.outcome, Ending::TooShort, "also with enough blocks to judge");
    }

    #[test]
    fn what_says_nothing_is_not_whole() {
        let told = |runner: &mut Synthetic| {
            let results = run(runner, &plan(9));
            (results.outcome, text(&results, Paint::plain()))
        };
        let (outcome, words) = told(&mut Synthetic { foreign: 0.5, ..Synthetic::calm() });
        assert_eq!(outcome, Ending::Disturbed);
        assert!(words.contains("nothing of this is known"), "{words}");
        let fails = |changes: &[crate::trial::Change]| !changes.is_empty();
        let (outcome, words) = told(&mut Synthetic { fails, ..Synthetic::calm() });
        assert_eq!(outcome, Ending::TooFew);
        let row = words.lines().find(|line| line.contains("no figures")).unwrap();
        let cells = row.split_whitespace().filter(|cell| *cell == "–").count();
        assert_eq!(cells, 2, "neither with it nor a ratio, and not a time of nothing: {row}");
        assert!(words.contains("no figures") && words.contains("it would not"), "{words}");
        // With enough blocks to judge, all the same.
        let (outcome, _) = told(&mut Synthetic { runs_left: Some(25), ..Synthetic::calm() });
        assert_eq!(outcome, Ending::Interrupted);
    }
}
