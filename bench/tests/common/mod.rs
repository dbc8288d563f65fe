//! Runs the built binary, with an end to every wait.
//!
//! Owns the children: one that is still there when its test ends is killed.

#![allow(dead_code, reason = "each test file uses its share")]

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A child that does not outlive its test.
pub struct Running {
    child: Child,
}

pub fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreloop-bench"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end.
pub fn run(args: &[&str]) -> Ended {
    end(bench(args))
}

/// As [`run`], of a command of one's own.
pub fn end(command: Command) -> Ended {
    try_end(command).unwrap()
}

/// As [`end`], where the command may not even start.
pub fn try_end(mut command: Command) -> io::Result<Ended> {
    let mut running = Running { child: command.spawn()? };
    // Before the wait: what is written here fits into a pipe many times over.
    let status = running.wait();
    let (stdout, stderr) = running.output();
    Ok(Ended { code: status.code(), stdout, stderr })
}

/// An echo server with histograms and an ops listener, and the port of that.
pub fn serve_with_ops(more: &[&str]) -> (Running, String) {
    let fixed = ["serve", "echo", "--addr", "127.0.0.1:0", "--ops", "0", "--stats", "histograms"];
    let mut server = Running::start(&[&fixed[..], more].concat());
    let line = server.line_after("http://127.0.0.1:");
    let port = line.split('/').next().unwrap().to_owned();
    (server, port)
}

/// Whether a loop can run here; says so if not.
pub fn io_uring_works() -> bool {
    let works = run(&["doctor"]).code == Some(0);
    if !works {
        // Past libtest's capture, so that who counts can see that this was skipped and not passed.
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("SKIPPED {name}: io_uring can't be used here\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
    }
    works
}

/// A file of this test alone.
pub fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

/// Reads a JSON file, and removes it.
pub fn take_json(path: &PathBuf) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

impl Running {
    pub fn start(args: &[&str]) -> Running {
        Running::of(bench(args))
    }

    /// As [`start`](Self::start), of a command of one's own.
    pub fn of(mut command: Command) -> Running {
        Running { child: command.spawn().unwrap() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads stdout up to a line that has `word`, and gives what follows it.
    pub fn line_after(&mut self, word: &str) -> String {
        let mut stdout = BufReader::new(self.child.stdout.take().unwrap());
        let mut line = String::new();
        loop {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended before it said {word:?}");
            if let Some((_, rest)) = line.split_once(word) {
                // Its buffer may hold more, and it says the rest only at its end.
                let rest = rest.trim().to_owned();
                self.child.stdout = Some(stdout.into_inner());
                return rest;
            }
        }
    }

    /// Waits until `path` has content.
    pub fn wait_for_content(&mut self, path: &PathBuf) {
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(path).is_ok_and(|file| file.len() == 0) || !path.exists() {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended without writing {path:?}");
            assert!(Instant::now() < deadline, "nothing in {path:?} within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn output(&mut self) -> (String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr).unwrap();
        }
        (stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // It may end between the two: then there is nothing left to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
