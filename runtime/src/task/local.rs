//! Values that travel with a task.
//!
//! Owns [`TaskLocal`] and the list of what is set: a chain of nodes, one for each local, that is never
//! changed: a scope puts a node in front, and leaves out the one that it takes the place of. So a child
//! inherits all of it by one more reference to its head, and what a scope sets is seen by nobody else.
//! The thread has one current chain; a [`Scope`] puts its own there while it polls or drops its
//! future. Invariants:
//! - the cell with the chain is never borrowed while foreign code runs: heads are taken out and put back;
//! - a value is dropped when the last chain that holds it goes, on its own thread (nothing here is `Send`).
//!
//! Knows no table and no loop: a scope works wherever its future is polled.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A value that travels with a task, declared by [`task_local!`](crate::task_local).
///
/// [`scope`](Self::scope) sets it for one future and all that this awaits. A task that is spawned
/// within does not see it, unless it is spawned with [`inherit`]: that takes everything along that is
/// set.
///
/// ```
/// use coreloop::{spawn, task};
///
/// coreloop::task_local! {
///     static REQUEST: u64;
/// }
///
/// async fn log_line(text: &str) -> String {
///     format!("request {}: {text}", REQUEST.get())
/// }
///
/// coreloop::run(REQUEST.scope(7, async {
///     assert_eq!(log_line("begun").await, "request 7: begun");
///     let child = spawn(task::inherit(async { REQUEST.get() }));
///     let stranger = spawn(async { REQUEST.try_get() });
///     assert_eq!(child.await.unwrap(), 7);
///     assert!(stranger.await.unwrap().is_err());
/// }))
/// .unwrap();
/// ```
pub struct TaskLocal<T: 'static> {
    /// A local is known by its address, so it must have one of its own.
    _place: u8,
    value: PhantomData<fn() -> T>,
}

/// Declares [`TaskLocal`](crate::task::TaskLocal)s, as `thread_local!` does for threads:
/// `task_local! { static NAME: Type; pub static OTHER: Type; }`.
#[macro_export]
macro_rules! task_local {
    ($($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty;)+) => {
        $($(#[$attr])* $vis static $name: $crate::task::TaskLocal<$type> =
            $crate::task::TaskLocal::__new();)+
    };
}

type Chain = Option<Rc<Node>>;

struct Node {
    /// Address of its [`TaskLocal`].
    key: usize,
    outer: Chain,
    value: Rc<dyn Any>,
}

/// The chain without the node of `key`. A chain has as many nodes as there are locals, at most: who
/// inherits and sets again and again keeps nothing of what was set before.
fn without(key: usize, chain: Chain) -> Chain {
    let mut ahead = Vec::new();
    let mut next = chain.clone();
    while let Some(node) = next {
        if node.key == key {
            let rest = node.outer.clone();
            return ahead.into_iter().rev().fold(rest, |outer, node: Rc<Node>| {
                Some(Rc::new(Node { key: node.key, outer, value: node.value.clone() }))
            });
        }
        next = node.outer.clone();
        ahead.push(node);
    }
    chain
}

thread_local! {
    static CURRENT: Cell<Chain> = const { Cell::new(None) };
}

/// Puts a chain in the current one's place until it goes; none where the thread is ending.
pub(crate) struct Within(Chain);

impl Within {
    /// Outside of every scope, whoever runs.
    pub(crate) fn nothing() -> Self {
        Self::new(None)
    }

    fn new(chain: Chain) -> Self {
        Self(swap(chain))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        drop(swap(self.0.take()));
    }
}

/// Whether anything is set here.
#[inline]
pub(crate) fn is_any() -> bool {
    // SAFETY: the cell is this thread's, and nothing changes it while this looks.
    CURRENT.try_with(|current| unsafe { &*current.as_ptr() }.is_some()) == Ok(true)
}

fn swap(chain: Chain) -> Chain {
    CURRENT.try_with(|current| current.replace(chain)).unwrap_or(None)
}

fn current() -> Chain {
    let chain = swap(None);
    let copy = chain.clone();
    swap(chain);
    copy
}

impl<T: 'static> TaskLocal<T> {
    #[doc(hidden)]
    pub const fn __new() -> Self {
        Self { _place: 0, value: PhantomData }
    }

    fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Sets the value for `future`: for as long as that is polled, and while it is dropped. Within a
    /// scope of the same local the inner one counts. Takes two allocations.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub fn scope<F: IntoFuture>(&'static self, value: T, future: F) -> Scope<T, F::IntoFuture> {
        let state = State::Fresh(self.key(), value);
        Scope { state, future: Some(future.into_future()) }
    }

    /// Calls `f` with the value.
    ///
    /// # Panics
    /// Outside a scope of this local.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(value) => value,
            Err(e) => panic!("{e}"),
        }
    }

    /// Calls `f` with the value.
    ///
    /// # Errors
    /// [`NotSet`] outside a scope of this local, with nothing called.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, NotSet> {
        let mut next = current();
        while let Some(node) = next {
            if node.key == self.key()
                && let Some(value) = node.value.downcast_ref::<T>()
            {
                return Ok(f(value));
            }
            next = node.outer.clone();
        }
        Err(NotSet(()))
    }

    /// A clone of the value.
    ///
    /// # Panics
    /// Outside a scope of this local.
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// A clone of the value.
    ///
    /// # Errors
    /// [`NotSet`] outside a scope of this local.
    pub fn try_get(&'static self) -> Result<T, NotSet>
    where
        T: Clone,
    {
        self.try_with(T::clone)
    }
}

impl<T> fmt::Debug for TaskLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLocal").finish_non_exhaustive()
    }
}

/// A task-local was asked for where it is not set: outside every scope of it, or in a task that was
/// spawned without [`inherit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSet(());

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this task-local is not set here: use it within its `scope`, and spawn tasks that need it \
             with `task::inherit`",
        )
    }
}

impl std::error::Error for NotSet {}

/// The future of [`TaskLocal::scope`].
#[must_use = "a scope does nothing until it is awaited"]
pub struct Scope<T: 'static, F> {
    state: State<T>,
    /// None once it has ended. Structurally pinned: never moved out.
    future: Option<F>,
}

enum State<T> {
    /// Not polled yet. What is set around it is that around its first poll.
    Fresh(usize, T),
    Begun(Chain),
}

impl<T: 'static> State<T> {
    fn chain(&mut self) -> Chain {
        if let Self::Begun(chain) = self {
            return chain.clone();
        }
        let State::Fresh(key, value) = mem::replace(self, Self::Begun(None)) else {
            unreachable!("it was Fresh in the line above")
        };
        let outer = without(key, current());
        let chain = Some(Rc::new(Node { key, outer, value: Rc::new(value) }));
        *self = Self::Begun(chain.clone());
        chain
    }
}

impl<T: 'static, F: Future> Future for Scope<T, F> {
    type Output = F::Output;

    /// # Panics
    /// If polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is only ever pinned or dropped in place (here and in `drop`), and this is `Unpin`
        // only if it is; the state is not pinned, its value lies on the heap once somebody may refer to it.
        let (state, mut future) = unsafe {
            let this = self.get_unchecked_mut();
            (&mut this.state, Pin::new_unchecked(&mut this.future))
        };
        let _within = Within::new(state.chain());
        let inner = future.as_mut().as_pin_mut().expect("a Scope was polled after it had ended");
        let polled = inner.poll(cx);
        if polled.is_ready() {
            future.set(None);
        }
        polled
    }
}

impl<T: 'static, F> Drop for Scope<T, F> {
    fn drop(&mut self) {
        if self.future.is_some() {
            let _within = Within::new(self.state.chain());
            self.future = None;
        }
    }
}

impl<T, F> fmt::Debug for Scope<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// Takes along what task-locals are set here: `spawn(inherit(future))`. A later change out here is not
/// seen in there, nor the other way round. Allocates nothing.
///
/// # Cancel safety
/// Dropping it drops the future.
pub fn inherit<F: IntoFuture>(future: F) -> Inherit<F::IntoFuture> {
    Inherit(Scope { state: State::Begun(current()), future: Some(future.into_future()) })
}

/// The future of [`inherit`].
#[must_use = "it does nothing until it is awaited or spawned"]
#[derive(Debug)]
pub struct Inherit<F>(Scope<(), F>);

impl<F: Future> Future for Inherit<F> {
    type Output = F::Output;

    /// # Panics
    /// If polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the one field is pinned when this is, and never moved out.
        unsafe { self.map_unchecked_mut(|this| &mut this.0) }.poll(cx)
    }
}
