//! What people and files say, mutated: taken or refused in words. Corpora lie in `tests/corpus`.
//!
//! A second for each; `CORELOOP_FUZZ_SECONDS=600 cargo test --release -p coreloop-bench fuzz_` is
//! the longer run.

use std::path::{Path, PathBuf};

use coreloop_tests::fuzz::{Fuzzed, fuzz, message_signature, signature};

use crate::cli::ops::OpsUrl;
use crate::cli::parse;
use crate::compare;
use crate::ops::{client, ps};
use crate::peers;
use crate::report::paint::Paint;
use crate::scenario::idle::parse_anonymous;
use crate::trial::goal::{Goal, bounded};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn shown(fuzzed: Fuzzed) {
    println!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 4, "{fuzzed:?}");
}

#[test]
fn fuzz_goals() {
    let words = [
        "p99.99", "p50", "<=", "<", "max-rate", "cpu", "2ms", "1 us", "µs", "1e9s", ".5", "\u{a0}",
    ];
    shown(fuzz(&corpus("goals"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<Goal>() {
            Ok(goal) => {
                let (shown, bound) = (goal.to_string(), goal.bounded());
                assert!(bound.is_none_or(|(_, bound)| !bound.is_zero()), "{text:?}: {shown}");
                assert_eq!(bounded(&goal).is_ok(), bound.is_some());
                signature((std::mem::discriminant(&goal), goal.point().map(|point| point.name)))
            }
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        }
    }));
}

/// Words of reports, and numbers at the edges of what JSON has.
const WORDS: [&str; 24] = [
    "\"schema_version\":1",
    "\"command\":\"run echo\"",
    "\"command\":\"tune\"",
    "\"seconds\":[",
    "\"series\":[",
    "\"samples\":[0,0,0,0,0,0]",
    "\"samples\":[1,2,3,4,5,6,7]",
    "\"latency\":{\"corrected\":{\"p99_ns\":",
    "\"cores\":[{\"role\":\"server\",\"requests\":",
    "\"contenders\":[]",
    "\"workloads\":[]",
    "null",
    "true",
    "-1",
    "1e308",
    "-1e308",
    "5e-324",
    "1e309",
    "18446744073709551615",
    "\"\\u0000\\u001b[31m\"",
    "\"é\"",
    "[",
    "{",
    "}",
];

/// Each file is compared with itself and with the one before.
#[test]
fn fuzz_reports_to_compare() {
    let mut before = String::from("{}");
    shown(fuzz(&corpus("reports"), &WORDS, |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let itself = compare::of_texts(&text, &text);
        let other = compare::of_texts(&before, &text);
        let words = [itself, other].map(|side| match side {
            Ok(shown) => message_signature(&shown),
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        });
        before = text;
        signature(words)
    }));
}

#[test]
fn fuzz_results_of_peers() {
    shown(fuzz(&corpus("peers_results"), &WORDS, |input| {
        match peers::of_text(&String::from_utf8_lossy(input)) {
            Ok(shown) => message_signature(&shown),
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        }
    }));
}

/// What another process answers to `ps`: shown or refused, and nothing in it that a terminal acts on.
#[test]
fn fuzz_answers_of_ops() {
    let words = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 404 \u{1b}[31m\r\n\r\n\u{1b}]0;a\u{7}",
        "Content-Length: 7\r\n",
        "\r\n\r\n",
        "\"cores\":[",
        "{\"core\":0,\"tasks\":[",
        "{\"id\":\"0.1.1\",\"parent\":\"0.1.1\"},",
        "\"name\":\"\\u001b[2J\"",
        "\"spawned_at\":\"\\u009b31m\\u202e/registry/src/\"",
        "\"waits_for\":[{\"text\":\"\\r\\n\"}]",
        "\"missing\":\"\u{9b}1m\"",
        "\"left_out\":18446744073709551615",
        "\"age_ns\":18446744073709551615",
        "null",
    ];
    let acted_on =
        |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
    shown(fuzz(&corpus("ops_answers"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        match client::shown::<coreloop_net::ops::doc::Tasks>(&text) {
            Ok(tasks) => {
                let shown = ps::text(&tasks, None, Paint::plain(), None);
                assert!(!shown.contains(acted_on), "{shown:?}");
                let json = client::json(&tasks).unwrap();
                assert!(!json.contains(acted_on), "{json:?}");
                signature((tasks.cores.len(), shown.lines().count(), shown.contains("\\u{")))
            }
            Err(why) => {
                assert!(!why.contains(char::is_control), "{why:?}");
                message_signature(&why)
            }
        }
    }));
}

/// What is taken as a listener's address is the same when it is written and read again.
#[test]
fn fuzz_urls_of_ops() {
    let words =
        ["http://", "https://", ":9464", "[::1]", "127.0.0.1", "/metrics", "::", "65536", "]:"];
    shown(fuzz(&corpus("ops_urls"), &words, |input| {
        match String::from_utf8_lossy(input).parse::<OpsUrl>() {
            Ok(url) => {
                assert!(url.port > 0 && !url.host.is_empty());
                // It stands in a line of a request.
                assert!(
                    !url.host.contains(|c: char| c.is_whitespace() || c.is_control()),
                    "{url:?}"
                );
                assert_eq!(url.to_string().parse::<OpsUrl>().as_ref(), Ok(&url));
                signature((url.host.contains(':'), url.host == OpsUrl::here().host, url.port == 80))
            }
            Err(why) => {
                assert!(!why.is_empty());
                signature(why.split_whitespace().last().map(str::len))
            }
        }
    }));
}

/// Times, sizes, counts, cores and spins of the command line: what is taken can be written and read again.
#[test]
fn fuzz_values_of_flags() {
    let words = [
        "1.5s", "50us", "\u{b5}s", "h", "m", "ms", "1m30s", "k", "KiB", "G", "_", "0,2-5",
        "count:1", "numa:0", "all", "dial", "off", "1e9", "\u{a0}",
    ];
    let wide = parse::Range { min: 0, max: u64::MAX };
    shown(fuzz(&corpus("cli_values"), &words, |input| {
        let text = &String::from_utf8_lossy(input);
        let time = parse::duration(text);
        if let Ok(time) = time {
            let again = parse::duration(&parse::Human(time).to_string());
            assert_eq!(again, Ok(time), "{text:?}");
        }
        let (size, count) = (parse::size(text, wide), parse::count(text, wide));
        if let Ok(size) = size {
            assert_eq!(parse::size(&parse::bytes(size), wide), Ok(size), "{text:?}");
        }
        let cores = parse::cores(text).map(|list| {
            assert!(!list.0.is_empty() && list.0.len() <= parse::CORE_MAX + 1, "{text:?}");
            let mut sorted = list.clone();
            sorted.0.sort_unstable();
            assert_eq!(parse::cores(&list.to_string()), Ok(sorted), "{text:?}");
        });
        let spin = parse::spin(text);
        if let Ok(spin) = spin {
            // A spin of no time is none.
            assert_eq!(parse::spin(&spin.to_string()), Ok(spin), "{text:?}");
        }
        let kind =
            |why: Option<&String>| why.map(|why| message_signature(&why.replace('\'', "\"")));
        signature((
            kind(time.as_ref().err()),
            kind(size.as_ref().err()),
            kind(count.as_ref().err()),
            kind(cores.as_ref().err()),
            kind(spin.as_ref().err()),
        ))
    }));
}

/// What another runtime's program prints of itself and of its work.
#[test]
fn fuzz_answers_of_peers() {
    let words = [
        "{\"workload\":\"spawn\",\"rounds\":[{",
        "\"bytes_per_task\":",
        "\"future_bytes\":",
        "\"note\":\"a\"",
        "{\"runtime\":\"a\",\"version\":\"1\",\"workloads\":[],\"variants\":[\"default\"]",
        "{\"totals\":{\"answers_all\":1,\"errors\":0",
        "\"verdict\":{\"reasons\":[\"a\"]}",
        "\"parameters\":{\"rate\":0}",
        "5e-324",
        "1e308",
        "-1e308",
        "null",
        "}",
        "]",
        ",",
    ];
    shown(fuzz(&corpus("peers_answers"), &words, |input| {
        let answers = peers::of_answer(&String::from_utf8_lossy(input));
        let kinds = answers.map(|answer| match answer {
            Ok(figures) => figures as u64,
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        });
        signature(kinds)
    }));
}

/// What the kernel counts of threads, cores and memory, and the line in which a server says its address.
#[test]
fn fuzz_counts_of_the_kernel() {
    let words =
        ["cpu0 ", "RssAnon:", " kB", "18446744073709551615 ", "127.0.0.1:", "65535", "0", "\n"];
    shown(fuzz(&corpus("machine_counts"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        let (waited, busy, addr) = peers::of_counts(&text);
        assert!(addr.is_none_or(|addr| addr.port() > 0 && addr.ip().is_loopback()));
        let anonymous = parse_anonymous(&text);
        signature((
            waited.is_some(),
            busy.map(|n| n.min(2)),
            addr.is_some(),
            anonymous.map(|n| n.min(2)),
        ))
    }));
}
