//! The end of a server, in good order and on every core.
//!
//! Owns [`Graceful`], the process's one word on whether it is to end, and [`Here`], what a core makes of it:
//! two tokens and a count of connections. The way down:
//! ```text
//! serving --begin--> not ready --lame duck--> stopping --drain limit--> cancelling --closing limit--> left
//!         is_ready() = false    accept no more,          drop what still     what is left then is
//!                               finish what runs         runs                given up on
//! ```
//! A core keeps the times itself: from the begin on, all cores know when to stop and when to cancel, and
//! nobody has to tell them again. [`Graceful::at_once`] cuts all of it short.
//!
//! Connections are counted per core, without atomics; a core's [`Here::drained`] speaks of its own. The
//! runtime ends when the main futures of all cores have, and a core when its own has: what serves all of
//! them (signals, probes, a watchdog) runs on a core that waits for all, by [`Here::all_drained`]. Knows no
//! socket: listeners and connections listen to the tokens as anything else does.
//!
//! ```
//! use coreloop::Runtime;
//! use coreloop::shutdown::{Drained, Graceful};
//! use coreloop::time::sleep;
//! use std::time::Duration;
//!
//! let graceful = Graceful::new(Duration::from_secs(30));
//! let ended = Runtime::builder().build().unwrap().run(move |core| {
//!     let graceful = graceful.clone();
//!     async move {
//!         let here = graceful.here();
//!         // Something that is under way, as a request is.
//!         drop(here.spawn(async { sleep(Duration::from_millis(5)).await }));
//!         if core.index() == 0 {
//!             graceful.begin(); // As a signal would: see `on_signals`.
//!         }
//!         here.drained().await
//!     }
//! });
//! let all: Drained = ended.unwrap().into_iter().sum();
//! assert!(all.finished >= 1 && all.cancelled == 0 && all.left == 0);
//! ```

mod here;
mod word;

pub use here::{Drained, Guard, Here};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::planted::{self, Fault};
use crate::signal::Signals;
use crate::time::Instant;
use word::{Changed, Times, Word};

/// Time that [`Here::drained`] gives what was cancelled to be gone, unless
/// [`Graceful::closing_within`] says otherwise.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// Whether a process is to end, for all its cores and threads. Clones are the same one.
#[derive(Clone)]
pub struct Graceful {
    word: Arc<Word>,
    lame_duck: Duration,
    drain: Duration,
    closing: Duration,
}

impl Graceful {
    /// Connections have `drain` to finish from the moment at which no more are accepted.
    /// `Duration::MAX` is no limit.
    pub fn new(drain: Duration) -> Self {
        let lame_duck = Duration::ZERO;
        Self { word: Arc::default(), lame_duck, drain, closing: CLOSING_LIMIT }
    }

    /// Goes on accepting for so long (not at all) after the begin, while [`is_ready`](Self::is_ready) says
    /// no: load balancers that ask for it send no more by then.
    #[must_use = "it changes the clone that it gives"]
    pub fn lame_duck(mut self, d: Duration) -> Self {
        self.lame_duck = d;
        self
    }

    /// Time (5 s) that what was cancelled has to be gone before it is given up on. Dropping a future takes
    /// a turn of its core; operations in flight are awaited after that, when the core closes.
    #[must_use = "it changes the clone that it gives"]
    pub fn closing_within(mut self, d: Duration) -> Self {
        self.closing = d;
        self
    }

    /// Begins the end, on every core; `false` if it had begun. Wakes; waits for nothing. From any thread.
    pub fn begin(&self) -> bool {
        self.begin_within(self.drain)
    }

    /// As [`begin`](Self::begin), with another limit for draining.
    pub fn begin_within(&self, drain: Duration) -> bool {
        let stop_at = Instant::now() + self.lame_duck;
        self.word.begin(Times { stop_at, cancel_at: stop_at + drain })
    }

    /// Stops and cancels now, whether the end had begun or not.
    pub fn at_once(&self) {
        let now = Instant::now();
        self.word.hasten(Times { stop_at: now, cancel_at: now });
    }

    /// What a readiness probe is to be told: `true` until the end begins.
    pub fn is_ready(&self) -> bool {
        self.word.times().is_none()
    }

    /// Waits until the end begins; on any loop.
    ///
    /// # Cancel safety
    /// There is nothing to lose.
    pub async fn begun(&self) {
        while self.is_ready() {
            Changed::new(&self.word, |told| told.times.is_some()).await;
        }
    }

    /// Begins at the first of these signals, and does the rest [at once](Self::at_once) at the second; ends
    /// then. To be spawned on a core that waits for all ([`Here::all_drained`]), or on every core with
    /// signals of its own: a core that has drained ends, and what runs on it, so one that listens for all
    /// would be gone at the second signal while others still drain. Subscribe before, so that no signal
    /// comes too early:
    ///
    /// ```no_run
    /// # use coreloop::shutdown::Graceful;
    /// use coreloop::signal::{Signal, Signals};
    ///
    /// # async fn f(graceful: Graceful) -> std::io::Result<()> {
    /// let signals = Signals::new([Signal::TERM, Signal::INT])?;
    /// drop(coreloop::spawn(async move { graceful.on_signals(signals).await }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping it has signals change nothing any more.
    pub async fn on_signals(&self, mut signals: Signals) {
        signals.recv().await;
        self.begin();
        signals.recv().await;
        if planted::is(Fault::UnheardHaste, 1) {
            self.begin();
            return;
        }
        self.at_once();
    }

    /// The running core's part in it; each call makes one with counts of its own. A clone of what it gives
    /// is the same one. Its tokens are cancelled in time as long as it, a clone or a guard of it lives.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn here(&self) -> Here {
        Here::new(&self.word, self.closing)
    }
}

impl fmt::Debug for Graceful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graceful").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}
