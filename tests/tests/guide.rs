//! The guide is whole, and what it shows runs: each id has its section, Python's side of it is a program that
//! holds (the Rust side is run as documentation tests), and the examples print what they promise.

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
                assert!(
                    text.contains("assert") || text.contains("unwrap") || text.contains("run(")
                );
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
