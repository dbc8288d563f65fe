//! The two queues of one ring, and the enter.
//!
//! Owns the queue memory and the head and tail protocol of `io_uring(7)`. Invariants: only the thread that
//! set the ring up touches it; a submission is published (tail stored with Release) only after it is
//! written; a completion is given back (head stored with Release) only after it is copied out.
//! Knows nothing of what a submission means.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::features::{Feature, FeatureSet};
use super::sqe::Sqe;
use crate::sys::abi::{self, Params, RawCqe, RsrcUpdate, Timespec};
use crate::sys::{Kernel, RingMemory, WaitArg};

/// How an enter ended, beside the submissions that it consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It went well, or waited out its limit, or a signal came: look for completions and go on.
    Fine,
    /// The kernel could not take more now (EAGAIN, ENOMEM) or wants completions reaped first (EBUSY).
    /// What was not consumed stays queued.
    Pressed,
    /// A thread of the kernel takes the submissions, is awake, and nothing is to be waited for: there was no
    /// call.
    Without,
}

/// 30 years.
const FOR_EVER_NS: u64 = 1_000_000_000_000_000_000;

pub(crate) struct Ring {
    kernel: Rc<dyn Kernel>,
    /// Pointers into `memory`, valid as long as it.
    sq_head: *const AtomicU32,
    sq_tail: *const AtomicU32,
    sq_flags: *const AtomicU32,
    sq_mask: u32,
    sq_entries: u32,
    /// Next free submission; published by `publish`.
    tail: u32,
    sqes: *mut Sqe,
    cq_head: *const AtomicU32,
    cq_tail: *const AtomicU32,
    cq_mask: u32,
    cqes: *const RawCqe,
    /// Descriptor or registered index, with the flag that says which.
    enter_fd: RawFd,
    enter_flags: u32,
    registered: Option<u32>,
    abs_timer: bool,
    /// Enters are not plain ones: there is such a thread as below, or waits gather completions.
    special: bool,
    /// Where a thread of the kernel takes submissions: the tail that it has been told of.
    published: Option<Rc<AtomicU32>>,
    /// What has been handed over: that, or else the head, up to which the kernel has consumed.
    handed_over: *const AtomicU32,
    /// How long a wait gathers completions, in µs, and how many end that; 0 for not at all.
    min_wait: (u32, u32),
    /// The last enter that submitted nothing brought nothing, and the flag of pending work was up after it.
    in_vain: bool,
    /// Where the queue's head was at the last enter that the kernel refused, and how many it refused there.
    refused: (u32, u32),
    memory: RingMemory,
}

impl Ring {
    pub(crate) fn new(kernel: Rc<dyn Kernel>, memory: RingMemory, p: &Params) -> Self {
        let sq = memory.sq.as_ptr();
        let cq = memory.cq.as_ptr();
        // SAFETY: the offsets are those that the kernel gave for this very memory, so each lies inside the
        // mapping and names a u32 (or an array of cqes) that is aligned as the uapi structures are.
        let ring = unsafe {
            let head: *const AtomicU32 = sq.add(p.sq_off.head as usize).cast();
            let polled = p.flags & abi::setup::SQPOLL != 0;
            let published = polled.then(|| Rc::new(AtomicU32::new(0)));
            let handed_over = published.as_ref().map_or(head, Rc::as_ptr);
            Self {
                sq_head: head,
                sq_tail: sq.add(p.sq_off.tail as usize).cast(),
                sq_flags: sq.add(p.sq_off.flags as usize).cast(),
                sq_mask: *sq.add(p.sq_off.ring_mask as usize).cast::<u32>(),
                sq_entries: p.sq_entries,
                tail: 0,
                sqes: memory.sqes.as_ptr().cast(),
                cq_head: cq.add(p.cq_off.head as usize).cast(),
                cq_tail: cq.add(p.cq_off.tail as usize).cast(),
                cq_mask: *cq.add(p.cq_off.ring_mask as usize).cast::<u32>(),
                cqes: cq.add(p.cq_off.cqes as usize).cast(),
                enter_fd: memory.fd,
                enter_flags: 0,
                registered: None,
                abs_timer: false,
                special: published.is_some(),
                handed_over,
                published,
                min_wait: (0, 1),
                in_vain: false,
                refused: (0, 0),
                kernel,
                memory,
            }
        };
        if p.flags & abi::setup::NO_SQARRAY == 0 {
            // SAFETY: without NO_SQARRAY the array of `sq_entries` indices lies at this offset; nothing has
            // been submitted yet, so the kernel does not read it while we write.
            let array = unsafe { sq.add(p.sq_off.array as usize).cast::<u32>() };
            for i in 0..p.sq_entries {
                // SAFETY: `i` is below the length of the array.
                unsafe { array.add(i as usize).write(i) };
            }
        }
        ring
    }

    /// Makes later enters skip the descriptor look-up.
    pub(crate) fn register_ring_fd(&mut self) -> io::Result<()> {
        let data = self.memory.fd as u64;
        let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data };
        let op = abi::register::RING_FDS;
        // SAFETY: one live rsrc_update, which the call reads and writes.
        unsafe { self.kernel.register(self.memory.fd, op, ptr::from_mut(&mut update).cast(), 1) }?;
        self.registered = Some(update.offset);
        self.enter_fd = update.offset as RawFd;
        self.enter_flags |= abi::enter::REGISTERED_RING;
        Ok(())
    }

    /// Takes the enter flags that are in force from the negotiated features.
    pub(crate) fn use_features(&mut self, features: FeatureSet) {
        self.abs_timer = features.contains(Feature::AbsTimer);
        if features.contains(Feature::NoIowait) {
            self.enter_flags |= abi::enter::NO_IOWAIT;
        }
    }

    /// From now on a wait goes on for `us` µs, unless `count` completions are there before.
    pub(crate) fn gather(&mut self, us: u32, count: u32) {
        self.min_wait = (us, count);
        self.special = true;
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        self.memory.fd
    }

    /// # Safety
    /// As [`Kernel::register`].
    pub(crate) unsafe fn register(&self, op: u32, arg: *mut c_void, n: u32) -> io::Result<u32> {
        // SAFETY: passed on to the caller.
        unsafe { self.kernel.register(self.memory.fd, op, arg, n) }
    }

    /// Submissions that an enter would hand over.
    #[inline]
    pub(crate) fn unsubmitted(&self) -> u32 {
        self.tail.wrapping_sub(self.load(self.handed_over))
    }

    /// Whether another submission fits into the queue.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        // Acquire: a thread of the kernel has read what it has consumed before it moved the head.
        self.tail.wrapping_sub(self.acquire(self.sq_head)) < self.sq_entries
    }

    /// Writes a submission; the kernel sees it at the next enter.
    ///
    /// # Safety
    /// The queue [`has_room`](Self::has_room). Every address in `sqe` stays valid until the completion of its
    /// user data has been reaped.
    #[inline]
    pub(crate) unsafe fn write(&mut self, sqe: &Sqe) {
        debug_assert!(self.has_room());
        let at = (self.tail & self.sq_mask) as usize;
        // SAFETY: `at` is below sq_entries, and the kernel has consumed what stood here before (the queue
        // is not full), so nobody reads it.
        unsafe { sqe.store(self.sqes.add(at)) };
        self.tail = self.tail.wrapping_add(1);
    }

    /// The next completion, given back to the kernel at once.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<RawCqe> {
        let head = self.load(self.cq_head);
        if head == self.acquire(self.cq_tail) {
            return None;
        }
        // SAFETY: head is behind tail, so the kernel has written this entry and leaves it alone until the
        // head moves past it.
        let cqe = unsafe { *self.cqes.add((head & self.cq_mask) as usize) };
        self.release(self.cq_head, head.wrapping_add(1));
        Some(cqe)
    }

    /// What the completion `ahead` places behind the next one bears, if there is one.
    #[inline]
    pub(crate) fn peek_user_data(&self, ahead: u32) -> Option<u64> {
        let head = self.load(self.cq_head);
        if self.acquire(self.cq_tail).wrapping_sub(head) <= ahead {
            return None;
        }
        let at = (head.wrapping_add(ahead) & self.cq_mask) as usize;
        // SAFETY: as in `pop`: this place, too, lies between head and tail.
        Some(unsafe { (*self.cqes.add(at)).user_data })
    }

    pub(crate) fn has_completions(&self) -> bool {
        self.load(self.cq_head) != self.acquire(self.cq_tail)
    }

    /// Whether the kernel has completions that only an enter brings: pending task work, or an overflow.
    pub(crate) fn wants_enter(&self) -> bool {
        self.shows(abi::sq_flags::TASKRUN | abi::sq_flags::CQ_OVERFLOW)
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.shows(abi::sq_flags::CQ_OVERFLOW)
    }

    /// Publishes what was pushed and enters.
    ///
    /// `min_complete` above 0 parks until so many completions are there or `until` (a point of
    /// CLOCK_MONOTONIC in ns; none = for ever) has come.
    ///
    /// # Errors
    /// An errno that means the ring cannot go on (it was closed, or memory was unmapped under it).
    #[inline]
    pub(crate) fn enter(&mut self, min_complete: u32, until: Option<u64>) -> io::Result<Entered> {
        self.release(self.sq_tail, self.tail);
        if self.special {
            return self.enter_specially(min_complete, until);
        }
        let to_submit = self.unsubmitted();
        self.call(to_submit, min_complete, abi::enter::GETEVENTS, until, 0)
    }

    /// As [`enter`](Self::enter), where a thread of the kernel takes the submissions, or waits gather
    /// completions.
    #[cold]
    fn enter_specially(&mut self, min_complete: u32, until: Option<u64>) -> io::Result<Entered> {
        let (mut count, mut until, mut min_wait_us) = (min_complete, until, 0);
        if min_complete > 0 && self.min_wait.0 > 0 {
            (min_wait_us, count) = self.gathers(until);
            // The kernel takes the one only with the other.
            until = until.or_else(|| Some(self.kernel.now_ns() + FOR_EVER_NS));
        }
        let mut flags = abi::enter::GETEVENTS;
        let mut to_submit = self.unsubmitted();
        if let Some(published) = &self.published {
            published.store(self.tail, Ordering::Relaxed);
            to_submit = 0;
            // The thread sets NEED_WAKEUP, fences, and looks at the tail once more before it sleeps. We have
            // stored the tail, fence, and look at NEED_WAKEUP: at least one sees what the other has written.
            fence(Ordering::SeqCst);
            if min_complete == 0 && !self.overflowed() {
                flags = 0;
            }
            if self.shows(abi::sq_flags::NEED_WAKEUP) {
                flags |= abi::enter::SQ_WAKEUP;
            }
            if !self.has_room() {
                flags |= abi::enter::SQ_WAIT;
            }
            if flags == 0 {
                return Ok(Entered::Without);
            }
        }
        self.call(to_submit, count, flags, until, min_wait_us)
    }

    #[inline(always)]
    fn call(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        until: Option<u64>,
        min_wait_us: u32,
    ) -> io::Result<Entered> {
        let mut flags = self.enter_flags | flags;
        let wait = until.filter(|_| min_complete > 0).map(|until| {
            let ns = if self.abs_timer {
                flags |= abi::enter::ABS_TIMER;
                until
            } else {
                until.saturating_sub(self.kernel.now_ns())
            };
            let (sec, nsec) = ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64);
            WaitArg { timeout: Timespec { sec, nsec }, min_wait_us }
        });
        let entered = self.ask(to_submit, min_complete, flags, wait.as_ref());
        match entered {
            Ok(_) => Ok(Entered::Fine),
            Err(e) => match e.raw_os_error() {
                // The wait's limit passed; a signal came. Neither says anything of the submissions, which
                // the head shows to be consumed or not.
                Some(libc::ETIME | libc::EINTR) => Ok(Entered::Fine),
                Some(libc::EAGAIN | libc::ENOMEM | libc::EBUSY) => {
                    if to_submit > 0 {
                        self.refused_again();
                    }
                    Ok(Entered::Pressed)
                }
                _ => Err(e),
            },
        }
    }

    /// The system call, and what is to be done about the flag of pending work.
    ///
    /// The kernel puts it up from the CPU where the news came, after the work is in its list (6.18,
    /// `io_req_local_work_add`), and takes it down only when it finds work there. If an enter runs the work
    /// in between, the flag stays up over nothing: a core that believes it enters once a turn, and never
    /// sleeps. So after one in vain we take it down, before the next one that submits nothing and so comes to
    /// the work: what was added before that is run by it, and what is added later puts it up again. (With
    /// COOP_TASKRUN the flag goes up before the work is queued. What we take it down over then is run when
    /// the thread next enters the kernel, for whatever reason.) An enter that fails may not have come to it.
    #[inline(always)]
    fn ask(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        wait: Option<&WaitArg>,
    ) -> io::Result<u32> {
        let takes_down = self.in_vain && to_submit == 0 && self.take_down_taskrun();
        // SAFETY: the ring is ours; whoever pushed a submission vouched for its addresses (see `write`).
        let entered =
            unsafe { self.kernel.enter(self.enter_fd, to_submit, min_complete, flags, wait) };
        if takes_down && entered.is_err() {
            self.put_up_taskrun();
        }
        if to_submit == 0 && self.shows(abi::sq_flags::TASKRUN) {
            self.in_vain = !self.has_completions();
        }
        entered
    }

    /// Whether it was up.
    #[cold]
    fn take_down_taskrun(&mut self) -> bool {
        self.in_vain = false;
        let was = self.flags().fetch_and(!abi::sq_flags::TASKRUN, Ordering::AcqRel);
        was & abi::sq_flags::TASKRUN != 0
    }

    #[cold]
    pub(crate) fn put_up_taskrun(&self) {
        self.flags().fetch_or(abi::sq_flags::TASKRUN, Ordering::AcqRel);
    }

    /// Whether the kernel shows any of these flags.
    #[inline]
    fn shows(&self, any: u32) -> bool {
        self.flags().load(Ordering::Relaxed) & any != 0
    }

    /// The kernel, too, changes them by atomic instructions alone.
    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: set in `new`, and valid as long as `memory`.
        unsafe { &*self.sq_flags }
    }

    /// How long a wait until then gathers completions, in µs, and how many. The kernel looks at its
    /// limit only after that: a timer must not be late by it.
    fn gathers(&self, until: Option<u64>) -> (u32, u32) {
        let (us, count) = self.min_wait;
        let left_us = until.map_or(u64::MAX, |at| at.saturating_sub(self.kernel.now_ns()) / 1_000);
        match us.min(u32::try_from(left_us).unwrap_or(u32::MAX)) {
            0 => (0, 1),
            us => (us, count),
        }
    }

    /// Where the kernel goes on refusing submissions, has it bring what has completed: an enter that submits
    /// nothing brings nothing either, and ops that have ended are what gives the kernel its memory back. Not
    /// each time, but ever more rarely: a kernel that refuses every second enter would take only these.
    #[cold]
    fn refused_again(&mut self) {
        let head = self.load(self.sq_head);
        let times = if self.refused.0 == head { self.refused.1.saturating_add(1) } else { 1 };
        self.refused = (head, times);
        if times < 2 || !times.is_power_of_two() {
            return;
        }
        // What fails here fails again in the next enter.
        let _ = self.ask(0, 0, self.enter_flags | abi::enter::GETEVENTS, None);
    }

    #[inline]
    fn load(&self, word: *const AtomicU32) -> u32 {
        // SAFETY: the words that are passed here are set in `new` and valid as long as `memory`.
        unsafe { (*word).load(Ordering::Relaxed) }
    }

    #[inline]
    fn acquire(&self, word: *const AtomicU32) -> u32 {
        // SAFETY: as in `load`.
        unsafe { (*word).load(Ordering::Acquire) }
    }

    #[inline]
    fn release(&self, word: *const AtomicU32, value: u32) {
        // SAFETY: as in `load`.
        unsafe { (*word).store(value, Ordering::Release) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            let mut update = RsrcUpdate { offset: index, resv: 0, data: 0 };
            let op = abi::register::UNREGISTER_RING_FDS;
            // A registered index left behind keeps the closed ring alive, and a thread has only 16.
            // SAFETY: one live rsrc_update naming our own index. A failure leaves nothing to be done.
            let _ = unsafe {
                self.kernel.register(self.memory.fd, op, ptr::from_mut(&mut update).cast(), 1)
            };
        }
    }
}
