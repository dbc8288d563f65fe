//! What the rest of the process knows of one core: process-global and never freed.
//!
//! Owns the table of [`CoreCell`]s, leased to one loop at a time. A waker of a loop that has long gone
//! still names a cell, finds its bits, and does no harm.
//!
//! Post: whoever leaves mail (a wake's bit, a closure) sets `posted` after it; the core takes that before it
//! looks into either place, so that a look for mail is a look at one word. Mail that a core did not see has
//! set `posted` after the core took it, and is found the next time.
//!
//! Park protocol. Parker: `parked = 1`, look for mail once more, enter, `parked = 0`. Sender: publish, look
//! at `parked`, and if that is 1, swap it to 0 and send a message to the ring, or write the eventfd. What
//! either stores and then looks at is SeqCst, so at least one of the two sees the other. A descriptor is
//! closed only when no sender is between reading its number and using it, or a stranger's file could be
//! written to.

use std::os::fd::RawFd;
use std::ptr;

use super::wake_map::WakeMap;
#[cfg(not(loom))]
use crate::sys::linux as system;
#[cfg(loom)]
use crate::sys::modelled as system;
use crate::sys::shared::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, LOOK, Ordering, fence, give_way,
    publish_among, publish_i32, publish_one_more, publish_u32, store_bool, store_u32,
};

/// Loops that may live in one process at a time.
pub(crate) const CORES_MAX: usize = if cfg!(loom) { 2 } else { 1024 };

/// Ids that loops have in turn. The others are taken when all of these are.
const IN_TURN: usize = if cfg!(loom) { CORES_MAX } else { 64 };

/// Ids tried so far, modulo 2^32, of which the number of ids that take turns is a divisor.
static TRIED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Null until it was leased once, and never freed then.
type Cells = [AtomicPtr<CoreCell>; CORES_MAX];

#[cfg(not(loom))]
static CELLS: Cells = [const { AtomicPtr::new(ptr::null_mut()) }; CORES_MAX];
#[cfg(loom)]
crate::sys::model::lazy_static! {
    /// Each run of a model has its own.
    static ref CELLS: Cells = std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
}

#[repr(C)]
pub(crate) struct CoreCell {
    bell: Bell,
    senders: Senders,
    leased: AtomicBool,
    wake_fd: AtomicI32,
    /// The ring, where the kernel takes messages to it.
    ring_fd: AtomicI32,
    /// A second one, for whoever waits outside of the loop. The kernel does not pass a write to the first
    /// one on to an eventfd that is registered with the ring.
    notify_fd: AtomicI32,
    /// Where the next lease's task generations begin.
    generations: AtomicU32,
    pub(crate) map: WakeMap,
}

/// What a core and those who wake it tell each other.
#[repr(align(128))]
struct Bell {
    parked: AtomicU32,
    /// Wakes may be in the map, or closures in the core's queue.
    posted: AtomicBool,
}

/// What senders write beside, when the core that they have woken looks at its bell: on lines of its own,
/// which the core reads when it has time.
#[repr(align(128))]
struct Senders {
    /// Those between looking at the descriptors and having written to them.
    sending: AtomicU32,
    remote_wakes: AtomicU64,
}

/// One loop's use of a cell; ends the lease when dropped.
pub(crate) struct Lease {
    pub(crate) id: u32,
    pub(crate) cell: &'static CoreCell,
}

impl CoreCell {
    fn new() -> Self {
        Self {
            bell: Bell { parked: AtomicU32::new(0), posted: AtomicBool::new(false) },
            senders: Senders { sending: AtomicU32::new(0), remote_wakes: AtomicU64::new(0) },
            leased: AtomicBool::new(false),
            wake_fd: AtomicI32::new(-1),
            ring_fd: AtomicI32::new(-1),
            notify_fd: AtomicI32::new(-1),
            generations: AtomicU32::new(0),
            map: WakeMap::new(),
        }
    }

    /// Wakes a slot from another thread.
    pub(crate) fn wake(&self, slot: u32) {
        self.map.set(slot);
        self.post();
    }

    /// Makes the core look at its mail, which was left before: the next time that it does so by itself, or
    /// now if it is parked.
    pub(crate) fn post(&self) {
        publish_among(&self.bell.posted, true);
        self.unpark();
    }

    /// Whether mail may have come since [`take_post`](Self::take_post).
    #[inline]
    pub(crate) fn has_post(&self) -> bool {
        self.bell.posted.load(LOOK)
    }

    /// Whether mail may have come; what came is then to be taken. The owning core only.
    #[inline]
    pub(crate) fn take_post(&self) -> bool {
        self.bell.posted.load(Ordering::Relaxed) && self.bell.posted.swap(false, Ordering::AcqRel)
    }

    /// Ends the core's park, if it is parked. What it is to see was stored by
    /// [`publish`](crate::sys::shared::publish) or its like, or by its own thread.
    pub(crate) fn unpark(&self) {
        if self.bell.parked.load(LOOK) == 0 || self.bell.parked.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        self.wake_parked();
    }

    #[cold]
    fn wake_parked(&self) {
        publish_one_more(&self.senders.sending);
        if self.send_message() {
            self.senders.remote_wakes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.write_to(&self.wake_fd);
        }
        self.write_to(&self.notify_fd);
        self.senders.sending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes the core by a message to its ring. It may be turned away: by a kernel that is short of memory,
    /// or a filter.
    fn send_message(&self) -> bool {
        let ring = self.ring_fd.load(LOOK);
        // The descriptor stays open while `sending` counts us.
        ring >= 0 && system::send_message(ring)
    }

    fn write_to(&self, fd: &AtomicI32) {
        let fd = fd.load(LOOK);
        if fd >= 0 {
            // The descriptor stays open while `sending` counts us.
            system::write_event(fd);
            self.senders.remote_wakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Announces a park. The caller looks at its mail once more before it sleeps.
    pub(crate) fn park(&self) {
        publish_u32(&self.bell.parked, 1);
    }

    /// Whether the core sleeps, or is about to, and nobody has ended that. A look in the order [`LOOK`].
    pub(crate) fn is_parked(&self) -> bool {
        self.bell.parked.load(LOOK) != 0
    }

    /// The park is over, or does not take place.
    pub(crate) fn unparked(&self) {
        store_u32(&self.bell.parked, 0, Ordering::Relaxed);
    }

    /// How many system calls other threads made to wake this core.
    pub(crate) fn take_remote_wakes(&self) -> u64 {
        if self.senders.remote_wakes.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.senders.remote_wakes.swap(0, Ordering::Relaxed)
    }
}

/// The cell of a core id that once was leased.
pub(crate) fn cell(id: u32) -> Option<&'static CoreCell> {
    let cell = CELLS.get(id as usize)?.load(Ordering::Acquire);
    // SAFETY: null, or made by Box::into_raw in `made` and never freed.
    unsafe { cell.as_ref() }
}

/// The cell in `place`, made if there is none yet.
fn made(place: &AtomicPtr<CoreCell>) -> &'static CoreCell {
    let known = place.load(Ordering::Acquire);
    // SAFETY: null, or made by Box::into_raw below and never freed.
    if let Some(known) = unsafe { known.as_ref() } {
        return known;
    }
    let fresh = Box::into_raw(Box::new(CoreCell::new()));
    let won = place.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire);
    // SAFETY: whichever of the two is in the place is never freed, and the other one nobody has seen.
    unsafe {
        match won {
            Ok(_) => &*fresh,
            Err(others) => {
                drop(Box::from_raw(fresh));
                &*others
            }
        }
    }
}

impl Lease {
    /// Takes a free core id; none if all are in use. The first few are taken in turn: who still has a waker
    /// of a loop that has ended would else wake, in vain, a task of the very next one.
    pub(crate) fn take() -> Option<Self> {
        // Those that are found taken have had their turn, too: else the one behind them would have it twice.
        let next = |n| match cfg!(loom) {
            true => n,
            false => TRIED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as usize % IN_TURN,
        };
        // Who tries at the same time may have had the turn of the only one that is free: all, at last.
        (0..IN_TURN).map(next).chain(0..CORES_MAX).find_map(Self::take_this)
    }

    fn take_this(id: usize) -> Option<Self> {
        let cell = made(&CELLS[id]);
        if cell.leased.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Self { id: id as u32, cell })
    }

    /// Where this lease's task generations begin.
    pub(crate) fn first_generation(&self) -> u32 {
        self.cell.generations.load(Ordering::Relaxed)
    }

    /// Where the next lease's task generations are to begin.
    pub(crate) fn set_next_generation(&self, generation: u32) {
        self.cell.generations.store(generation, Ordering::Relaxed);
    }

    /// Opens the way for wakes to a parked core: messages to its ring, if there is one that takes them, and
    /// an eventfd.
    pub(crate) fn open(&self, wake_fd: RawFd, ring_fd: Option<RawFd>) {
        // Wakes that the last lease's loop did not live to count.
        self.cell.senders.remote_wakes.store(0, Ordering::Relaxed);
        self.cell.wake_fd.store(wake_fd, Ordering::SeqCst);
        self.cell.ring_fd.store(ring_fd.unwrap_or(-1), Ordering::SeqCst);
    }

    /// From here on nobody sends messages to the ring, and it may be closed; wakes are written to the
    /// eventfd.
    pub(crate) fn close_ring(&self) {
        publish_i32(&self.cell.ring_fd, -1);
        self.wait_for_senders();
    }

    /// Has wakes written to a second eventfd too.
    pub(crate) fn notify(&self, fd: RawFd) {
        self.cell.notify_fd.store(fd, Ordering::SeqCst);
        // As at a park: the caller looks for mail afterwards, and a sender that it does not see sees this.
        fence(Ordering::SeqCst);
    }

    /// Closes it; afterwards nobody writes to the descriptors, and they may be closed.
    pub(crate) fn close(&self) {
        publish_i32(&self.cell.wake_fd, -1);
        publish_i32(&self.cell.notify_fd, -1);
        publish_i32(&self.cell.ring_fd, -1);
        self.wait_for_senders();
    }

    fn wait_for_senders(&self) {
        while self.cell.senders.sending.load(LOOK) != 0 {
            // A sender is within a call that does not block.
            give_way();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close();
        self.cell.unparked();
        // What was woken belongs to no one any more.
        self.cell.take_post();
        self.cell.map.drain(|_| ());
        store_bool(&self.cell.leased, false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Ids are the process's: while one test has all that are taken in turn, there are no turns for another.
    static TURNS: Mutex<()> = Mutex::new(());

    #[test]
    fn an_id_is_not_taken_twice_running_beside_loops_that_live_on() {
        let _turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let _live: Vec<Lease> = (0..3).map(|_| Lease::take().unwrap()).collect();
        let mut last = None;
        for _ in 0..3 * IN_TURN {
            let id = Lease::take().unwrap().id;
            assert_ne!(last.replace(id), Some(id));
        }
    }

    #[test]
    fn more_loops_than_take_turns_have_an_id_each() {
        let _turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<Lease> = (0..2 * IN_TURN).map(|_| Lease::take().unwrap()).collect();
        let ids: std::collections::BTreeSet<u32> = live.iter().map(|lease| lease.id).collect();
        assert_eq!(ids.len(), live.len());
    }
}
