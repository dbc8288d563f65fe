//! One core's ring, the ops on it, and the buffers that it receives into.
//!
//! Owns the [`Driver`]: submission ([`submit`]), completion ([`complete`]), cancel ([`cancel`]) and the
//! close that waits for quiet ([`close`]). Invariants: no user code (wakers, op hooks, destructors) runs
//! while one of its cells is borrowed; an op's memory is freed only after its last completion; the ring is
//! closed only when nothing is in flight, or else everything that the kernel may still touch is leaked.
//! Knows wakers, but not tasks, timers or cores.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

pub(crate) mod asked;
pub(crate) mod cancel;
pub(crate) mod chunk;
pub(crate) mod close;
pub(crate) mod complete;
mod direct;
pub(crate) mod features;
pub(crate) mod fixed;
pub(crate) mod op;
pub(crate) mod op_slab;
pub(crate) mod pool;
pub(crate) mod ring;
pub(crate) mod series;
pub(crate) mod setup;
pub(crate) mod sqe;
pub(crate) mod submit;
pub(crate) mod ways;
pub(crate) mod workers;

use self::direct::Direct;
use self::features::{Feature, Missing, RingReport};
use self::fixed::FileTable;
use self::op_slab::{Key, OpSlab};
use self::pool::{Pool, PoolConfig};
use self::ring::Ring;
use self::setup::{RingConfig, StartError};
use self::sqe::{Cqe, Sqe};
use crate::metrics::{Kind, Recorder};
use crate::sys::Kernel;
use crate::sys::abi;

pub(crate) struct DriverConfig {
    pub(crate) ring: RingConfig,
    pub(crate) pool: PoolConfig,
    /// Tasks that a turn may have for its sends to be made at once.
    pub(crate) direct_sends: u32,
}

pub(crate) struct Driver {
    kernel: Rc<dyn Kernel>,
    /// None once closed.
    ring: RefCell<Option<Ring>>,
    closed: Cell<bool>,
    pub(crate) slots: OpSlab,
    waiting: RefCell<Waiting>,
    detours: Detours,
    /// Something was written to the submission queue since the last enter.
    wrote: Cell<bool>,
    /// Whether ops are in there that the kernel will never see.
    any_never_sent: Cell<bool>,
    /// See [`take_called`](Self::take_called).
    called: Cell<bool>,
    pool: Rc<Pool>,
    files: FileTable,
    report: RingReport,
    metrics: Arc<Recorder>,
    /// Submissions of the driver's own (cancels, the wake read) that have not completed.
    own_in_flight: Cell<u32>,
    /// See [`owes_turns`](Self::owes_turns).
    owes_turns: Cell<bool>,
    wake: WakeRead,
    /// Tells strangers of completions; made when somebody asks for it.
    notify: RefCell<Option<OwnedFd>>,
    /// Sends of at least so many bytes are not copied.
    zero_copy_from: usize,
    direct: Direct,
    /// The completion that is being handled.
    dispatching: Cell<Option<(Key, Cqe)>>,
    /// Wakers to be called when the completion that is being handled has been dealt with.
    after: RefCell<Vec<Waker>>,
    any_after: Cell<bool>,
    /// The tick's time, for stamps; 0 while nobody wants them.
    stamp: Cell<u64>,
    /// What submissions are stamped with: that time, or 0 while they are not timed.
    submit_stamp: Cell<u64>,
}

/// What found no room in the submission queue. Bounded by the op slab: each op is in here at most once
/// itself and once as the target of a cancel; ops that have ended since are swept before they are more than
/// those that live.
#[derive(Default)]
struct Waiting {
    /// Targets of cancels, which go before everything else.
    cancels: VecDeque<u64>,
    ops: VecDeque<(Key, Sqe)>,
    /// Ops that were cancelled before the kernel ever saw them.
    never_sent: VecDeque<Key>,
}

/// Why a submission may not simply be written to the queue: one look for most.
#[derive(Default)]
struct Detours(Cell<u8>);

impl Detours {
    /// Cancels or ops are in [`Waiting`], which go first.
    const WAITING: u8 = 1 << 0;
    /// Nobody drives the loop, and somebody may wait on `notify`.
    const WATCHED: u8 = 1 << 1;

    #[inline]
    fn none(&self) -> bool {
        self.0.get() == 0
    }

    #[inline]
    fn has(&self, why: u8) -> bool {
        self.0.get() & why != 0
    }

    #[inline]
    fn set(&self, why: u8, on: bool) {
        self.0.set(if on { self.0.get() | why } else { self.0.get() & !why });
    }
}

/// The eventfd through which other threads wake a parked core, and the 8 bytes that its read goes to.
struct WakeRead {
    /// None once closed.
    fd: RefCell<Option<OwnedFd>>,
    /// Heap memory that the kernel writes; only its address is used.
    count: NonNull<u64>,
    armed: Cell<bool>,
}

impl Driver {
    pub(crate) fn new(
        kernel: Rc<dyn Kernel>,
        config: &DriverConfig,
        metrics: Arc<Recorder>,
    ) -> Result<Rc<Self>, StartError> {
        let (ring, mut report) = setup::negotiate(&kernel, &config.ring)?;
        let pool = make_pool(&ring, &config.pool, &metrics, &mut report)?;
        let files = config.ring.asked.fixed_files;
        let files = FileTable::register(&*kernel, &ring, files, &mut report);
        let detours = Detours::default();
        let fd = kernel.eventfd().map_err(|source| match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                StartError::NoDescriptors { what: "the wake-up eventfd", source }
            }
            _ => StartError::System { step: "eventfd2", source },
        })?;
        probe_messages(&kernel, &fd, &mut report);
        let submits = report.in_force.contains(Feature::SqPoll);
        let threshold = config.ring.asked.zero_copy_threshold;
        let zero_copy_from = threshold.filter(|_| report.in_force.contains(Feature::SendZc));
        let count = NonNull::from(Box::leak(Box::new(0u64)));
        Ok(Rc::new(Self {
            kernel,
            ring: RefCell::new(Some(ring)),
            closed: Cell::new(false),
            slots: OpSlab::default(),
            waiting: RefCell::default(),
            detours,
            wrote: Cell::new(false),
            any_never_sent: Cell::new(false),
            called: Cell::new(false),
            pool,
            files,
            report,
            metrics,
            own_in_flight: Cell::new(0),
            owes_turns: Cell::new(false),
            wake: WakeRead { fd: RefCell::new(Some(fd)), count, armed: Cell::new(false) },
            zero_copy_from: zero_copy_from.map_or(usize::MAX, |bytes| bytes as usize),
            // Where a thread of the kernel submits, a submission is no call.
            direct: Direct::new(if submits { 0 } else { config.direct_sends }),
            notify: RefCell::new(None),
            dispatching: Cell::new(None),
            after: RefCell::default(),
            any_after: Cell::new(false),
            stamp: Cell::new(0),
            submit_stamp: Cell::new(0),
        }))
    }

    pub(crate) fn report(&self) -> &RingReport {
        &self.report
    }

    /// Lets a test look at the ring.
    #[cfg(test)]
    pub(crate) fn with_ring<T>(&self, f: impl FnOnce(&Ring) -> T) -> T {
        f(self.ring.borrow().as_ref().expect("a ring that is open"))
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Sends of at least so many bytes are not to be copied.
    #[inline]
    pub(crate) fn zero_copy_from(&self) -> usize {
        self.zero_copy_from
    }

    pub(crate) fn count(&self, kind: Kind) {
        self.metrics.count(kind);
    }

    pub(crate) fn say_step_down(&self, what: &str, why: &str) {
        self.metrics.step_down(what, why);
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.report.in_force.contains(feature)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The descriptor that other threads write to.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake.fd.borrow().as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The ring that other threads send messages to, if they can; its number until it is closed.
    pub(crate) fn message_fd(&self) -> Option<RawFd> {
        let ring = self.ring.borrow();
        ring.as_ref().filter(|_| self.has(Feature::MsgRing)).map(Ring::fd)
    }

    /// Closes the eventfd, also if the driver lives on; no sender knows it any more. A read that was
    /// leaked with the ring holds the file by itself.
    pub(crate) fn close_wake(&self) {
        drop(self.wake.fd.take());
        drop(self.notify.take());
    }

    /// A descriptor that becomes readable when completions come. Not the ring's own: with DEFER_TASKRUN
    /// that one does not become readable by work which only an enter would run.
    pub(crate) fn notify_fd(&self) -> io::Result<RawFd> {
        if let Some(fd) = &*self.notify.borrow() {
            return Ok(fd.as_raw_fd());
        }
        let fd = self.kernel.eventfd()?;
        let mut raw = fd.as_raw_fd();
        let ring = self.ring.borrow();
        let ring = ring.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::ECANCELED))?;
        // SAFETY: one live descriptor number; the ring takes a reference of its own.
        unsafe { ring.register(abi::register::EVENTFD, (&raw mut raw).cast(), 1) }?;
        Ok(self.notify.borrow_mut().insert(fd).as_raw_fd())
    }

    /// Says whether somebody else than the loop waits for it.
    pub(crate) fn set_watched(&self, watched: bool) {
        self.detours.set(Detours::WATCHED, watched);
    }

    /// Something was queued: if nobody drives the loop, whoever waits on its descriptor is told.
    fn tell_if_watched(&self) {
        if self.detours.has(Detours::WATCHED) {
            self.poke_notify();
        }
    }

    /// Makes the descriptor of [`notify_fd`](Self::notify_fd) readable.
    #[cold]
    pub(crate) fn poke_notify(&self) {
        if let Some(fd) = &*self.notify.borrow() {
            let one = 1u64;
            // SAFETY: 8 live bytes, and a non-blocking eventfd of our own; a full one is readable anyway.
            unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Makes the descriptor of [`notify_fd`](Self::notify_fd) unreadable until something comes.
    pub(crate) fn drain_notify(&self) {
        if let Some(fd) = &*self.notify.borrow() {
            let mut count = 0u64;
            // SAFETY: 8 live bytes, and a non-blocking eventfd of our own; empty is as good as drained.
            unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
    }

    /// The kernel below, for what is no submission.
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// Ops that have not ended, the driver's own not counted.
    pub(crate) fn ops(&self) -> u32 {
        self.slots.live()
    }

    /// Places of ops that there are, used or free.
    pub(crate) fn places(&self) -> u32 {
        self.slots.places()
    }

    /// The op in `place`, if there is one that somebody waits for: by whom, what it does, on which
    /// descriptor.
    pub(crate) fn waiting_at(
        &self,
        place: u32,
        f: impl FnOnce(&Waker, &'static str, Option<RawFd>),
    ) {
        let Some(slot) = self.slots.used(place) else { return };
        let waker = slot.waker.take();
        if let Some(waker) = &waker {
            f(waker, abi::opcode::name(slot.opcode.get()), slot.fd());
        }
        slot.waker.set(waker);
    }

    /// Sets the time that submissions of this tick are stamped with.
    pub(crate) fn set_stamp(&self, now: u64) {
        self.stamp.set(now);
        self.submit_stamp.set(now);
    }

    /// Whether submissions are timed from now on.
    pub(crate) fn time_submissions(&self, timed: bool) {
        self.submit_stamp.set(if timed { self.stamp.get() } else { 0 });
    }
}

impl WakeRead {
    fn submission(&self) -> Option<Sqe> {
        let fd = self.fd.borrow();
        Some(Sqe::read(fd.as_ref()?.as_fd(), self.count.as_ptr().cast(), 8, u64::MAX))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.close_at_once();
        if !self.wake.armed.get() {
            // SAFETY: made by Box::leak in `new`; no read is armed, so the kernel does not write there.
            drop(unsafe { Box::from_raw(self.wake.count.as_ptr()) });
        }
    }
}

fn make_pool(
    ring: &Ring,
    config: &PoolConfig,
    metrics: &Arc<Recorder>,
    report: &mut RingReport,
) -> Result<Rc<Pool>, StartError> {
    if report.in_force.contains(Feature::BufferRing) {
        let in_force = &report.in_force;
        let sees = in_force.contains(Feature::DeferTaskrun) && !in_force.contains(Feature::SqPoll);
        match Pool::register(ring, config, metrics, sees) {
            Ok(pool) => {
                report.buffers = config.count;
                report.buffer_size = config.size;
                return Ok(Rc::new(pool));
            }
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(0);
                report.without(Feature::BufferRing, Missing::Failed(errno));
            }
        }
    }
    report.buffer_size = config.size;
    if report.in_force.contains(Feature::MultishotRecv) {
        report.without(Feature::MultishotRecv, Missing::Needs(Feature::BufferRing));
    }
    Ok(Rc::new(Pool::without_ring(config, metrics)))
}

/// Finds out whether this kernel sends messages without a ring, by one to what is none.
fn probe_messages(kernel: &Rc<dyn Kernel>, no_ring: &OwnedFd, report: &mut RingReport) {
    if !report.in_force.contains(Feature::MsgRing) {
        return;
    }
    let mut message = abi::Message::new(no_ring.as_raw_fd(), 0);
    let arg = std::ptr::from_mut(&mut message).cast();
    // SAFETY: one live submission, which the call reads.
    let answer = unsafe { kernel.register(-1, abi::register::SEND_MSG_RING, arg, 1) };
    match answer.err().and_then(|e| e.raw_os_error()) {
        Some(libc::EBADFD) => {}
        Some(libc::EBADF | libc::EINVAL) | None => {
            report.without(Feature::MsgRing, Missing::Kernel)
        }
        Some(errno) => report.without(Feature::MsgRing, Missing::Failed(errno)),
    }
}

/// Names of submissions that are not ops: user data with one of these bits, above any op index.
mod own {
    pub(super) const CANCEL: u64 = 1 << 31;
    pub(super) const WAKE: u64 = 1 << 30;
    pub(super) const MESSAGE: u64 = crate::sys::abi::WAKE_MESSAGE;
}

const _: () = assert!(op_slab::OPS_MAX as u64 <= own::MESSAGE);
