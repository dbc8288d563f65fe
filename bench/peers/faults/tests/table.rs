//! Our own column holds, and a runtime that ends badly is told as a result.

use std::process::Command;

fn table(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_faults")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn our_column_holds() {
    let cases = "recv-dropped,accept-dropped,reads-dropped,end-parked,end-accepts,task-panics,sleep-max,\
                 op-after-end,waker-clones,wake-after-end,ring-forbidden";
    let table = table(&["--peers", "coreloop", "--cases", cases]);
    assert_eq!(table.lines().count(), 2 + cases.split(',').count(), "{table}");
    assert!(!table.contains("**"), "{table}");
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
