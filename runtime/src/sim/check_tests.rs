//! Each mistake that the kernel looks for, made once on purpose.
//!
//! Owns a bare ring on a simulated kernel, without the driver that would not let one do any of this, and the
//! list of all mistakes with how each is made.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::check::Mistake;
use super::control::Sim;
use super::faults::Faults;
use super::kernel::SimKernel;
use super::quarantine::Quarantine;
use super::world::World;
use crate::driver::asked::Asked;
use crate::driver::features::FeatureSet;
use crate::driver::ring::Ring;
use crate::driver::setup::{RingConfig, negotiate};
use crate::driver::sqe::Sqe;
use crate::sys::Kernel;
use crate::sys::abi::{BufEntry, BufReg, Params, enter, register, setup};
use crate::sys::kernel::RingMemory;
use crate::sys::linux::Map;

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

struct Bare {
    world: Rc<World>,
    kernel: Rc<SimKernel>,
    ring: Option<Ring>,
}

impl Bare {
    fn new() -> Self {
        let world = World::new(1, Faults::none());
        let host = world.add_host(Vec::new());
        let kernel = world.kernel(host);
        let config = RingConfig {
            sq_entries: 8,
            cq_entries: 16,
            mask: FeatureSet::none(),
            asked: Asked::default(),
        };
        let as_kernel: Rc<dyn Kernel> = kernel.clone();
        let ring = negotiate(&as_kernel, &config).unwrap().0;
        Self { world, kernel, ring: Some(ring) }
    }

    fn push(&mut self, sqe: Sqe, user_data: u64) {
        let ring = self.ring.as_mut().unwrap();
        assert!(ring.has_room());
        // SAFETY: there is room; the tests keep what they name, or free it to be found out: the simulated
        // kernel copies through system calls that check addresses.
        unsafe { ring.write(&sqe.with_user_data(user_data)) };
    }

    /// Enters, and gives the results of what completed.
    fn enter(&mut self) -> Vec<i32> {
        let ring = self.ring.as_mut().unwrap();
        ring.enter(0, None).unwrap();
        std::iter::from_fn(|| ring.pop()).map(|cqe| cqe.res).collect()
    }

    /// Two ends of a connection.
    fn pair(&mut self) -> (OwnedFd, OwnedFd) {
        use std::os::fd::FromRawFd;
        let listener = self.kernel.stream_socket(libc::AF_INET).unwrap();
        self.kernel.bind(listener.as_fd(), &([127, 0, 0, 1], 0).into()).unwrap();
        self.kernel.listen(listener.as_fd(), 1).unwrap();
        let SocketAddr::V4(to) = self.kernel.local_addr(listener.as_fd()).unwrap() else {
            unreachable!("it was bound to a v4 address")
        };
        let client = self.kernel.stream_socket(libc::AF_INET).unwrap();
        let addr = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
            sin_zero: [0; 8],
        };
        self.push(Sqe::connect(client.as_fd(), (&raw const addr).cast(), 16), 1);
        assert_eq!(self.enter(), [0]);
        self.push(Sqe::accept(listener.as_fd(), libc::SOCK_CLOEXEC), 2);
        let fd = self.enter()[0];
        assert!(fd >= 0);
        // SAFETY: the kernel has just made it for us.
        (client, unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Closes the ring; what the kernel found wrong.
    fn found(mut self) -> Vec<Mistake> {
        drop(self.ring.take());
        self.world.violations().iter().map(|violation| violation.mistake).collect()
    }
}

#[test]
fn sim_a_correct_program_is_blamed_for_nothing() {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let (out, mut into) = (*b"hello", [0u8; 5]);
    bare.push(Sqe::send(a.as_fd(), out.as_ptr(), 5, 0), 3);
    bare.push(Sqe::recv(b.as_fd(), into.as_mut_ptr(), 5, libc::MSG_WAITALL), 4);
    assert_eq!(bare.enter(), [5, 5]);
    assert_eq!(&into, b"hello");
    drop((a, b));
    assert!(bare.world.open_files().iter().all(|file| file.what == "ring"));
    assert_eq!(bare.found(), []);
}

fn close_before_the_enter() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, _b) = bare.pair();
    bare.push(Sqe::send(a.as_fd(), b"x".as_ptr(), 1, 0), 3);
    drop(a);
    assert_eq!(bare.enter(), [-libc::EBADF]);
    bare.found()
}

#[test]
fn sim_a_close_before_the_enter_is_found() {
    assert_eq!(close_before_the_enter(), [Mistake::ClosedBeforeSubmission, Mistake::BadDescriptor]);
}

#[test]
fn sim_a_number_that_was_taken_again_is_found() {
    let mut bare = Bare::new();
    let (a, _b) = bare.pair();
    bare.push(Sqe::shutdown(a.as_fd(), libc::SHUT_WR), 3);
    drop(a);
    let _taken = bare.kernel.stream_socket(libc::AF_INET).unwrap();
    bare.enter();
    assert_eq!(bare.found()[0], Mistake::ClosedBeforeSubmission);
}

fn write_to_a_receive_buffer() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let mut into = vec![0u8; 4096];
    bare.push(Sqe::recv(b.as_fd(), into.as_mut_ptr(), 4096, 0), 3);
    assert_eq!(bare.enter(), []);
    std::hint::black_box(&mut into)[17] = 1;
    bare.push(Sqe::send(a.as_fd(), b"x".as_ptr(), 1, 0), 4);
    assert_eq!(bare.enter(), [1, 1]);
    bare.found()
}

#[test]
fn sim_a_receive_buffer_that_is_written_to_is_found() {
    assert_eq!(write_to_a_receive_buffer(), [Mistake::ReceiveTouched]);
}

fn change_under_a_send() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let mut out = vec![7u8; 1 << 20];
    bare.push(Sqe::send(a.as_fd(), out.as_ptr(), 1 << 20, libc::MSG_WAITALL), 3);
    assert_eq!(bare.enter(), []);
    std::hint::black_box(&mut out)[0] = 8;
    drop(b);
    assert_eq!(bare.enter().len(), 1);
    bare.found()
}

#[test]
fn sim_bytes_that_change_under_a_send_are_found() {
    assert_eq!(change_under_a_send()[0], Mistake::SendTouched);
}

fn unmap_in_flight() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let map = Map::anonymous(4096).unwrap();
    bare.push(Sqe::recv(b.as_fd(), map.addr().as_ptr(), 4096, 0), 3);
    assert_eq!(bare.enter(), []);
    unmap_but_keep_the_place(&map);
    bare.push(Sqe::send(a.as_fd(), b"x".as_ptr(), 1, 0), 4);
    assert_eq!(bare.enter().len(), 2);
    bare.found()
}

/// Takes a mapping of a page away. Its place is kept: a test beside this one may map a page at any time, and
/// what the kernel gives it first is the hole that the last `munmap(2)` left.
fn unmap_but_keep_the_place(map: &Map) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let at = map.addr().as_ptr().cast();
    // SAFETY: the page is `map`'s, which unmaps what is there when it is dropped; nobody holds a reference
    // into it.
    let kept = unsafe { libc::mmap(at, 4096, libc::PROT_NONE, flags, -1, 0) };
    assert_eq!(kept, at);
}

#[test]
fn sim_memory_that_is_gone_is_found() {
    assert_eq!(unmap_in_flight()[0], Mistake::MemoryGone);
}

fn free_in_flight() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let mut into = vec![0u8; 4096];
    bare.push(Sqe::recv(b.as_fd(), into.as_mut_ptr(), 4096, 0), 3);
    assert_eq!(bare.enter(), []);
    drop(into);
    // Freed, mapped, and as it was: nothing but the free itself shows.
    assert_eq!(bare.world.violations()[0].mistake, Mistake::MemoryFreed);
    bare.push(Sqe::send(a.as_fd(), b"x".as_ptr(), 1, 0), 4);
    assert_eq!(bare.enter(), [1, 1]);
    bare.found()
}

#[test]
fn sim_memory_that_is_freed_in_flight_is_found() {
    assert_eq!(free_in_flight(), [Mistake::MemoryFreed]);
}

#[test]
fn sim_memory_that_is_moved_in_flight_is_found() {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let mut out = vec![7u8; 1 << 20];
    bare.push(Sqe::send(a.as_fd(), out.as_ptr(), 1 << 20, libc::MSG_WAITALL), 3);
    assert_eq!(bare.enter(), []);
    out.shrink_to(0);
    out.reserve_exact(1);
    drop(b);
    assert_eq!(bare.enter().len(), 1);
    assert_eq!(bare.found(), [Mistake::MemoryFreed]);
}

#[test]
fn sim_memory_that_is_freed_before_the_enter_is_found() {
    let mut bare = Bare::new();
    let (_a, b) = bare.pair();
    let mut into = vec![0u8; 4096];
    bare.push(Sqe::recv(b.as_fd(), into.as_mut_ptr(), 4096, libc::MSG_DONTWAIT), 3);
    drop(into);
    assert_eq!(bare.enter(), [-libc::EAGAIN]);
    assert_eq!(bare.found(), [Mistake::MemoryFreed]);
}

/// A ring of 8 entries without the driver's half of it, which never writes nonsense there.
fn raw_ring(flags: u32) -> (Rc<World>, Rc<SimKernel>, RingMemory, Params) {
    let world = World::new(1, Faults::none());
    let kernel = world.kernel(world.add_host(Vec::new()));
    let mut params = Params { flags, ..Params::default() };
    let memory = kernel.setup(8, &mut params).unwrap();
    (world, kernel, memory, params)
}

fn poke(memory: &RingMemory, at: u32, value: u32) {
    // SAFETY: an offset that the set-up gave, within the ring's memory.
    unsafe { memory.sq.add(at as usize).cast::<u32>().write(value) };
}

fn mistakes(world: &World) -> Vec<Mistake> {
    world.violations().iter().map(|violation| violation.mistake).collect()
}

fn tail_beyond_the_queue() -> Vec<Mistake> {
    let (world, kernel, memory, params) = raw_ring(setup::NO_SQARRAY);
    poke(&memory, params.sq_off.tail, 9);
    // SAFETY: the ring's own descriptor, with nothing in its queue that is ever read.
    let entered = unsafe { kernel.enter(memory.fd, 9, 0, enter::GETEVENTS, None) };
    assert_eq!(entered.unwrap(), 0);
    mistakes(&world)
}

#[test]
fn sim_a_tail_that_lies_beyond_the_queue_is_found() {
    assert_eq!(tail_beyond_the_queue(), [Mistake::BadRing]);
}

#[test]
fn sim_an_index_that_names_no_entry_is_found() {
    let (world, kernel, memory, params) = raw_ring(0);
    poke(&memory, params.sq_off.array, 8);
    poke(&memory, params.sq_off.tail, 1);
    // SAFETY: as above.
    let entered = unsafe { kernel.enter(memory.fd, 1, 0, enter::GETEVENTS, None) };
    assert_eq!(entered.unwrap(), 1);
    assert_eq!(mistakes(&world), [Mistake::BadRing]);
}

#[test]
fn sim_an_enter_on_a_ring_that_was_closed_is_found() {
    let (world, kernel, memory, _) = raw_ring(0);
    let fd = memory.fd;
    drop(memory);
    // SAFETY: nothing is named by a ring that is gone.
    let entered = unsafe { kernel.enter(fd, 0, 0, enter::GETEVENTS, None) };
    assert_eq!(entered.unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(mistakes(&world), [Mistake::BadRing]);
}

fn close_a_ring_too_early() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (_a, b) = bare.pair();
    let mut into = [0u8; 8];
    bare.push(Sqe::recv(b.as_fd(), into.as_mut_ptr(), 8, 0), 3);
    bare.push(Sqe::nop(), 4);
    bare.ring.as_mut().unwrap().enter(0, None).unwrap();
    bare.found()
}

#[test]
fn sim_a_ring_that_is_closed_too_early_is_found() {
    assert_eq!(close_a_ring_too_early(), [Mistake::ClosedInFlight, Mistake::ClosedUnread]);
}

fn two_sends_of_one_name() -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, _b) = bare.pair();
    let out = vec![7u8; 1 << 20];
    for _ in 0..2 {
        bare.push(Sqe::send(a.as_fd(), out.as_ptr(), 1 << 20, libc::MSG_WAITALL), 3);
    }
    bare.enter();
    bare.found()
}

#[test]
fn sim_names_that_are_used_twice_and_sends_beside_each_other_are_found() {
    assert_eq!(two_sends_of_one_name()[..2], [Mistake::SameUserData, Mistake::TwoSends]);
}

/// One buffer, provided `times`; with `touched`, written to afterwards.
fn provided(times: u16, touched: bool) -> Vec<Mistake> {
    let mut bare = Bare::new();
    let (a, b) = bare.pair();
    let (entries, buffer) = (Map::anonymous(4096).unwrap(), Map::anonymous(4096).unwrap());
    let mut reg = BufReg {
        ring_addr: entries.addr().addr().get() as u64,
        ring_entries: 4,
        ..BufReg::default()
    };
    let ring = bare.ring.as_ref().unwrap();
    // SAFETY: a live registration of memory that outlives the ring.
    unsafe { ring.register(register::PBUF_RING, (&raw mut reg).cast(), 1) }.unwrap();
    let addr = buffer.addr().addr().get() as u64;
    for n in 0..times {
        // The tail lies over `resv` of the first entry, which comes last.
        let entry = BufEntry { addr, len: 64, bid: 9, resv: 0 };
        // SAFETY: within the four entries of the mapping.
        unsafe { entries.addr().cast::<BufEntry>().add(usize::from(times - 1 - n)).write(entry) };
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*entries.addr().cast::<BufEntry>().as_ptr()).resv).write(times) };
    bare.push(Sqe::recv_select(b.as_fd(), 0), 3);
    assert_eq!(bare.enter(), []);
    if touched {
        // SAFETY: within the mapping.
        unsafe { buffer.addr().add(3).write(1) };
    }
    bare.push(Sqe::send(a.as_fd(), b"x".as_ptr(), 1, 0), 4);
    assert_eq!(bare.enter(), [1, 1]);
    bare.found()
}

#[test]
fn sim_provided_buffers_are_watched() {
    assert_eq!(provided(1, false), []);
    assert_eq!(provided(2, false), [Mistake::ProvidedTwice]);
    assert_eq!(provided(1, true), [Mistake::ProvidedTouched]);
    assert!(provided(5, false).contains(&Mistake::ProvidedTooMany));
}

/// Writes to a block that was freed; an allocator may do so until it has been given back.
fn write_to_freed() {
    let bytes = std::hint::black_box(vec![1u8; 100]);
    let at = bytes.as_ptr().cast_mut();
    drop(bytes);
    // SAFETY: none is needed: the block is in quarantine and has not been given back.
    unsafe { at.add(50).write_volatile(7) };
}

fn touch_what_was_freed() -> Vec<Mistake> {
    let bare = Bare::new();
    write_to_freed();
    bare.world.look_at_freed();
    bare.found()
}

#[test]
fn sim_a_write_after_a_free_is_found_at_the_latest_at_the_end() {
    assert_eq!(touch_what_was_freed(), [Mistake::FreedTouched]);
    let sim = Sim::builder().build();
    sim.client("only", async || write_to_freed());
    let failed = sim.run().unwrap_err();
    assert!(failed.to_string().contains("FreedTouched at "), "{failed}");
}

/// The list, and a match over it that has no rest: a kind that is not in the list does not compile.
macro_rules! mistakes {
    ($($mistake:ident: $made:expr,)*) => {
        type Made = fn() -> Vec<Mistake>;
        const ALL: &[(Mistake, Made)] = &[$((Mistake::$mistake, || $made)),*];

        fn is_in_the_list(mistake: Mistake) -> bool {
            match mistake {
                $(Mistake::$mistake)|* => true,
            }
        }
    };
}

mistakes! {
    BadDescriptor: close_before_the_enter(),
    ClosedBeforeSubmission: close_before_the_enter(),
    SendTouched: change_under_a_send(),
    ReceiveTouched: write_to_a_receive_buffer(),
    MemoryGone: unmap_in_flight(),
    MemoryFreed: free_in_flight(),
    FreedTouched: touch_what_was_freed(),
    ProvidedTouched: provided(1, true),
    ProvidedTwice: provided(2, false),
    ProvidedTooMany: provided(5, false),
    ClosedInFlight: close_a_ring_too_early(),
    ClosedUnread: close_a_ring_too_early(),
    BadRing: tail_beyond_the_queue(),
    SameUserData: two_sends_of_one_name(),
    TwoSends: two_sends_of_one_name(),
}

#[test]
fn sim_each_kind_of_mistake_is_found() {
    for (mistake, made) in ALL {
        assert!(is_in_the_list(*mistake));
        assert!(made().contains(mistake), "{mistake:?}");
    }
}
