//! A scope that no task leaves.
//!
//! Owns [`group()`] and [`TaskGroup`]. The group's future waits for its children in every case but one: when
//! it is itself dropped, it can't wait, and cancels them, so that they end at their next turn. Invariants:
//! - a child counts as alive until its future has been dropped, so its destructor has run when nobody waits
//!   any more;
//! - nothing is borrowed while a child's future, an error or a waker of somebody else's is run or dropped;
//! - children are `'static`: what the scope's body borrows is not lent to them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::race::{Either, race};
use super::try_gather::TaskFailure;
use crate::contain::{contained, let_go, wake};
use crate::spawn::try_spawn;
use crate::task::info::Note;
use crate::task::report::{Report, Reporter};
use crate::task::{Canceller, JoinError, JoinHandle, TaskId, current};

/// Runs `body` with a group to spawn children in, and ends when all of them have ended.
///
/// If the body or a child fails, by an error or a child's panic, the body is dropped as by a cancel, the
/// other children are cancelled, and the group waits until they are gone. This takes effect at the group's
/// next turn, so children that were due in the same turn as the one that failed still end by themselves. A
/// child that was cancelled alone is no failure.
///
/// # Errors
/// [`GroupError`] with everything that failed, in the order in which it did.
///
/// # Panics
/// A panic of the body goes through; the children are cancelled then. Spawning panics outside a loop.
///
/// # Cancel safety
/// A cancel travels inwards through awaits; here, a drop does so too, because nothing outlives its group:
/// dropped for whatever reason, it cancels its children, which end at their next turn. What had failed in it,
/// or fails then, is reported ([`Report::GroupFailed`]).
///
/// ```
/// use coreloop::combine::group;
///
/// coreloop::run(async {
///     let sum = group(async |g| {
///         let a = g.spawn(async { "20".parse::<u8>() });
///         let b = g.spawn(async { "22".parse::<u8>() });
///         Ok(a.await.unwrap() + b.await.unwrap())
///     });
///     assert_eq!(sum.await.unwrap(), 42);
///
///     let failed = group(async |g| {
///         let _never = g.spawn(std::future::pending::<Result<(), _>>());
///         let _fails = g.spawn(async { "x".parse::<u8>() });
///         Ok(())
///     });
///     assert_eq!(failed.await.unwrap_err().failures().len(), 1);
/// })
/// .unwrap();
/// ```
pub async fn group<R, E, F>(body: F) -> Result<R, GroupError<E>>
where
    F: AsyncFnOnce(&TaskGroup<E>) -> Result<R, E>,
    E: 'static,
{
    let group = TaskGroup(Rc::new(State::new()));
    let _leaving = Leaving(group.0.clone());
    let value = match race(group.0.until(State::has_failed), body(&group)).await {
        Either::First(()) => None,
        Either::Second(Ok(value)) => Some(value),
        Either::Second(Err(e)) => {
            group.0.fail(GroupFailure { child: None, reason: TaskFailure::Error(e) }, None);
            None
        }
    };
    group.0.until(|state| state.has_failed() || state.live() == 0).await;
    if group.0.has_failed() {
        group.0.cancel();
        group.0.until(|state| state.live() == 0).await;
    }
    let failures = std::mem::take(&mut group.0.inner.borrow_mut().failures);
    match value {
        Some(value) if failures.is_empty() => Ok(value),
        _ => Err(GroupError(failures.into_iter().map(|(failure, _)| failure).collect())),
    }
}

/// Where a [`group()`]'s children are spawned. Clones spawn in the same group, also from within children.
pub struct TaskGroup<E>(Rc<State<E>>);

impl<E: 'static> TaskGroup<E> {
    /// Makes a task of the group. It first runs at the next turn; dropping the [`Child`] changes nothing. In
    /// a group that is being cancelled it never runs.
    ///
    /// # Panics
    /// If the group has ended, or outside a running loop; see [`try_spawn`](Self::try_spawn).
    ///
    /// # Cancel safety
    /// A drop of the [`Child`] leaves it to its group. If whoever awaits it is cancelled, so is it.
    #[track_caller]
    pub fn spawn<T, F>(&self, future: F) -> Child<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        match self.try_spawn(future) {
            Ok(child) => child,
            Err(_) if self.is_closed() => panic!("a TaskGroup was used after its end"),
            Err(_) => panic!("a spawn in a TaskGroup needs a running loop"),
        }
    }

    /// As [`spawn`](Self::spawn), and gives the future back where that would panic.
    ///
    /// # Errors
    /// The future, if the group has ended or no loop runs.
    ///
    /// # Cancel safety
    /// As for [`spawn`](Self::spawn).
    #[track_caller]
    pub fn try_spawn<T, F>(&self, future: F) -> Result<Child<T>, F>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        if self.is_closed() {
            return Err(future);
        }
        let (place, number) = self.0.enter();
        let state = self.0.clone();
        let spawned_at = Location::caller();
        let member = Member { future: Some(future), state, place, number, spawned_at };
        match try_spawn(member) {
            Ok(handle) => {
                if self.0.is_ending() {
                    handle.cancel();
                }
                self.0.inner.borrow_mut().members[place] = Place::Runs(handle.canceller());
                Ok(Child { handle, number })
            }
            Err(mut member) => Err(member.future.take().expect("it was not polled")),
        }
    }

    /// Cancels all children. The group's body goes on; children that it adds later never run.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Children that have not ended.
    pub fn len(&self) -> usize {
        self.0.live()
    }

    /// Whether no child is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the group has ended: nothing can be spawned in it any more.
    pub fn is_closed(&self) -> bool {
        self.0.phase.get() == Phase::Closed
    }
}

impl<E> Clone for TaskGroup<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("phase", &self.0.phase.get()).finish_non_exhaustive()
    }
}

/// A child of a [`group()`]: awaits its value. Dropping it leaves the child to its group.
///
/// # Errors
/// [`ChildFailed`] if it gave no value: the reason is the group's to report.
///
/// # Cancel safety
/// As of a [`JoinHandle`]: a cancel of whoever awaits this cancels the child, a drop lets go.
#[derive(Debug)]
pub struct Child<T> {
    handle: JoinHandle<Result<T, ChildFailed>>,
    number: usize,
}

impl<T> Child<T> {
    /// Cancels the child; its siblings are not touched. `false` if it has ended.
    pub fn cancel(&self) -> bool {
        self.handle.cancel()
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Whether it ended by a cancel.
    pub fn is_cancelled(&self) -> bool {
        self.handle.is_cancelled()
    }

    /// The id of its task.
    pub fn id(&self) -> TaskId {
        self.handle.id()
    }

    /// Its number in the group, from 0 in the order in which children were spawned.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl<T> Future for Child<T> {
    type Output = Result<T, ChildFailed>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = Pin::new(&mut self.handle).poll(cx);
        joined.map(|result| result.unwrap_or(Err(ChildFailed(()))))
    }
}

/// A child gave no value: it failed, panicked or was cancelled. Its group reports why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildFailed(());

impl fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the child failed or was cancelled; its group has the reason")
    }
}

impl Error for ChildFailed {}

/// Everything that failed in a [`group()`]: at least one failure, in the order in which they came.
#[derive(Debug)]
pub struct GroupError<E>(Vec<GroupFailure<E>>);

/// One failure in a group.
#[derive(Debug)]
pub struct GroupFailure<E> {
    /// The child's number, from 0 in the order in which they were spawned; none for the body.
    pub child: Option<usize>,
    /// How it failed.
    pub reason: TaskFailure<E>,
}

impl<E> GroupError<E> {
    /// All failures.
    pub fn failures(&self) -> &[GroupFailure<E>] {
        &self.0
    }

    /// All failures, by value.
    pub fn into_failures(self) -> Vec<GroupFailure<E>> {
        self.0
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed in a group", self.0.len())?;
        for (i, failure) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { "; " })?;
            match failure.child {
                Some(number) => write!(f, "child {number}: {}", failure.reason)?,
                None => write!(f, "body: {}", failure.reason)?,
            }
        }
        Ok(())
    }
}

impl<E: Error + 'static> Error for GroupError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.first().map(|failure| failure.reason.as_error())
    }
}

struct State<E> {
    inner: RefCell<Inner<E>>,
    phase: Cell<Phase>,
    /// Of the group's future.
    waker: Cell<Option<Waker>>,
    /// That of the loop in which the group began.
    reporter: Reporter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Open,
    /// Children are cancelled, also those that are still to come.
    Ending,
    /// The group's future has gone.
    Closed,
}

struct Inner<E> {
    /// A place for each child that is alive.
    members: Vec<Place>,
    free: Vec<usize>,
    live: usize,
    spawned: usize,
    failures: Vec<Failure<E>>,
}

/// A failure, and where its child was spawned; none for the body.
type Failure<E> = (GroupFailure<E>, Option<&'static Location<'static>>);

enum Place {
    Empty,
    Runs(Canceller),
}

impl<E> State<E> {
    fn new() -> Self {
        let inner = Inner {
            members: Vec::new(),
            free: Vec::new(),
            live: 0,
            spawned: 0,
            failures: Vec::new(),
        };
        let reporter = current::with_tasks(|tasks| tasks.reporter().clone()).unwrap_or_default();
        let (inner, phase) = (RefCell::new(inner), Cell::new(Phase::Open));
        Self { inner, phase, waker: Cell::new(None), reporter }
    }

    fn is_ending(&self) -> bool {
        self.phase.get() != Phase::Open
    }

    /// Takes a place, and gives it and the child's number.
    fn enter(&self) -> (usize, usize) {
        let mut inner = self.inner.borrow_mut();
        inner.live += 1;
        inner.spawned += 1;
        let place = inner.free.pop().unwrap_or_else(|| {
            inner.members.push(Place::Empty);
            inner.members.len() - 1
        });
        (place, inner.spawned - 1)
    }

    /// Gives the place of a child back whose future is gone.
    fn leave(&self, place: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.live -= 1;
        inner.free.push(place);
        let left = std::mem::replace(&mut inner.members[place], Place::Empty);
        let last = inner.live == 0;
        drop(inner);
        drop(left);
        if last {
            self.wake();
        }
    }

    fn has_failed(&self) -> bool {
        !self.inner.borrow().failures.is_empty()
    }

    fn live(&self) -> usize {
        self.inner.borrow().live
    }

    /// Notes a failure. The group's future cancels the siblings when it is polled, and not this: so those
    /// that were due in the same turn still say how they ended.
    fn fail(&self, failure: GroupFailure<E>, spawned_at: Option<&'static Location<'static>>) {
        if self.phase.get() == Phase::Closed {
            return report(&self.reporter, (failure, spawned_at));
        }
        self.inner.borrow_mut().failures.push((failure, spawned_at));
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Ending);
        }
        self.wake();
    }

    /// Cancels the children, and those that are still to come.
    fn cancel(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Ending);
        }
        // A cancel only marks and schedules: nobody's code runs under this borrow.
        for place in &self.inner.borrow().members {
            if let Place::Runs(task) = place {
                task.cancel();
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            wake(waker);
        }
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        std::future::poll_fn(|cx| {
            if holds(self) {
                return Poll::Ready(());
            }
            let old = self.waker.replace(Some(cx.waker().clone()));
            let_go(old);
            // Both were a stranger's code if the waker is one's: the last child may have ended in it.
            if holds(self) {
                return Poll::Ready(());
            }
            current::note(Note::Group);
            Poll::Pending
        })
        .await;
    }
}

/// Closes the group when its future goes, finished or not.
struct Leaving<E>(Rc<State<E>>);

impl<E> Drop for Leaving<E> {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Closed);
        self.0.cancel();
        // There are some only if the group was dropped, or its body panicked: else they were returned.
        let failures = std::mem::take(&mut self.0.inner.borrow_mut().failures);
        failures.into_iter().for_each(|failure| report(&self.0.reporter, failure));
        let_go(self.0.waker.take());
    }
}

/// Tells of a failure that the group can't return any more.
#[cold]
fn report<E>(reporter: &Reporter, (failure, spawned_at): Failure<E>) {
    let message = match &failure.reason {
        TaskFailure::Join(error) if error.is_panic() => error.panic_message(),
        _ => None,
    };
    let panicked = matches!(&failure.reason, TaskFailure::Join(error) if error.is_panic());
    let report = Report::GroupFailed { child: failure.child, spawned_at, panicked, message };
    reporter.tell(&report);
    contained(|| drop(failure));
}

/// A child's future, which tells its group how it ended. Kept apart from its task's result: the reasons are
/// the group's, the value is the handle's.
struct Member<F, E> {
    /// None once it has ended. Structurally pinned: never moved out after a poll.
    future: Option<F>,
    state: Rc<State<E>>,
    place: usize,
    number: usize,
    spawned_at: &'static Location<'static>,
}

impl<F, E> Member<F, E> {
    fn fail(&self, reason: TaskFailure<E>) {
        let failure = GroupFailure { child: Some(self.number), reason };
        self.state.fail(failure, Some(self.spawned_at));
    }

    /// Notes a panic that would otherwise have been the task's end.
    fn fail_panicked(&self, payload: Box<dyn Any + Send>) {
        current::with_tasks(|t| t.note_end(true));
        self.fail(TaskFailure::Join(JoinError::panicked(payload)));
    }

    /// Drops the future; whether it did so without a panic.
    #[allow(unsafe_code)]
    fn drop_future(&mut self) -> bool {
        // SAFETY: the member is pinned or was never polled; the future is dropped in place, not moved.
        let future = unsafe { Pin::new_unchecked(&mut self.future) };
        match catch_unwind(AssertUnwindSafe(|| { future }.set(None))) {
            Ok(()) => true,
            Err(payload) => {
                self.fail_panicked(payload);
                false
            }
        }
    }
}

impl<F, T, E> Future for Member<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, ChildFailed>;

    #[allow(unsafe_code)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: of the fields only `future` is pinned, and it is only dropped in place (`drop_future`):
        // `try_spawn` takes it out of a member that was never polled.
        let this = unsafe { self.get_unchecked_mut() };
        let future = this.future.as_mut().expect("a task is not polled after its end");
        // SAFETY: as above.
        let future = unsafe { Pin::new_unchecked(future) };
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result.map_err(TaskFailure::Error),
            Err(payload) => {
                current::with_tasks(|t| t.note_end(true));
                Err(TaskFailure::Join(JoinError::panicked(payload)))
            }
        };
        let whole = this.drop_future();
        Poll::Ready(match ended {
            Ok(value) if whole => Ok(value),
            Ok(_) => Err(ChildFailed(())),
            Err(reason) => {
                this.fail(reason);
                Err(ChildFailed(()))
            }
        })
    }
}

impl<F, E> Drop for Member<F, E> {
    fn drop(&mut self) {
        self.drop_future();
        self.state.leave(self.place);
    }
}
