//! How long a future took, however it ended.
//!
//! Owns [`Timed`] and where it reports to ([`TimingSink`]). The time runs from the first poll to the
//! end; a future that was never polled has nothing to report.

use std::cell::RefCell;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Instant;
use crate::contain::contained;
use crate::metrics::Histogram;
use crate::words::Time;

/// Runs `future` and tells `sink` how long it took and how it ended: also if it was cancelled or
/// panicked. The time counts from the first poll; of a future that was never polled there is nothing
/// to tell.
///
/// The sink is a closure, or a name, for a line on standard error, or a histogram. A future that
/// returns an error counts as [`Ended::Ready`]; [`try_timed`] tells the two apart.
///
/// # Cancel safety
/// Dropping it drops the future, and the sink is told [`Ended::Cancelled`].
///
/// ```
/// use coreloop::Histogram;
/// use coreloop::time::{sleep, timed, timeout};
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let latencies = Rc::new(RefCell::new(Histogram::default()));
///     timed(latencies.clone(), sleep(Duration::from_millis(2))).await;
///     assert!(latencies.borrow().min_ns() > 1_900_000);
///
///     // Prints `an hour: cancelled after 1.1 ms`.
///     let hour = timed("an hour", sleep(Duration::from_secs(3600)));
///     assert!(timeout(Duration::from_millis(1), hour).await.is_err());
/// })
/// .unwrap();
/// ```
pub fn timed<S: TimingSink, F: IntoFuture>(sink: S, future: F) -> Timed<S, F::IntoFuture> {
    timed_judged(sink, future, |_| false)
}

/// As [`timed`], of a future that returns a `Result`: an `Err` is [`Ended::Failed`].
///
/// # Cancel safety
/// Dropping it drops the future, and the sink is told [`Ended::Cancelled`]: nothing, if it was never polled.
///
/// ```
/// use coreloop::time::{Ended, Timing, try_timed};
///
/// coreloop::run(async {
///     let parse = async { "x".parse::<u8>() };
///     let failed = |timing: Timing| assert_eq!(timing.ended, Ended::Failed);
///     assert!(try_timed(failed, parse).await.is_err());
/// })
/// .unwrap();
/// ```
pub fn try_timed<S, F, T, E>(sink: S, future: F) -> Timed<S, F::IntoFuture>
where
    S: TimingSink,
    F: IntoFuture<Output = Result<T, E>>,
{
    timed_judged(sink, future, Result::is_err)
}

fn timed_judged<S, F: IntoFuture>(
    sink: S,
    future: F,
    failed: fn(&F::Output) -> bool,
) -> Timed<S, F::IntoFuture>
where
    S: TimingSink,
{
    let future = Some(future.into_future());
    Timed { future, report: Reporting { sink: Some(sink), began: None, polling: false }, failed }
}

/// What [`timed`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// From the first poll to the end.
    pub took: Duration,
    /// How it ended.
    pub ended: Ended,
}

/// How a timed future ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// With a value.
    Ready,
    /// With an `Err` ([`try_timed`] alone says so).
    Failed,
    /// It was dropped before it had ended: by a cancel, a limit, a lost race, or because it was let go.
    Cancelled,
    /// It panicked.
    Panicked,
}

/// As in `ready after 1.2 ms`.
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.ended {
            Ended::Ready => "ready",
            Ended::Failed => "failed",
            Ended::Cancelled => "cancelled",
            Ended::Panicked => "panicked",
        };
        write!(f, "{how} after {}", Time(self.took))
    }
}

/// Where a [`Timing`] goes. Called once: within the future's last poll, where a panic of it goes
/// through, or within its drop, where a panic of it is contained.
pub trait TimingSink {
    /// Takes it.
    fn timing(self, timing: Timing);
}

impl<F: FnOnce(Timing)> TimingSink for F {
    fn timing(self, timing: Timing) {
        self(timing);
    }
}

/// One line on standard error.
impl TimingSink for &str {
    fn timing(self, timing: Timing) {
        crate::contain::tell(format_args!("{self}: {timing}"));
    }
}

/// One line on standard error.
impl TimingSink for String {
    fn timing(self, timing: Timing) {
        self.as_str().timing(timing);
    }
}

/// Counted in nanoseconds, however it ended; not while somebody has the histogram borrowed.
impl TimingSink for Rc<RefCell<Histogram>> {
    fn timing(self, timing: Timing) {
        let ns = u64::try_from(timing.took.as_nanos()).unwrap_or(u64::MAX);
        if let Ok(mut histogram) = self.try_borrow_mut() {
            histogram.record(ns);
        }
    }
}

/// The future of [`timed`] and [`try_timed`].
#[must_use = "it does nothing until it is awaited"]
pub struct Timed<S: TimingSink, F: Future> {
    /// None once it has ended. Structurally pinned: never moved out. Dropped before the report is made.
    future: Option<F>,
    report: Reporting<S>,
    failed: fn(&F::Output) -> bool,
}

/// Makes the report when it is dropped, if nothing did before.
struct Reporting<S: TimingSink> {
    /// None once it was told.
    sink: Option<S>,
    began: Option<Instant>,
    /// A poll is under way, or ended by a panic.
    polling: bool,
}

impl<S: TimingSink> Reporting<S> {
    fn tell(&mut self, ended: Ended) {
        if let (Some(sink), Some(began)) = (self.sink.take(), self.began) {
            sink.timing(Timing { took: began.elapsed(), ended });
        }
    }
}

impl<S: TimingSink> Drop for Reporting<S> {
    fn drop(&mut self) {
        // The drop may be a part of unwinding, which a second panic would turn into an abort.
        contained(|| self.tell(if self.polling { Ended::Panicked } else { Ended::Cancelled }));
    }
}

impl<S: TimingSink, F: Future> Future for Timed<S, F> {
    type Output = F::Output;

    /// # Panics
    /// If polled after it was ready.
    #[allow(unsafe_code)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is only ever pinned or dropped in place (`Pin::set`), there is no `Drop` for
        // `Timed`, and it is `Unpin` only if `F` is. The other fields are not pinned.
        let (mut future, report, failed) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.report, this.failed)
        };
        let inner = future.as_mut().as_pin_mut().expect("a Timed was polled after it had ended");
        report.began.get_or_insert_with(Instant::now);
        report.polling = true;
        let polled = inner.poll(cx);
        report.polling = false;
        if let Poll::Ready(value) = &polled {
            future.set(None);
            report.tell(if failed(value) { Ended::Failed } else { Ended::Ready });
        }
        polled
    }
}

impl<S: TimingSink, F: Future> fmt::Debug for Timed<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("began", &self.report.began).finish_non_exhaustive()
    }
}
