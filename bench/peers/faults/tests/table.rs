//! Our own column holds, and a runtime that ends badly is told as a result.

use std::process::Command;

fn table(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_faults")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Cases that need strace to be on the machine.
const BY_STRACE: [&str; 2] = ["enter-enomem", "enter-eagain"];

/// Every case there is: one that is added is in it.
fn cases() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_faults")).arg("list").output().expect("it runs");
    let list = String::from_utf8(output.stdout).expect("text");
    let cases = list.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name);
    cases.map(str::to_owned).collect()
}

#[test]
fn our_column_holds() {
    let has_strace = Command::new("strace").arg("-V").output().is_ok();
    if !has_strace {
        println!("SKIPPED our_column_holds: {BY_STRACE:?}: there is no strace");
    }
    let mut cases = cases();
    assert_eq!(cases.len(), 17);
    // Its own test: it is judged by times.
    cases.retain(|case| case != "accept-emfile");
    cases.retain(|case| has_strace || !BY_STRACE.contains(&&**case));
    let table = table(&["--peers", "coreloop", "--cases", &cases.join(",")]);
    assert_eq!(table.lines().count(), 2 + cases.len(), "{table}");
    assert!(!table.contains("**"), "{table}");
    let without: Vec<_> = table.lines().filter(|line| line.contains("| - (")).collect();
    assert!(matches!(without.as_slice(), [one] if one.contains("open polled once")), "{table}");
}

/// What does not depend on the machine's speed: nothing is asked of the program that serves.
#[test]
fn our_accepts_wait_out_a_want_of_descriptors() {
    let table = table(&["--peers", "coreloop", "--cases", "accept-emfile"]);
    let cell = table.lines().last().and_then(|row| row.split(" | ").nth(2)).unwrap_or_default();
    assert!(cell.trim_start_matches('*').starts_with("0 errors, "), "{table}");
}

/// A figure that doesn't hold, an error that doesn't say what to change, what can't be done.
#[test]
fn ends_are_told() {
    let table = table(&["--peers", "tokio-uring,smol", "--cases", "recv-dropped,ring-forbidden"]);
    assert!(table.contains("**100 lost**"), "{table}");
    assert!(table.contains("**error: Operation not permitted"), "{table}");
    assert!(table.contains("- (it uses epoll)"), "{table}");
}

#[test]
fn the_versions_are_the_lock_files() {
    let lock = include_str!("../../Cargo.lock");
    let output = Command::new(env!("CARGO_BIN_EXE_faults")).arg("list").output().expect("it runs");
    let list = String::from_utf8(output.stdout).expect("text");
    let mut peers = 0;
    for line in list.lines().filter(|line| !line.contains(':')) {
        let (name, version) = line.split_once(' ').expect("a name and a version");
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&locked), "{name} {version} isn't what is built");
        peers += 1;
    }
    assert_eq!(peers, 9);
}
