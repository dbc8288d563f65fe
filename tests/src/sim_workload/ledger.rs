//! The book about a simulation: what was begun, and what must come of it.
//!
//! Owns [`Ledger`]. It knows of every guard whether it lives, of every line and direction which frames were
//! begun and which of them may have been lost with their writer, and which errors may come. What
//! contradicts it is a finding. Shared by all cores of a simulation, which are on one thread; so the lock
//! is never waited for, and random numbers drawn here are the same for the same seed.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::sim::Call;
use coreloop::time::{Instant, sleep, timeout};

use crate::drive::Rng;

/// One of a line's directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

pub(super) struct Ledger {
    state: Mutex<State>,
    /// Whether calls answer with errors that are drawn.
    errors: bool,
    /// Whether connections may be gone without a word.
    pub(super) chaos: bool,
}

struct State {
    rng: Rng,
    findings: Vec<String>,
    guards: u64,
    alive: BTreeSet<u64>,
    lines: Vec<Line>,
    servers: Vec<IpAddr>,
    frames: u64,
}

#[derive(Default)]
struct Line {
    /// Somebody let go of it, or met an error: the other end may meet one.
    broken: bool,
    /// A server has read from it.
    taken: bool,
    ways: [Sent; 2],
}

#[derive(Default)]
struct Sent {
    begun: u32,
    /// Frames whose write was dropped: all or nothing of each is sent.
    doubtful: BTreeSet<u32>,
}

/// Findings that are kept.
const FINDINGS_MAX: usize = 20;

impl Ledger {
    pub(super) fn new(seed: u64, errors: bool, chaos: bool) -> Arc<Self> {
        let state = State {
            rng: Rng::new(seed ^ 0xB00C),
            findings: Vec::new(),
            guards: 0,
            alive: BTreeSet::new(),
            lines: Vec::new(),
            servers: Vec::new(),
            frames: 0,
        };
        Arc::new(Self { state: Mutex::new(state), errors, chaos })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with the book in its hand")
    }

    pub(super) fn below(&self, n: u64) -> u64 {
        self.lock().rng.below(n)
    }

    /// True so many times in a hundred.
    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Up to so long, shorter ones more often.
    pub(super) fn micros(&self, most: u64) -> Duration {
        let most = 1 + self.below(most.max(1));
        Duration::from_micros(self.below(most))
    }

    pub(super) fn found(&self, what: String) {
        let findings = &mut self.lock().findings;
        if findings.len() < FINDINGS_MAX {
            findings.push(what);
        }
    }

    pub(super) fn findings(&self) -> Vec<String> {
        self.lock().findings.clone()
    }

    /// What should have been dropped by now.
    pub(super) fn left_over(&self) -> Option<String> {
        let alive = self.lock().alive.len();
        (alive > 0).then(|| format!("{alive} futures, buffers or operations were never dropped"))
    }

    pub(super) fn totals(&self) -> (u32, u64) {
        let state = self.lock();
        (state.lines.len() as u32, state.frames)
    }

    pub(super) fn add_server(&self, addr: IpAddr) {
        self.lock().servers.push(addr);
    }

    pub(super) fn some_server(&self) -> IpAddr {
        let n = self.lock().servers.len() as u64;
        let at = self.below(n) as usize;
        self.lock().servers[at]
    }

    /// Something that must be dropped exactly once.
    pub(super) fn guard(self: &Arc<Self>) -> Guard {
        let mut state = self.lock();
        state.guards += 1;
        let id = state.guards;
        state.alive.insert(id);
        Guard { ledger: self.clone(), id }
    }

    /// A new line; its number.
    pub(super) fn line(&self) -> u32 {
        let mut state = self.lock();
        state.lines.push(Line::default());
        state.lines.len() as u32 - 1
    }

    /// A frame is about to be written; its number.
    pub(super) fn begin_frame(&self, line: u32, way: Way) -> u32 {
        let mut state = self.lock();
        let sent = &mut state.lines[line as usize].ways[way as usize];
        sent.begun += 1;
        sent.begun - 1
    }

    /// Its write was dropped.
    pub(super) fn doubt(&self, line: u32, way: Way, number: u32) {
        self.lock().lines[line as usize].ways[way as usize].doubtful.insert(number);
    }

    /// It was written after all.
    pub(super) fn settle(&self, line: u32, way: Way, number: u32) {
        self.lock().lines[line as usize].ways[way as usize].doubtful.remove(&number);
    }

    /// Frame `number` came where `next` was expected: whether those between may be missing.
    pub(super) fn may_skip(&self, line: u32, way: Way, next: u32, number: u32) -> bool {
        let state = self.lock();
        let sent = &state.lines[line as usize].ways[way as usize];
        number < sent.begun && (next..number).all(|n| sent.doubtful.contains(&n))
    }

    /// The stream ended in order, and `next` was expected: whether the rest may be missing.
    pub(super) fn may_end(&self, line: u32, way: Way, next: u32) -> bool {
        let state = self.lock();
        let line = &state.lines[line as usize];
        let sent = &line.ways[way as usize];
        line.broken || self.chaos || (next..sent.begun).all(|n| sent.doubtful.contains(&n))
    }

    pub(super) fn knows_line(&self, line: u32) -> bool {
        (line as usize) < self.lock().lines.len()
    }

    pub(super) fn frame_came(&self) {
        self.lock().frames += 1;
    }

    pub(super) fn take(&self, line: u32) {
        self.lock().lines[line as usize].taken = true;
    }

    pub(super) fn break_off(&self, line: u32) {
        self.lock().lines[line as usize].broken = true;
    }

    /// Whether something other than an orderly end may come of a line.
    pub(super) fn may_fail(&self, line: u32) -> bool {
        let line = &self.lock().lines[line as usize];
        self.errors || self.chaos || line.broken || !line.taken
    }

    /// Whether one of these calls may answer so: with what comes about by itself, or with one of the errors
    /// that are drawn, unless the sockets deal with it.
    pub(super) fn may_answer(&self, e: &io::Error, calls: &[Call]) -> bool {
        let Some(errno) = e.raw_os_error() else { return false };
        let may = |call: &Call| {
            call.own_errnos().contains(&errno) || self.errors && call.errnos().contains(&errno)
        };
        calls.iter().any(|call| may(call) && !is_dealt_with(*call, errno))
    }

    /// An error on a line: it may come only of what somebody did or the network does.
    pub(super) fn failed(&self, line: Option<u32>, e: &io::Error, what: &str, calls: &[Call]) {
        let may = line.is_none_or(|line| self.may_fail(line));
        if !may || !self.may_answer(e, calls) {
            self.found(format!("{what}, line {line:?}: {e:?}"));
        }
        if let Some(line) = line {
            self.break_off(line);
        }
    }

    /// Sleeps, and looks at the clock afterwards.
    pub(super) async fn sleep(&self, d: Duration) {
        let began = Instant::now();
        sleep(d).await;
        self.not_early("a sleep", began, d);
    }

    /// The future's value, or none if it was dropped after `d`.
    pub(super) async fn limit<F: Future>(&self, d: Duration, future: F) -> Option<F::Output> {
        let began = Instant::now();
        let ended = if self.chance(50) {
            timeout(d, future).await.ok()
        } else {
            match race(future, sleep(d)).await {
                Either::First(value) => Some(value),
                Either::Second(()) => None,
            }
        };
        if ended.is_none() {
            self.not_early("a limit", began, d);
        }
        ended
    }

    pub(super) fn not_early(&self, what: &str, began: Instant, d: Duration) {
        if began.elapsed() < d {
            self.found(format!("{what} of {d:?} was over after {:?}", began.elapsed()));
        }
    }
}

/// The calls of a connection: what one direction meets may be told to the other.
pub(super) const STREAM: &[Call] = &[Call::Receive, Call::Send];

/// Errors that listeners and streams deal with by themselves, so that nobody is told.
fn is_dealt_with(call: Call, errno: i32) -> bool {
    match call {
        Call::Receive | Call::Send => errno == libc::EINTR,
        Call::Accept => !matches!(
            errno,
            libc::ENOSR | libc::ESOCKTNOSUPPORT | libc::EPROTONOSUPPORT | libc::ETIMEDOUT
        ),
        _ => false,
    }
}

/// Must be dropped exactly once.
pub(super) struct Guard {
    ledger: Arc<Ledger>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ledger.lock().alive.remove(&self.id) {
            self.ledger.found(format!("guard {} was dropped twice", self.id));
        }
    }
}

/// An end of a line: if it is dropped before its end in order, the line is broken off.
pub(super) struct Hold {
    ledger: Arc<Ledger>,
    line: u32,
    ended: bool,
    _guard: Guard,
}

impl Hold {
    pub(super) fn new(ledger: &Arc<Ledger>, line: u32) -> Self {
        Self { ledger: ledger.clone(), line, ended: false, _guard: ledger.guard() }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.break_off(self.line);
        }
    }
}
