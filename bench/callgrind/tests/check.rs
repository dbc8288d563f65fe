//! The check fails when a count is above its baseline, and says so.

use std::path::PathBuf;
use std::process::{Command, Output};

fn check(name: &str, baseline: f64) -> Option<Output> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED {name}: valgrind is not installed");
        return None;
    }
    let rustc = Command::new("rustc").arg("--version").output().expect("rustc");
    let rustc = String::from_utf8(rustc.stdout).expect("text");
    let rustc = rustc.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let file: PathBuf =
        std::env::temp_dir().join(format!("hot-paths-{name}-{}.json", std::process::id()));
    let arch = std::env::consts::ARCH;
    let text =
        format!(r#"{{"rustc":"{rustc}","arch":"{arch}","instructions":{{"yield":{baseline}}}}}"#);
    std::fs::write(&file, text).expect("written");
    let told = Command::new(env!("CARGO_BIN_EXE_hot-paths"))
        .args(["check", "yield", "--baseline"])
        .arg(&file)
        .output()
        .expect("it runs");
    std::fs::remove_file(&file).expect("removed");
    Some(told)
}

#[test]
fn growth_fails() {
    let Some(told) = check("growth", 1.0) else { return };
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&told.stderr));
    assert!(text.contains("grew"), "{text}");
}

#[test]
fn a_count_below_it_passes_and_asks_to_be_stored() {
    let Some(told) = check("shrunk", 1e9) else { return };
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&told.stderr));
    assert!(text.contains("shrank"), "{text}");
}

#[test]
fn an_unknown_workload_is_told_with_the_known_ones() {
    let told = Command::new(env!("CARGO_BIN_EXE_hot-paths"))
        .args(["check", "yeild"])
        .output()
        .expect("it runs");
    assert_eq!(told.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&told.stderr).contains("spawn-join"));
}

/// The limit of a look at a core is 100 µs: 100,000 instructions on a core of no more than one in a nanosecond.
#[test]
fn a_look_holds_its_core_up_for_less_than_the_limit() {
    let text = include_str!("../baseline.json");
    let baseline: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let count =
        |name: &str| baseline["instructions"][name].as_f64().expect("it is in the baseline");
    let held_up = count("look") - count("snapshot");
    assert!(held_up > 0.0 && held_up < 100_000.0, "{held_up} instructions");
}
