//! The twins: Python's asyncio and this say the same at the same time, or differ as it is written down.
//!
//! Both sides run in virtual time and must match their transcripts to the letter, the Python side on the
//! installed interpreter. Those that compute run in real time, too, in units of so many milliseconds: another
//! time or order of events fails if it stays when units are longer, as what a busy machine holds up does not.
//! Without an interpreter the transcripts stand in.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coreloop_tests::skip;
use coreloop_tests::twins::python::{Compared, Interpreter, compare, folder};
use coreloop_tests::twins::{self, Twin};

/// Milliseconds of a unit in real time, at the first try and at those after a time that was missed.
const UNITS_MS: [u32; 5] = [50, 100, 200, 400, 1_600];
/// Python sides that run side by side.
const AT_ONCE: usize = 2;

fn recorded(name: &str, side: &str) -> String {
    let path = folder().join(format!("{name}{side}.txt"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What each side is to say: (Python, Rust).
fn expected(twin: Twin) -> (String, String) {
    if twin.differs() {
        return (recorded(twin.name, ".python"), recorded(twin.name, ".rust"));
    }
    let both = recorded(twin.name, "");
    (both.clone(), both)
}

#[test]
fn twins_in_rust_say_what_was_recorded() {
    for twin in twins::all() {
        let (_, expected) = expected(twin);
        let shown = twin.transcript();
        assert!(shown == expected, "{}:\n{shown}\nrecorded:\n{expected}", twin.name);
    }
}

#[test]
fn twins_in_python_say_what_was_recorded() {
    let python = match Interpreter::find() {
        Ok(python) => python,
        Err(why) => skip!("{why}; the recorded transcripts stand in"),
    };
    let (twins, next, wrong) = (twins::all(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(twin) = twins.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = plays_as_recorded(&python, *twin) {
                        wrong.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn plays_as_recorded(python: &Interpreter, twin: Twin) -> Result<(), String> {
    let (name, (expected, _)) = (twin.name, expected(twin));
    let shown = python.play(name, None).map_err(|e| format!("{name}: {e}"))?;
    if shown == expected {
        return Ok(());
    }
    Err(format!("{name}:\n{shown}\nrecorded:\n{expected}"))
}

/// Virtual time is no trick of the clock: what computing holds up comes late in real time as well.
#[test]
fn twins_in_python_take_that_long_in_real_time() {
    let python = match Interpreter::find() {
        Ok(python) => python,
        Err(why) => skip!("{why}; the recorded transcripts stand in"),
    };
    for name in ["t2_computing_holds_all_up", "t3_a_zero_sleep_first"] {
        let expected = recorded(name, "");
        let mut last = String::new();
        for unit_ms in UNITS_MS {
            last = python.play(name, Some(unit_ms)).unwrap_or_else(|e| panic!("{name}: {e}"));
            match compare(&last, &expected) {
                Compared::Same => break,
                other => println!("{name}: {other:?} with units of {unit_ms} ms"),
            }
        }
        assert_eq!(last, expected, "{name}, at all of {UNITS_MS:?} ms");
    }
}

#[test]
fn twins_differ_only_where_a_reason_is_given() {
    let reasons = fs::read_to_string(folder().join("DIFFERENCES.md")).unwrap();
    let told: BTreeSet<_> = reasons.lines().filter_map(|l| l.strip_prefix("## `")).collect();
    let told: BTreeSet<_> = told.into_iter().filter_map(|l| l.split('`').next()).collect();
    let differ: BTreeSet<_> = twins::all().iter().filter(|t| t.differs()).map(|t| t.name).collect();
    assert_eq!(differ, told);
    for name in differ {
        let (python, rust) = (recorded(name, ".python"), recorded(name, ".rust"));
        assert_ne!(python, rust, "{name} does not differ any more");
        for shown in [python, rust] {
            for line in shown.lines() {
                assert!(reasons.contains(line), "{name}: {line:?} is not in DIFFERENCES.md");
            }
        }
    }
}

/// Each id that this library has an answer to, and no file that nobody plays.
#[test]
fn twins_cover_the_ids_and_the_folder() {
    let names: BTreeSet<_> = twins::all().iter().map(|t| t.name.to_owned()).collect();
    let ids = "t1 t2 t3 t4 t5 t6 t7 t9 t10 w1 w2 w3 w4 f1 f2 g1 g2 g3 g4 g5 g6 g7 g8";
    for id in ids.split(' ') {
        let start = format!("{id}_");
        assert!(names.iter().any(|n| n.starts_with(&start)), "no twin for {id}");
    }
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some((name, ending)) = file.split_once('.') else { continue };
        if ["py", "txt", "python.txt", "rust.txt"].contains(&ending) && name != "stage" {
            files.insert(name.to_owned());
        }
    }
    assert_eq!(files, names);
}
