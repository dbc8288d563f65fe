//! `io_uring_enter(2)`: submissions in, completions out.
//!
//! Owns [`SimRing`] and [`Rings`]: the ops that are in flight, those that can go on (the pending work), and
//! completions that found no room. An op goes through
//! ```text
//! submitted --done at once--> completed
//!     |                          ^
//!     v                          |
//!  Waiting --news--> (Late) --> Queued --run in an enter--+
//!     ^                                                   |
//!     +------------------- not yet after all -------------+
//! ```
//! With DEFER_TASKRUN pending work runs in an enter only; without, also by itself.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::buffers::Group;
use super::check::Mistake;
use super::files::{FileId, OpenFile};
use super::memory::Fault;
use super::net::{Event, ProcessId, SockId};
use super::ops::{Attempt, Going, Op, RawSqe};
use super::ring::Queues;
use super::state::State;
use crate::sys::abi::{RawCqe, opcode, setup, sq_flags};

/// An op of a ring; its number is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpRef {
    pub(super) ring: usize,
    pub(super) op: u64,
}

pub(super) struct SimRing {
    process: ProcessId,
    fd: RawFd,
    pub(super) queues: Rc<Queues>,
    flags: u32,
    /// Whether its kernel knows a limit of a receive that goes on.
    pub(super) recv_limit: bool,
    ops: BTreeMap<u64, Op>,
    /// Ops that can go on, in the order of the news.
    work: VecDeque<u64>,
    /// Ops on eventfds, which tell us nothing by themselves.
    on_events: Vec<u64>,
    backlog: VecDeque<RawCqe>,
    pub(super) groups: BTreeMap<u16, Group>,
    /// The table of files; empty without one.
    pub(super) files: Vec<Option<FileId>>,
    /// Who is told of completions.
    pub(super) notify: Option<OwnedFd>,
    /// A signal has come to its thread since it began its last enter.
    pub(super) interrupted: bool,
}

#[derive(Default)]
pub(super) struct Rings {
    /// The open ones, by number; a number is not used again.
    all: BTreeMap<usize, SimRing>,
    opened: usize,
    made: u64,
    woken_for_nothing: u32,
}

/// Pieces of pending work that one enter runs unless more completions are waited for,
/// `IO_LOCAL_TW_DEFAULT_MAX`.
const WORK_MAX: u32 = 20;

/// More of them, for an enter that waits and has not got what it waits for.
const WORK_MORE_MAX: u32 = 100_000;

/// Cores that wake for nothing each by a chance of its own; more than these share theirs.
const WAKES_OF_MAX: usize = 10;

/// Times that cores wake for nothing until all of them have slept at a time.
const WAKES_MAX: u32 = 1_000;

impl Rings {
    /// The rings of a process's cores.
    pub(super) fn of_process(&self, process: ProcessId) -> Vec<usize> {
        self.all.iter().filter(|(_, ring)| ring.process == process).map(|(at, _)| *at).collect()
    }

    pub(super) fn get(&self, ring: usize) -> Option<&SimRing> {
        self.all.get(&ring)
    }

    pub(super) fn get_mut(&mut self, ring: usize) -> Option<&mut SimRing> {
        self.all.get_mut(&ring)
    }

    /// The ring that a descriptor names.
    pub(super) fn named(&self, fd: RawFd) -> Option<usize> {
        self.all.iter().find(|(_, ring)| ring.fd == fd).map(|(at, _)| *at)
    }

    fn op_mut(&mut self, op: OpRef) -> Option<&mut Op> {
        self.get_mut(op.ring)?.ops.get_mut(&op.op)
    }

    fn take_op(&mut self, op: OpRef) -> Option<Op> {
        self.get_mut(op.ring)?.ops.remove(&op.op)
    }
}

impl SimRing {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether somebody who sleeps in an enter for one completion would be woken.
    pub(super) fn has_news(&self) -> bool {
        self.queues.unread() > 0 || !self.work.is_empty() || !self.backlog.is_empty()
    }

    /// Says that work is pending, or not.
    fn show_work(&self, pending: bool) {
        if self.has(setup::TASKRUN_FLAG) {
            self.queues.set_flag(sq_flags::TASKRUN, pending);
        }
    }

    fn show_backlog(&self) {
        self.queues.set_flag(sq_flags::CQ_OVERFLOW, !self.backlog.is_empty());
    }

    fn signal(&self) {
        if let Some(fd) = &self.notify {
            let one = 1u64;
            // SAFETY: 8 live bytes; the eventfd does not block, and a full one is readable anyway.
            unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }
}

impl State {
    pub(super) fn add_ring(
        &mut self,
        process: ProcessId,
        fd: RawFd,
        queues: Rc<Queues>,
        flags: u32,
        recv_limit: bool,
    ) -> usize {
        let at = self.rings.opened;
        self.rings.opened += 1;
        let ring = SimRing {
            process,
            fd,
            queues,
            flags,
            recv_limit,
            ops: BTreeMap::new(),
            work: VecDeque::new(),
            on_events: Vec::new(),
            backlog: VecDeque::new(),
            groups: BTreeMap::new(),
            files: Vec::new(),
            notify: None,
            interrupted: false,
        };
        self.rings.all.insert(at, ring);
        at
    }

    /// Whether a core that sleeps wakes for nothing, now that it is looked at. Every step of a core looks at
    /// all that sleep: by a chance that is each one's own, many cores keep each other awake for ever, and the
    /// clock never comes to the next event. So more than a few share the chances of those few, and all have
    /// only so many until they have all slept.
    pub(super) fn wakes_for_nothing(&mut self) -> bool {
        let (few, rings) = (WAKES_OF_MAX, self.rings.all.len());
        let drawn = self.rng.chance(self.faults.spurious_wake);
        let wakes = drawn && (rings <= few || self.rng.index(rings) < few);
        self.rings.woken_for_nothing += u32::from(wakes);
        wakes && self.rings.woken_for_nothing <= WAKES_MAX
    }

    /// No core has anything to do.
    pub(super) fn all_sleep(&mut self) {
        self.rings.woken_for_nothing = 0;
    }

    /// The ring's descriptor is closed.
    pub(super) fn close_ring(&mut self, ring: usize) {
        let _ = self.empty_files(ring);
        let Some(closed) = self.rings.all.remove(&ring) else { return };
        let unread = closed.queues.unread() as usize + closed.backlog.len();
        self.note("ring closed", &[ring as i64, closed.ops.len() as i64, unread as i64]);
        if !closed.ops.is_empty() {
            let count = closed.ops.len();
            let names: Vec<_> = closed.ops.values().take(4).map(Op::name).collect();
            self.blame(Mistake::ClosedInFlight, || format!("{count} ops, such as {names:?}"));
        }
        if unread > 0 {
            self.blame(Mistake::ClosedUnread, || format!("{unread} completions"));
        }
        for (id, op) in closed.ops {
            self.end_op(OpRef { ring, op: id }, &op);
        }
        self.settle();
    }

    pub(super) fn open_rings(&self) -> impl Iterator<Item = OpenFile> + '_ {
        let rings = self.rings.all.values();
        rings.map(|ring| OpenFile { host: ring.process.host, what: "ring" })
    }

    /// A queued submission that names a descriptor: its opcode.
    pub(super) fn unsubmitted_on(&self, fd: RawFd) -> Option<u8> {
        let mut written = self.rings.all.values().flat_map(|ring| ring.queues.written());
        let names = |sqe: &RawSqe| !matches!(sqe.opcode, opcode::NOP | opcode::ASYNC_CANCEL);
        written.find(|sqe| sqe.fd == fd && names(sqe)).map(|sqe| sqe.opcode)
    }

    /// Consumes up to `most` submissions; how many there were.
    pub(super) fn submit(&mut self, ring: usize, most: u32) -> u32 {
        let mut consumed = 0;
        while consumed < most {
            let Some(sim) = self.rings.get(ring) else { break };
            let published = sim.queues.published();
            if published == 0 {
                break;
            }
            if published > sim.queues.sq_entries {
                self.blame(Mistake::BadRing, || format!("{published} submissions published"));
                break;
            }
            let stops_at_bad = !sim.has(setup::SUBMIT_ALL);
            let taken = sim.queues.take_submission();
            consumed += 1;
            let Some(sqe) = taken else {
                self.blame(Mistake::BadRing, || "an index beyond the submission queue".into());
                continue;
            };
            let good = self.issue(ring, sqe);
            self.settle();
            if !good && stops_at_bad {
                break;
            }
        }
        consumed
    }

    /// Begins an op; `false` if the submission itself was refused.
    fn issue(&mut self, ring: usize, sqe: RawSqe) -> bool {
        self.rings.made += 1;
        let at = OpRef { ring, op: self.rings.made };
        let user_data = sqe.user_data;
        if sqe.opcode == opcode::ASYNC_CANCEL {
            let result = self.cancel(ring, &sqe);
            self.note("cancel", &[at.op as i64, i64::from(result)]);
            self.post(ring, user_data, result, 0);
            return result != -libc::EINVAL;
        }
        let mut op = match self.prepare(ring, &sqe) {
            Ok(op) => op,
            Err(errno) => {
                self.note("refuse", &[at.op as i64, i64::from(sqe.opcode), i64::from(errno)]);
                self.post(ring, user_data, -errno, 0);
                // EBADF is found out when the op is issued, all else before.
                return errno == libc::EBADF;
            }
        };
        self.check_new(at, &op);
        if let Some(file) = op.file {
            self.hold(file);
        }
        if let Some(sock) = op.sock
            && let Some(socket) = self.socket(sock)
        {
            socket.waiters.push(at);
        }
        self.note("issue", &[at.op as i64, i64::from(sqe.opcode)]);
        if op.is_always_async() || self.rng.chance(self.faults.punted) {
            op.going = Going::Waiting;
            self.keep(at, op);
            self.news(at);
            return true;
        }
        self.go_on(at, op);
        true
    }

    fn check_new(&mut self, at: OpRef, op: &Op) {
        let Some(ring) = self.rings.get(at.ring) else { return };
        if ring.ops.values().any(|other| other.user_data == op.user_data) {
            let user_data = op.user_data;
            self.blame(Mistake::SameUserData, || format!("{user_data:#x}"));
        }
        if op.is_send() {
            self.check_send(op.sock);
        }
    }

    /// Nobody sends on a socket where a send waits.
    pub(super) fn check_send(&mut self, sock: Option<SockId>) {
        let waiters = sock.and_then(|sock| self.net.socks.get(&sock)).map(|s| &s.waiters[..]);
        let sends = |at: &OpRef| self.op(*at).is_some_and(Op::is_send);
        if waiters.unwrap_or_default().iter().any(sends) {
            self.blame(Mistake::TwoSends, || "a send behind one that waits".into());
        }
    }

    fn op(&self, at: OpRef) -> Option<&Op> {
        self.rings.get(at.ring)?.ops.get(&at.op)
    }

    /// Tries an op that is in nobody's books at the moment.
    fn go_on(&mut self, at: OpRef, mut op: Op) {
        self.verify(&op);
        match self.attempt(at, &mut op) {
            Attempt::Done(result, flags) => self.complete(at, &op, result, flags),
            Attempt::Wait => {
                op.going = Going::Waiting;
                self.keep(at, op);
                // What it waits for may have come while it was tried.
                self.tell(at);
            }
        }
    }

    fn keep(&mut self, at: OpRef, op: Op) {
        let Some(ring) = self.rings.get_mut(at.ring) else { return };
        if op.is_on_event() && !ring.on_events.contains(&at.op) {
            ring.on_events.push(at.op);
        }
        ring.ops.insert(at.op, op);
    }

    /// An op's last completion.
    fn complete(&mut self, at: OpRef, op: &Op, result: i32, flags: u32) {
        self.note("complete", &[at.op as i64, i64::from(op.shown(result)), i64::from(flags & 3)]);
        self.verify(op);
        self.end_op(at, op);
        self.post(at.ring, op.user_data, result, flags);
    }

    fn end_op(&mut self, at: OpRef, op: &Op) {
        if let Some(sock) = op.sock
            && let Some(socket) = self.socket(sock)
        {
            socket.waiters.retain(|waiter| *waiter != at);
        }
        if let Some(ring) = self.rings.get_mut(at.ring) {
            ring.on_events.retain(|id| *id != at.op);
        }
        if let Some(file) = op.file {
            self.let_go(file);
        }
    }

    /// Looks whether the memory of an op is as it was handed over.
    fn verify(&mut self, op: &Op) {
        for hold in &op.holds {
            let mistake = match hold.is_untouched() {
                Ok(true) => continue,
                Ok(false) if hold.writes => Mistake::ReceiveTouched,
                Ok(false) => Mistake::SendTouched,
                Err(Fault) => Mistake::MemoryGone,
            };
            let (name, len) = (op.name(), hold.span.len);
            self.blame(mistake, || format!("{len} bytes of a {name}"));
        }
    }

    /// Puts a completion into the queue, or behind others into the backlog: then `false`.
    pub(super) fn post(&mut self, ring: usize, user_data: u64, result: i32, flags: u32) -> bool {
        let forced = self.rng.chance(self.faults.overflowed);
        let Some(sim) = self.rings.get_mut(ring) else { return false };
        let cqe = RawCqe { user_data, res: result, flags };
        let direct = sim.backlog.is_empty() && !forced && sim.queues.complete(cqe);
        if !direct {
            sim.backlog.push_back(cqe);
            sim.show_backlog();
        }
        sim.signal();
        direct
    }

    /// Whether a completion that is posted now may go to the backlog.
    pub(super) fn has_backlog(&self, ring: usize) -> bool {
        let full =
            |sim: &SimRing| !sim.backlog.is_empty() || sim.queues.unread() >= sim.queues.cq_entries;
        self.rings.get(ring).is_none_or(full)
    }

    fn flush_backlog(&mut self, ring: usize) {
        let Some(sim) = self.rings.get_mut(ring) else { return };
        while let Some(cqe) = sim.backlog.front() {
            if !sim.queues.complete(*cqe) {
                break;
            }
            sim.backlog.pop_front();
        }
        sim.show_backlog();
    }

    /// Completions that an enter brings: at least `wanted` if there are so many, more if they are there.
    pub(super) fn bring(&mut self, ring: usize, wanted: u32) {
        self.look_at_events(ring);
        let mut cut = WORK_MAX.max(wanted);
        if self.rng.chance(self.faults.work_cut) {
            cut = self.rng.between(1, u64::from(cut)) as u32;
        }
        self.run_work(ring, cut);
        self.flush_backlog(ring);
        // Each piece is an op that may have to wait again, so the bound is on pieces and not on ops.
        for _ in 0..WORK_MORE_MAX {
            if self.unread(ring) >= wanted || !self.has_work(ring) {
                return;
            }
            self.run_work(ring, 1);
            self.flush_backlog(ring);
        }
    }

    pub(super) fn unread(&self, ring: usize) -> u32 {
        self.rings.get(ring).map_or(0, |ring| ring.queues.unread())
    }

    fn has_work(&self, ring: usize) -> bool {
        self.rings.get(ring).is_some_and(|ring| !ring.work.is_empty())
    }

    /// Runs up to `most` pieces of pending work. Where there is none, the flag that says so stays as it is.
    fn run_work(&mut self, ring: usize, most: u32) {
        if !self.has_work(ring) {
            return;
        }
        for _ in 0..most {
            let Some(id) = self.pick_work(ring) else { break };
            let at = OpRef { ring, op: id };
            let Some(op) = self.rings.take_op(at) else { continue };
            if let Some(errno) = op.cancelled {
                let result = if op.done > 0 { op.done as i32 } else { -errno };
                self.complete(at, &op, result, 0);
            } else {
                self.go_on(at, op);
            }
            self.settle();
        }
        // Whoever queued a piece may put the flag up only now that it has been run.
        let late = self.rng.chance(self.faults.flag_late);
        if let Some(sim) = self.rings.get(ring) {
            sim.show_work(late || !sim.work.is_empty());
        }
    }

    /// The next piece of work: in the order of the news, or in any that keeps one direction of one socket
    /// in order.
    fn pick_work(&mut self, ring: usize) -> Option<u64> {
        let len = self.rings.get(ring)?.work.len();
        if len == 0 {
            return None;
        }
        let mut at = 0;
        if len > 1 && self.rng.chance(self.faults.reordered) {
            at = self.rng.index(len);
        }
        let sim = self.rings.get_mut(ring)?;
        let lane = sim.ops.get(&sim.work[at]).map(Op::lane);
        let first = sim.work.iter().position(|id| sim.ops.get(id).map(Op::lane) == lane);
        sim.work.remove(first.unwrap_or(at))
    }

    /// Work that the kernel runs by itself, since nobody asked it to wait for an enter.
    pub(super) fn run_unasked(&mut self) {
        let mut next = 0;
        while let Some((&ring, sim)) = self.rings.all.range(next..).next() {
            next = ring + 1;
            if sim.work.is_empty() || sim.has(setup::DEFER_TASKRUN) {
                continue;
            }
            // With COOP_TASKRUN it waits for the next time that the thread enters the kernel, for anything.
            let coop = sim.has(setup::COOP_TASKRUN);
            if coop && self.rng.chance(self.faults.late) {
                continue;
            }
            self.run_work(ring, u32::MAX);
        }
    }

    /// News for an op that waits: if it can go on, it will.
    pub(super) fn tell(&mut self, at: OpRef) {
        let Some(op) = self.op(at).filter(|op| op.going == Going::Waiting) else { return };
        if self.can_go_on(op) {
            let woken = self.woken_by(op);
            if let (Some(kind), Some(op)) = (woken, self.rings.op_mut(at)) {
                op.kind = kind;
            }
            self.news(at);
        }
    }

    fn news(&mut self, at: OpRef) {
        if self.rng.chance(self.faults.late) {
            let after = self.rng.between(1, self.faults.late_ns.max(1));
            if let Some(op) = self.rings.op_mut(at) {
                op.going = Going::Late;
            }
            self.clock.at(self.clock.now_ns().saturating_add(after), Event::Late(at));
        } else {
            self.queue(at);
        }
    }

    /// The delayed news of an op arrive.
    pub(super) fn news_arrive(&mut self, at: OpRef) {
        if self.rings.op_mut(at).is_some_and(|op| op.going == Going::Late) {
            self.queue(at);
        }
    }

    fn queue(&mut self, at: OpRef) {
        let Some(sim) = self.rings.get_mut(at.ring) else { return };
        let Some(op) = sim.ops.get_mut(&at.op) else { return };
        if op.going != Going::Queued {
            op.going = Going::Queued;
            sim.work.push_back(at.op);
            // Whoever finds others in the list leaves the flag to them.
            if sim.work.len() == 1 {
                sim.show_work(true);
            }
            sim.signal();
        }
    }

    /// Looks at the eventfds that ops of this ring read or poll.
    pub(super) fn look_at_events(&mut self, ring: usize) {
        let Some(ops) = self.rings.get(ring).map(|sim| sim.on_events.clone()) else { return };
        for op in ops {
            self.tell(OpRef { ring, op });
        }
    }

    /// `IORING_OP_ASYNC_CANCEL` by user data: its result.
    fn cancel(&mut self, ring: usize, sqe: &RawSqe) -> i32 {
        if sqe.op_flags != 0 || sqe.flags != 0 {
            return -libc::EINVAL;
        }
        let Some(sim) = self.rings.get(ring) else { return -libc::ENOENT };
        let found =
            sim.ops.iter().find(|(_, op)| op.user_data == sqe.addr && op.cancelled.is_none());
        let Some((&op, target)) = found else { return -libc::ENOENT };
        let (at, going) = (OpRef { ring, op }, target.going);
        if !self.rng.chance(self.faults.cancel_loses) {
            self.interrupt(at, libc::ECANCELED);
            return 0;
        }
        if going == Going::Waiting {
            // It runs on a worker, which is told to stop, and will.
            let after = self.rng.between(1_000, 5_000_000);
            self.clock.at(self.clock.now_ns().saturating_add(after), Event::Interrupt(at));
            return -libc::EALREADY;
        }
        // What it waited for was there first.
        if let Some(sim) = self.rings.get_mut(ring) {
            sim.work.retain(|id| *id != op);
        }
        if let Some(mut op) = self.rings.take_op(at) {
            op.going = Going::Queued;
            self.go_on(at, op);
        }
        if self.rings.op_mut(at).is_none() {
            return -libc::ENOENT;
        }
        self.interrupt(at, libc::ECANCELED);
        0
    }

    /// Ends an op that is in flight, as soon as its ring looks at its work.
    fn interrupt(&mut self, at: OpRef, errno: i32) {
        if let Some(op) = self.rings.op_mut(at) {
            op.cancelled = Some(errno);
            self.queue(at);
        }
    }

    /// The worker that does an op notices that it was cancelled: before its next call, or by a signal in it.
    pub(super) fn interrupt_worker(&mut self, at: OpRef) {
        let by_signal = self.rings.op_mut(at).is_some_and(|op| op.may_be_interrupted());
        let signal = by_signal && self.rng.chance(5_000);
        self.interrupt(at, if signal { libc::EINTR } else { libc::ECANCELED });
    }
}
