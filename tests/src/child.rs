//! Tests in a process of their own.
//!
//! Owns [`Child`]: descriptors, memory, signals, limits and filters belong to the process, and libtest
//! runs tests as threads of one, so such a test starts its own binary anew for itself alone, with as many
//! descriptors as the hard limit allows. A child that
//! hangs is killed with all its children, and what it printed is the failure's text.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

/// Names the test that the child is for.
pub(crate) const VARIABLE: &str = "CORELOOP_TEST_CHILD";

/// A test body that runs in a process of its own.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    limit: Duration,
    under: Vec<String>,
    env: Vec<(String, String)>,
    files: Option<u64>,
    memlock: Option<u64>,
    uid: Option<u32>,
    says: Option<&'static str>,
}

/// Runs `body` in a process of its own, for at most 120 s. `name` is the test's name.
///
/// # Panics
/// If the child fails, hangs, or runs no test of that name.
pub fn in_child(name: &'static str, body: impl FnOnce()) {
    Child::new(name).run(body);
}

/// How many times slower than usual this machine is, where somebody knows (`CORELOOP_TEST_SLOW`): an emulated
/// one by far.
pub fn slowness() -> u32 {
    std::env::var("CORELOOP_TEST_SLOW").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// The options that AddressSanitizer is run with, and these.
pub(crate) fn asan_options(more: &str) -> String {
    let options = std::env::var("ASAN_OPTIONS").unwrap_or_default();
    if options.is_empty() { more.to_owned() } else { format!("{options}:{more}") }
}

/// Its leak check traces the process, which only one can do at a time.
pub(crate) const UNTRACED: &str = "detect_leaks=0";

impl Child {
    /// For the test `name`, which is the caller.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            limit: Duration::from_secs(120),
            under: Vec::new(),
            env: Vec::new(),
            files: None,
            memlock: None,
            uid: None,
            says: None,
        }
    }

    /// Kills it after so long (120 s).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it under another program, such as strace with its arguments.
    #[must_use]
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(|s| (*s).to_owned()).collect();
        if program.first() == Some(&"strace") { self.asan(UNTRACED) } else { self }
    }

    /// Runs it with these options where AddressSanitizer is in the tests (`tests/sanitize.sh`), beside its others:
    /// `handle_segv=0`.
    #[must_use]
    pub fn asan(self, options: &str) -> Self {
        if cfg!(asan) { self.env("ASAN_OPTIONS", &asan_options(options)) } else { self }
    }

    /// Starts it with this soft and hard RLIMIT_NOFILE, instead of the soft one raised to the hard one.
    #[must_use]
    pub fn files(mut self, limit: u64) -> Self {
        self.files = Some(limit);
        self
    }

    /// Starts it with this RLIMIT_MEMLOCK, in bytes.
    #[must_use]
    pub fn memlock(mut self, limit: u64) -> Self {
        self.memlock = Some(limit);
        self
    }

    /// Starts it as this user, which takes root.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Asks for a line of its output with this text.
    #[must_use]
    pub fn says(mut self, text: &'static str) -> Self {
        self.says = Some(text);
        self
    }

    /// Whether this process is such a child.
    pub fn is_one() -> bool {
        std::env::var_os(VARIABLE).is_some()
    }

    /// In the parent: starts the child and waits for its success. In the child: runs `body`.
    ///
    /// # Panics
    /// If the child fails, hangs, runs no test of that name, or does not say what it should.
    pub fn run(self, body: impl FnOnce()) {
        if std::env::var(VARIABLE).is_ok_and(|v| v == self.name) {
            return body();
        }
        let name = self.name;
        let other_user = self.uid.is_some();
        let says = self.says;
        let (status, output, late) = match self.start_and_wait() {
            Ok(ended) => ended,
            Err(e) if other_user && e.kind() == io::ErrorKind::PermissionDenied => {
                return crate::skipped(name, "the test binary can't be read by another user");
            }
            Err(e) => panic!("{name}: the child did not start: {e}"),
        };
        for line in output.lines() {
            // libtest prints `test name ... ` first, without an end of line.
            if let Some(at) = line.find("SKIPPED ") {
                crate::write_past_capture(&format!("{}\n", &line[at..]));
            } else if let Some(at) = line.find("FIGURE ") {
                println!("{}", &line[at..]);
            }
        }
        assert!(!late, "{name}: the child was killed after its time limit; it said:\n{output}");
        let how = status.signal().map_or_else(String::new, |s| format!(" (signal {s})"));
        assert!(status.success(), "{name}: the child failed{how}; it said:\n{output}");
        assert!(output.contains("1 passed"), "no test is called {name}; the child said:\n{output}");
        if let Some(text) = says {
            assert!(
                output.contains(text),
                "{name}: the child did not say {text:?}, but:\n{output}"
            );
        }
    }

    fn start_and_wait(self) -> io::Result<(ExitStatus, String, bool)> {
        let exe = std::env::current_exe().expect("the test binary has a path");
        let mut command = match self.under.split_first() {
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(&exe);
                command
            }
            None => Command::new(&exe),
        };
        command
            .args(["--exact", self.name, "--nocapture", "--test-threads=1"])
            .env(VARIABLE, self.name)
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        process::prepare_child(&mut command, self.files, self.memlock, self.uid);
        let mut child = command.spawn()?;
        let group = child.id();
        let (tell, told) = mpsc::channel();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        for mut pipe in pipes {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut text = Vec::new();
                // What was read before an error is still worth showing.
                let _ = pipe.read_to_end(&mut text);
                let _ = tell.send(String::from_utf8_lossy(&text).into_owned());
            });
        }
        drop(tell);
        let deadline = Instant::now() + self.limit * slowness();
        let mut late = false;
        let status = loop {
            match child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > deadline && !late => {
                    late = true;
                    process::kill_group(group);
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        // Nothing that it started may outlive it, nor hold the pipes open.
        process::kill_group(group);
        Ok((status, told.into_iter().collect(), late))
    }
}
