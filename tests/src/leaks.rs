//! Descriptors that a test leaves open, seen from outside.
//!
//! Owns [`run`] (one test in a process of its own, watched up to its very end) and [`sweep`] (all tests of
//! all binaries). The kernel stops the process when its main thread exits, with everything still open
//! (`PTRACE_EVENT_EXIT`); what is open then and was not when it began is a leak. Nothing needs to be linked
//! into a test or called by it, so none can be forgotten. A test that would run its body in a child of its own
//! runs it in the watched process instead, unless it needs what only the child gets (another user, strace).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::child;

/// A test that takes longer is killed: some take minutes in a debug build on a machine with other work.
const LIMIT: Duration = Duration::from_secs(900);

/// What became of one test.
#[derive(Debug)]
pub struct Watched {
    /// How the process ended.
    pub status: ExitStatus,
    /// Each descriptor that was open at its end and not at its start, with what it names.
    pub left: Vec<String>,
    /// What it printed.
    pub output: String,
}

/// Runs one test of a binary and looks at its descriptors when it ends.
///
/// # Errors
/// If the binary can't be started, or may not be traced.
pub fn run(binary: &Path, test: &str, env: Env<'_>) -> io::Result<Watched> {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), binary, test, env)
}

/// As [`run`], in the folder of another package.
fn run_in(folder: &Path, binary: &Path, test: &str, env: Env<'_>) -> io::Result<Watched> {
    let watched = watch(folder, binary, test, Some(test), env)?;
    // It may need what its own child is started with.
    if watched.status.success() { Ok(watched) } else { watch(folder, binary, test, None, env) }
}

/// Variables to set or, without a value, to leave out.
pub type Env<'a> = &'a [(&'a str, Option<&'a Path>)];

fn watch(
    folder: &Path,
    binary: &Path,
    test: &str,
    child_of: Option<&str>,
    env: Env<'_>,
) -> io::Result<Watched> {
    let mut command = Command::new(binary);
    for (name, value) in env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        // As cargo runs them: some read files beside their sources.
        .current_dir(folder)
        .env("CARGO_MANIFEST_DIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match child_of {
        Some(name) => command.env(child::VARIABLE, name),
        None => command.env_remove(child::VARIABLE),
    };
    if cfg!(asan) {
        command.env("ASAN_OPTIONS", child::asan_options(child::UNTRACED));
    }
    crate::process::prepare_child(&mut command, None, None, None);
    // SAFETY: the closure makes one system call; it neither allocates nor takes locks.
    unsafe { command.pre_exec(trace_me) };
    let mut child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    let readers = pipes.map(|mut pipe| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let (done, over) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            crate::process::kill(pid, libc::SIGKILL);
        }
    });
    let followed = follow(pid);
    drop(done);
    watchdog.join().expect("it does not panic");
    let (status, left) = followed?;
    let output = readers.map(|r| r.join().unwrap_or_default()).concat();
    Ok(Watched { status, left, output })
}

/// Takes the process through its stops to its end.
fn follow(pid: libc::pid_t) -> io::Result<(ExitStatus, Vec<String>)> {
    let mut at_start: Option<BTreeMap<i32, String>> = None;
    let mut left = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: a live integer that the call fills.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } != pid {
            return Err(io::Error::last_os_error());
        }
        if !libc::WIFSTOPPED(status) {
            return Ok((ExitStatus::from_raw(status), left));
        }
        let mut signal = libc::WSTOPSIG(status);
        if status >> 16 == libc::PTRACE_EVENT_EXIT {
            let before = at_start.take().unwrap_or_default();
            let more = open_of(pid)?.into_iter().filter(|(fd, _)| !before.contains_key(fd));
            left = more.map(|(fd, what)| format!("{fd} -> {what}")).collect();
            signal = 0;
        } else if status >> 16 != 0 {
            signal = 0;
        } else if signal == libc::SIGTRAP && at_start.is_none() {
            // The stop at the start of the program.
            at_start = Some(open_of(pid)?);
            let options = libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
            ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize)?;
            signal = 0;
        }
        ptrace(libc::PTRACE_CONT, pid, signal as usize)?;
    }
}

fn open_of(pid: libc::pid_t) -> io::Result<BTreeMap<i32, String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let open = entries.filter_map(|entry| {
        let fd = entry.file_name().to_str()?.parse().ok()?;
        Some((fd, fs::read_link(entry.path()).ok()?.display().to_string()))
    });
    Ok(open.collect())
}

fn trace_me() -> io::Result<()> {
    ptrace(libc::PTRACE_TRACEME, 0, 0)
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: these requests read integers alone, and no memory of ours.
    let rc = unsafe { libc::ptrace(request, pid, std::ptr::null_mut::<libc::c_void>(), data) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A test binary, by what cargo calls it, and the names of its tests.
#[derive(Debug)]
pub struct Binary {
    /// Of its file, `cancel_recv`, or of what the tests stand in, `coreloop_net`.
    pub name: String,
    /// Its package's.
    pub folder: PathBuf,
    /// Where it is.
    pub path: PathBuf,
    /// Its tests.
    pub tests: Vec<String>,
}

/// The test binaries of the workspace, built if need be: those of `tests/tests`, and of each library and
/// program those that stand beside what they test. Doctests are not among them.
///
/// # Errors
/// If they can't be built or asked.
pub fn binaries() -> io::Result<Vec<Binary>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--workspace", "--lib", "--bins", "--tests"])
        .args(["--no-run", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err(io::Error::other("the tests can't be built"));
    }
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let mut all = Vec::new();
    for line in text.lines() {
        // Of a target it also says whether that can be tested; of the profile, whether this is its test.
        let Some((_, profile)) = line.split_once("\"profile\":{") else { continue };
        let is_test = profile.split('}').next().is_some_and(|p| p.contains("\"test\":true"));
        let (true, Some(name), Some(path), Some(manifest)) =
            (is_test, field(line, "name"), field(line, "executable"), field(line, "manifest_path"))
        else {
            continue;
        };
        let folder = Path::new(&manifest).parent().unwrap_or(Path::new("/")).to_owned();
        let listed = Command::new(&path)
            .args(["--list", "--format", "terse"])
            .current_dir(&folder)
            .output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let tests = listed.lines().filter_map(|l| l.strip_suffix(": test"));
        let tests = tests.map(str::to_owned).collect();
        all.push(Binary { name, folder, path: path.into(), tests });
    }
    Ok(all)
}

/// The text of a field in one of cargo's lines, none of whose own have quotes in them.
fn field(line: &str, name: &str) -> Option<String> {
    let start = format!("\"{name}\":\"");
    // The target's name comes after the package's.
    let at = line.rfind(&start)? + start.len();
    line[at..].split('"').next().map(str::to_owned)
}

/// Tests that leave descriptors open on purpose, and why.
pub const ON_PURPOSE: [(&str, &str); 14] = [
    ("cancel_forgotten_futures_leak_what_their_ops_hold_and_nothing_else", FORGETS),
    ("cancel_forgotten_read_goes_before_the_next", FORGETS),
    ("cancel_forgotten_write_goes_before_the_next", FORGETS),
    ("t10_waits_for_buffers_and_for_earlier_operations_are_told", FORGETS),
    ("t8_a_listening_operation_dropped_while_it_ends_loses_nothing", FORGETS),
    ("cancel_op_grace_of_zero_leaks_what_it_must_and_says_so", NO_GRACE),
    ("reentry_after_a_leak_keys_name_one_op", NO_GRACE),
    ("reentry_of_a_clone_that_ends_the_loop_of_its_op", NESTED),
    ("reentry_of_a_descriptor_that_ends_the_loop_as_its_op_is_made", NESTED),
    ("reentry_of_hooks_and_payloads_that_do_everything", NESTED),
    ("fault_emfile_keeps_other_connections_going", FILLS),
    ("fault_emfile_on_accept_for_2_seconds", FILLS),
    ("fault_emfile_on_accept_for_2_seconds_single_shot", FILLS),
    ("fault_descriptors_out_at_start", FILLS),
];

const FORGETS: &str = "forgets a future, which keeps its op and socket for good";
const NO_GRACE: &str = "ends a loop whose ops may not be waited for";
const NESTED: &str = "ends the loop within the making or polling of an op, or forgets ops in hooks";
const FILLS: &str = "uses up descriptor numbers by opening /dev/null";

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Tests that were run.
    pub run: usize,
    /// Failures and leaks, each in words.
    pub bad: Vec<String>,
}

/// Runs every test whose binary's or own name contains `filter`, some at a time.
///
/// # Errors
/// As [`binaries`].
pub fn sweep(filter: &str, at_a_time: usize) -> io::Result<Swept> {
    let all = binaries()?;
    let wanted: Vec<(&Binary, &String)> = all
        .iter()
        .flat_map(|binary| binary.tests.iter().map(move |test| (binary, test)))
        .filter(|(binary, test)| binary.name.contains(filter) || test.contains(filter))
        .collect();
    let (next, swept) = (AtomicUsize::new(0), Mutex::new(Swept::default()));
    thread::scope(|scope| {
        for _ in 0..at_a_time.max(1) {
            scope.spawn(|| {
                while let Some((binary, test)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = judge(run_in(&binary.folder, &binary.path, test, &[]), test);
                    let mut swept = swept.lock().expect("nobody panics with it");
                    swept.run += 1;
                    if let Err(why) = found {
                        println!("BAD {}::{test}: {why}", binary.name);
                        swept.bad.push(format!("{}::{test}: {why}", binary.name));
                    }
                }
            });
        }
    });
    Ok(swept.into_inner().expect("nobody panics with it"))
}

fn judge(watched: io::Result<Watched>, test: &str) -> Result<(), String> {
    let watched = watched.map_err(|e| e.to_string())?;
    if !watched.status.success() {
        return Err(format!("{}\n{}", watched.status, watched.output));
    }
    let on_purpose = ON_PURPOSE.iter().any(|(name, _)| *name == test);
    match (watched.left.is_empty(), on_purpose) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => Err(format!("left open: {}", watched.left.join(", "))),
        (true, true) => Err("leaves nothing open: it needs no place in ON_PURPOSE".into()),
    }
}
