//! The metrics that there are.
//!
//! Owns their names, and what stands behind each: counters, gauges and histograms of every core as its
//! snapshot has them, and the process's standard ones. A new field of a snapshot shows up by itself.

use std::collections::{BTreeMap, BTreeSet};

use coreloop::{CoreState, Counters, Gauges, Histograms, QueueStats, Snapshot};

use super::doc;
use super::openmetrics::{Family, Kind, Labels, Value};

/// Every metric of these cores.
pub(super) fn families(from: &doc::Cores) -> Vec<Family<'_>> {
    let mut all = overall(from);
    all.extend(counters(&from.cores));
    all.extend(gauges(&from.cores));
    all.extend(histograms(&from.cores));
    all.extend(queues(&from.cores));
    all.extend(process(&from.process));
    all.retain(|family| !family.samples.is_empty());
    all
}

fn overall(from: &doc::Cores) -> Vec<Family<'_>> {
    let build = Labels::none().and("version", env!("CARGO_PKG_VERSION"));
    let per_core = |family: Family<'static>, value: fn(&Snapshot) -> Value<'static>| {
        let cores = numbered(&from.cores);
        cores.fold(family, |f, (core, snapshot)| f.sample(Labels::core(core), value(snapshot)))
    };
    let mut info = Family::new("coreloop_core", Kind::Info, "The CPU that the core is pinned to.");
    for (core, snapshot) in numbered(&from.cores) {
        let cpu = snapshot.cpu.map_or("none".to_owned(), |cpu| cpu.to_string());
        info = info.sample(Labels::core(core).and("cpu", &cpu), Value::Whole(1));
    }
    let mut step_downs = Family::new(
        "coreloop_step_down",
        Kind::Gauge,
        "1 for each feature or setting that the core does without; /config says why.",
    );
    for (core, snapshot) in numbered(&from.cores) {
        // One may have been stepped down for several reasons; a sample there is once.
        let what: BTreeSet<&str> = snapshot.step_downs.iter().map(|s| s.what.as_str()).collect();
        for what in what {
            step_downs = step_downs.sample(Labels::core(core).and("what", what), Value::Whole(1));
        }
    }
    let mut workers = Family::new(
        "coreloop_ring_workers",
        Kind::Gauge,
        "Threads of the kernel's that carry out what the core's ring handed to them (io-wq).",
    );
    for one in &from.ring_workers {
        let labels = match one.core {
            Some(core) => Labels::core(core),
            None => Labels::none().and("core", "none"),
        };
        workers = workers.sample(labels, Value::Whole(one.workers));
    }
    vec![
        Family::new("coreloop_build", Kind::Info, "The version of coreloop.")
            .sample(build, Value::Whole(1)),
        Family::new(
            "coreloop_ready",
            Kind::Gauge,
            "Whether the process wants new work: what /readyz says.",
        )
        .sample(Labels::none(), Value::Whole(from.ready.into())),
        info,
        per_core(
            Family::new("coreloop_core_up", Kind::Gauge, "1 until the core's loop has ended."),
            |core| Value::Whole((core.state != CoreState::Ended).into()),
        ),
        per_core(
            Family::new(
                "coreloop_core_uptime_seconds",
                Kind::Gauge,
                "Time since the core started.",
            ),
            |core| Value::Time(ns(core.uptime)),
        ),
        per_core(
            Family::new(
                "coreloop_core_answered_ago_seconds",
                Kind::Gauge,
                "Age of this core's other gauges: more than a second if the core did not answer.",
            ),
            |core| Value::Time(ns(core.gauges.age)),
        ),
        per_core(
            Family::new(
                "coreloop_core_cpu_seconds",
                Kind::Counter,
                "CPU time of the core's thread.",
            ),
            |core| Value::Time(ns(core.cpu_time)),
        ),
        step_downs,
        workers,
    ]
}

fn counters(cores: &[Snapshot]) -> impl Iterator<Item = Family<'_>> {
    Counters::DOCS.iter().enumerate().map(|(at, (field, doc))| {
        let (name, time) = counter_name(field);
        // Written as every time is.
        let help = if time { help(doc).replace(" in ns.", " in seconds.") } else { help(doc) };
        let family = Family::new(name, Kind::Counter, help);
        numbered(cores).fold(family, |family, (core, snapshot)| {
            let n = snapshot.counters.iter().nth(at).map_or(0, |(_, n)| n);
            let value = if time { Value::Time(n) } else { Value::Whole(n) };
            family.sample(Labels::core(core), value)
        })
    })
}

fn gauges(cores: &[Snapshot]) -> impl Iterator<Item = Family<'_>> {
    Gauges::DOCS.iter().enumerate().map(|(at, (field, doc))| {
        let family = Family::new(gauge_name(field), Kind::Gauge, help(doc));
        numbered(cores).fold(family, |family, (core, snapshot)| {
            let n = snapshot.gauges.iter().nth(at).map_or(0, |(_, n)| n);
            family.sample(Labels::core(core), Value::Whole(n))
        })
    })
}

fn histograms(cores: &[Snapshot]) -> impl Iterator<Item = Family<'_>> {
    Histograms::DOCS.iter().enumerate().map(|(at, (field, doc))| {
        let family = Family::new(histogram_name(field), Kind::Histogram, help(doc));
        numbered(cores).fold(family, |family, (core, snapshot)| match &snapshot.histograms {
            Some(all) => family.sample(Labels::core(core), Value::Times(all.iter()[at].1)),
            None => family,
        })
    })
}

/// Task queues of the cores that have others than the default one. Queues of one core that have the same
/// name are one here: a sample must be told from the next by its labels.
fn queues(cores: &[Snapshot]) -> Vec<Family<'_>> {
    let mut all: BTreeMap<(usize, &str), QueueStats> = BTreeMap::new();
    for (core, snapshot) in numbered(cores) {
        for queue in &snapshot.queues {
            let sum = all.entry((core, &queue.name)).or_default();
            sum.shares = sum.shares.saturating_add(queue.shares);
            sum.tasks += queue.tasks;
            sum.polls += queue.polls;
            sum.cpu_time += queue.cpu_time;
        }
    }
    let family = |name, kind, help, value: fn(&QueueStats) -> Value<'static>| {
        all.iter().fold(Family::new(name, kind, help), |family, ((core, name), queue)| {
            family.sample(Labels::core(*core).and("queue", name), value(queue))
        })
    };
    vec![
        family("coreloop_queue_shares", Kind::Gauge, "Shares of the task queue.", |queue| {
            Value::Whole(queue.shares.into())
        }),
        family(
            "coreloop_queue_tasks",
            Kind::Gauge,
            "Tasks of the queue that have not ended.",
            |queue| Value::Whole(queue.tasks.into()),
        ),
        family("coreloop_queue_polls", Kind::Counter, "Polls of the queue's tasks.", |queue| {
            Value::Whole(queue.polls)
        }),
        family(
            "coreloop_queue_cpu_seconds",
            Kind::Counter,
            "What these polls took of the core.",
            |queue| Value::Time(ns(queue.cpu_time)),
        ),
    ]
}

/// The metrics that every client library gives under these names.
fn process(process: &doc::Process) -> Vec<Family<'_>> {
    let one = |name: &str, kind, help: &str, value| {
        Family::new(name, kind, help).sample(Labels::none(), value)
    };
    let maybe = |name: &str, help: &str, value: Option<u64>| {
        let family = Family::new(name, Kind::Gauge, help);
        match value {
            Some(n) => family.sample(Labels::none(), Value::Whole(n)),
            None => family,
        }
    };
    vec![
        one(
            "process_cpu_seconds",
            Kind::Counter,
            "CPU time of all threads.",
            Value::Time(process.cpu_ns),
        ),
        one(
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Memory in use (the resident set).",
            Value::Whole(process.resident_bytes),
        ),
        one(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process was started, since 1970.",
            Value::Time(process.started_unix_ns),
        ),
        maybe("process_open_fds", "Open descriptors.", process.open_files),
        maybe("process_max_fds", "The most that may be open.", process.open_files_max),
    ]
}

fn numbered(cores: &[Snapshot]) -> impl Iterator<Item = (usize, &Snapshot)> {
    cores.iter().enumerate().map(|(at, snapshot)| (snapshot.core.unwrap_or(at), snapshot))
}

/// The name of a counter's family, and whether it counts nanoseconds.
fn counter_name(field: &str) -> (String, bool) {
    match field {
        // Gauges say how many there are.
        "timers" => ("coreloop_timers_fired".into(), false),
        _ => match field.strip_suffix("_ns") {
            Some(what) => (format!("coreloop_{what}_seconds"), true),
            None => (format!("coreloop_{field}"), false),
        },
    }
}

fn gauge_name(field: &str) -> String {
    match field.strip_prefix("bytes_") {
        Some(what) => format!("coreloop_{what}_bytes"),
        None => format!("coreloop_{field}"),
    }
}

fn histogram_name(field: &str) -> String {
    format!("coreloop_{field}_duration_seconds")
}

/// The first sentence of a field's documentation, without marks.
fn help(doc: &str) -> String {
    let doc = doc.trim();
    let first = doc.split_once(". ").map_or(doc, |(first, _)| first);
    let words: Vec<&str> = first.split_whitespace().collect();
    let text = words.join(" ").replace('`', "");
    format!("{}.", text.trim_end_matches('.'))
}

fn ns(d: std::time::Duration) -> u64 {
    d.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_each_of_one_family_and_say_what_they_are() {
        let from = doc::Cores { cores: vec![sample()], ..Default::default() };
        let mut names = BTreeSet::new();
        for family in families(&from) {
            let name = &family.name;
            assert!(names.insert(name.clone()), "two families {name}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "{name}");
            let help = &family.help;
            let other_unit =
                ["nanosec", " ns", "µs"].iter().any(|unit| help.to_lowercase().contains(unit));
            assert!(!name.ends_with("_ns") && !other_unit, "times are seconds: {name}: {help}");
            for reserved in ["_total", "_info", "_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            assert!(
                family.help.len() > 3 && family.help.ends_with('.'),
                "{name}: {:?}",
                family.help
            );
        }
        assert!(names.len() > 50, "{names:?}");
    }

    /// A core with everything.
    fn sample() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.core = Some(0);
        snapshot.histograms = Some(Histograms::default());
        snapshot
    }
}
