//! Process 1 of the virtual machines of `tests/kernels/run`: runs what `/run.list` says, tells how each ended,
//! and switches the machine off.
//!
//! Its lines begin with `KERNEL`, `RESULT`, `SAID`; the script reads them from the serial console. It refuses
//! to do anything where it is not process 1.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use coreloop_tests::{machine, process};

/// What is told to tests.
const TESTS: &[(&str, &str)] =
    &[("CORELOOP_OWN_MACHINE", "1"), ("CORELOOP_TEST_SLOW", "20"), ("CORELOOP_PROXY_SEEDS", "1")];

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a virtual machine: see tests/kernels/run");
        return ExitCode::FAILURE;
    }
    let ended = std::panic::catch_unwind(|| {
        machine::mount_all().expect("file systems");
        machine::loopback_up().expect("loopback");
        machine::raise_files().expect("the limit of descriptors");
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
        println!("KERNEL {}", release.trim());
        let list = std::fs::read_to_string("/run.list").expect("the list of what to run");
        list.lines().for_each(run);
    });
    println!("KERNEL {}", if ended.is_ok() { "done" } else { "panicked" });
    machine::power_off();
    ExitCode::FAILURE
}

/// `name limit-in-seconds program arguments…`
fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, limit, program, args @ ..] = &words[..] else { return };
    let limit = Duration::from_secs(limit.parse().unwrap_or(600));
    let began = Instant::now();
    // The program would take those of the tests for settings of its own, which it does not know.
    let told = if *name == "doctor" { &[] } else { TESTS };
    let spawned = Command::new(program)
        .args(args)
        .env("PATH", "/bin")
        .envs(told.iter().copied())
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return println!("RESULT {name} fail it did not start: {e}"),
    };
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    let readers = pipes.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let mut late = false;
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if began.elapsed() > limit && !late => {
                late = true;
                process::kill(-(child.id() as i32), 9);
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let output = readers.map(|r| r.join().unwrap_or_default()).concat();
    let took = began.elapsed().as_secs();
    let is_test = output.contains("test result:");
    let passed = output.lines().filter(|l| l.contains("... ok") || *l == "ok").count();
    let skips = output.matches("SKIPPED ").count();
    let how = if status.success() { "pass" } else { "fail" };
    println!(
        "RESULT {name} {how} {passed} ok, of them {skips} skipped, in {took} s{}",
        if late { ", killed after its limit" } else { "" }
    );
    for line in output.lines() {
        let wanted = ["SKIPPED ", "FIGURE ", "FAILED", "panicked"].iter().any(|w| line.contains(w));
        if !is_test || wanted || !status.success() {
            println!("SAID {name}: {line}");
        }
    }
}
