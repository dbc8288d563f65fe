//! What can be tried: values for each setting, made from the runtime's table of settings.
//!
//! Owns how values follow from a row: a number or a time is tried at a quarter and at four times its
//! default, a setting whose form names its values at each of these. A row that is new is tried without a
//! word here; [`NOT_TRIED`] names those that are no matter of speed. What this kernel would step down is
//! left out, and told. Runs nothing.

use std::time::Duration;

use coreloop::Settings;
use coreloop::config::{Field, Profile};

use crate::cli::parse::duration;
use crate::cli::tune::Values;
use crate::trial::Change;

/// Settings, in what they differ from the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is changed, in the order of the table.
    pub changes: Vec<Change>,
    /// The profile that it is, if it is one.
    pub profile: Option<&'static str>,
}

/// All that can be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The defaults with one setting changed, and the profiles.
    pub candidates: Vec<Candidate>,
    /// What was left out, and why.
    pub skipped: Vec<(String, String)>,
}

/// Rows that are not tried unless somebody names values for them.
const NOT_TRIED: [(&str, &str); 16] = [
    ("stats", "what is recorded is chosen for what it tells"),
    ("debug", "it is for developers"),
    ("slow_poll", "it is for developers"),
    ("stall_threshold", "it only reports"),
    ("mask", "it only takes away"),
    ("grace", "it matters at the end alone"),
    ("blocking_threads", "an echo server does no blocking work"),
    ("blocking_queue", "an echo server does no blocking work"),
    ("bounded_workers", "an echo server reads no files"),
    ("unbounded_workers", "an echo server reads no devices"),
    ("worker_cpus", "an echo server reads neither"),
    ("sqpoll_cpu", "it does nothing without sqpoll"),
    ("min_wait_completions", "it does nothing without min_wait"),
    ("napi", "it does nothing on loopback"),
    ("napi_prefer", "it does nothing without napi"),
    ("zero_copy_threshold", "on loopback the kernel copies all the same"),
];

/// Values of rows for which those made from the form would be several of one effect, or none.
const VALUES: [(&str, &[&str]); 6] = [
    ("flush_interval", &["50us", "200us"]),
    ("min_wait", &["50us", "200us"]),
    // The kernel takes whole milliseconds.
    ("sqpoll", &["2ms", "50ms"]),
    ("worker_cpus", &["kernel"]),
    // A place for every connection, or no table.
    ("fixed_files", &["0"]),
    // By itself it is deferred already, where the kernel does that.
    ("task_work", &["cooperative"]),
];

/// Rows in the order in which they are likely to matter, for a search that has no time for all; those that
/// are not named come between the two.
const LIKELY: [&str; 6] = ["spin", "min_wait", "sqpoll", "task_work", "tick_quota", "buffer_size"];
const UNLIKELY: [&str; 5] =
    ["ring_entries", "timer_resolution", "buffers", "chunk_quota", "cq_entries"];

/// A value is tried at its default times and through this.
const STEP: u64 = 4;

/// Numbers and times to try where the default is none that could be scaled.
const NUMBERS: [&str; 2] = ["16", "256"];
const TIMES: [&str; 2] = ["20us", "200us"];

impl Candidate {
    /// The defaults with these changes, in the order of the table, each setting once: the last one counts.
    pub fn new(changes: impl IntoIterator<Item = Change>) -> Candidate {
        let mut kept: Vec<Change> = Vec::new();
        for (name, value) in changes {
            kept.retain(|(known, _)| *known != name);
            kept.push((name, value));
        }
        let place = |name: &str| Field::all().iter().position(|field| field.name == name);
        kept.sort_by_key(|(name, _)| place(name));
        Candidate { changes: kept, profile: None }
    }

    /// One change.
    pub fn single(name: &str, value: &str) -> Candidate {
        Candidate::new([(name.to_owned(), value.to_owned())])
    }

    /// How it is written: `spin=off tick_quota=2ms`, or `profile latency`.
    pub fn label(&self) -> String {
        if let Some(name) = self.profile {
            return format!("profile {name}");
        }
        let words: Vec<String> = self.changes.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if words.is_empty() { "defaults".into() } else { words.join(" ") }
    }

    /// The settings that it stands for.
    pub fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for (name, value) in &self.changes {
            let field = Field::named(name).map_err(|error| error.to_string())?;
            field.set(&mut settings, value).map_err(|error| error.to_string())?;
        }
        Ok(settings)
    }

    /// Itself without the change at this place.
    pub fn without(&self, at: usize) -> Candidate {
        let mut changes = self.changes.clone();
        changes.remove(at);
        Candidate { changes, profile: None }
    }
}

/// The space. `only` names the settings that may change (none: all that matter), `given` has values that
/// replace those made here, `can` says whether this kernel does what settings ask for.
pub fn space(
    only: &[String],
    given: &[Values],
    can: impl Fn(&Settings) -> Result<(), String>,
) -> Space {
    let mut space = Space::default();
    let mut offer = |candidate: Candidate| match candidate.settings().and_then(|s| can(&s)) {
        Ok(()) => space.candidates.push(candidate),
        Err(why) => space.skipped.push((candidate.label(), why)),
    };
    let mut left_out = Vec::new();
    for field in Field::all() {
        let asked: Vec<&String> =
            given.iter().filter(|g| g.name == field.name).flat_map(|g| &g.values).collect();
        let named = only.iter().any(|name| name == field.name);
        if !asked.is_empty() {
            let default = field.default_text();
            asked
                .into_iter()
                .filter(|value| **value != default)
                .for_each(|value| offer(Candidate::single(field.name, value)));
            continue;
        }
        if !only.is_empty() && !named {
            continue;
        }
        match NOT_TRIED.iter().find(|(name, _)| *name == field.name) {
            Some((name, why)) if !named => left_out.push((name.to_string(), why.to_string())),
            _ => {
                let values = values(field);
                values.iter().for_each(|value| offer(Candidate::single(field.name, value)));
            }
        }
    }
    if only.is_empty() {
        for profile in Profile::ALL {
            let changes = profile.settings().iter().map(|(n, v)| (n.to_string(), v.to_string()));
            offer(Candidate { profile: Some(profile.name()), ..Candidate::new(changes) });
        }
    }
    space.skipped.append(&mut left_out);
    space.candidates.sort_by_key(rank);
    space
}

/// Less for what is more likely to matter: profiles, which change several things, are behind the spin
/// alone.
fn rank(candidate: &Candidate) -> usize {
    let place = |names: &[&str]| {
        let name = candidate.changes.first().map(|(name, _)| name.as_str());
        name.and_then(|name| names.iter().position(|known| *known == name))
    };
    match (candidate.profile, place(&LIKELY), place(&UNLIKELY)) {
        (Some(_), ..) => 1,
        (None, Some(at), _) => at * 2,
        (None, None, Some(at)) => 2 * LIKELY.len() + 1 + at,
        (None, None, None) => 2 * LIKELY.len(),
    }
}

/// Values worth a try, as the table writes them; never the default.
pub fn values(field: &Field) -> Vec<String> {
    let default = field.default_text();
    if let Some((_, values)) = VALUES.iter().find(|(name, _)| *name == field.name) {
        return values.iter().map(|value| value.to_string()).collect();
    }
    let words = match (field.range, scaled(&default)) {
        (Some(range), Some(around)) => {
            let (least, most) = range();
            around.into_iter().map(|value| clipped(value, &least, &most)).collect()
        }
        // The default is a number or a time, and there is no word for "none".
        (None, Some(around)) if !named_values(field).any(|word| word.is_ascii()) => around,
        (Some(_), None) => NUMBERS
            .iter()
            .chain(&TIMES)
            .map(|word| word.to_string())
            .chain(named_values(field))
            .collect(),
        _ => named_values(field).collect(),
    };
    let mut values: Vec<String> = Vec::new();
    for word in words {
        let mut trial = Settings::default();
        if field.set(&mut trial, &word).is_ok() {
            let value = field.get(&trial);
            if value != default && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    values
}

/// The words of a form that the field takes, and times around the one that it gives as an example.
fn named_values(field: &Field) -> impl Iterator<Item = String> {
    let apart = |c: char| !(c.is_alphanumeric() || c == '_');
    let takes = |word: &&str| field.set(&mut Settings::default(), word).is_ok();
    let words = field.form.split(apart).filter(|word| !word.is_empty()).filter(takes);
    words.flat_map(|word| {
        let around = match duration(word) {
            Ok(time) if !time.is_zero() => vec![text(time / 5), text(time), text(time * 4)],
            _ => vec![word.to_owned()],
        };
        around.into_iter()
    })
}

/// A quarter and four times of a number or a time that is not zero.
fn scaled(value: &str) -> Option<Vec<String>> {
    if let Ok(number) = value.parse::<u64>() {
        return (number > 0)
            .then(|| vec![(number / STEP).to_string(), (number * STEP).to_string()]);
    }
    match duration(value) {
        Ok(time) if !time.is_zero() => {
            let step = STEP as u32;
            Some(vec![text(time / step), text(time * step)])
        }
        _ => None,
    }
}

fn clipped(value: String, least: &str, most: &str) -> String {
    let size = |text: &str| {
        text.parse::<u128>().ok().or_else(|| duration(text).ok().map(|time| time.as_nanos()))
    };
    match (size(&value), size(least), size(most)) {
        (Some(v), Some(low), _) if v < low => least.to_owned(),
        (Some(v), _, Some(high)) if v > high => most.to_owned(),
        _ => value,
    }
}

fn text(time: Duration) -> String {
    format!("{}ns", time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Vec<String> {
        values(Field::named(name).unwrap())
    }

    #[test]
    fn values_follow_from_the_table() {
        assert_eq!(of("ring_entries"), ["256", "4096"]);
        assert_eq!(of("tick_quota"), ["125us", "2ms"]);
        assert_eq!(of("chunk_quota"), ["2", "32"]);
        assert_eq!(of("spin"), ["off", "10us", "50us", "200us"]);
        assert_eq!(of("stats"), ["off", "histograms"]);
        assert_eq!(of("debug"), ["true"]);
    }

    #[test]
    fn every_row_has_values_that_it_takes_and_none_is_its_default() {
        for field in Field::all() {
            let values = values(field);
            assert!(!values.is_empty() || field.name == "mask", "{} has none", field.name);
            for value in values {
                let settings = Candidate::single(field.name, &value).settings();
                assert_eq!(field.get(&settings.unwrap()), value, "{}", field.name);
                assert_ne!(value, field.default_text(), "{}", field.name);
            }
        }
    }

    #[test]
    fn values_stay_within_the_range() {
        assert_eq!(clipped("2".into(), "8", "100"), "8");
        assert_eq!(clipped("400".into(), "8", "100"), "100");
        assert_eq!(clipped("4000000000ns".into(), "1us", "1s"), "1s");
    }

    #[test]
    fn what_this_kernel_can_not_do_is_left_out_and_told() {
        let can = |settings: &Settings| {
            let spin = Field::named("spin").unwrap().get(settings);
            if spin == "50us" { Err("not here".to_owned()) } else { Ok(()) }
        };
        let space = space(&[], &[], can);
        let tried: Vec<String> = space.candidates.iter().map(Candidate::label).collect();
        assert!(tried.contains(&"spin=200us".into()) && !tried.contains(&"spin=50us".into()));
        let skipped = |what: &str| space.skipped.iter().find(|(label, _)| label == what);
        assert_eq!(skipped("spin=50us").unwrap().1, "not here");
        assert!(skipped("profile latency").is_some(), "it spins 50us too");
        assert!(skipped("debug").unwrap().1.contains("developers"));
        assert!(tried.contains(&"profile throughput".into()));
    }

    #[test]
    fn a_space_can_be_narrowed_and_given() {
        let all = |_: &Settings| Ok(());
        let given = [Values { name: "spin", values: vec!["20us".into(), "dial".into()] }];
        let labels = |space: Space| -> Vec<String> {
            space.candidates.iter().map(Candidate::label).collect()
        };
        let one = space(&["tick_quota".into()], &given, all);
        assert_eq!(labels(one), ["spin=20us", "tick_quota=125us", "tick_quota=2ms"]);
        let named = space(&["stats".into()], &[], all);
        assert_eq!(labels(named), ["stats=off", "stats=histograms"], "who names it may try it");
    }

    #[test]
    fn candidates_are_written_in_the_order_of_the_table() {
        let change = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let both = [change("spin", "off"), change("buffers", "64"), change("spin", "50us")];
        let candidate = Candidate::new(both);
        assert_eq!(candidate.label(), "buffers=64 spin=50us");
        assert_eq!(candidate.without(0).label(), "spin=50us");
        assert_eq!(Candidate::new([]).label(), "defaults");
    }

    #[test]
    fn what_is_likely_to_matter_is_tried_first() {
        let labels: Vec<String> =
            space(&[], &[], |_| Ok(())).candidates.iter().map(Candidate::label).collect();
        let at = |label: &str| labels.iter().position(|known| known == label).unwrap();
        assert!(at("spin=off") < at("profile latency"), "{labels:?}");
        assert!(at("profile shared") < at("min_wait=50us"), "{labels:?}");
        assert!(at("buffer_size=4096") < at("flush_interval=50us"), "a row that nobody ranked");
        assert!(at("flush_interval=50us") < at("cq_entries=1024"), "{labels:?}");
        for known in LIKELY.iter().chain(&UNLIKELY).chain(VALUES.iter().map(|(name, _)| name)) {
            assert!(Field::named(known).is_ok(), "{known} is no setting");
        }
        for (name, values) in VALUES {
            for value in values {
                let field = Field::named(name).unwrap();
                let mut settings = Settings::default();
                field.set(&mut settings, value).unwrap();
                assert_eq!(field.get(&settings), *value, "as the table writes it");
            }
        }
    }
}
