//! Operations on descriptors, and the way to make more of them.
//!
//! Owns the public face of the driver: [`Op`] and [`MultishotOp`] (what an operation is), [`Submitter`] (who
//! takes it), [`InFlight`] and [`Armed`] (what is left in the caller's hand), and the operations that
//! sockets are built from. Submission happens at the end of the tick, but for a [send at
//! once](Submitter::send_at_once); nothing here waits.

use std::fmt;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub use crate::driver::op::{Armed, InFlight, MultishotOp, Op};
pub use crate::driver::pool::Membership;
pub use crate::driver::series::{Next, Series, SeriesOp};
pub use crate::driver::sqe::{Cqe, Sqe};

use crate::buf::IoBuf;
use crate::driver::Driver;
use crate::driver::features::{Feature, RingReport};
use crate::driver::pool::BufferTurn as PoolTurn;
use crate::executor::context;
use crate::metrics::Kind;
use crate::task::current;
use crate::task::info::Note;

mod accept;
mod connect;
mod fixed;
mod recv;
mod recv_many;
mod send;
mod socket;
mod wait;

pub use accept::{AcceptMany, AcceptOne, AcceptQueue};
pub use connect::Connect;
pub use fixed::FixedFile;
pub use recv::{LateBytes, Outlook, Receiver, Recv, RecvChunk};
pub use recv_many::{RecvMany, RecvManyEnd};
pub use send::{LateSend, Send, SendMany};
pub use wait::{Nop, PollOnce, Read};

/// A loop's driver: takes ops. A clone names the same one. It may outlive its loop; ops then end with
/// ECANCELED.
#[derive(Clone)]
pub struct Submitter {
    driver: Rc<Driver>,
}

impl Submitter {
    /// That of the running loop; none outside of one.
    pub fn try_current() -> Option<Self> {
        Some(Self { driver: context::driver()? })
    }

    /// That of the running loop.
    ///
    /// # Panics
    /// Outside a loop.
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(submitter) => submitter,
            None => context::no_loop("an operation"),
        }
    }

    /// Starts an op; it reaches the kernel at the end of the tick.
    ///
    /// # Errors
    /// The op's own end, with ECANCELED if the loop is closed, or ENOBUFS if it has 16,777,216 ops.
    pub fn start<O: Op>(&self, op: O) -> Result<InFlight<O>, O::Out> {
        InFlight::start(&self.driver, op, None)
    }

    /// As [`start`](Self::start), with the waker of a task that waits for it from now on: as if the op had
    /// been polled once, right away, and found not to have ended.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    // A waker and not a context: cloning one may panic, and an op that waits for that to happen has an
    // address, from which it is copied to its slot. One that does not is written there field by field.
    #[inline]
    pub fn start_for<O: Op>(&self, op: O, waker: Waker) -> Result<InFlight<O>, O::Out> {
        InFlight::start(&self.driver, op, Some(waker))
    }

    /// Starts a multishot op.
    ///
    /// # Errors
    /// The op and the errno, as for [`start`](Self::start).
    pub fn arm<O: MultishotOp>(&self, op: O) -> Result<Armed, (O, i32)> {
        Armed::start(&self.driver, op)
    }

    /// Starts a series.
    ///
    /// # Errors
    /// The op's own end, as for [`start`](Self::start).
    pub fn start_series<O: SeriesOp>(&self, op: O) -> Result<Series<O>, O::End> {
        Series::start(&self.driver, op)
    }

    /// Enters a socket into the books of the core's receive buffers.
    pub fn join_buffers(&self) -> Membership {
        self.driver.pool().join()
    }

    /// Joins the line for a receive buffer, after a receive ended with ENOBUFS.
    pub fn wait_for_buffer(&self) -> BufferTurn {
        self.driver.count(Kind::BuffersOut);
        BufferTurn(PoolTurn::wait(self.driver.pool()))
    }

    /// For lists of tasks: the one that is being polled waits for an operation that somebody else began on
    /// its descriptor and let go of.
    pub fn note_earlier_op(&self) {
        current::note(Note::EarlierOp);
    }

    /// Whether others stand in that line already.
    pub fn buffers_awaited(&self) -> bool {
        self.driver.pool().has_waiters()
    }

    /// Whether receives for many ([`RecvMany`]) pay on this core just now: the kernel does them, and as
    /// far as the core has tried, single ones find nothing when they are made.
    #[inline]
    pub fn many_pay(&self) -> bool {
        self.has(Feature::MultishotRecv) && self.driver.pool().ways().many()
    }

    /// Bytes of one receive buffer.
    pub fn buffer_size(&self) -> usize {
        self.driver.pool().buffer_size() as usize
    }

    /// Sends of at least so many bytes are to go without a copy ([`Send::zero_copy`]); `usize::MAX` for none.
    #[inline]
    pub fn zero_copy_from(&self) -> usize {
        self.driver.zero_copy_from()
    }

    /// Whether the turn has so few tasks that [`send_at_once`](Self::send_at_once) may.
    #[inline]
    pub fn may_send_at_once(&self) -> bool {
        self.driver.has_few_tasks()
    }

    /// Sends what there is room for of `buf` at once, if few tasks share the turn and the poll that asks
    /// has not sent like this before (setting `direct_sends`): then that spares the loop a turn. How many
    /// bytes it was, or the connection's error, which the kernel tells once. None if a [`Send`] is to do it,
    /// which may be started in any case: so for no bytes, or more than 64 KiB. Neither submits nor parks; one
    /// `send(2)` with MSG_DONTWAIT, whose error clears the socket's (`SO_ERROR` of `socket(7)`).
    ///
    /// The caller knows that no other send is under way on this socket: their bytes would mix.
    pub fn send_at_once<B: IoBuf>(
        &self,
        socket: &impl AsFd,
        buf: &B,
    ) -> Option<std::io::Result<usize>> {
        let (from, len, poll) = (buf.as_ptr(), buf.len(), current::poll_number());
        // SAFETY: the bytes of a buffer are there and keep still while it is borrowed (IoBuf).
        unsafe { self.driver.send_at_once(socket.as_fd(), from, len, poll) }
    }

    /// Whether `feature` is in force on this loop's ring.
    pub fn has(&self, feature: Feature) -> bool {
        self.driver.has(feature)
    }

    /// What the set-up of this loop's ring arrived at.
    pub fn report(&self) -> &RingReport {
        self.driver.report()
    }

    /// Enters into the core's book that something which was asked for can't be had here, and why, for
    /// [`Snapshot::step_downs`](crate::Snapshot::step_downs): once, however often it is said.
    ///
    /// ```
    /// coreloop::run(async {
    ///     let submitter = coreloop::op::Submitter::current();
    ///     submitter.say_step_down("compression", "the library is too old");
    ///     let snapshot = coreloop::Handle::current().snapshot(0).unwrap();
    ///     assert!(snapshot.step_downs.iter().any(|step| step.what == "compression"));
    /// })
    /// .unwrap();
    /// ```
    pub fn say_step_down(&self, what: &str, why: &str) {
        self.driver.say_step_down(what, why);
    }

    /// For hooks of ops: has `waker` called when the completion that is being handled has been dealt with,
    /// or at once if none is.
    /// A waker may poll at once, and must not find the op half ended.
    pub fn wake_soon(&self, waker: Waker) {
        self.driver.wake_soon(waker);
    }

    /// Whether the loop is closed.
    pub fn is_closed(&self) -> bool {
        self.driver.is_closed()
    }

    /// Counts an accepted connection, for the core's counters.
    pub fn count_accept(&self) {
        self.driver.count(Kind::Accepts);
    }

    /// Counts a pause of accepting, for the core's counters.
    pub fn count_accept_pause(&self) {
        self.driver.count(Kind::AcceptPauses);
    }
}

/// A place in the line for a buffer. Dropping it leaves the line.
pub struct BufferTurn(PoolTurn);

impl BufferTurn {
    /// Ready when it is this one's turn to try again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.0.poll(cx);
        if polled.is_pending() {
            current::note(Note::ReceiveBuffer);
        }
        polled
    }
}

impl fmt::Debug for BufferTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferTurn").finish_non_exhaustive()
    }
}

impl fmt::Debug for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Submits one op to the running loop and waits for its end.
///
/// To call it off and get its end all the same, see [`Interruptible`](crate::cancel::Interruptible).
///
/// # Cancel safety
/// Dropping it before the end cancels the op in the kernel; what it brings too late goes to
/// [`Op::orphaned`].
///
/// # Panics
/// The future panics if it is first polled outside a loop.
///
/// ```
/// use coreloop::op::{Nop, submit};
/// coreloop::run(async { submit(Nop).await.unwrap() }).unwrap();
/// ```
pub fn submit<O: Op + Unpin>(op: O) -> Submit<O> {
    Submit { state: State::New(op) }
}

/// The future of [`submit`].
#[must_use = "an op does nothing until it is awaited"]
pub struct Submit<O: Op> {
    state: State<O>,
}

enum State<O: Op> {
    New(O),
    Flying(InFlight<O>),
    Ended,
}

impl<O: Op + Unpin> Future for Submit<O> {
    type Output = O::Out;

    /// # Panics
    /// If polled after it was ready, or first polled outside a loop.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Out> {
        if matches!(self.state, State::New(_)) {
            let State::New(op) = std::mem::replace(&mut self.state, State::Ended) else {
                unreachable!("it was New in the line above")
            };
            match Submitter::current().start(op) {
                Ok(flying) => self.state = State::Flying(flying),
                Err(out) => return Poll::Ready(out),
            }
        }
        self.poll_flying(cx)
    }
}

impl<O: Op + Unpin> Submit<O> {
    /// Ends the op: one that has not begun ends with ECANCELED, any other is cancelled in the kernel and
    /// waited for.
    pub(crate) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<O::Out> {
        match std::mem::replace(&mut self.state, State::Ended) {
            // SAFETY: the op was not submitted, and this is the error made up for that.
            State::New(op) => Poll::Ready(unsafe { op.finish(Cqe::error(libc::ECANCELED)) }),
            State::Flying(flying) => {
                flying.cancel();
                self.state = State::Flying(flying);
                self.poll_flying(cx)
            }
            State::Ended => self.poll_flying(cx),
        }
    }

    fn poll_flying(&mut self, cx: &mut Context<'_>) -> Poll<O::Out> {
        let State::Flying(flying) = &mut self.state else {
            panic!("a Submit was polled after it had ended");
        };
        let out = std::task::ready!(flying.poll(cx));
        self.state = State::Ended;
        Poll::Ready(out)
    }
}

impl<O: Op> fmt::Debug for Submit<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit").finish_non_exhaustive()
    }
}
