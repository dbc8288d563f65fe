//! A thread-per-core async runtime for Linux servers, on io_uring.
//!
//! Each core runs its own single-threaded, completion-based loop with its own ring, timer wheel and tasks.
//! Tasks cooperate within a core, cores run in parallel, and every core can say in latency histograms where
//! its time went.
//!
//! - [`run`] drives one future on the calling thread; [`EventLoop`] is the same by hand.
//! - [`Runtime`] runs a future on each of many cores.
//! - [`spawn`] makes tasks, [`sched`] shares a core's time among them, [`time`] has sleeps and limits,
//!   [`op`] submits operations; sockets are in the crate `coreloop-net`.
//!
//! Needs Linux 6.1 or newer with io_uring allowed; [`StartError`] says what to change where it is not.
//!
//! With `panic = "abort"` a panicking task ends the process, as that setting asks for; everything that is
//! said here about contained panics holds with the default, `panic = "unwind"`.

mod blocking;
#[allow(unsafe_code)]
pub mod buf;
mod call;
pub mod cancel;
pub mod combine;
pub mod config;
mod contain;
pub mod cross;
#[allow(unsafe_code)]
mod driver;
mod event_loop;
#[allow(unsafe_code)]
mod executor;
pub mod fds;
#[cfg(test)]
mod fuzz_tests;
mod handle;
#[allow(unsafe_code)]
mod mailbox;
mod metrics;
#[allow(unsafe_code)]
pub mod op;
pub mod placement;
#[doc(hidden)]
pub mod planted;
pub mod report;
mod runtime;
pub mod sched;
pub mod shutdown;
pub mod signal;
#[cfg(any(test, feature = "sim"))]
#[allow(unsafe_code)]
pub mod sim;
mod spans;
mod spawn;
mod spawn_blocking;
mod stall;
pub mod sync;
#[allow(unsafe_code)]
mod sys;
pub mod systemd;
#[allow(unsafe_code)]
pub mod task;
pub mod time;
mod wheel;
mod words;

#[cfg(feature = "macros")]
pub use coreloop_macros::{main, test};

pub use call::{call_at, call_later, call_soon};
pub use config::Settings;
pub use driver::asked::TaskWork;
pub use driver::features::{Feature, FeatureSet, Missing, RingReport, SteppedDown, UnknownFeature};
pub use driver::setup::StartError;
pub use event_loop::{EventLoop, Turn, run};
pub use executor::close::ShutdownReport;
pub use executor::dial::Spin;
pub use executor::list::all_tasks;
pub use handle::{Handle, NoLoop, PostError, RemoteError, RemoteJoinHandle};
pub use metrics::{CoreState, Counters, Gauges, Histogram, Histograms, LongPoll};
pub use metrics::{QueueStats, Snapshot, StatsLevel, StepDown};
pub use placement::{Cores, CoresError};
pub use report::{TaskList, TaskPlace};
pub use runtime::{BuildError, Builder, Core, RunError, Runtime};
pub use spawn::{spawn, spawn_eager, spawn_fallible, spawn_named, try_spawn, yield_now};
pub use spawn_blocking::{spawn_blocking, try_spawn_blocking};
pub use stall::{Backtrace, Stall};

/// The locks that ThreadSanitizer sees, for `coreloop-net`'s own run under it; not for other use.
#[cfg(tsan)]
#[doc(hidden)]
pub mod __tsan {
    pub use crate::sys::tsan::{Mutex, MutexGuard};
}

/// What the attributes expand to calls of; not for other use.
#[doc(hidden)]
pub mod __macros {
    /// Drives a `main`.
    pub fn main<F: Future>(main: F) -> F::Output {
        match crate::run(main) {
            Ok(value) => value,
            Err(e) => {
                crate::contain::tell(format_args!("coreloop: {e}"));
                std::process::exit(1);
            }
        }
    }

    /// Drives a test.
    #[track_caller]
    pub fn test<F: Future>(test: F) -> F::Output {
        match crate::run(test) {
            Ok(value) => value,
            Err(e) => panic!("{e}"),
        }
    }
}
