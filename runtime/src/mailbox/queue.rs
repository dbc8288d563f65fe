//! Closures that other threads hand to a core.
//!
//! Owns one core's bounded queue. A full queue refuses, or has the sender wait; a core that has ended
//! refuses and drops what was still queued; which of the two happens to a closure is settled under the
//! queue's lock, so none hangs. The lock is held for a push or a swap only; a wake takes no lock (see
//! `wake_map`). Who waits for room waits on its own core, which goes on taking: two cores whose queues are
//! full of each other's closures empty them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use super::cell::CoreCell;
use crate::contain::{let_go, wake};
use crate::metrics::{CoreState, Latency, Recorder, Snapshot};
use crate::sys::forks;
use crate::sys::shared::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Closures that may wait for one core.
pub(crate) const JOBS_MAX: usize = if cfg!(loom) { 1 } else { 1024 };

/// Questions that a core may have to answer, beside them. A core whose queue is kept full by others is
/// busy, and not silent: it is asked all the same.
const QUESTIONS_MAX: usize = 256;

/// As many more whose answers take several turns: all share one slice a turn.
const SLICED_MAX: usize = 64;

pub(crate) struct JobQueue {
    cell: &'static CoreCell,
    /// What the core did, for whoever asks.
    book: Arc<Recorder>,
    /// What senders note the time by, if latencies are kept.
    clock: Option<fn() -> u64>,
    /// None once the core has ended.
    open: Mutex<Option<Open>>,
    any: AtomicBool,
    /// Questions under way, of each kind.
    asked: [AtomicUsize; 2],
    /// Forks before the process whose core it is: see [`is_left_behind`](Self::is_left_behind).
    forks: u32,
}

/// What a question takes of its core.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asks {
    /// A moment.
    Once,
    /// Slices of its turns.
    InSlices,
}

impl Asks {
    fn most(self) -> usize {
        match self {
            Self::Once => QUESTIONS_MAX,
            Self::InSlices => SLICED_MAX,
        }
    }
}

/// One of the questions of a core, for as long as it takes.
pub(crate) struct Question {
    queue: Arc<JobQueue>,
    kind: Asks,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.queue.asked[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Open {
    jobs: VecDeque<Job>,
    /// How many of them take no room.
    beside: usize,
    /// When the first of them came; 0 if nobody noted it.
    first_ns: u64,
    /// Who waits for room, by number.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Open {
    fn has_room(&self) -> bool {
        self.jobs.len() - self.beside < JOBS_MAX
    }
}

/// Why a closure was not taken.
pub(crate) enum Refused {
    /// It comes back.
    Full(Job),
    /// It has been dropped.
    Gone,
}

impl JobQueue {
    pub(crate) fn new(
        cell: &'static CoreCell,
        book: Arc<Recorder>,
        clock: Option<fn() -> u64>,
    ) -> Self {
        let clock = clock.filter(|_| book.timing());
        let open = Mutex::new(Some(Open::default()));
        let (any, asked) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
        Self { cell, book, clock, open, any, asked, forks: forks() }
    }

    /// Whether this is a forked child of the process whose core it is. There the core has ended: its thread
    /// is not there, and the lock may be held for ever.
    #[inline]
    fn is_left_behind(&self) -> bool {
        self.forks != forks()
    }

    /// Queues a closure and wakes the core.
    pub(crate) fn push(&self, job: Job) -> Result<(), Refused> {
        self.put(job, true)
    }

    /// Leave to [ask](Self::push_anyway) the core something; none if so many ask already.
    pub(crate) fn question(self: &Arc<Self>, kind: Asks) -> Option<Question> {
        let more = |n| (n < kind.most()).then_some(n + 1);
        let asked =
            self.asked[kind as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        asked.is_ok().then(|| Question { queue: self.clone(), kind })
    }

    /// As [`push`](Self::push), also if the queue is full, and beside what fills it: for what there is a
    /// bounded number of.
    pub(crate) fn push_anyway(&self, job: Job) -> Result<(), Refused> {
        self.put(job, false)
    }

    #[inline]
    fn put(&self, job: Job, takes_room: bool) -> Result<(), Refused> {
        // Declared before the lock, so that a refused closure's destructor runs after its release.
        let job = job;
        if self.is_left_behind() {
            return Err(Refused::Gone);
        }
        let mut open = self.lock();
        match &mut *open {
            None => return Err(Refused::Gone),
            Some(open) if takes_room && !open.has_room() => return Err(Refused::Full(job)),
            Some(open) => {
                open.beside += usize::from(!takes_room);
                if open.jobs.is_empty() {
                    open.first_ns = self.clock.map_or(0, |now_ns| now_ns());
                }
                open.jobs.push_back(job);
            }
        }
        self.any.store(true, Ordering::Release);
        drop(open);
        self.cell.post();
        Ok(())
    }

    /// Sets down who waits for room, if there is none now.
    fn poll_room(&self, place: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        if self.is_left_behind() {
            return Poll::Ready(());
        }
        // Foreign code, with nothing held: the clone before the lock, the drop after it.
        let waker = cx.waker().clone();
        let mut lock = self.lock();
        let old = match &mut *lock {
            Some(open) if !open.has_room() => {
                let number = *place.get_or_insert_with(|| {
                    open.next += 1;
                    open.next
                });
                open.waiting.insert(number, waker)
            }
            _ => return Poll::Ready(()),
        };
        drop(lock);
        let_go(old);
        Poll::Pending
    }

    /// One that waited does not any more. If it had been told of room and has not taken it, the next is told.
    fn forget_waiting(&self, place: u64) {
        if self.is_left_behind() {
            return;
        }
        let mut lock = self.lock();
        let Some(open) = lock.as_mut() else { return };
        if let Some(old) = open.waiting.remove(&place) {
            drop(lock);
            return let_go(old);
        }
        let has_room = open.has_room();
        let next = if has_room { open.waiting.pop_first() } else { None };
        drop(lock);
        if let Some((_, waker)) = next {
            wake(waker);
        }
    }

    /// What the core has entered into its book up to `now_ns`, without a word to it.
    pub(crate) fn read_book(&self, now_ns: u64) -> Snapshot {
        self.book.read(now_ns, self.state())
    }

    /// The same without histograms.
    pub(crate) fn read_book_in_brief(&self, now_ns: u64) -> Snapshot {
        self.book.read_in_brief(now_ns, self.state())
    }

    /// What the core does, if it has not ended.
    fn state(&self) -> CoreState {
        match () {
            _ if self.is_left_behind() || self.lock().is_none() => CoreState::Closing,
            _ if self.cell.is_parked() => CoreState::Parked,
            _ => CoreState::Running,
        }
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes all that is queued. The owning core only.
    pub(crate) fn take(&self) -> VecDeque<Job> {
        let mut lock = self.lock();
        self.any.store(false, Ordering::Relaxed);
        let Some(open) = lock.as_mut() else { return VecDeque::new() };
        let jobs = std::mem::take(&mut open.jobs);
        open.beside = 0;
        // As many as there is room for now, in the order of asking; the others keep their places.
        let waiting: Vec<Waker> = std::iter::from_fn(|| open.waiting.pop_first())
            .map(|(_, waker)| waker)
            .take(JOBS_MAX)
            .collect();
        let first_ns = open.first_ns;
        drop(lock);
        if let Some(now_ns) = self.clock.filter(|_| !jobs.is_empty()) {
            self.book.took(Latency::Mailbox, now_ns().saturating_sub(first_ns));
        }
        wake_all(waiting);
        jobs
    }

    /// Refuses from now on; what was queued is dropped by the caller.
    pub(crate) fn close(&self) -> VecDeque<Job> {
        let mut lock = self.lock();
        self.any.store(false, Ordering::Relaxed);
        let Some(open) = lock.take() else { return VecDeque::new() };
        drop(lock);
        wake_all(open.waiting.into_values());
        open.jobs
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake_all(waiting: impl IntoIterator<Item = Waker>) {
    waiting.into_iter().for_each(wake);
}

/// A wait for room in a queue.
pub(crate) struct Room<'a> {
    queue: &'a JobQueue,
    place: Option<u64>,
}

impl<'a> Room<'a> {
    pub(crate) fn in_queue(queue: &'a JobQueue) -> Self {
        Self { queue, place: None }
    }

    /// It was taken, maybe without having been told of.
    pub(crate) fn taken(&mut self) {
        if let Some(place) = self.place.take() {
            if self.queue.is_left_behind() {
                return;
            }
            let old = self.queue.lock().as_mut().and_then(|open| open.waiting.remove(&place));
            let_go(old);
        }
    }
}

impl Future for Room<'_> {
    type Output = ();

    /// Ready when there was room, or the core has ended. Polled again it goes on in its old place.
    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.queue.poll_room(&mut this.place, cx)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.queue.forget_waiting(place);
        }
    }
}
