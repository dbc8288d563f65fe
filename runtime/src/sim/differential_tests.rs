//! The simulator against Linux: the same random programs on both, step by step.
//!
//! Owns [`Machine`], which runs a program of submissions over whatever answers to the seam, and the
//! comparison: after every step both must have answered the same ops, with the same results, flags and
//! bytes. Descriptors are masked, and completions of one step are compared as a set: their order is the
//! kernel's to choose. Linux runs on its own loopback; it is given time until it has said as much as the
//! simulator, and none after that.

use std::alloc::{Layout, alloc_zeroed};
use std::fmt::Write;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::check::Mistake;
use super::faults::Faults;
use super::files::set_option;
use super::rng::Rng;
use super::world::World;
use crate::driver::asked::Asked;
use crate::driver::features::FeatureSet;
use crate::driver::ring::Ring;
use crate::driver::setup::{RingConfig, negotiate};
use crate::driver::sqe::{Cqe, Sqe};
use crate::sys::Kernel;
use crate::sys::abi::{BufEntry, BufReg, register};
use crate::sys::linux::Linux;

/// Sockets of one program, at most.
const SLOTS_MAX: usize = 12;
/// Provided buffers, and bytes in each.
const BUFFERS: u16 = 4;
const BUFFER_BYTES: usize = 48;
/// How long Linux may take for what the simulator does at once.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Socket,
    Bind(usize, bool),
    Listen(usize, i32),
    Connect(usize, usize),
    Accept(usize, bool),
    Send(usize, usize, i32),
    SendMany(usize, Vec<usize>),
    Recv(usize, usize, i32),
    RecvSelect(usize),
    Poll(usize, u32),
    ShutdownOp(usize, i32),
    ShutdownCall(usize, Shutdown),
    Linger(usize),
    PeerAddr(usize),
    Cancel(usize),
    Provide,
    Close(usize),
    Wait,
}

/// What a completion says, without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    op: usize,
    result: i32,
    more: bool,
    bytes: Vec<u8>,
    buffer: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Accept,
    Recv,
    Poll,
    Connect,
    Other,
}

struct Flying {
    what: What,
    slot: usize,
    buf: *mut u8,
    ended: bool,
}

struct Machine {
    kernel: Rc<dyn Kernel>,
    ring: Ring,
    slots: Vec<Option<OwnedFd>>,
    addrs: Vec<Option<SocketAddr>>,
    ops: Vec<Flying>,
    answers: Vec<Answer>,
    calls: Vec<i32>,
    entries: *mut BufEntry,
    buffers: *mut u8,
    tail: u16,
    used: Vec<u16>,
    sent: u8,
    /// The socket that the step is about.
    on: usize,
    accepted: bool,
    /// Sockets whose connect has failed, or that were shut down.
    spoiled: Vec<usize>,
}

fn bytes_of(len: usize) -> *mut u8 {
    // SAFETY: a layout with a size above 0. Never freed: a kernel may hold it until the ring is closed,
    // and a program is small.
    unsafe { alloc_zeroed(Layout::from_size_align(len.max(8), 4096).unwrap()) }
}

impl Machine {
    fn new(kernel: Rc<dyn Kernel>) -> Self {
        let config = RingConfig {
            sq_entries: 64,
            cq_entries: 256,
            mask: FeatureSet::none(),
            asked: Asked::default(),
        };
        let (ring, _) = negotiate(&kernel, &config).unwrap();
        let entries = bytes_of(4096).cast::<BufEntry>();
        let mut reg = BufReg {
            ring_addr: entries.addr() as u64,
            ring_entries: u32::from(BUFFERS),
            ..BufReg::default()
        };
        // SAFETY: a live registration; the memory that it names is never freed.
        unsafe { ring.register(register::PBUF_RING, (&raw mut reg).cast(), 1) }.unwrap();
        let mut machine = Self {
            kernel,
            ring,
            slots: Vec::new(),
            addrs: Vec::new(),
            ops: Vec::new(),
            answers: Vec::new(),
            calls: Vec::new(),
            entries,
            buffers: bytes_of(usize::from(BUFFERS) * BUFFER_BYTES),
            tail: 0,
            used: (0..BUFFERS).collect(),
            sent: 0,
            on: usize::MAX,
            accepted: false,
            spoiled: Vec::new(),
        };
        machine.step(&Step::Provide);
        machine
    }

    fn submit(&mut self, what: What, buf: *mut u8, sqe: Sqe) {
        let user_data = self.ops.len() as u64;
        self.ops.push(Flying { what, slot: self.on, buf, ended: false });
        assert!(self.ring.has_room());
        // SAFETY: there is room, and what the submission names is never freed.
        unsafe { self.ring.write(&sqe.with_user_data(user_data)) };
    }

    fn called(&mut self, result: std::io::Result<()>) {
        self.calls.push(result.map_or_else(|e| e.raw_os_error().unwrap(), |()| 0));
    }

    fn step(&mut self, step: &Step) {
        let slot_of = |step: &Step| match *step {
            Step::Bind(s, _) | Step::Listen(s, _) | Step::Connect(s, _) | Step::Accept(s, _) => {
                Some(s)
            }
            Step::Send(s, ..) | Step::SendMany(s, _) | Step::Recv(s, ..) | Step::RecvSelect(s) => {
                Some(s)
            }
            Step::Poll(s, _) | Step::ShutdownOp(s, _) | Step::ShutdownCall(s, _) => Some(s),
            Step::Linger(s) | Step::PeerAddr(s) => Some(s),
            _ => None,
        };
        self.on = slot_of(step).unwrap_or(usize::MAX);
        if matches!(step, Step::ShutdownOp(..) | Step::ShutdownCall(..)) {
            self.spoiled.push(self.on);
        }
        let fd = slot_of(step).and_then(|s| self.slots[s].as_ref()).map(borrowed);
        match step {
            Step::Socket => {
                let fd = self.kernel.stream_socket(libc::AF_INET).unwrap();
                // Nagle's algorithm, which is not modelled, would hold bytes back.
                set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
                self.slots.push(Some(fd));
                self.addrs.push(None);
            }
            Step::Bind(s, known) => {
                let taken = self.addrs.iter().flatten().next().copied();
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let addr = taken.filter(|_| *known).unwrap_or(any);
                let bound = self.kernel.bind(fd.unwrap(), &addr);
                if bound.is_ok() {
                    self.addrs[*s] = Some(self.kernel.local_addr(fd.unwrap()).unwrap());
                }
                self.called(bound);
            }
            Step::Listen(_, backlog) => {
                let result = self.kernel.listen(fd.unwrap(), *backlog);
                self.called(result);
            }
            Step::Connect(_, to) => {
                let SocketAddr::V4(to) = self.addrs[*to].unwrap() else {
                    unreachable!("all are v4")
                };
                let place = bytes_of(16).cast::<libc::sockaddr_in>();
                // SAFETY: 16 zeroed bytes that are aligned for it.
                let addr = unsafe { &mut *place };
                addr.sin_family = libc::AF_INET as u16;
                addr.sin_port = to.port().to_be();
                addr.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
                let sqe = Sqe::connect(fd.unwrap(), place.cast(), 16);
                self.submit(What::Connect, std::ptr::null_mut(), sqe);
            }
            Step::Accept(_, multi) => {
                let cloexec = libc::SOCK_CLOEXEC;
                let fd = fd.unwrap();
                let sqe =
                    if *multi { Sqe::accept_multi(fd, cloexec) } else { Sqe::accept(fd, cloexec) };
                self.submit(What::Accept, std::ptr::null_mut(), sqe);
            }
            Step::Send(_, len, flags) => {
                let buf = self.message(*len);
                let sqe = Sqe::send(fd.unwrap(), buf, *len as u32, flags | libc::MSG_NOSIGNAL);
                self.submit(What::Other, buf, sqe);
            }
            Step::SendMany(_, lens) => {
                let place = bytes_of(16 * lens.len() + 64);
                let vectors = place.cast::<libc::iovec>();
                for (i, len) in lens.iter().enumerate() {
                    let vector = libc::iovec { iov_base: self.message(*len).cast(), iov_len: *len };
                    // SAFETY: `place` has room for all of them, and for the header behind.
                    unsafe { vectors.add(i).write(vector) };
                }
                // SAFETY: as above; all-zero bytes are a valid header.
                let header = unsafe { &mut *place.add(16 * lens.len()).cast::<libc::msghdr>() };
                header.msg_iov = vectors;
                header.msg_iovlen = lens.len();
                let sqe = Sqe::sendmsg(fd.unwrap(), header, libc::MSG_NOSIGNAL);
                self.submit(What::Other, place, sqe);
            }
            Step::Recv(_, len, flags) => {
                let buf = bytes_of(*len);
                self.submit(What::Recv, buf, Sqe::recv(fd.unwrap(), buf, *len as u32, *flags));
            }
            Step::RecvSelect(_) => {
                self.submit(What::Recv, std::ptr::null_mut(), Sqe::recv_select(fd.unwrap(), 0));
            }
            Step::Poll(_, events) => {
                self.submit(What::Poll, std::ptr::null_mut(), Sqe::poll(fd.unwrap(), *events));
            }
            Step::ShutdownOp(_, how) => {
                self.submit(What::Other, std::ptr::null_mut(), Sqe::shutdown(fd.unwrap(), *how));
            }
            Step::ShutdownCall(_, how) => {
                let result = self.kernel.shutdown(fd.unwrap(), *how);
                self.called(result);
            }
            Step::Linger(_) => {
                let result = self.kernel.set_linger(fd.unwrap(), Some(Duration::ZERO));
                self.called(result);
            }
            Step::PeerAddr(_) => {
                let result = self.kernel.peer_addr(fd.unwrap()).map(|_| ());
                self.called(result);
            }
            Step::Cancel(target) => {
                let sqe = Sqe::cancel(*target as u64);
                self.submit(What::Other, std::ptr::null_mut(), sqe);
            }
            Step::Provide => {
                for bid in std::mem::take(&mut self.used) {
                    self.provide(bid);
                }
            }
            Step::Close(s) => drop(self.slots[*s].take()),
            Step::Wait => {}
        }
    }

    /// Bytes that no other message of the program has in the same place.
    fn message(&mut self, len: usize) -> *mut u8 {
        let buf = bytes_of(len);
        self.sent = self.sent.wrapping_add(37);
        for i in 0..len {
            // SAFETY: `buf` has `len` bytes.
            unsafe { buf.add(i).write((i as u8).wrapping_mul(3) ^ self.sent) };
        }
        buf
    }

    fn provide(&mut self, bid: u16) {
        let at = usize::from(self.tail % BUFFERS);
        let addr = self.buffers.wrapping_add(usize::from(bid) * BUFFER_BYTES).addr() as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring has room for `BUFFERS` entries; the tail lies over the first one's `resv`.
        unsafe {
            let entry = self.entries.add(at);
            (&raw mut (*entry).addr).write(addr);
            (&raw mut (*entry).len).write(BUFFER_BYTES as u32);
            (&raw mut (*entry).bid).write(bid);
            AtomicU16::from_ptr(&raw mut (*self.entries).resv).store(self.tail, Ordering::Release);
        }
    }

    /// Enters once and takes what there is.
    fn look(&mut self) {
        self.ring.enter(0, None).unwrap();
        while let Some(raw) = self.ring.pop() {
            let cqe = Cqe::new(raw.res, raw.flags);
            let op = raw.user_data as usize;
            let (what, buf) = (self.ops[op].what, self.ops[op].buf);
            self.ops[op].ended = !cqe.more();
            let mut result = cqe.raw_result();
            let mut bytes = Vec::new();
            if what == What::Accept && result >= 0 {
                // SAFETY: the kernel has just made it for us.
                self.slots.push(Some(unsafe { OwnedFd::from_raw_fd(result) }));
                self.addrs.push(None);
                self.accepted = true;
                result = 0;
            } else if what == What::Connect && result < 0 {
                self.spoiled.push(self.ops[op].slot);
            } else if what == What::Poll && result > 0 {
                // Linux often tells of the one event that woke the poll, and of none beside it.
                result = 1;
            } else if what == What::Recv && result > 0 {
                let from = match cqe.buffer() {
                    Some(bid) => {
                        self.used.push(bid);
                        self.buffers.wrapping_add(usize::from(bid) * BUFFER_BYTES)
                    }
                    None => buf,
                };
                // SAFETY: the kernel has written so many bytes there.
                bytes = unsafe { std::slice::from_raw_parts(from, result as usize) }.to_vec();
            }
            let buffer = cqe.buffer().is_some();
            self.answers.push(Answer { op, result, more: cqe.more(), bytes, buffer });
        }
    }

    /// What has been said since the last time.
    fn take(&mut self) -> (Vec<Answer>, Vec<i32>) {
        let mut answers = std::mem::take(&mut self.answers);
        answers.sort();
        (answers, std::mem::take(&mut self.calls))
    }

    /// Whether an op of this kind is in flight on a socket; of any kind for none.
    fn has(&self, slot: usize, what: Option<What>) -> bool {
        let on = |op: &&Flying| !op.ended && op.slot == slot;
        self.ops.iter().filter(on).any(|op| what.is_none_or(|what| op.what == what))
    }

    /// Whether a step is one of those whose outcome the kernel may choose, or that are not modelled.
    fn is_free_choice(&self, step: &Step) -> bool {
        let connects = |s| self.has(s, Some(What::Connect));
        match *step {
            // Which of several gets it; and whether a poll beside another op is told.
            Step::Recv(s, ..) | Step::RecvSelect(s) => {
                self.has(s, Some(What::Recv)) || self.has(s, Some(What::Poll))
            }
            Step::Accept(s, _) => self.has(s, Some(What::Accept)) || self.has(s, Some(What::Poll)),
            Step::Poll(s, _) => self.has(s, None),
            // Which of several waiting ops is told of the error.
            Step::ShutdownOp(s, _) | Step::ShutdownCall(s, _) => connects(s),
            // A socket that connects to itself, or once more after a failure; one that was shut down
            // before it had a connection.
            Step::Connect(s, to) => {
                let same = self.addrs[s].is_some() && self.addrs[s] == self.addrs[to];
                s == to || same || self.spoiled.contains(&s) || !self.keeps_port(to)
            }
            Step::Listen(s, _) => self.spoiled.contains(&s),
            // TIME_WAIT.
            Step::Bind(_, known) => known && (self.accepted || !self.keeps_port(0)),
            _ => false,
        }
    }

    /// Whether a socket's address is surely its own still: on Linux others may take it otherwise.
    fn keeps_port(&self, slot: usize) -> bool {
        self.slots[slot].is_some() && !self.spoiled.contains(&slot)
    }

    fn in_flight(&self) -> Vec<usize> {
        (0..self.ops.len()).filter(|op| !self.ops[*op].ended).collect()
    }
}

/// A borrow that does not hold the slot, for the length of one step, in which nobody closes it.
fn borrowed(fd: &OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: open as long as the step lasts.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

/// The next step of a program, on what there is.
fn choose(rng: &mut Rng, sim: &Machine) -> Step {
    let open: Vec<usize> = (0..sim.slots.len()).filter(|s| sim.slots[*s].is_some()).collect();
    if open.is_empty() || (sim.slots.len() < SLOTS_MAX && rng.chance(900)) {
        return Step::Socket;
    }
    let slot = rng.pick(&open);
    let bound: Vec<usize> = (0..sim.addrs.len()).filter(|s| sim.addrs[*s].is_some()).collect();
    let flags = rng.pick(&[0, 0, 0, libc::MSG_WAITALL, libc::MSG_DONTWAIT]);
    let len = rng.pick(&[1, 5, 40, 48, 49, 100, 1000]);
    match rng.below(24) {
        0 => Step::Bind(slot, rng.chance(3_000)),
        1 => Step::Listen(slot, rng.pick(&[0, 1, 8])),
        2..=4 if !bound.is_empty() && sim.slots.len() < SLOTS_MAX => {
            Step::Connect(slot, rng.pick(&bound))
        }
        5..=6 if sim.slots.len() < SLOTS_MAX => Step::Accept(slot, rng.chance(5_000)),
        7..=9 => Step::Send(slot, len, flags),
        10 => Step::SendMany(slot, vec![len, 3, 17]),
        11..=13 => Step::Recv(slot, len, flags),
        14..=15 => Step::RecvSelect(slot),
        16 => Step::Poll(slot, rng.pick(&[libc::POLLIN, libc::POLLOUT, libc::POLLRDHUP]) as u32),
        17 => Step::ShutdownOp(slot, rng.pick(&[0, 1, 2])),
        18 => {
            let hows = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
            Step::ShutdownCall(slot, rng.pick(&hows))
        }
        19 if rng.chance(5_000) => Step::Linger(slot),
        19 => Step::PeerAddr(slot),
        20 => match sim.in_flight()[..] {
            [] => Step::Wait,
            ref ops => Step::Cancel(rng.pick(ops)),
        },
        21 => Step::Provide,
        22 => Step::Close(slot),
        _ => Step::Wait,
    }
}

/// Runs the program of one seed on both; what differed, if anything did.
fn compare(seed: u64, steps_max: usize) -> Result<usize, String> {
    let world = World::new(seed, Faults::none());
    let host = world.add_host(Vec::new());
    let mut sim = Machine::new(world.kernel(host));
    let mut real = Machine::new(Rc::new(Linux));
    let mut rng = Rng::new(seed);
    let mut told = String::new();
    let mut compared = 0;
    let plan = scenario(seed);
    for n in 0..steps_max {
        let step = if n < plan.len() {
            plan[n].clone()
        } else if n < steps_max - 1 {
            Some(choose(&mut rng, &sim))
                .filter(|step| !sim.is_free_choice(step))
                .unwrap_or(Step::Wait)
        } else {
            Step::Wait
        };
        sim.step(&step);
        sim.look();
        sim.look();
        real.step(&step);
        real.look();
        let began = Instant::now();
        while real.answers.len() < sim.answers.len() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(50));
            real.look();
        }
        std::thread::yield_now();
        real.look();
        let (sim_said, real_said) = (sim.take(), real.take());
        compared += sim_said.0.len();
        writeln!(told, "{n}: {step:?} (op {})", sim.ops.len().wrapping_sub(1)).unwrap();
        if sim_said != real_said {
            return Err(format!(
                "seed {seed}\n{told}\nsimulator: {sim_said:?}\nLinux:     {real_said:?}"
            ));
        }
    }
    // What is in flight is ended on both, so that the rings close quietly.
    for machine in [&mut sim, &mut real] {
        for op in machine.in_flight() {
            machine.step(&Step::Cancel(op));
        }
        let began = Instant::now();
        while !machine.in_flight().is_empty() && began.elapsed() < PATIENCE {
            machine.look();
        }
    }
    assert!(sim.in_flight().is_empty(), "seed {seed}: {:?}\n{told}", sim.in_flight());
    drop(sim);
    let found = world.violations();
    let wrong = found.iter().find(|v| v.mistake != Mistake::TwoSends);
    assert!(wrong.is_none(), "seed {seed}: {wrong:?}\n{told}");
    assert!(world.open_files().is_empty(), "seed {seed}");
    Ok(compared)
}

/// How a program begins: with a listener, and mostly with a connection over it, so that what follows finds
/// something to work on.
fn scenario(seed: u64) -> Vec<Step> {
    let mut steps = vec![Step::Socket, Step::Bind(0, false), Step::Listen(0, 8), Step::Socket];
    if !seed.is_multiple_of(4) {
        steps.push(Step::Connect(1, 0));
        steps.push(Step::Accept(0, seed.is_multiple_of(2)));
    }
    steps
}

#[test]
fn sim_answers_as_linux_does() {
    let programs: u64 =
        std::env::var("CORELOOP_DIFF").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let first: u64 =
        std::env::var("CORELOOP_DIFF_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (mut compared, mut differ) = (0, Vec::new());
    for seed in first..first + programs {
        match compare(seed, 60) {
            Ok(n) => compared += n,
            Err(told) => differ.push(told),
        }
    }
    println!("{compared} completions compared");
    for told in &differ {
        let lines: Vec<_> = told.lines().collect();
        println!("---- {}", lines[0]);
        for line in &lines[lines.len().saturating_sub(4)..] {
            println!("{line}");
        }
    }
    assert!(
        differ.is_empty(),
        "{} of {programs} programs differ, such as\n{}",
        differ.len(),
        differ[0]
    );
    assert!(compared as u64 > programs * 10, "only {compared} completions were compared");
}
