//! The guide is whole, and what it shows runs: each id has its section, Python's side of it is a
//! program that holds (the Rust side is run as documentation tests), and the examples print what
//! they promise.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use coreloop_tests::skip;

const FROM_ASYNCIO: &str = include_str!("../../docs/guide/from-asyncio.md");
const INDEX: &str = include_str!("../../docs/guide/README.md");

/// How many behaviours each letter has.
const IDS: [(char, usize); 7] =
    [('L', 9), ('T', 11), ('W', 4), ('F', 2), ('G', 8), ('B', 4), ('P', 3)];

/// Blocks of one language, each with the line on which it stands.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let opens = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line == opens {
            let block = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            found.push((number + 1, block.collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

#[test]
fn guide_each_id_has_a_section_with_both_sides() {
    for (letter, count) in IDS {
        for number in 1..=count {
            let heading = format!("\n### {letter}{number} ");
            let mut parts = FROM_ASYNCIO.split(&heading);
            let section = parts.nth(1).unwrap_or_else(|| panic!("no section {letter}{number}"));
            assert!(parts.next().is_none(), "two sections {letter}{number}");
            let section = section.split("\n##").next().unwrap_or_default();
            let sides = ["python", "rust"].map(|language| blocks(section, language));
            for side in &sides {
                let [(_, text)] = &side[..] else { panic!("{letter}{number}: one of each") };
                assert!(text.contains("assert"), "{letter}{number} checks what it says");
            }
        }
    }
    assert!(FROM_ASYNCIO.contains("H1 to H3"), "what there is not yet is said too");
}

/// Reads programs from standard input, each after a line with its place, and runs or compiles them.
const DRIVER: &str = r#"
import sys
runs = sys.version_info >= (3, 11)
for program in sys.stdin.read().split("\0"):
    place, _, text = program.partition("\n")
    code = compile(text, place, "exec")
    if runs:
        exec(code, {"__name__": "__main__"})
print("ran" if runs else "compiled")
"#;

#[test]
fn guide_the_programs_in_python_hold() {
    let programs = blocks(FROM_ASYNCIO, "python");
    assert_eq!(programs.len(), IDS.iter().map(|(_, n)| n).sum::<usize>());
    let python = Command::new("python3")
        .args(["-c", DRIVER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut python = match python {
        Ok(python) => python,
        Err(e) => skip!("no python3: {e}"),
    };
    let text = programs.iter().map(|(line, text)| format!("from-asyncio.md:{line}\n{text}\n"));
    let text = text.collect::<Vec<_>>().join("\0");
    let mut input = python.stdin.take().expect("it was piped");
    // One that ended early is told by its status.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let ended = python.wait_with_output().expect("it runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    if String::from_utf8_lossy(&ended.stdout).trim() != "ran" {
        skip!("python3 is older than 3.11: its programs were compiled, not run");
    }
}

#[test]
fn guide_each_example_is_named() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../runtime/examples");
    for entry in std::fs::read_dir(folder).expect("there are examples") {
        let path = entry.expect("it can be read").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("plain names");
        assert!(FROM_ASYNCIO.contains(&format!("`{name}`")), "{name} is not in the list");
    }
}

#[test]
fn guide_the_index_lists_each_page() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    for entry in std::fs::read_dir(folder).expect("the guide is there") {
        let name = entry.expect("it can be read").file_name();
        let name = name.to_str().expect("plain names");
        if name != "README.md" {
            assert!(INDEX.contains(&format!("]({name})")), "{name} is not in the index");
        }
    }
}

/// In the parent: runs the example in a process of its own, and asks for these pieces of its
/// output, in order.
fn prints(test: &str, example: fn(), pieces: &[&str]) {
    const VARIABLE: &str = "CORELOOP_GUIDE_EXAMPLE";
    if std::env::var_os(VARIABLE).is_some() {
        return example();
    }
    let own = std::env::current_exe().expect("it has a path");
    let ended = Command::new(own)
        .args(["--exact", "--nocapture", test])
        .env(VARIABLE, test)
        .env_remove("CORELOOP_DEBUG")
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{text}{}", String::from_utf8_lossy(&ended.stderr));
    let mut rest = &text[..];
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            panic!("{piece:?} is not in what is left of\n{text}")
        };
        rest = &rest[at + piece.len()..];
    }
}

/// A test for each example.
macro_rules! examples {
    ($($test:ident: $path:literal as $module:ident says $($piece:literal),+;)*) => {$(
        #[path = $path]
        mod $module;

        #[test]
        fn $test() {
            prints(stringify!($test), $module::main, &[$($piece),+]);
        }
    )*};
}

// Of what depends on time only the order that timers promise.
examples! {
    guide_example_run_and_spawn: "../../runtime/examples/run_and_spawn.rs" as run_and_spawn says
        "computes first", "units", "computes between", "gives way first",
        "one who began begins", "main ends", "one who began is gone",
        "one who did not begin is gone",
        "no loop runs on this thread", "finished after the first: false",
        "begun in one drive, ended in another";
    guide_example_limits: "../../runtime/examples/limits.rs" as limits says
        "the session is closed", "the time limit was over; cancelled: true",
        "the time limit was over; cancelled: false", "later: an answer",
        "Ok(7)", "Err(Elapsed", "the inner one is over", "Ok(\"an answer\")";
    guide_example_futures: "../../runtime/examples/futures.rs" as futures says
        "done: false", "again: the future has a value already, 43 comes back",
        "ann has 42", "bob has 42", "late has 42", "ann: the future was cancelled",
        "bob: the future's completer was dropped", "a future: Ok(Ok(1))", "a task: Ok(Ok(2))",
        "a block: Ok(3)", "a timer: Ok(())";
    guide_example_groups: "../../runtime/examples/groups.rs" as groups says
        "= 200, failed with status 429, 200", "= input 0: status 429", "e: 200",
        "= input 0: 200", "= input 1: failed with status 429", "= input 2: the time limit was over",
        "wait, FirstCompleted:", "a: 200", "wait, FirstError:", "b: 429",
        "= done [0, 1], pending [2]", "c is called off", "= done [0, 1, 2], pending []",
        "f: 200", "h: 429", "g is called off", "i is called off",
        "= 1 failed in a group: child 2: status 429";
    guide_example_primitives: "../../runtime/examples/primitives.rs" as primitives says
        "before: locked true", "after: first, second", "the event is set: true",
        "of 4 taken 3, left 1", "1 runs, 1 left", "2 runs, 0 left", "3 runs", "4 runs",
        "all have come, 1 was the last", "[3, 1, 2]", "[2, 1, 3]", "[1, 2, 3]",
        "the session says goodbye, Cancelled", "closed in time: true";
    guide_example_reports: "../../runtime/examples/reports.rs" as reports says
        "[panicked] task \"careless\"", "nobody waits for me", "[failed]", "invalid digit",
        "[slow] task \"slow\"", "taken: the task panicked: somebody does", "(main)", "Running",
        "waits for nap", "Waiting", "task ", "nap ", "a timer, 3600 s", "[unfinished]",
        "had not ended when its loop did";
    guide_example_histograms: "../../runtime/examples/histograms.rs" as histograms says
        "between requests:", "latency", "tick", "wake_to_poll", "poll", "timer_late", "on a blocking thread:", "latency";
    guide_example_locals_and_timing: "../../runtime/examples/locals_and_timing.rs" as locals says
        "request 7: begins", "request 7: a helper inherits it", "no request: a stranger does not",
        "no request: outside", "a nap: ready", "a parse: failed", "an hour: cancelled",
        "a fall: panicked", "into a histogram: 3 naps";
}
