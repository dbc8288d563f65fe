//! What the kernel says of the process and its threads, and what a client says it accepts, mutated: read or
//! passed over. Corpora lie in `tests/corpus`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use coreloop::Snapshot;
use coreloop_tests::fuzz::{Fuzzed, fuzz, signature};

use super::openmetrics::Format;
use super::process::Said;
use super::workers::of_cores;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn shown(fuzzed: Fuzzed) {
    println!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 3, "{fuzzed:?}");
}

/// Four parts with empty lines between them: `stat`, `status`, `limits`, and the system's `uptime`.
#[test]
fn fuzz_files_of_the_process() {
    let words = [
        ") S 1 2 ",
        "18446744073709551615 ",
        "9223372036854775807 ",
        "VmRSS:",
        " kB",
        "Max open files",
        "unlimited",
        "1e309",
        "-1e308",
        "NaN",
        "inf",
        "\n\n",
    ];
    shown(fuzz(&corpus("machine_process"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        let mut parts = text.splitn(4, "\n\n");
        let [stat, status, limits, uptime] = std::array::from_fn(|_| parts.next().unwrap_or(""));
        let said = Said::of(stat, status, limits, uptime);
        signature((
            said.cpu_ns.min(2),
            said.age_ns.min(2),
            said.resident_bytes.min(2),
            said.open_files_max.map(|n| n.min(2)),
        ))
    }));
}

/// Lines of a thread's number and name; cores 0 and 1 are threads 10 and 11.
#[test]
fn fuzz_names_of_threads() {
    let words = ["10 ", "13 ", "iou-wrk-", "iou-sqp-", "11", "-1", "4294967296", "\n", "core-0"];
    shown(fuzz(&corpus("machine_threads"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        let line = |line: &str| {
            let (number, name) = line.split_once(' ')?;
            Some((number.parse().ok()?, name.to_owned()))
        };
        let names: HashMap<u32, String> = text.lines().filter_map(line).collect();
        let cores = [(0, Some(10)), (1, Some(11)), (2, None)].map(|(core, thread)| {
            let mut snapshot = Snapshot::default();
            (snapshot.core, snapshot.thread) = (Some(core), thread);
            snapshot
        });
        let told = of_cores(&cores, &names);
        let workers = names.values().filter(|name| name.starts_with("iou-wrk-")).count();
        let all: u64 = told.iter().map(|one| one.workers).sum();
        assert!(all <= workers as u64, "{all} of {workers}: {text:?}");
        assert!(told.iter().all(|one| one.core != Some(2)), "a core without a thread has none");
        let counts: Vec<_> = told.iter().map(|one| (one.core, one.workers.min(3))).collect();
        signature(counts)
    }));
}

/// A field `Accept`: OpenMetrics goes to nobody who doesn't name it.
#[test]
fn fuzz_fields_accept() {
    let words = [
        "application/openmetrics-text",
        "text/plain",
        ";version=1.0.0",
        ";version=\"0.0.1\"",
        ";q=0",
        ";q=0.999",
        ";q=1e400",
        ";q=-1",
        ";q=NaN",
        ",",
        "*/*",
        "=",
    ];
    let fuzzed = fuzz(&corpus("http_accept"), &words, |input| {
        let accept = String::from_utf8_lossy(input);
        let format = Format::asked(&accept);
        assert!(format == Format::Plain || accept.contains("application/openmetrics-text"));
        // Who is asked twice in one breath is asked the same.
        assert_eq!(Format::asked(&format!("{accept},{accept}")), format, "{accept:?}");
        signature((format == Format::Plain, accept.contains("q="), accept.contains("version=")))
    });
    shown(fuzzed);
}
