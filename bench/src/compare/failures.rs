//! What a side failed at, and what it lacks: of that no ratio speaks, since only runs that went well have
//! figures.
//!
//! Owns who counts as worse for it, its rows and its notes. A side that crashed, or fell behind, must not
//! look as if it had not been there.

use crate::compare::read::Side;
use crate::compare::series::Series;
use crate::compare::{Row, Says};

/// What something failed at.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Whose: as in a [`Series`].
    pub of: String,
    /// What is counted: [`BLOCKS`] or [`SECONDS`].
    pub what: &'static str,
    /// In which unit.
    pub unit: &'static str,
    /// How many failed.
    pub failed: usize,
    /// Of how many.
    pub all: usize,
    /// Whether none of them would be no luck: a load of two requests a second has seconds without any.
    pub sure: bool,
    /// Why the first one did.
    pub why: String,
}

/// Blocks of peers without figures.
pub const BLOCKS: &str = "failed blocks";
/// Seconds of a run without an answer.
pub const SECONDS: &str = "empty seconds";

/// Those named in a note: more would hide the rest.
const TOLD_MAX: usize = 4;

/// How the note begins that says that B failed.
pub const FAILED: &str = "B failed where A did not, or far more often: ";

impl Failures {
    fn share(&self) -> f64 {
        self.failed as f64 / self.all.max(1) as f64
    }

    fn words(&self) -> String {
        let Failures { failed, all, unit, why, .. } = self;
        let of = if self.of.is_empty() { String::new() } else { format!("{} in ", self.of) };
        format!("{of}{failed} of {all} {unit} ({why})")
    }
}

/// By how much a share must be larger than one that is not zero.
const CLEARLY: f64 = 0.5;

/// Whether the second side failed where the first one shows that it need not. What fails now and then does so
/// once more by chance.
fn worse(than: &Failures, is: &Failures) -> bool {
    let clearly = match than.failed {
        0 => is.failed > 0,
        _ => is.failed == is.all || is.share() > than.share() + CLEARLY,
    };
    than.sure && than.failed < than.all && is.all > 0 && clearly
}

/// Both sides' failures of the same, of those that are wanted.
fn pairs<'a>(
    a: &'a Side,
    b: &'a Side,
    wanted: &'a dyn Fn(&str) -> bool,
) -> impl Iterator<Item = (&'a Failures, &'a Failures)> {
    let is_wanted = move |failures: &Failures| {
        let of = |side: &'a Side| side.series.iter().filter(|series| series.of == failures.of);
        // Who asks for p99 alone is to hear that there is none.
        wanted(&failures.label()) || of(a).chain(of(b)).any(|series| wanted(&series.label()))
    };
    a.failures.iter().filter(move |failures| is_wanted(failures)).filter_map(|failures| {
        let same = |other: &&Failures| (&other.of, other.what) == (&failures.of, failures.what);
        Some((failures, b.failures.iter().find(same)?))
    })
}

impl Failures {
    fn label(&self) -> String {
        if self.of.is_empty() { self.what.into() } else { format!("{} · {}", self.of, self.what) }
    }
}

/// Whether a row is one of these.
pub fn is_of(row: &Row) -> bool {
    [BLOCKS, SECONDS].contains(&row.figure.as_str())
}

/// A row for each that B failed at where A did not, or more often.
pub fn rows(a: &Side, b: &Side, wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    let failed = pairs(a, b, wanted).filter(|(a, b)| worse(a, b));
    let row = |(a, b): (&Failures, &Failures)| Row {
        of: a.of.clone(),
        figure: a.what.into(),
        unit: a.unit.into(),
        less_is_better: true,
        a: a.failed as f64,
        b: b.failed as f64,
        samples_a: a.all,
        samples_b: b.all,
        ratio: None,
        says: Says::Worse,
    };
    failed.map(row).collect()
}

/// What is to be said of failures, and of figures that only one side has.
pub fn notes(a: &Side, b: &Side, wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
    let told = |is_told: &dyn Fn(&Failures, &Failures) -> bool, of_b: bool| -> Vec<String> {
        let told = pairs(a, b, wanted).filter(|(a, b)| is_told(a, b));
        told.map(|(a, b)| if of_b { b.words() } else { a.words() }).collect()
    };
    let mut notes = Vec::new();
    let failed = told(&worse, true);
    if !failed.is_empty() {
        notes.push(format!("{FAILED}{}", some(failed)));
    }
    let failed = told(&|a, b| worse(b, a), false);
    if !failed.is_empty() {
        notes.push(format!("A failed where B did not, or far more often: {}", some(failed)));
    }
    for (name, side, other) in [("A", a, b), ("B", b, a)] {
        let only = only(side, other, wanted);
        if !only.is_empty() {
            notes.push(format!("only {name} has figures of {}", some(only)));
        }
    }
    notes
}

/// Whose figures the other side lacks; figure by figure where it has others of the same.
fn only(side: &Side, other: &Side, wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
    let lacks = |one: &&Series| {
        !other.series.iter().any(|s| s.of == one.of && s.figure == one.figure)
            && wanted(&one.label())
    };
    let mut names: Vec<String> = Vec::new();
    for one in side.series.iter().filter(lacks) {
        let has_others = one.of.is_empty() || other.series.iter().any(|s| s.of == one.of);
        let name = if has_others { one.label() } else { one.of.clone() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn some(mut words: Vec<String>) -> String {
    let more = words.len().saturating_sub(TOLD_MAX);
    words.truncate(TOLD_MAX);
    let told = words.join(", ");
    if more == 0 { told } else { format!("{told}, and {more} more") }
}
