//! The program `sim`, which runs the workload over many seeds: what it says of one that does not end.

#![allow(unsafe_code)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Ends the program, and with it its workers, whose news nobody takes any more.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes that this one has started, by what they were started with.
fn workers_of(pid: u32) -> Vec<(i32, String)> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.map(|pid: i32| {
        let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&args).replace('\0', " "))
    })
    .collect()
}

/// Seconds that a seed may take. The next one where the worker that goes on needs longer for one of its own,
/// on a slow machine: the one that is stopped never ends.
const LIMITS: [u32; 4] = [2, 8, 32, 128];

/// One of two workers is stopped. The other one goes on to have news, and that must not hide it.
#[test]
fn sim_search_names_a_seed_that_does_not_end() {
    let named = LIMITS.into_iter().any(names_the_stopped_one);
    assert!(named, "the worker that went on had a seed beyond each of {LIMITS:?} s");
}

/// Whether the seed that is named is one of the worker that was stopped, and not one that was slow.
fn names_the_stopped_one(limit: u32) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(["--jobs", "2", "--seeds", "1000000", "--from", "100"]);
    command.args(["--seed-limit", &limit.to_string()]);
    let program = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut program = Ended(program);
    let began = Instant::now();
    let stopped = loop {
        let workers = workers_of(program.0.id());
        if let Some((pid, _)) = workers.iter().find(|(_, args)| args.contains("--from 101 ")) {
            break *pid;
        }
        if began.elapsed() > Duration::from_secs(20) {
            let why = "this system does not say which processes another one has started";
            coreloop_tests::skipped("sim_search_names_a_seed_that_does_not_end", why);
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    };
    // SAFETY: a signal to a process that was started for this.
    assert_eq!(unsafe { libc::kill(stopped, libc::SIGSTOP) }, 0);
    let mut said = String::new();
    program.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!program.0.wait().unwrap().success(), "{said}");
    let seed = said.trim().strip_prefix("seed ").and_then(|said| said.split(' ').next());
    let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains(&format!("seed {seed} has not ended after {limit}s; ")), "{said}");
    if seed.is_multiple_of(2) {
        println!("the worker that went on took longer than {limit} s for one: {said}");
        return false;
    }
    assert!(
        said.contains(&format!(
            "to see it again: cargo run --release -p coreloop-tests --bin sim -- --seed {seed}"
        )),
        "{said}"
    );
    // SAFETY: asks whether there is such a process.
    assert_eq!(unsafe { libc::kill(stopped, 0) }, -1, "its process was ended");
    true
}
