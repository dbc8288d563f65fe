//! One core's part in the end.
//!
//! Owns [`Here`]: the tokens that this core's tasks listen to, the count of what it serves, and the task
//! that cancels the tokens in time. Invariant: a guard counts from its making to its drop, and is counted as
//! finished or as cancelled if that comes after `stopping`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::iter::Sum;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::word::{Changed, Times, Word};
use crate::cancel::{Cancelled, Token};
use crate::combine::race;
use crate::spawn::{spawn_at, spawn_named};
use crate::sync::Event;
use crate::task::JoinHandle;
use crate::time::{Instant, sleep_until, timeout};

/// A core's view of a [`Graceful`](super::Graceful): what its listeners and connections listen to, and the
/// count of those. Clones are the same one; it stays on its core.
///
/// ```
/// use coreloop::cancel::Interruptible;
/// use coreloop::op::{PollOnce, submit};
/// use coreloop::shutdown::Graceful;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let graceful = Graceful::new(Duration::from_secs(30));
///     let here = graceful.here();
///     let (listener, _far) = std::os::unix::net::UnixStream::pair().unwrap();
///     graceful.begin();
///     // As `listener.accept().cancel_on(here.stopping())` would.
///     let ended = submit(PollOnce::new(listener, libc::POLLIN as u32)).cancel_on(here.stopping());
///     assert!(ended.await.is_err());
///     assert_eq!(here.drained().await.finished, 0);
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Here {
    inner: Rc<Inner>,
}

struct Inner {
    word: Arc<Word>,
    /// Whether it is counted there as one that serves.
    counted: Cell<bool>,
    stopping: Token,
    cancelling: Token,
    closing: Duration,
    serving: Cell<usize>,
    none_served: Event,
    finished: Cell<usize>,
    cancelled: Cell<usize>,
    keeper: RefCell<Option<JoinHandle<()>>>,
}

/// How what a core served has ended, from `stopping` on. Those of several cores can be summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Ended by themselves.
    pub finished: usize,
    /// Ended after the limit, when they were cancelled.
    pub cancelled: usize,
    /// Still there when the time for that was over too.
    pub left: usize,
}

impl Sum for Drained {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            finished: a.finished + b.finished,
            cancelled: a.cancelled + b.cancelled,
            left: a.left + b.left,
        })
    }
}

impl Here {
    #[track_caller]
    pub(super) fn new(word: &Arc<Word>, closing: Duration) -> Self {
        word.enter();
        let inner = Rc::new(Inner {
            word: word.clone(),
            counted: Cell::new(true),
            stopping: Token::new(),
            cancelling: Token::new(),
            closing,
            serving: Cell::new(0),
            none_served: Event::new(),
            finished: Cell::new(0),
            cancelled: Cell::new(0),
            keeper: RefCell::default(),
        });
        let (stopping, cancelling) = (inner.stopping.clone(), inner.cancelling.clone());
        let keeper = spawn_named("shutdown", keep_times(word.clone(), stopping, cancelling));
        inner.keeper.replace(Some(keeper));
        Self { inner }
    }

    /// Cancelled when nothing new is to be begun: listeners end, connections end after the request that
    /// they are at. Keep this `Here`, or a guard of it, as long as something listens to it.
    pub fn stopping(&self) -> &Token {
        &self.inner.stopping
    }

    /// Cancelled when the limit is over: what still runs ends where it waits.
    pub fn cancelling(&self) -> &Token {
        &self.inner.cancelling
    }

    /// Counts something, until the guard is dropped, as what [`drained`](Self::drained) waits for.
    pub fn guard(&self) -> Guard {
        let inner = &self.inner;
        inner.serving.set(inner.serving.get() + 1);
        inner.none_served.clear();
        Guard { inner: inner.clone() }
    }

    /// How many guards there are.
    pub fn serving(&self) -> usize {
        self.inner.serving.get()
    }

    /// Spawns a task that is counted, and whose future is dropped when the limit is over
    /// ([`cancelling`](Self::cancelling)); its handle then says [`Cancelled`]. Letting go of the handle
    /// changes nothing.
    ///
    /// # Panics
    /// Outside a running loop.
    ///
    /// # Cancel safety
    /// Dropping the handle lets the task run on; if whoever awaits it is cancelled, the task is too. It is
    /// counted until it has ended.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(
        &self,
        future: F,
    ) -> JoinHandle<Result<F::Output, Cancelled>> {
        let (guard, cancelling) = (self.guard(), self.inner.cancelling.clone());
        let counted = async move {
            let _guard = guard;
            cancelling.run(future).await
        };
        spawn_at(counted, Location::caller())
    }

    /// Waits for the end to begin and for every guard of this core to be dropped: by themselves until the
    /// limit, cancelled after it, for [`closing_within`](super::Graceful::closing_within) at most. Guards
    /// that are made meanwhile count too, so let the listener end first.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing; it can be called again, or in several places.
    pub async fn drained(&self) -> Drained {
        let inner = &*self.inner;
        inner.stopping.cancelled().await;
        race(inner.empty(), inner.cancelling.cancelled()).await;
        if inner.serving.get() > 0 {
            // Whether it was in time is what the count says.
            let _ = timeout(inner.closing, inner.empty()).await;
        }
        inner.leave();
        Drained {
            finished: inner.finished.get(),
            cancelled: inner.cancelled.get(),
            left: inner.serving.get(),
        }
    }

    /// As [`drained`](Self::drained), and then waits for every other `Here` of the process to have drained or
    /// to be gone: for a core on which something runs for all of them until the end, as the listener for
    /// probes does, or the signals. One that hangs is not waited for beyond the limit and the time for
    /// closing.
    ///
    /// # Cancel safety
    /// As there.
    ///
    /// ```
    /// use coreloop::shutdown::Graceful;
    /// use std::time::Duration;
    ///
    /// coreloop::run(async {
    ///     let graceful = Graceful::new(Duration::from_secs(30));
    ///     let (here, other) = (graceful.here(), graceful.here());
    ///     graceful.begin();
    ///     // As another core's would, once that has drained.
    ///     drop(coreloop::spawn(async move { other.drained().await }));
    ///     assert_eq!(here.all_drained().await.left, 0);
    /// })
    /// .unwrap();
    /// ```
    pub async fn all_drained(&self) -> Drained {
        let drained = self.drained().await;
        let inner = &*self.inner;
        let others = Changed::new(&inner.word, |told| told.serving == 0);
        let too_late = async {
            inner.cancelling.cancelled().await;
            let limit = inner.word.times().map_or(Instant::now(), |times| times.cancel_at);
            sleep_until(limit + inner.closing).await;
        };
        race(others, too_late).await;
        drained
    }
}

impl Inner {
    /// Says once that it does not serve any more.
    fn leave(&self) {
        if self.counted.replace(false) {
            self.word.leave();
        }
    }

    async fn empty(&self) {
        while self.serving.get() > 0 {
            self.none_served.wait().await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave();
        if let Some(keeper) = self.keeper.take() {
            keeper.cancel();
        }
    }
}

/// Cancels the tokens when it is time.
async fn keep_times(word: Arc<Word>, stopping: Token, cancelling: Token) {
    let mut known: Option<Times> = None;
    loop {
        let next = known.map_or(Instant::NEVER, |times| {
            if stopping.is_cancelled() { times.cancel_at } else { times.stop_at }
        });
        let seen = known;
        race(Changed::new(&word, move |told| told.times != seen), sleep_until(next)).await;
        known = word.times();
        let Some(times) = known else { continue };
        let now = Instant::now();
        if times.stop_at <= now {
            stopping.cancel();
        }
        if times.cancel_at <= now {
            cancelling.cancel();
            return;
        }
    }
}

/// Something that is served. See [`Here::guard`].
#[must_use = "dropping the guard says that what it counts has ended"]
pub struct Guard {
    inner: Rc<Inner>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let inner = &*self.inner;
        let ended = match (inner.cancelling.is_cancelled(), inner.stopping.is_cancelled()) {
            (true, _) => Some(&inner.cancelled),
            (false, true) => Some(&inner.finished),
            (false, false) => None,
        };
        if let Some(ended) = ended {
            ended.set(ended.get() + 1);
        }
        inner.serving.set(inner.serving.get() - 1);
        if inner.serving.get() == 0 {
            inner.none_served.set();
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("serving", &self.inner.serving.get()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Here")
            .field("stopping", &self.inner.stopping.is_cancelled())
            .field("cancelling", &self.inner.cancelling.is_cancelled())
            .field("serving", &self.serving())
            .finish_non_exhaustive()
    }
}
