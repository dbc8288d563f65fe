//! `compare`: what differs beyond noise between two files of results.
//!
//! Owns the rows, the words and the exit code. What a file has to compare is `read`'s, how sure a
//! difference is `shift`'s.

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::compare::CompareArgs;
use crate::peers::interval::{BLOCKS_MIN, Ratio, Verdict, median};
use crate::print;
use crate::report::paint::{Paint, Tone};
use crate::report::units::grouped;
use crate::scenario::Failure;
use crate::trial::words::{RatioRow, figure, paragraph, ratios};

mod failures;
mod highest;
pub mod read;
pub mod series;
mod shift;

use failures::FAILED;
use read::Side;
use series::Series;
use shift::{shift, usable};

/// Exit code where something is worse beyond noise.
const EXIT_WORSE: u8 = 4;
/// Exit code where nothing could be judged.
const EXIT_CAN_NOT_TELL: u8 = 5;

/// Rows beyond which only those that are resolved are printed.
const ROWS_MAX: usize = 40;

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of the JSON's shape.
    pub schema_version: u32,
    /// `compare`.
    pub command: &'static str,
    /// The first file.
    pub a: String,
    /// The second.
    pub b: String,
    /// Differences below this don't matter, in percent.
    pub threshold_percent: f64,
    /// Figures that both have, and what B failed at.
    pub rows: Vec<Row>,
    /// How many of them are worse in B.
    pub worse: usize,
    /// How many are better.
    pub better: usize,
    /// How many are neither beyond noise.
    pub unresolved: usize,
    /// How many nobody can judge.
    pub can_not_tell: usize,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A figure in both files, or how often both failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Whose.
    pub of: String,
    /// What.
    pub figure: String,
    /// In which unit.
    pub unit: String,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// The median of A's samples, or how many of them failed.
    pub a: f64,
    /// That of B's.
    pub b: f64,
    /// How many samples of A count.
    pub samples_a: usize,
    /// And of B.
    pub samples_b: usize,
    /// B over A; none where there are too few samples.
    pub ratio: Option<Ratio>,
    /// What follows.
    pub says: Says,
}

/// What a row says of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// The whole interval is on the better side.
    Better,
    /// The whole interval is on the worse side, or it failed where A did not.
    Worse,
    /// It is not.
    Unresolved,
    /// It is, but by less than what matters.
    BelowThreshold,
    /// There are too few samples.
    CanNotTell,
    /// The two are of different rates, of which each search chose its own.
    OtherRate,
}

/// Does what the flags say.
pub fn main(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let (a, b) = (read::side(&args.a)?, read::side(&args.b)?);
    let comparison = compare(args, &a, &b)?;
    if args.json {
        let json = serde_json::to_string_pretty(&comparison).map_err(|error| error.to_string())?;
        print(&format!("{json}\n"));
    } else {
        print(&text(&comparison, Paint::of_stdout()));
    }
    Ok(match &comparison {
        c if c.worse > 0 => ExitCode::from(EXIT_WORSE),
        c if c.can_not_tell == c.rows.len() => ExitCode::from(EXIT_CAN_NOT_TELL),
        _ => ExitCode::SUCCESS,
    })
}

fn compare(args: &CompareArgs, a: &Side, b: &Side) -> Result<Comparison, String> {
    if a.kind != b.kind {
        return Err(format!(
            "{} is a report of {}, {} one of {}: compare two of a kind",
            args.a.display(),
            a.kind,
            args.b.display(),
            b.kind
        ));
    }
    let in_a_row = a.in_a_row && b.in_a_row;
    let wanted = |label: &str| args.only.as_ref().is_none_or(|word| label.contains(word.as_str()));
    let mut rows = Vec::new();
    for one in a.series.iter().filter(|series| wanted(&series.label())) {
        let other = b.series.iter().find(|s| s.of == one.of && s.figure == one.figure);
        rows.extend(other.map(|other| row(one, other, in_a_row, args.threshold)));
    }
    rows.extend(failures::rows(a, b, &wanted));
    let mut notes = notes(a, b, in_a_row, &wanted);
    if let (Some(a), Some(b)) = (&a.highest, &b.highest) {
        let highest = highest::row(a, b, args.threshold);
        if wanted(&highest.figure) {
            rows.insert(0, highest);
        }
        notes.extend(highest::leave_out(&mut rows, a, b));
    }
    if rows.is_empty() {
        return Err(match &args.only {
            Some(word) => format!("no figure of both has '{word}' in its name"),
            None => "they have no figure in common".into(),
        });
    }
    let count = |says: &[Says]| rows.iter().filter(|row| says.contains(&row.says)).count();
    Ok(Comparison {
        schema_version: 1,
        command: "compare",
        a: args.a.display().to_string(),
        b: args.b.display().to_string(),
        threshold_percent: args.threshold,
        worse: count(&[Says::Worse]),
        better: count(&[Says::Better]),
        unresolved: count(&[Says::Unresolved, Says::BelowThreshold]),
        can_not_tell: count(&[Says::CanNotTell, Says::OtherRate]),
        notes,
        rows,
    })
}

fn row(a: &Series, b: &Series, in_a_row: bool, threshold: f64) -> Row {
    let (of_a, of_b) = (usable(&a.samples, a.less_is_better), usable(&b.samples, a.less_is_better));
    let ratio = shift(&of_a, &of_b, in_a_row);
    // Of figures that are nothing throughout, that is what is shown.
    let middle = |used: &[f64], all: &[f64]| median(if used.is_empty() { all } else { used });
    let says = ratio.map_or(Says::CanNotTell, |ratio| says(&ratio, a.less_is_better, threshold));
    Row {
        of: a.of.clone(),
        figure: a.figure.clone(),
        unit: a.unit.clone(),
        less_is_better: a.less_is_better,
        a: middle(&of_a, &a.samples),
        b: middle(&of_b, &b.samples),
        samples_a: of_a.len(),
        samples_b: of_b.len(),
        ratio,
        says,
    }
}

fn says(ratio: &Ratio, less_is_better: bool, threshold: f64) -> Says {
    let matters = 1.0 + threshold / 100.0;
    let large = ratio.low > matters || ratio.high < 1.0 / matters;
    match ratio.verdict(less_is_better) {
        Verdict::Unresolved => Says::Unresolved,
        _ if !large || ratio.is_equal() => Says::BelowThreshold,
        Verdict::Ahead => Says::Better,
        Verdict::Behind => Says::Worse,
    }
}

/// Facts that say what the servers had to do.
const LOAD: [&str; 9] =
    ["workload", "load", "connections", "size_bytes", "depth", "rate", "arrivals", "goal", "quick"];
/// And how those begin that there is one of for each workload.
pub const RATE_OF: &str = "rate of ";

/// How the note begins that says that they differ.
const OTHER_LOAD: &str = "the two did not have the same load";
/// And the one that says that a side is not to be trusted.
const DOUBT: &str = "worse or better may be nothing but this: ";

fn notes(a: &Side, b: &Side, in_a_row: bool, wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut notes = failures::notes(a, b, wanted);
    for (name, side) in [("A", a), ("B", b)] {
        notes.extend(side.doubts.iter().map(|doubt| format!("{DOUBT}{name}: {doubt}")));
    }
    let differing = a.facts.iter().filter_map(|(name, was)| {
        let (_, is) = b.facts.iter().find(|(known, _)| known == name)?;
        (was != is).then(|| (name.as_str(), format!("{name} (A {was}, B {is})")))
    });
    let (loads, others): (Vec<_>, Vec<_>) =
        differing.partition(|(name, _)| LOAD.contains(name) || name.starts_with(RATE_OF));
    let words =
        |of: Vec<(&str, String)>| -> Vec<String> { of.into_iter().map(|one| one.1).collect() };
    let (loads, differing) = (words(loads), words(others));
    if !loads.is_empty() {
        let loads = loads.join(", ");
        notes.push(format!(
            "{OTHER_LOAD}: {loads}. What is called worse or better is the load's doing, too"
        ));
    }
    if !differing.is_empty() {
        notes.push(format!("they differ in {}", differing.join(", ")));
    }
    if in_a_row {
        notes.push(
            "each side is one run: what changes from start to start is not in its noise, and may be all of a \
             difference. Run both again, in turn, before you believe one"
                .into(),
        );
    }
    let few = |side: &Side| side.series.iter().any(|series| series.samples.len() < BLOCKS_MIN);
    if few(a) || few(b) {
        notes.push(format!(
            "where a side has fewer than {BLOCKS_MIN} samples nobody can tell: a run gives one a second, peers \
             and tune one a block"
        ));
    }
    notes
}

fn text(comparison: &Comparison, paint: Paint) -> String {
    let all = comparison.rows.len();
    let shown: Vec<&Row> = match all > ROWS_MAX {
        true => {
            let resolved = |row: &&Row| matches!(row.says, Says::Better | Says::Worse);
            comparison.rows.iter().filter(resolved).collect()
        }
        false => comparison.rows.iter().collect(),
    };
    let mut out = format!("\n{}\n", paint.tone(Tone::Strong, "compare: B ÷ A"));
    for (name, path) in [("A", &comparison.a), ("B", &comparison.b)] {
        out += &paragraph(&format!("{name}  {path}"), Tone::Dim, paint);
    }
    out.push('\n');
    let rows: Vec<RatioRow> = shown.iter().map(|row| printed(row, comparison)).collect();
    if !rows.is_empty() {
        out += &ratios(&["", "A", "B"], &rows, paint);
        out.push('\n');
    }
    if shown.len() < all {
        let words = format!(
            "of {} figures only those that differ are shown: --only narrows them, --json has all",
            grouped(all as u64)
        );
        out += &paragraph(&words, Tone::Dim, paint);
    }
    let (tone, words) = verdict(comparison);
    out += &paragraph(&words, tone, paint);
    for note in &comparison.notes {
        let warns = [FAILED, OTHER_LOAD, DOUBT].iter().any(|begins| note.starts_with(begins));
        let tone = if warns { Tone::Warn } else { Tone::Dim };
        out += &paragraph(note, tone, paint);
    }
    out
}

fn printed(row: &Row, comparison: &Comparison) -> RatioRow {
    let label = match row.of.as_str() {
        "" => row.figure.clone(),
        of => format!("{of} · {}", row.figure),
    };
    let failed = failures::is_of(row);
    let cell = |value: f64, samples: usize| match failed {
        true => format!("{value} of {samples}"),
        false => figure(value, &row.unit),
    };
    RatioRow {
        label,
        cells: vec![cell(row.a, row.samples_a), cell(row.b, row.samples_b)],
        ratio: row.ratio,
        less_is_better: row.less_is_better,
        word: match row.says {
            _ if failed => "failed in B".into(),
            Says::CanNotTell => "can't tell".into(),
            Says::OtherRate => "other rate".into(),
            // Where an end is not known, there is no interval to say it.
            Says::Better | Says::Worse if row.ratio.is_none() => {
                (if row.says == Says::Better { "better" } else { "worse" }).into()
            }
            Says::BelowThreshold => format!("below {} %", comparison.threshold_percent),
            _ => String::new(),
        },
    }
}

fn verdict(comparison: &Comparison) -> (Tone, String) {
    let Comparison { worse, better, unresolved, can_not_tell, .. } = comparison;
    let judged = worse + better + unresolved;
    if judged == 0 {
        let words = "can't tell: neither repeats anything often enough to judge its noise";
        return (Tone::Warn, words.into());
    }
    let mut words = format!("worse: {worse}, better: {better}, unresolved: {unresolved}");
    if *can_not_tell > 0 {
        words += &format!(", can't tell: {can_not_tell}");
    }
    // One in twenty intervals misses by chance.
    if judged >= 10 {
        let chance = (judged as f64 * 0.05).round();
        words += &format!("; of {judged} figures about {chance} would differ by chance alone");
    }
    (if *worse > 0 { Tone::Warn } else { Tone::Good }, words)
}

/// Two files' texts, compared and in words: for fuzzing.
#[cfg(test)]
pub fn of_texts(a: &str, b: &str) -> Result<String, String> {
    let side =
        |text| read::parse(&serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?);
    let comparison = compare(&tests::args(&[]), &side(a)?, &side(b)?)?;
    serde_json::to_string(&comparison).map_err(|e| e.to_string())?;
    Ok(text(&comparison, Paint::plain()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
