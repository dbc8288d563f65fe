//! The seam, answered by a world.
//!
//! Owns [`SimKernel`]: one core's view of its host, as its process has it. An enter never blocks: one that
//! would sleep notes so ([`SimKernel::parked`]) and returns, and whoever steps the cores lets this one rest
//! until [`SimKernel::has_pending`] or its limit. For a core that is driven alone,
//! [`SimKernel::sleep_by_advancing`] has it move the world's clock instead.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::check::Mistake;
use super::enter::SimRing;
use super::errnos::Call;
use super::files::{FileKind, event, eventfd, option, placeholder};
use super::memory::Span;
use super::net::socket::{Phase, Socket};
use super::net::{ProcessId, SockId, unspecified};
use super::ring::Queues;
use super::shape::Shape;
use super::state::State;
use super::world::World;
use crate::sys::abi::{Params, enter, setup};
use crate::sys::kernel::{Kernel, Mapping, RingMemory, WaitArg};
use crate::sys::signals::{Caught, Inbox};

/// Registered rings of one thread, at most.
pub(super) const REGISTERED_MAX: usize = 16;

/// One core's kernel.
pub(crate) struct SimKernel {
    pub(super) world: Rc<World>,
    pub(super) process: ProcessId,
    pub(super) shape: Shape,
    /// Rings by registered index.
    pub(super) registered: RefCell<[Option<usize>; REGISTERED_MAX]>,
    ring: Cell<Option<usize>>,
    parked: Cell<Option<Parked>>,
    advancing: Cell<bool>,
}

/// An enter that would sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    /// Until when at the latest, in ns of the virtual clock; none for ever.
    pub(crate) until_ns: Option<u64>,
}

impl SimKernel {
    pub(super) fn new(world: Rc<World>, process: ProcessId) -> Rc<Self> {
        let shape = world.with(|state| Shape::drawn(&mut state.rng, &state.faults));
        Rc::new(Self {
            world,
            process,
            shape,
            registered: RefCell::default(),
            ring: Cell::new(None),
            parked: Cell::new(None),
            advancing: Cell::new(false),
        })
    }

    /// Whether a core that sleeps in its last enter would be woken now.
    pub(crate) fn has_pending(&self) -> bool {
        let Some(ring) = self.ring.get() else { return false };
        self.world.with(|state| {
            state.look_at_events(ring);
            let spurious = state.wakes_for_nothing();
            let wakes = |ring: &SimRing| ring.interrupted || ring.has_news();
            spurious || state.rings.get(ring).is_some_and(wakes)
        })
    }

    /// The sleep that the last enter would be in.
    pub(crate) fn parked(&self) -> Option<Parked> {
        self.parked.get()
    }

    /// From now on an enter that would sleep moves the clock to the next event instead, as long as there
    /// is nothing to reap and its limit has not come. For a core that runs alone.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the kernel's own tests"))]
    pub(crate) fn sleep_by_advancing(&self, on: bool) {
        self.advancing.set(on);
    }

    pub(super) fn ring_of(&self, fd: RawFd, registered: bool) -> Result<usize, i32> {
        if registered {
            let at = usize::try_from(fd).map_err(|_| libc::EINVAL)?;
            let registered = self.registered.borrow();
            return registered.get(at).copied().flatten().ok_or(libc::EBADF);
        }
        self.world.with(|state| state.rings.named(fd).ok_or(libc::EBADF))
    }

    fn enter_ring(
        &self,
        ring: usize,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        until: Option<u64>,
        slept: bool,
    ) -> Result<u32, i32> {
        self.world.with(|state| {
            // A handler that ran before this enter holds nobody up.
            let sim = state.rings.get_mut(ring);
            let interrupted = sim.is_some_and(|sim| std::mem::take(&mut sim.interrupted)) && slept;
            state.pass_enter();
            state.sweep();
            state.look_at_buffers(ring);
            let consumed = state.submit_some(ring, to_submit)?;
            // As the kernel does: who did not get everything in does not wait, and reaps nothing new.
            if consumed != to_submit || flags & enter::GETEVENTS == 0 {
                return Ok(consumed);
            }
            state.bring(ring, min_complete);
            if state.unread(ring) >= min_complete {
                return Ok(consumed);
            }
            if consumed == 0 && interrupted {
                return Err(libc::EINTR);
            }
            if consumed == 0 && state.rng.chance(state.faults.enter_interrupted) {
                state.handed_out(Call::Enter, libc::EINTR);
                return Err(libc::EINTR);
            }
            if self.advancing.get() {
                state.sleep(ring, min_complete, until);
            } else {
                self.parked.set(Some(Parked { until_ns: until }));
            }
            let late = until.is_some_and(|until| state.now_ns() >= until);
            if consumed == 0 && late && state.unread(ring) < min_complete {
                return Err(libc::ETIME);
            }
            Ok(consumed)
        })
    }

    pub(super) fn sock_of(&self, state: &mut State, fd: BorrowedFd<'_>) -> Result<SockId, i32> {
        match state.look_up(fd.as_raw_fd()) {
            Some((_, FileKind::Socket(sock))) => Ok(sock),
            Some(_) => Err(libc::ENOTSOCK),
            None => Err(libc::EBADF),
        }
    }

    /// A plain call fails this time, if it is to.
    pub(super) fn may_fail(&self, call: Call) -> io::Result<()> {
        let drawn = self.world.with(|state| state.draw_error(call));
        drawn.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// A call on a socket: what it answers, as an errno or 0.
    fn on_socket(
        &self,
        fd: BorrowedFd<'_>,
        call: impl FnOnce(&mut State, SockId) -> i32,
    ) -> io::Result<()> {
        self.world.with(|state| {
            state.sweep();
            let sock = self.sock_of(state, fd).map_err(io::Error::from_raw_os_error)?;
            let errno = call(state, sock);
            state.settle();
            self::errno(errno)
        })
    }
}

/// What a call answers, as an errno or 0.
pub(super) fn errno(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

impl State {
    /// What an enter takes.
    fn pass_enter(&mut self) {
        let (least, most) = self.faults.enter_ns;
        let takes = self.rng.between(least, most);
        self.advance_to(self.now_ns().saturating_add(takes));
    }

    fn submit_some(&mut self, ring: usize, to_submit: u32) -> Result<u32, i32> {
        let Some(sim) = self.rings.get(ring) else { return Err(libc::EBADF) };
        let most = to_submit.min(sim.queues.published());
        if most == 0 {
            return Ok(0);
        }
        let now = self.now_ns();
        let begins = self.rng.chance(self.faults.enter_pressed);
        if begins && self.faults.pressed_for_ns > 0 {
            // What is short of memory stays so for a while, for all cores.
            self.pressed_until = now.saturating_add(self.rng.below(self.faults.pressed_for_ns));
        }
        if begins || now < self.pressed_until {
            let errno = self.rng.pick(&[libc::EAGAIN, libc::ENOMEM, libc::EBUSY]);
            self.handed_out(Call::Enter, errno);
            return Err(errno);
        }
        let cut = self.rng.chance(self.faults.enter_partial);
        let most = if cut { self.rng.between(1, u64::from(most)) as u32 } else { most };
        Ok(self.submit(ring, most))
    }

    /// Sleeps alone: time passes until there is enough to reap.
    ///
    /// # Panics
    /// If nothing will ever come.
    fn sleep(&mut self, ring: usize, wanted: u32, until: Option<u64>) {
        while self.unread(ring) < wanted {
            let next = match (self.next_event_ns(), until) {
                (Some(event), Some(until)) => event.min(until),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => {
                    let lines: Vec<_> =
                        self.trace.lines().iter().map(ToString::to_string).collect();
                    panic!("a core sleeps, and nothing is on its way:\n{}", lines.join("\n"))
                }
            };
            self.advance_to(next);
            if self.rings.get(ring).is_some_and(|ring| ring.has_news()) {
                self.bring(ring, wanted);
            }
            if until.is_some_and(|until| self.now_ns() >= until) {
                return;
            }
        }
    }
}

impl Kernel for SimKernel {
    fn setup(&self, entries: u32, params: &mut Params) -> io::Result<RingMemory> {
        let sizes = self.shape.sizes(entries, params.cq_entries, params.flags);
        let (sq_entries, cq_entries) = sizes.map_err(io::Error::from_raw_os_error)?;
        self.may_fail(Call::Setup)?;
        let no_memory = self.world.with(|state| {
            let no_memory = state.rng.chance(state.faults.setup_no_memory);
            if no_memory {
                state.handed_out(Call::Setup, libc::ENOMEM);
            }
            no_memory
        });
        if no_memory {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let fd = self.world.owned(eventfd())?;
        let with_array = params.flags & setup::NO_SQARRAY == 0;
        let queues = Rc::new(Queues::new(sq_entries, cq_entries, with_array));
        (params.sq_off, params.cq_off) = queues.offsets();
        params.sq_entries = sq_entries;
        params.cq_entries = cq_entries;
        params.features = self.shape.features;
        let raw = fd.as_raw_fd();
        let ring = self.world.with(|state| {
            state.note(
                "ring",
                &[i64::from(sq_entries), i64::from(cq_entries), i64::from(params.flags)],
            );
            let limit = self.shape.recv_limit;
            state.add_ring(self.process, raw, queues.clone(), params.flags, limit)
        });
        self.ring.set(Some(ring));
        let (rings, sqes) = (queues.rings(), queues.sqes());
        let mapping =
            Box::new(SimMapping { world: self.world.clone(), ring, _queues: queues, _fd: fd });
        Ok(RingMemory { fd: raw, sq: rings, cq: rings, sqes, mapping })
    }

    unsafe fn enter(
        &self,
        fd: RawFd,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        wait: Option<&WaitArg>,
    ) -> io::Result<u32> {
        // The same enter comes back, if its caller was asleep.
        let slept = self.parked.take().is_some();
        let fail = io::Error::from_raw_os_error;
        if flags & !self.shape.enter_flags != 0 {
            return Err(fail(libc::EINVAL));
        }
        let ring = self.ring_of(fd, flags & enter::REGISTERED_RING != 0).map_err(|errno| {
            self.world.with(|state| {
                state.blame(Mistake::BadRing, || "an enter on a ring that is not open".into());
            });
            fail(errno)
        })?;
        // It gathers nothing: whoever asks for a minimal wait gets the first completion at once.
        let gathers = wait.is_some_and(|wait| wait.min_wait_us > 0);
        let min_complete = if gathers { min_complete.min(1) } else { min_complete };
        let until = wait.map(|wait| {
            let ns = wait.timeout.sec as u64 * 1_000_000_000 + wait.timeout.nsec as u64;
            if flags & enter::ABS_TIMER != 0 { ns } else { ns.saturating_add(self.now_ns()) }
        });
        self.enter_ring(ring, to_submit, min_complete, flags, until, slept).map_err(fail)
    }

    unsafe fn register(
        &self,
        fd: RawFd,
        opcode: u32,
        arg: *mut c_void,
        count: u32,
    ) -> io::Result<u32> {
        // SAFETY: passed on to the caller.
        let done = unsafe { self.register_call(fd, opcode, arg, count) };
        done.map_err(io::Error::from_raw_os_error)
    }

    /// Sooner for some: a simulated conversation is short.
    fn ops_worth_a_place(&self) -> u32 {
        [1, 8, 32][(self.process.host.0 as usize + self.process.number as usize) % 3]
    }

    fn now_ns(&self) -> u64 {
        self.world.now_ns()
    }

    fn thread_cpu_ns(&self) -> u64 {
        self.world.now_ns()
    }

    fn pause(&self, d: Duration) {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.world.advance_to(self.world.now_ns().saturating_add(ns));
    }

    fn stand_in_ns(&self) -> Option<u64> {
        let (least, most) = WORK_NS;
        let ns = self.world.rng(|rng| rng.between(least, most));
        self.world.note("work", &[ns as i64]);
        Some(ns)
    }

    fn eventfd(&self) -> io::Result<OwnedFd> {
        self.may_fail(Call::EventFd)?;
        self.world.sweep();
        let (fd, twin) = self.world.owned(event())?;
        self.world
            .with(|state| state.install(&fd, self.process.host, FileKind::Event, Some(twin)))?;
        Ok(fd)
    }

    fn hush(&self, event: BorrowedFd<'_>) {
        self.world.with(|state| {
            if let Some((file, FileKind::Event)) = state.look_up(event.as_raw_fd()) {
                state.take_count(file);
            }
        });
    }

    fn catch(&self, signal: i32, inbox: &Arc<Inbox>) -> io::Result<Caught> {
        self.world.with(|state| state.catch(self.process, signal, inbox));
        Ok(Caught::as_long_as_the_inbox())
    }

    fn release(&self) -> String {
        self.shape.release.into()
    }

    fn stream_socket(&self, family: i32) -> io::Result<OwnedFd> {
        if family != libc::AF_INET && family != libc::AF_INET6 {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        self.may_fail(Call::Socket)?;
        // What was closed is noticed before its number can be taken again.
        self.world.sweep();
        let fd = self.world.owned(placeholder(family))?;
        self.world.with(|state| {
            let sock = state.add_socket(Socket::new(self.process.host, family));
            state.note("socket", &[i64::from(sock.0)]);
            state.install(&fd, self.process.host, FileKind::Socket(sock), None)
        })?;
        Ok(fd)
    }

    fn bind(&self, fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
        self.may_fail(Call::Bind)?;
        let raw = fd.as_raw_fd();
        let is_set = |name| option(raw, libc::SOL_SOCKET, name) != 0;
        let reuse = (is_set(libc::SO_REUSEADDR), is_set(libc::SO_REUSEPORT));
        self.on_socket(fd, |state, sock| state.bind_to(sock, *addr, reuse))
    }

    fn listen(&self, fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        self.may_fail(Call::Listen)?;
        self.on_socket(fd, |state, sock| state.listen_on(sock, backlog))
    }

    fn steer(&self, fd: BorrowedFd<'_>, table: &[(usize, u32)]) -> io::Result<()> {
        // To take a program away needs nothing.
        if !table.is_empty() {
            self.may_fail(Call::Steer)?;
        }
        self.on_socket(fd, |state, sock| state.steer(sock, table))
    }

    fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        self.may_fail(Call::LocalAddr)?;
        self.world.with(|state| {
            let sock = self.sock_of(state, fd).map_err(io::Error::from_raw_os_error)?;
            let gone = || io::Error::from_raw_os_error(libc::EBADF);
            let socket = state.socket(sock).ok_or_else(gone)?;
            Ok(socket.local.unwrap_or_else(|| unspecified(socket.family)))
        })
    }

    fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        self.may_fail(Call::PeerAddr)?;
        self.world.with(|state| {
            let sock = self.sock_of(state, fd).map_err(io::Error::from_raw_os_error)?;
            let socket = state.socket(sock).filter(|s| matches!(s.phase, Phase::Open));
            let remote = socket.and_then(|socket| socket.remote);
            remote.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))
        })
    }

    fn shutdown(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        self.on_socket(fd, |state, sock| state.shut_down_or_fail(sock, how))
    }

    unsafe fn send(&self, fd: BorrowedFd<'_>, from: *const u8, len: usize) -> io::Result<usize> {
        let from = Span { addr: from.addr() as u64, len };
        let mut sent = 0;
        self.on_socket(fd, |state, sock| match state.send_now(sock, from) {
            Ok(n) => {
                sent = n;
                0
            }
            Err(errno) => errno,
        })?;
        Ok(sent)
    }

    fn set_linger(&self, fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
        self.on_socket(fd, |state, sock| {
            // Whole seconds, as the option has them.
            let linger = linger.map(|d| Duration::from_secs(d.as_secs()));
            if let Some(socket) = state.socket(sock) {
                socket.linger = linger;
            }
            0
        })
    }

    fn is_listener(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        self.world.with(|state| {
            let sock = self.sock_of(state, fd).map_err(io::Error::from_raw_os_error)?;
            Ok(state.socket(sock).is_some_and(|socket| socket.is_listener()))
        })
    }

    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.duplicated(fd)
    }

    fn connect_local(&self, path: &Path) -> io::Result<OwnedFd> {
        self.connected_to(path)
    }

    fn listen_local(&self, path: &Path, backlog: i32) -> io::Result<OwnedFd> {
        self.listening_at(path, backlog)
    }

    fn accept_local(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.accepted_by(listener)
    }

    fn unlink_local(&self, path: &Path) -> io::Result<()> {
        self.may_fail(Call::Unlink)?;
        errno(self.world.with(|state| state.unlink_name(self.process, path)))
    }

    fn send_message(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.message_sent(socket, bytes, fds)
    }

    fn recv_message(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &mut [u8],
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.message_received(socket, bytes)
    }

    fn credentials(&self, socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
        self.peer_of(socket)
    }
}

/// What a piece of blocking work takes, least and most.
const WORK_NS: (u64, u64) = (10_000, 20_000_000);

/// The user's share of a ring: dropping it closes the ring.
struct SimMapping {
    world: Rc<World>,
    ring: usize,
    _queues: Rc<Queues>,
    _fd: OwnedFd,
}

impl Mapping for SimMapping {}

impl Drop for SimMapping {
    fn drop(&mut self) {
        self.world.with(|state| state.close_ring(self.ring));
    }
}
