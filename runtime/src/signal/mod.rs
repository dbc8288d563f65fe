//! Signals as futures.
//!
//! Owns [`Signals`], a subscription, and [`terminate`] for servers that end at SIGINT and SIGTERM. Any
//! number of subscriptions may stand, on any core, of any runtime in the process, and each hears of each
//! signal. Each has an eventfd of its own and a word with a bit for each signal (`sys/signals.rs`); nothing
//! else is done in the handler.
//!
//! What stays as it was: the signal mask of every thread, and so what children inherit. Handlers are reset
//! by an exec. What changes for good: from the first subscription to a signal on, that signal no longer does
//! to this process what it does by default, also when the last subscription has been dropped; it then does
//! nothing. A handler that was there before is called as well. A signal that was ignored before (`nohup` has
//! SIGHUP ignored) is at its default in programs that are started from then on: an exec keeps what is
//! ignored, and resets what is caught.
//!
//! Invariant: waiting consumes nothing (the descriptor is polled, not read), so a wait that is dropped while
//! the kernel still has it can't take a signal from the next one.

mod kind;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::combine::{Either, race};
use crate::executor::context::with_kernel;
use crate::op::{PollOnce, Submit, submit};
use crate::planted::{self, Fault};
use crate::sys::signals::{Caught, Inbox};
use crate::time::{Sleep, sleep};

pub use kind::{Signal, SignalError};

/// A subscription to signals: [`recv`](Self::recv) gives one after the other.
///
/// What comes between two calls is kept, each signal once however often it came, as the system does it with
/// signals that wait; with several the lowest number is first. That is also how real-time signals are
/// treated, which the system would count. It costs one descriptor. In a simulation a host
/// gets the signals that `Sim::kill` sends it, and no other; a subscription that is made outside of a loop
/// is the real process's.
///
/// ```
/// use coreloop::signal::{Signal, Signals};
///
/// coreloop::run(async {
///     let mut signals = Signals::new([Signal::HUP, Signal::USR1]).unwrap();
/// #   std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status().unwrap();
///     match signals.recv().await {
///         Signal::HUP => println!("reading the configuration again"),
///         other => println!("{other}"),
///     }
/// })
/// .unwrap();
/// ```
pub struct Signals {
    inbox: Arc<Inbox>,
    _caught: Vec<Caught>,
}

impl Signals {
    /// Subscribes, from now on, also before the first [`recv`](Self::recv) and outside of a loop.
    ///
    /// # Errors
    /// [`SignalError::System`] if no descriptor is left.
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> Result<Self, SignalError> {
        with_kernel(|kernel| {
            let inbox = Inbox::new(kernel)?;
            let mut numbers: Vec<i32> = Vec::new();
            for signal in signals {
                // Once each: with two handlers a signal could be taken between them, and come again.
                if !numbers.contains(&signal.as_raw()) {
                    numbers.push(signal.as_raw());
                }
            }
            let caught = numbers.into_iter().map(|number| kernel.catch(number, &inbox));
            let caught = caught.collect::<io::Result<_>>()?;
            Ok(Self { inbox, _caught: caught })
        })
    }

    /// The next signal. May submit; parks until there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost: a signal that is not given stays for the next call.
    ///
    /// # Panics
    /// Outside a running loop, if it has to wait.
    pub async fn recv(&mut self) -> Signal {
        let mut wait = Wait::Idle;
        poll_fn(|cx| self.poll_recv(cx, &mut wait)).await
    }

    /// A signal that came already.
    pub fn try_recv(&mut self) -> Option<Signal> {
        let signal = self.inbox.take().map(Signal::known);
        if planted::is(Fault::LostSignal, 1) {
            while self.inbox.take().is_some() {}
        }
        signal
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, wait: &mut Wait) -> Poll<Signal> {
        loop {
            if let Some(signal) = self.try_recv() {
                return Poll::Ready(signal);
            }
            match wait {
                Wait::Idle => {
                    let readable = PollOnce::new(Told(self.inbox.clone()), libc::POLLIN as u32);
                    *wait = Wait::Polled(submit(readable));
                }
                Wait::Polled(op) => {
                    let told = ready!(Pin::new(op).poll(cx));
                    *wait = if told.is_ok() {
                        // Before the look: what comes after it is announced anew.
                        with_kernel(|kernel| kernel.hush(self.inbox.as_fd()));
                        Wait::Idle
                    } else {
                        Wait::Paused(sleep(RETRY))
                    };
                }
                Wait::Paused(pause) => {
                    ready!(Pin::new(pause).poll(cx));
                    *wait = Wait::Idle;
                }
            }
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

/// Where a wait for the next signal stands.
enum Wait {
    Idle,
    Polled(Submit<PollOnce<Told>>),
    Paused(Sleep),
}

/// The descriptor as the op holds it.
struct Told(Arc<Inbox>);

impl AsFd for Told {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Pause after a poll of our own descriptor failed: an error is no signal, and nothing is lost by waiting.
const RETRY: Duration = Duration::from_millis(50);

/// Waits for SIGINT or SIGTERM. From the call on, these no longer end the process by themselves.
///
/// # Panics
/// If no descriptors are left; see [`try_terminate`].
///
/// # Cancel safety
/// Dropping it ends its subscription: a signal that comes later wakes nobody, and still does not end the
/// process. One that came before the drop and was not given is lost with it: where it is awaited in pieces,
/// make it once and await `&mut` of it.
///
/// ```no_run
/// coreloop::run(async {
///     coreloop::signal::terminate().await;
///     println!("good bye");
/// })
/// .unwrap();
/// ```
pub fn terminate() -> impl Future<Output = ()> + Unpin {
    match try_terminate() {
        Ok(terminated) => terminated,
        Err(e) => panic!("no way to be told of signals: {e}"),
    }
}

/// As [`terminate`].
///
/// # Errors
/// If no descriptors are left.
///
/// # Cancel safety
/// As for [`terminate`].
pub fn try_terminate() -> io::Result<impl Future<Output = ()> + Unpin> {
    let mut signals = Signals::new([Signal::INT, Signal::TERM])?;
    Ok(Box::pin(async move {
        signals.recv().await;
    }))
}

/// Drives `future` until it ends or SIGINT or SIGTERM comes; none if the signal was first, and `future` has
/// been dropped. For an end that lets connections finish see [`shutdown`](crate::shutdown).
///
/// # Cancel safety
/// Dropping it drops the future.
///
/// # Panics
/// As [`terminate`].
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> { Ok(()) }
/// coreloop::run(coreloop::signal::until_terminate(serve())).unwrap();
/// ```
pub async fn until_terminate<F: Future>(future: F) -> Option<F::Output> {
    match race(future, terminate()).await {
        Either::First(value) => Some(value),
        Either::Second(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Signal, Signals};

    /// Two handlers of one subscription: who takes the signal between them got it again.
    #[test]
    fn a_signal_that_is_named_twice_has_one_handler() {
        let named = [Signal::HUP, Signal::USR1, Signal::HUP, Signal::HUP];
        assert_eq!(Signals::new(named).unwrap()._caught.len(), 2);
    }
}
