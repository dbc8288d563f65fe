//! Runs cases in processes of their own, with a limit, and makes words of how each ended.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cases::Case;
use crate::peers::Entry;

/// How a case ended with a runtime.
pub struct Outcome {
    /// For the table.
    pub text: String,
    /// Whether what must hold does; nothing is said of what can't be done.
    pub holds: Option<bool>,
}

/// A runtime's panic, a signal, or no end within this time is a result like others.
pub fn run(peer: &Entry, case: Case, limit: Duration) -> io::Result<Outcome> {
    if let Some(why) = peer.why_not(case) {
        return Ok(Outcome { text: format!("- ({why})"), holds: None });
    }
    let mut command = command(case)?;
    command.args(["cell", peer.name, case.name()]).env_remove("RUST_BACKTRACE");
    // A group of its own: strace and what it traces are killed together.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut out = child.stdout.take().expect("a pipe");
    let mut err = child.stderr.take().expect("a pipe");
    let told = thread::spawn(move || {
        let mut text = String::new();
        _ = out.read_to_string(&mut text);
        text
    });
    // A loop of errors may write without end: the beginning is enough, the rest is let go.
    let cried = thread::spawn(move || {
        let mut text = Vec::new();
        _ = err.by_ref().take(64 << 10).read_to_end(&mut text);
        _ = io::copy(&mut err, &mut io::sink());
        String::from_utf8_lossy(&text).into_owned()
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begin.elapsed() > limit {
            // SAFETY: no memory is passed; the group is the child's, which has not been waited for.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let (told, cried) = (told.join().unwrap_or_default(), cried.join().unwrap_or_default());
    let Some(status) = status else {
        return Ok(Outcome { text: format!("hangs ({} s)", limit.as_secs()), holds: Some(false) });
    };
    if let Some(seen) =
        told.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok())
    {
        let text = seen["text"].as_str().unwrap_or_default().to_owned();
        return Ok(Outcome { text, holds: seen["holds"].as_bool() });
    }
    let text = match status.signal().or(status.code().filter(|c| *c > 128).map(|c| c - 128)) {
        Some(libc::SIGABRT) => format!("aborts: {}", reason(&cried)),
        Some(libc::SIGSEGV) => "dies by SIGSEGV".to_owned(),
        Some(signal) => format!("dies by signal {signal}"),
        None => format!("fails: {}", reason(&cried)),
    };
    Ok(Outcome { text, holds: Some(false) })
}

/// What a program says when it ends itself: a panic's message, or its last line.
fn reason(cried: &str) -> String {
    let mut lines = cried.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let line =
        lines.next().or_else(|| cried.lines().rfind(|line| !line.is_empty())).unwrap_or("no word");
    line.chars().take(120).collect()
}

/// The program itself, under strace where the kernel's answers are to be changed.
fn command(case: Case) -> io::Result<Command> {
    let program = std::env::current_exe()?;
    let inject = match case {
        Case::EnterEnomem => "io_uring_enter:error=ENOMEM:when=40",
        Case::EnterEagain => "io_uring_enter:error=EAGAIN:when=3+3",
        _ => return Ok(Command::new(program)),
    };
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e"]);
    command.arg(format!("inject={inject}")).arg(program);
    Ok(command)
}

/// What is printed by a case's own process.
pub fn tell(text: &str, holds: bool) {
    println!("{}", json!({ "text": text, "holds": holds }));
}

/// Where it was run.
pub fn machine() -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({
        "linux": read("/proc/sys/kernel/osrelease"),
        "unix_seconds": now.map_or(0, |now| now.as_secs()),
        "cpus": thread::available_parallelism().map_or(0, usize::from),
    })
}
