//! What a forked child sees of its parent's rings: nothing, and why.
//!
//! Owns the table of the queues' mappings, what runs in a child of `fork(2)`, and what tells it from
//! its parent. The mappings are not inherited (MADV_DONTFORK), since a child that wrote to them would
//! write to its parent's queues. In the child their addresses are reserved instead, so that nothing
//! else comes to lie there, and whoever touches them is told in words and ended by SIGABRT. That costs
//! the parent nothing: what catches the fault is set in children only, and hands every other fault on
//! to what was there before.
//!
//! Not seen: a child of a bare `clone(2)`, which runs no handlers, and mappings beyond
//! [`MAPPED_MAX`]. There the fault stays a fault.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t};

/// Forks between the first process that made a loop and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Mappings that are watched: three for each of some hundred loops of a process.
const MAPPED_MAX: usize = 512;

/// A place of the table that nobody has.
const FREE: usize = 0;
/// One that is being filled; no mapping begins there.
const TAKEN: usize = 1;

const WORDS: &[u8] = b"coreloop: a forked child used an event loop of its parent, whose ring it \
    does not have. Fork before loops are made, make a loop of its own in the child, or have it \
    call exec or _exit.\n";

struct Mapped {
    addr: AtomicUsize,
    len: AtomicUsize,
}

static MAPPED: [Mapped; MAPPED_MAX] =
    [const { Mapped { addr: AtomicUsize::new(FREE), len: AtomicUsize::new(0) } }; MAPPED_MAX];

/// What caught faults before, once a child has set its own.
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));
static IS_SET: AtomicBool = AtomicBool::new(false);

struct Before(UnsafeCell<MaybeUninit<sigaction>>);

// SAFETY: written by a fork's only thread before IS_SET says so, and read after.
unsafe impl Sync for Before {}

/// How many forks came before this process, since the first that made a loop. A load.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// A number that is this process's and none of its ancestors': its own number, which may be one of theirs in
/// another namespace, and how many forks came before it.
pub(super) fn process() -> u64 {
    set_up();
    u64::from(std::process::id()) << 32 | u64::from(forks())
}

fn set_up() {
    static IS_SET_UP: AtomicBool = AtomicBool::new(false);
    // Nobody waits for whoever is at it: that would be for ever in a child that was forked meanwhile.
    if !IS_SET_UP.load(Ordering::Relaxed) && !IS_SET_UP.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler calls only what a child of a process with threads may. Without memory
        // for the entry children fault without words.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

/// Children are to find that mapping gone.
pub(super) fn watch(addr: usize, len: usize) {
    set_up();
    for place in &MAPPED {
        let taken = place.addr.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_ok() {
            place.len.store(len, Ordering::Relaxed);
            place.addr.store(addr, Ordering::Release);
            return;
        }
    }
}

/// The mapping is about to end.
pub(super) fn forget(addr: usize) {
    if let Some(place) = MAPPED.iter().find(|place| place.addr.load(Ordering::Relaxed) == addr) {
        place.addr.store(FREE, Ordering::Release);
    }
}

fn mapped() -> impl Iterator<Item = (usize, usize)> {
    let all = MAPPED.iter().map(|place| (place.addr.load(Ordering::Acquire), &place.len));
    all.filter(|(addr, _)| *addr > TAKEN).map(|(addr, len)| (addr, len.load(Ordering::Relaxed)))
}

/// In the child, whose only thread this is: reserves the addresses, and catches who touches them.
unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let mut any = false;
    for (addr, len) in mapped() {
        any = true;
        let flags = libc::MAP_PRIVATE
            | libc::MAP_ANONYMOUS
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: nothing is replaced, and nobody may touch what comes to be there.
        unsafe { libc::mmap(addr as *mut c_void, len, libc::PROT_NONE, flags, -1, 0) };
    }
    if !any || IS_SET.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: an action of zeros is valid, and is filled before the call; the one before is written
    // where the only thread there is may write.
    unsafe {
        let mut ours: sigaction = MaybeUninit::zeroed().assume_init();
        ours.sa_sigaction = on_fault as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGSEGV, &raw const ours, BEFORE.0.get().cast()) == 0 {
            IS_SET.store(true, Ordering::Release);
        }
    }
}

/// Says what a fault in a ring's place means, and ends the process; hands on every other fault.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a live description, whose address means something where it is the
    // kernel's own (a positive code). Each call is one that signal handlers may make, and BEFORE
    // was written before this handler was in force.
    unsafe {
        let is_fault = (*info).si_code > 0;
        let addr = (*info).si_addr() as usize;
        if is_fault && mapped().any(|(start, len)| (start..start + len).contains(&addr)) {
            libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            libc::abort();
        }
        libc::sigaction(signal, BEFORE.0.get().cast(), ptr::null_mut());
        if !is_fault {
            // Somebody sent it: it comes again when this handler has returned. A fault does so by
            // itself.
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_in_the_table_for_as_long_as_they_are_there() {
        let (addr, len) = (usize::MAX - 8191, 4096);
        watch(addr, len);
        assert!(mapped().any(|one| one == (addr, len)));
        forget(addr);
        assert!(!mapped().any(|one| one == (addr, len)));
    }
}
