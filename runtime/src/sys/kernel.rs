//! The seam between the loop and the system.
//!
//! Owns the [`Kernel`] trait: the few calls that a loop makes, about one a tick, so that dispatching them
//! costs nothing, and those by which sockets are made and asked for their ends, signals caught, and processes
//! of one machine speak to each other and share descriptors. Queue memory lies below the seam in the
//! kernel's own layout ([`RingMemory`]) and is read and written above it without a call. Plain options of a
//! socket are not in here: they change nothing that a loop sees, and any descriptor of a socket takes them.
//! Whatever answers to this trait (Linux, a simulated kernel, a fault-injecting wrapper in a test) drives
//! the same loop.
//!
//! Deliberately ignorant of ops, buffers and tasks.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::abi::{Params, Timespec};
use super::signals::{self, Caught, Inbox};
use super::std_clock::Moment;
use super::{descriptors, linux, local};

/// How long an enter may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitArg {
    /// Relative, or a point of CLOCK_MONOTONIC if the flags hold `ABS_TIMER`.
    pub(crate) timeout: Timespec,
    /// For so many µs it waits for as many completions as were asked for; after that, for one. 0: for as
    /// many as were asked for, all the time.
    pub(crate) min_wait_us: u32,
}

/// Keeps a ring's memory and descriptor alive; dropping it unmaps and closes.
pub(crate) trait Mapping {}

/// The queues of one ring, in the layout that `Params::sq_off` and `Params::cq_off` describe.
///
/// Invariant: the three pointers stay valid, unmoved, until `mapping` is dropped.
pub(crate) struct RingMemory {
    pub(crate) fd: RawFd,
    pub(crate) sq: NonNull<u8>,
    pub(crate) cq: NonNull<u8>,
    pub(crate) sqes: NonNull<u8>,
    #[expect(dead_code, reason = "held for its destructor")]
    pub(crate) mapping: Box<dyn Mapping>,
}

/// What a loop asks of the system.
pub(crate) trait Kernel {
    /// `io_uring_setup(2)` and the mappings of its queues.
    fn setup(&self, entries: u32, params: &mut Params) -> io::Result<RingMemory>;

    /// `io_uring_enter(2)`: how many submissions were consumed.
    ///
    /// # Safety
    /// `fd` (or registered index) is the ring's own, and every unconsumed submission in its queue points
    /// at memory that stays valid until its completion has been reaped.
    unsafe fn enter(
        &self,
        fd: RawFd,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        wait: Option<&WaitArg>,
    ) -> io::Result<u32>;

    /// `io_uring_register(2)`.
    ///
    /// # Safety
    /// `arg` points at what `opcode` asks for, `count` entries of it, valid as long as the man page says.
    unsafe fn register(
        &self,
        fd: RawFd,
        opcode: u32,
        arg: *mut std::ffi::c_void,
        count: u32,
    ) -> io::Result<u32>;

    /// Ops on a socket that cost without a place in a ring's table of files what it costs to come by one and
    /// to leave it: two calls of some 400 ns, and about 30 ns in each op.
    fn ops_worth_a_place(&self) -> u32 {
        32
    }

    /// CLOCK_MONOTONIC in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Where a point of std's clock lies on this one.
    fn ns_of(&self, at: Instant) -> u64 {
        // A clock of its own runs as it likes: the distance from now is kept.
        Moment { std: Instant::now(), ns: self.now_ns() }.ns_of(at)
    }

    /// The same clock for threads that have no kernel at hand; none if only a loop's own thread may ask.
    fn shared_clock(&self) -> Option<fn() -> u64> {
        None
    }

    /// The calling thread's number among those of the system; none where it stands for another machine's.
    fn thread_number(&self) -> Option<u32> {
        None
    }

    /// CPU time of the calling thread in nanoseconds.
    fn thread_cpu_ns(&self) -> u64;

    /// Holds the calling thread up for `d`: where the kernel is short of something that only time brings.
    fn pause(&self, d: Duration);

    /// None if blocking work is done by threads. Else there are none, and this is what the next piece of such
    /// work takes, in nanoseconds of this kernel's clock.
    fn stand_in_ns(&self) -> Option<u64> {
        None
    }

    /// A close-on-exec, non-blocking eventfd with a count of 0.
    fn eventfd(&self) -> io::Result<OwnedFd>;

    /// Makes the count of an eventfd 0.
    fn hush(&self, event: BorrowedFd<'_>) {
        linux::read_event(event);
    }

    /// Has `signal` (1 to 64) delivered to `inbox` too from now on, whatever thread of the process it comes
    /// to; what it does by default it does no more, for good.
    fn catch(&self, signal: i32, inbox: &Arc<Inbox>) -> io::Result<Caught> {
        signals::catch(signal, inbox)
    }

    /// The release string of `uname(2)`.
    fn release(&self) -> String;

    /// A close-on-exec TCP socket for addresses of this family (`AF_INET`, `AF_INET6`).
    fn stream_socket(&self, family: i32) -> io::Result<OwnedFd>;

    /// `bind(2)`.
    fn bind(&self, fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()>;

    /// `listen(2)`.
    fn listen(&self, fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()>;

    /// Has the CPU that a connection arrives on choose the position of who takes it: see
    /// [`fds::steer_by_cpu`](crate::fds::steer_by_cpu). An empty table takes away what an earlier one said.
    fn steer(&self, fd: BorrowedFd<'_>, table: &[(usize, u32)]) -> io::Result<()> {
        let _ = (fd, table);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// `getsockname(2)`; `InvalidData` for an address that is neither IPv4 nor IPv6.
    fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr>;

    /// `getpeername(2)`; `InvalidData` for an address that is neither IPv4 nor IPv6.
    fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr>;

    /// `shutdown(2)`.
    fn shutdown(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()>;

    /// `send(2)` of what there is room for now, without SIGPIPE; EAGAIN if there is none.
    ///
    /// # Safety
    /// `from` points at `len` bytes that are there and that nobody changes during the call.
    unsafe fn send(&self, fd: BorrowedFd<'_>, from: *const u8, len: usize) -> io::Result<usize>;

    /// With what a filter answers `send(2)`, if one does.
    fn refuses_to_send(&self) -> Option<io::Error> {
        None
    }

    /// Ends a TCP connection with a reset; what was not acknowledged is dropped. The descriptor stays open.
    fn reset(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let _ = fd;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// SO_LINGER: an option that changes what a close does, and so is the kernel's to know.
    fn set_linger(&self, fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()>;

    /// Whether a socket listens, SO_ACCEPTCONN.
    fn is_listener(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        SockRef::from(&fd).is_listener()
    }

    /// A second descriptor of a file, close-on-exec.
    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        fd.try_clone_to_owned()
    }

    /// A Unix socket of whole messages, close-on-exec and non-blocking, connected to who listens at `path`.
    fn connect_local(&self, path: &Path) -> io::Result<OwnedFd> {
        local::connect(path)
    }

    /// Such a socket that listens at `path`, which it makes.
    fn listen_local(&self, path: &Path, backlog: i32) -> io::Result<OwnedFd> {
        local::listen(path, backlog)
    }

    /// The next that has connected to such a listener; EAGAIN if none has.
    fn accept_local(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        local::accept(listener)
    }

    /// Removes the path of such a listener; `AlreadyExists` for one of something else.
    fn unlink_local(&self, path: &Path) -> io::Result<()> {
        local::unlink(path)
    }

    /// One message with descriptors: see [`fds::send`](crate::fds::send).
    fn send_message(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        descriptors::send(socket, bytes, fds)
    }

    /// One message with descriptors: see [`fds::recv`](crate::fds::recv).
    fn recv_message(
        &self,
        socket: BorrowedFd<'_>,
        bytes: &mut [u8],
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        descriptors::recv(socket, bytes)
    }

    /// The process and the user at the far end of a Unix socket, SO_PEERCRED.
    fn credentials(&self, socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
        descriptors::peer(socket)
    }
}
