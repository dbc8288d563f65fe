//! The processes of a run: started, watched, and ended whatever happens.
//!
//! Owns the waits, each of which has an end and hears of Ctrl-C, and the last lines that a process
//! printed: they are what is told when it fails. A child that is dropped is killed. Owns too that no child is
//! given settings by the terminal's environment.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::peers::place::MASK;
use crate::sys::process;

/// Why there are no figures of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The contender's failure, in words.
    Failed(String),
    /// Ctrl-C.
    Interrupted,
}

/// A child and what it prints.
#[derive(Debug)]
pub struct Running {
    child: Child,
    tail: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
    stdout: Arc<Mutex<String>>,
    what: String,
}

/// Lines kept of what a child prints.
const TAIL: usize = 6;

/// Bytes kept of a child's stdout: a report, not a flood.
const STDOUT_MAX: usize = 16 << 20;

/// How often a wait looks around. A look costs some µs of a core that is measured.
const LOOK: Duration = Duration::from_millis(20);

/// How long a process may take to end once it was asked to.
const ENDING: Duration = Duration::from_secs(5);

impl Running {
    /// Starts a process of which only the end, and what it prints, is of interest.
    pub fn start(command: &mut Command, what: &str) -> Result<Running, Trouble> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::spawn(command, what)?;
        if let Some(mut pipe) = running.child.stdout.take() {
            let kept = running.stdout.clone();
            running.readers.push(thread::spawn(move || {
                let mut text = String::new();
                let mut limited = (&mut pipe).take(STDOUT_MAX as u64);
                let _ = limited.read_to_string(&mut text);
                *lock(&kept) = text;
                let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            }));
        }
        if let Some(pipe) = running.child.stderr.take() {
            let tail = running.tail.clone();
            running
                .readers
                .push(thread::spawn(move || keep_lines(BufReader::new(pipe), &tail, |_| ())));
        }
        Ok(running)
    }

    /// Starts a server, and waits until it tells on which port of loopback it listens.
    pub fn server(
        command: &mut Command,
        within: Duration,
    ) -> Result<(Running, SocketAddr), Trouble> {
        // Some tell it on stdout, some on stderr: both go into one pipe.
        let (read, write) = std::io::pipe().map_err(|e| Trouble::Failed(format!("pipe: {e}")))?;
        let both = write.try_clone().map_err(|e| Trouble::Failed(format!("pipe: {e}")))?;
        command.stdin(Stdio::null()).stdout(write).stderr(both);
        let started = Running::spawn(command, "server");
        // The parent's ends of the pipe have to go, or it never ends.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = started?;
        let addr = running.address(read, within)?;
        Ok((running, addr))
    }

    fn spawn(command: &mut Command, what: &str) -> Result<Running, Trouble> {
        process::tie_to_parent(command);
        without_settings(command, std::env::vars_os().map(|(name, _)| name));
        // What a panic says is among its last lines then, and not a page above them.
        command.env("RUST_BACKTRACE", "0");
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(|e| Trouble::Failed(format!("{program} did not start: {e}")))?;
        Ok(Running {
            child,
            tail: Arc::default(),
            readers: Vec::new(),
            stdout: Arc::default(),
            what: what.to_owned(),
        })
    }

    fn address(&mut self, pipe: PipeReader, within: Duration) -> Result<SocketAddr, Trouble> {
        let (tell, told) = channel();
        let tail = self.tail.clone();
        self.readers.push(thread::spawn(move || {
            keep_lines(BufReader::new(pipe), &tail, |line| {
                if let Some(addr) = address_in(line) {
                    let _ = tell.send(addr);
                }
            });
        }));
        self.wait_for_address(&told, within)
    }

    fn wait_for_address(
        &mut self,
        told: &Receiver<SocketAddr>,
        within: Duration,
    ) -> Result<SocketAddr, Trouble> {
        let deadline = Instant::now() + within;
        loop {
            match told.recv_timeout(LOOK) {
                Ok(addr) => return Ok(addr),
                Err(RecvTimeoutError::Timeout) if process::stop_requested() => {
                    return Err(Trouble::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("told no address within {within:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let how = self.child.wait().map(how_ended).unwrap_or_else(|e| e.to_string());
                    return Err(self.failure(&format!("{how} before it told an address")));
                }
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; `look` is called now and then, while it runs.
    pub fn wait(
        &mut self,
        within: Duration,
        mut look: impl FnMut(),
    ) -> Result<ExitStatus, Trouble> {
        let deadline = Instant::now() + within;
        loop {
            look();
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.readers.drain(..).for_each(|reader| drop(reader.join()));
                    return Ok(status);
                }
                Ok(None) if process::stop_requested() => return Err(Trouble::Interrupted),
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                Ok(None) => return Err(self.failure(&format!("did not end within {within:?}"))),
                Err(error) => return Err(self.failure(&error.to_string())),
            }
        }
    }

    /// What it printed on stdout, once it has ended.
    pub fn stdout(&self) -> String {
        lock(&self.stdout).clone()
    }

    /// A failure with the status, if it ended, and the last lines that it printed.
    pub fn failure(&self, words: &str) -> Trouble {
        let tail = lock(&self.tail);
        let lines: Vec<&str> = tail.iter().map(String::as_str).collect();
        let said =
            if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) };
        Trouble::Failed(format!("the {} {words}{said}", self.what))
    }

    /// Ends a server that should still be there; an error if it was not.
    pub fn stop(mut self) -> Result<(), Trouble> {
        if let Ok(Some(status)) = self.child.try_wait() {
            self.readers.drain(..).for_each(|reader| drop(reader.join()));
            return Err(self.failure(&format!("{} during the run", how_ended(status))));
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        process::terminate(self.child.id());
        let deadline = Instant::now() + ENDING;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It may have ended meanwhile: then there is nothing to kill.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// `ended with exit status: 3`.
pub fn how_ended(status: ExitStatus) -> String {
    format!("ended with {status}")
}

/// The first address of loopback in a line, with a port that is one.
pub(super) fn address_in(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let end = line[at + 10..].find(|c: char| !c.is_ascii_digit()).map(|n| at + 10 + n);
    let addr: SocketAddr = line[at..end.unwrap_or(line.len())].parse().ok()?;
    (addr.port() != 0).then_some(addr)
}

fn keep_lines(pipe: impl BufRead, tail: &Mutex<VecDeque<String>>, mut see: impl FnMut(&str)) {
    for line in pipe.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        see(&line);
        if line.is_empty() {
            continue;
        }
        let mut tail = lock(tail);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.chars().take(300).collect());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is under these locks is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes settings that the terminal's environment has away from a command: they would be part of "the
/// defaults", of ours and of nobody else. All that has their prefix goes, whatever it names, since a core's
/// own (`CORELOOP_CORE_0_SPIN`) are as many as there are cores. A mask stays: it says what the kernel shall
/// be taken for, and [`mask_note`](crate::peers::place::mask_note) tells of it.
fn without_settings(command: &mut Command, names: impl Iterator<Item = OsString>) {
    let settings = names.filter(|name| {
        name.as_encoded_bytes().starts_with(b"CORELOOP_") && name.as_os_str() != MASK
    });
    for name in settings {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn words(trouble: Trouble) -> String {
        match trouble {
            Trouble::Failed(words) => words,
            Trouble::Interrupted => panic!("nobody interrupted"),
        }
    }

    #[test]
    fn addresses_are_found_in_what_servers_say() {
        let found = |line| address_in(line).map(|addr| addr.port());
        assert_eq!(found("listening on 127.0.0.1:4711"), Some(4711));
        assert_eq!(found("  listening  127.0.0.1:7000 on core 0; Ctrl-C ends it"), Some(7000));
        assert_eq!(found("{\"addr\":\"127.0.0.1:81\"}"), Some(81));
        assert_eq!(found("binding 127.0.0.1:0"), None);
        assert_eq!(found("no address"), None);
    }

    #[test]
    fn a_server_tells_its_address_and_is_ended() {
        let mut command = shell("echo listening on 127.0.0.1:9 >&2; exec sleep 60");
        let (running, addr) = Running::server(&mut command, SOON).unwrap();
        assert_eq!(addr.port(), 9);
        let began = Instant::now();
        running.stop().unwrap();
        assert!(began.elapsed() < SOON);
    }

    #[test]
    fn a_server_that_ends_is_told_with_its_last_words_and_status() {
        let mut command = shell("echo one; echo no ring for you >&2; exit 7");
        let error = words(Running::server(&mut command, SOON).unwrap_err());
        assert!(error.contains("no ring for you") && error.contains("exit status: 7"), "{error}");
    }

    #[test]
    fn a_process_that_does_not_end_is_told_and_killed() {
        let mut running = Running::start(&mut shell("exec sleep 60"), "work").unwrap();
        let error = words(running.wait(Duration::from_millis(100), || ()).unwrap_err());
        assert!(error.contains("the work did not end within"), "{error}");
        let pid = running.pid();
        drop(running);
        assert!(!std::path::Path::new(&format!("/proc/{pid}/stat")).exists());
    }

    #[test]
    fn what_a_process_prints_is_kept_apart() {
        let mut running =
            Running::start(&mut shell("echo out; echo err >&2; exit 3"), "work").unwrap();
        let status = running.wait(SOON, || ()).unwrap();
        assert_eq!((status.code(), running.stdout()), (Some(3), "out\n".into()));
        let error = words(running.failure(&how_ended(status)));
        assert_eq!(error, "the work ended with exit status: 3: err");
    }

    #[test]
    fn settings_of_the_environment_are_kept_from_a_child() {
        let names =
            ["CORELOOP_SPIN", "CORELOOP_CORE_0_SPIN", "CORELOOP_DEBUG", "CORELOOP_NONESUCH"];
        let others = ["CORELOOP_MASK", "CORELOOPS", "PATH", "SPIN"];
        let mut command = shell("true");
        without_settings(&mut command, names.iter().chain(&others).map(OsString::from));
        let mut removed: Vec<_> = command.get_envs().collect();
        removed.sort_by_key(|(name, _)| names.iter().position(|n| name == n));
        assert!(
            removed
                .iter()
                .map(|(name, to)| (name.to_str().unwrap(), *to))
                .eq(names.map(|n| (n, None)))
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = words(Running::start(&mut Command::new("/nonexistent/x"), "work").unwrap_err());
        assert!(error.contains("/nonexistent/x did not start"), "{error}");
    }
}
