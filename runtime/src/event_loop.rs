//! One loop on the calling thread.
//!
//! Owns [`EventLoop`] and the one-call [`run`]: driving a main future turn by turn, and stepping a loop from
//! outside.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::Settings;
use crate::driver::features::RingReport;
use crate::driver::setup::StartError;
use crate::executor::close::ShutdownReport;
use crate::executor::tick::Wait;
use crate::executor::{Core, context};
use crate::handle::Handle;
use crate::metrics::Snapshot;
use crate::placement;
use crate::stall::watcher::Watched;
use crate::sys::Kernel;
use crate::sys::linux::Linux;
use crate::task::table::ROOT;
use crate::time::Instant;
use crate::words::Time;

/// Drives `main` to its end on a loop of the calling thread, then cleans up: tasks that are still running
/// are cancelled, and their destructors have run before this returns.
///
/// # Errors
/// If the loop can't be started; the message says what to change.
///
/// # Panics
/// If called from within a running loop, and with whatever `main` panics with.
///
/// ```
/// let answer = coreloop::run(async { 6 * 7 }).unwrap();
/// assert_eq!(answer, 42);
/// ```
pub fn run<F: Future>(main: F) -> Result<F::Output, StartError> {
    let mut event_loop = EventLoop::new()?;
    Ok(event_loop.block_on(main))
}

/// A loop that is driven by hand, any number of times. It stays on its thread.
///
/// Dropping it closes it as [`close`](Self::close) does, with the grace of its settings (5 s).
///
/// ```
/// use coreloop::EventLoop;
///
/// let mut event_loop = EventLoop::new().unwrap();
/// let task = event_loop.block_on(async { coreloop::spawn(async { 1 }) });
/// assert_eq!(event_loop.block_on(task).unwrap(), 1);
/// ```
///
/// ```compile_fail
/// let event_loop = coreloop::EventLoop::new().unwrap();
/// std::thread::spawn(move || drop(event_loop));
/// ```
pub struct EventLoop {
    /// Goes before the tasks that it watches.
    watched: Option<Watched>,
    core: Rc<Core>,
    grace: Duration,
}

/// What one step of a loop left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Whether another turn would find something to do at once.
    pub ready: bool,
    /// Tasks that have not ended.
    pub tasks: u32,
    /// When the next timer is due, if one is set.
    pub next_deadline: Option<Instant>,
}

impl EventLoop {
    /// A loop with the default settings.
    ///
    /// # Errors
    /// If the kernel does not allow it; the message says what to change.
    pub fn new() -> Result<Self, StartError> {
        Self::with(Settings::default())
    }

    /// A loop with these settings.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and if a setting is out of its range.
    pub fn with(settings: Settings) -> Result<Self, StartError> {
        let spin = placement::spin_on_these_cpus(settings.spin_setting(), 1);
        Self::with_spin_as_given(settings.spin(spin))
    }

    /// A loop that spins as it is told, whoever else runs on its CPU.
    pub(crate) fn with_spin_as_given(settings: Settings) -> Result<Self, StartError> {
        let mut event_loop = Self::on_kernel(Rc::new(Linux), &settings)?;
        if let Some((threshold, hook)) = settings.stalls() {
            let core = event_loop.core();
            let watched = Watched::new(&core.tasks, core.metrics.clone(), threshold, hook);
            if watched.is_none() {
                core.metrics.step_down("stall_threshold", "no thread for it could be started");
            }
            event_loop.watched = watched;
        }
        Ok(event_loop)
    }

    /// A loop over whatever answers to the seam.
    pub(crate) fn on_kernel(
        kernel: Rc<dyn Kernel>,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let core = Core::new(kernel, &settings.checked()?)?;
        Ok(Self { watched: None, core, grace: settings.grace_period() })
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Drives the loop until `main` ends. What it leaves unfinished goes on in the next call.
    ///
    /// # Panics
    /// If a loop is running on this thread already, and with whatever `main` panics with.
    pub fn block_on<F: Future>(&mut self, main: F) -> F::Output {
        assert!(
            context::with_core(|_| ()).is_none(),
            "a loop is already running on this thread: await the future instead of blocking on it"
        );
        let core = self.core.clone();
        core.end_watch();
        let waker = core.tasks.word_of(ROOT).waker();
        // Since its last turn it may have rested: what is woken here is woken now.
        core.read_clock();
        core.tasks.wake_slot(ROOT);
        context::enter(&core, || {
            // Pinned in here, so that its destructor still finds the loop.
            let mut main = pin!(main);
            let mut output = None;
            while output.is_none() {
                let mut poll_main = || {
                    core.tasks.begin_root_poll();
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        output = Some(value);
                    }
                    output.is_some()
                };
                core.tick(Some(&mut poll_main), Wait::Ever);
            }
            core.tasks.forget_root();
            output.expect("the loop ends when it is set")
        })
    }

    /// One step: mail, completions, timers, tasks, submit; and if there was nothing of all that to do, a
    /// wait of at most `max_wait` (none: until something happens). For embedding a loop in another one, with
    /// [`poll_fd`](Self::poll_fd).
    ///
    /// # Panics
    /// If a loop is running on this thread already.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> Turn {
        assert!(context::with_core(|_| ()).is_none(), "a loop is already running on this thread");
        let core = &self.core;
        core.end_watch();
        core.driver.drain_notify();
        let wait = core.wait_of(max_wait);
        context::enter(core, || core.tick(None, wait));
        let ready = core.has_work() || !core.begin_watch();
        let next = core.timers.next_ns().map(|ns| Instant::now() + self.until(ns));
        Turn { ready, tasks: core.tasks.live(), next_deadline: next }
    }

    fn until(&self, ns: u64) -> Duration {
        Duration::from_nanos(ns.saturating_sub(self.core.timers.now_ns()))
    }

    /// A descriptor that becomes readable when, after a [`turn`](Self::turn) that left nothing ready,
    /// there is something to do: completions, wakes and closures from other threads, and what this thread
    /// itself does to the loop between turns. Timers are for
    /// whoever waits on it ([`Turn::next_deadline`]). It may be readable once more than there is anything
    /// to do. Only to be waited on; it is the same at every call.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn poll_fd(&self) -> io::Result<RawFd> {
        let fd = self.core.driver.notify_fd()?;
        self.core.tasks.lease().notify(fd);
        if self.core.has_work() {
            // It came before anybody could be told.
            self.core.driver.poke_notify();
        }
        Ok(fd)
    }

    /// Makes a task of this loop; it runs when the loop is driven.
    ///
    /// # Cancel safety
    /// Dropping the handle lets the task run on; if whoever awaits it is cancelled, the task is too.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> crate::task::JoinHandle<F::Output> {
        let at = Location::caller();
        #[cfg(feature = "tracing")]
        let future = crate::task::traced::traced(future, None, at);
        self.core.read_clock();
        self.core.tasks.spawn(future, at)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        Handle::of(self.core.peers())
    }

    /// What this loop did so far.
    pub fn stats(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// What the set-up of the ring arrived at.
    pub fn ring_report(&self) -> &RingReport {
        self.core.driver.report()
    }

    /// Ends the loop: tasks are cancelled (their destructors run), operations are cancelled and waited
    /// for, then the ring is closed, and closures that run on threads are waited for; all of it at most for
    /// `grace`. Handles to its tasks say cancelled.
    ///
    /// ```compile_fail
    /// let mut event_loop = coreloop::EventLoop::new().unwrap();
    /// event_loop.close(std::time::Duration::ZERO);
    /// event_loop.block_on(async {}); // error: it was moved into `close`
    /// ```
    pub fn close(self, grace: Duration) -> ShutdownReport {
        self.core.close(grace)
    }

    /// Closes with the grace of the settings.
    pub(crate) fn end(self) -> ShutdownReport {
        self.core.close(self.grace)
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        let report = self.core.close(self.grace);
        if report.ops_leaked > 0 {
            crate::contain::tell(format_args!(
                "coreloop: {} operations could not be waited for (grace {}); their memory is leaked",
                report.ops_leaked,
                Time(self.grace)
            ));
        }
        if report.blocking_left > 0 {
            crate::contain::tell(format_args!(
                "coreloop: {} closures of spawn_blocking still run (grace {}); they are left behind",
                report.blocking_left,
                Time(self.grace)
            ));
        }
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("tasks", &self.core.tasks.live()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod seam_tests;
