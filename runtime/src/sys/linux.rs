//! Linux itself behind the seam: plain system calls through `libc::syscall`, sockets through `socket2`.
//!
//! Owns the mappings of a ring and its descriptor. Knows no retry and no policy: every errno goes up as it
//! came.

use std::ffi::{CStr, c_void};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::abi::{self, GetEventsArg, Message, Params};
use super::forked;
use super::kernel::{Kernel, Mapping, RingMemory, WaitArg};
use super::{std_clock, steering};

/// The running kernel.
#[derive(Debug, Default)]
pub(crate) struct Linux;

impl Kernel for Linux {
    fn setup(&self, entries: u32, params: &mut Params) -> io::Result<RingMemory> {
        // SAFETY: `params` is a live io_uring_params that the call reads and writes.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, ptr::from_mut(params)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        map_queues(fd, params)
    }

    unsafe fn enter(
        &self,
        fd: RawFd,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        wait: Option<&WaitArg>,
    ) -> io::Result<u32> {
        let mut flags = flags;
        let mut arg = GetEventsArg::default();
        let (argp, argsz): (*const c_void, usize) = match wait {
            Some(wait) => {
                flags |= abi::enter::EXT_ARG;
                arg.ts = ptr::from_ref(&wait.timeout).addr() as u64;
                arg.min_wait_usec = wait.min_wait_us;
                (ptr::from_ref(&arg).cast(), size_of::<GetEventsArg>())
            }
            None => (ptr::null(), 0),
        };
        // SAFETY: `arg` and its timespec outlive the call; the caller answers for the submissions.
        let n = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, to_submit, min_complete, flags, argp, argsz)
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as u32) }
    }

    unsafe fn register(
        &self,
        fd: RawFd,
        opcode: u32,
        arg: *mut c_void,
        count: u32,
    ) -> io::Result<u32> {
        // SAFETY: the caller vouches for `arg`.
        let n = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, arg, count) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as u32) }
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    fn ns_of(&self, at: Instant) -> u64 {
        std_clock::ns_of(at)
    }

    fn shared_clock(&self) -> Option<fn() -> u64> {
        Some(monotonic_ns)
    }

    fn thread_number(&self) -> Option<u32> {
        // SAFETY: it asks for a number.
        let number = unsafe { libc::syscall(libc::SYS_gettid) };
        u32::try_from(number).ok()
    }

    fn thread_cpu_ns(&self) -> u64 {
        thread_cpu_ns()
    }

    fn pause(&self, d: Duration) {
        std::thread::sleep(d);
    }

    fn eventfd(&self) -> io::Result<OwnedFd> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn release(&self) -> String {
        // SAFETY: all-zero bytes are a valid utsname.
        let mut name: libc::utsname = unsafe { std::mem::zeroed() };
        // SAFETY: `name` is a live utsname that the call fills with NUL-terminated strings.
        if unsafe { libc::uname(&mut name) } != 0 {
            return String::new();
        }
        // SAFETY: uname(2) terminated the string within the array.
        unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy().into_owned()
    }

    fn stream_socket(&self, family: i32) -> io::Result<OwnedFd> {
        let kind = Type::STREAM.cloexec();
        Ok(Socket::new(Domain::from(family), kind, Some(Protocol::TCP))?.into())
    }

    fn bind(&self, fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
        SockRef::from(&fd).bind(&SockAddr::from(*addr))
    }

    fn listen(&self, fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        SockRef::from(&fd).listen(backlog)
    }

    fn steer(&self, fd: BorrowedFd<'_>, table: &[(usize, u32)]) -> io::Result<()> {
        steering::attach(fd, table)
    }

    fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        inet(&SockRef::from(&fd).local_addr()?)
    }

    fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        inet(&SockRef::from(&fd).peer_addr()?)
    }

    fn shutdown(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        SockRef::from(&fd).shutdown(how)
    }

    unsafe fn send(&self, fd: BorrowedFd<'_>, from: *const u8, len: usize) -> io::Result<usize> {
        // SAFETY: passed on to the caller.
        unsafe { send(fd.as_raw_fd(), from, len) }
    }

    fn refuses_to_send(&self) -> Option<io::Error> {
        // SAFETY: no bytes.
        let answered = unsafe { send(-1, ptr::null(), 0) };
        // The kernel itself says that there is no such descriptor.
        answered.err().filter(|e| e.raw_os_error() != Some(libc::EBADF))
    }

    fn reset(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: all-zero bytes are a sockaddr of the family AF_UNSPEC.
        let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
        let len = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: one live address of that length.
        match unsafe { libc::connect(fd.as_raw_fd(), &nowhere, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set_linger(&self, fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(&fd).set_linger(linger)
    }
}

fn inet(addr: &SockAddr) -> io::Result<SocketAddr> {
    let why = "the socket's address is neither IPv4 nor IPv6";
    addr.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// `send(2)` without waiting and without SIGPIPE. Not by the library's function, where a thread may be
/// cancelled, which takes it two looks.
///
/// # Safety
/// `from` points at `len` bytes that are there and that nobody changes during the call.
unsafe fn send(fd: RawFd, from: *const u8, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let no_address = ptr::null::<c_void>();
    // SAFETY: the caller's bytes, which the call reads, and no address.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, fd, from, len, flags, no_address, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// CLOCK_MONOTONIC in nanoseconds; a vDSO read, no system call on any machine that matters.
pub(crate) fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a live timespec. CLOCK_MONOTONIC cannot fail on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// Puts a completion with [`abi::WAKE_MESSAGE`] into a ring (6.13), from any thread; whether it is there.
#[cfg_attr(loom, allow(dead_code, reason = "models send none to the system"))]
pub(crate) fn send_message(ring: RawFd) -> bool {
    let message = Message::new(ring, abi::WAKE_MESSAGE);
    let (op, arg) = (abi::register::SEND_MSG_RING, ptr::from_ref(&message));
    // SAFETY: one live submission, which the call reads.
    unsafe { libc::syscall(libc::SYS_io_uring_register, -1, op, arg, 1) == 0 }
}

/// Adds one to an eventfd that does not block, from any thread: a full count is readable anyway.
pub(crate) fn write_event(fd: RawFd) {
    let one = 1u64;
    // SAFETY: 8 live bytes. A number that is no eventfd's is the caller's mistake, and no memory's.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

/// Makes the count of an eventfd 0.
pub(crate) fn read_event(event: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: `count` lives and has room for the 8 bytes of a count; the descriptor is borrowed, so it is
    // open. It does not block, and nothing to read is what is wanted.
    unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// CPU time of the calling thread in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a live timespec. CLOCK_THREAD_CPUTIME_ID of the caller cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// One `mmap(2)`, undone when dropped.
pub(crate) struct Map {
    addr: NonNull<u8>,
    len: usize,
}

impl Map {
    /// Shared pages of `fd` at `offset`.
    fn of(fd: RawFd, offset: i64, len: usize) -> io::Result<Self> {
        let map = Self::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd, offset)?;
        // A forked child must not write to its parent's queues: it has no mapping there and is told.
        // SAFETY: the mapping is ours; advice on what a child inherits changes nothing here.
        let rc = unsafe { libc::madvise(map.addr.as_ptr().cast(), len, libc::MADV_DONTFORK) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        forked::watch(map.addr.as_ptr().addr(), len);
        Ok(map)
    }

    /// Private zeroed pages; untouched ones cost no memory.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn new(len: usize, flags: i32, fd: RawFd, offset: i64) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let addr = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, offset) };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let addr = NonNull::new(addr.cast()).expect("mmap without MAP_FIXED never maps page 0");
        Ok(Self { addr, len })
    }

    pub(crate) fn addr(&self) -> NonNull<u8> {
        self.addr
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // The address may be another mapping's soon. One that is no queue's is not in the table.
        forked::forget(self.addr.as_ptr().addr());
        // SAFETY: the mapping is ours, and whoever holds pointers into it holds `self` too.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), self.len) };
    }
}

/// The real ring: mappings first, then the descriptor, in drop order.
struct LinuxRing {
    _maps: Vec<Map>,
    _fd: OwnedFd,
}

impl Mapping for LinuxRing {}

fn map_queues(fd: OwnedFd, p: &Params) -> io::Result<RingMemory> {
    let raw = fd.as_raw_fd();
    let sq_len = p.sq_off.array as usize + p.sq_entries as usize * size_of::<u32>();
    let cq_len = p.cq_off.cqes as usize + p.cq_entries as usize * size_of::<abi::RawCqe>();
    let mut maps = Vec::with_capacity(3);
    let (sq, cq) = if p.features & abi::feat::SINGLE_MMAP != 0 {
        let both = Map::of(raw, abi::OFF_SQ_RING, sq_len.max(cq_len))?;
        let addr = both.addr();
        maps.push(both);
        (addr, addr)
    } else {
        let sq = Map::of(raw, abi::OFF_SQ_RING, sq_len)?;
        let cq = Map::of(raw, abi::OFF_CQ_RING, cq_len)?;
        let addrs = (sq.addr(), cq.addr());
        maps.extend([sq, cq]);
        addrs
    };
    let sqes = Map::of(raw, abi::OFF_SQES, p.sq_entries as usize * 64)?;
    let sqes_addr = sqes.addr();
    maps.push(sqes);
    let mapping = Box::new(LinuxRing { _maps: maps, _fd: fd });
    Ok(RingMemory { fd: raw, sq, cq, sqes: sqes_addr, mapping })
}
