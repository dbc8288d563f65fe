//! One value for each core.
//!
//! Owns [`Sharded`], a handle to values that never leave their cores, and the ways to use one where it lives.
//! The values themselves are kept by the cores (`executor::kept`) under one number for all. Knows nothing
//! of how cores are woken: closures go by [`Handle`].

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::executor::context;
use crate::handle::{Handle, PostError, RemoteError, RemoteJoinHandle, spawning};

/// One value on each core of a runtime, made there and dropped there. Clones name the same values; with the
/// last clone each value goes, on its core, once the calls that use it have ended, and at the latest when
/// its core ends.
///
/// The values need not be `Send`; what is called on them, and what that gives, must be.
///
/// ```
/// use std::cell::Cell;
/// use coreloop::cross::Sharded;
/// use coreloop::{Cores, Runtime};
///
/// let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
/// let totals = runtime.run(|core| async move {
///     let hits = Sharded::new(core.handle(), async |_core| Cell::new(0u64)).await.unwrap();
///     for to in 0..core.count() {
///         hits.on(to, async |hits| hits.set(hits.get() + 1)).await.unwrap();
///     }
///     hits.map_reduce(async |hits| hits.get(), 0, |sum, n| sum + n).await.unwrap()
/// });
/// assert_eq!(totals.unwrap(), [1]);
/// ```
pub struct Sharded<T: 'static> {
    shards: Arc<Shards>,
    values: PhantomData<fn() -> T>,
}

/// The values of one [`Sharded`], as every thread may know them.
struct Shards {
    number: u64,
    handle: Handle,
}

/// Why a call on another core's value gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// There is no core of this number.
    #[error("no such core: there are {cores}, counted from 0")]
    NoSuchCore {
        /// How many there are.
        cores: usize,
    },
    /// The core has ended, or ended before the call did.
    #[error("the core has ended")]
    CoreGone,
    /// The call panicked, with this text.
    #[error("the call panicked: {0}")]
    Panicked(String),
}

impl From<PostError> for ShardError {
    fn from(e: PostError) -> Self {
        match e {
            PostError::NoSuchCore { cores } => Self::NoSuchCore { cores },
            // The last one is for reports alone.
            PostError::CoreGone | PostError::Full | PostError::NoAnswer { .. } => Self::CoreGone,
        }
    }
}

impl From<RemoteError> for ShardError {
    fn from(e: RemoteError) -> Self {
        match e {
            RemoteError::Panicked(text) => Self::Panicked(text),
            RemoteError::Gone => Self::CoreGone,
        }
    }
}

impl<T: 'static> Sharded<T> {
    /// Makes a value on each core of `handle`'s runtime: calls `make` there with the core's number, all at
    /// the same time, and waits for all.
    ///
    /// # Errors
    /// [`ShardError`] of the first core that made none; the values of the others are dropped.
    ///
    /// # Cancel safety
    /// Values that were made are dropped on their cores if the future is.
    #[track_caller]
    pub fn new<F>(
        handle: &Handle,
        make: F,
    ) -> impl Future<Output = Result<Self, ShardError>> + use<F, T>
    where
        F: AsyncFn(usize) -> T + Send + Sync + 'static,
    {
        Self::made(handle.clone(), make, Location::caller())
    }

    async fn made<F>(
        handle: Handle,
        make: F,
        at: &'static Location<'static>,
    ) -> Result<Self, ShardError>
    where
        F: AsyncFn(usize) -> T + Send + Sync + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let shards = Arc::new(Shards { number, handle: handle.clone() });
        let sharded = Self { shards, values: PhantomData };
        let make = Arc::new(make);
        let mut made = Vec::with_capacity(handle.cores());
        for core in 0..handle.cores() {
            let make = make.clone();
            // Held by each maker: a value that comes late is taken out again behind it.
            let shards = sharded.shards.clone();
            let makes = move || async move {
                let value: Rc<dyn Any> = Rc::new(make(core).await);
                context::with_core(|core| core.kept.put(shards.number, value));
            };
            let (job, task) = spawning(makes, at);
            handle.post(core, Box::new(job)).await?;
            made.push(task);
        }
        for task in made {
            task.await?;
        }
        Ok(sharded)
    }

    /// Calls `f` with the value of core `core`, there, and gives what its future gives. Several calls on one
    /// value run interleaved, as tasks of its core do.
    ///
    /// Where 1,024 closures wait for that core it waits for room.
    ///
    /// # Errors
    /// [`ShardError`]: no such core, it has ended, or the call panicked.
    ///
    /// # Cancel safety
    /// A call that has been sent runs on if this future is dropped.
    #[track_caller]
    pub fn on<F, R>(&self, core: usize, f: F) -> impl Future<Output = Result<R, ShardError>>
    where
        F: AsyncFnOnce(&T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let at = Location::caller();
        async move { self.start(core, f, at).await?.await? }
    }

    /// Calls `f` with the value of each core, on all at the same time; what each gives, in the order of the
    /// cores.
    ///
    /// # Cancel safety
    /// As for [`on`](Self::on).
    ///
    /// ```
    /// use coreloop::Handle;
    /// use coreloop::cross::Sharded;
    /// coreloop::run(async {
    ///     let names = Sharded::new(&Handle::current(), async |core| format!("core {core}")).await;
    ///     let lengths = names.unwrap().map_all(async |name| name.len()).await;
    ///     assert_eq!(lengths, [Ok(6)]);
    /// })
    /// .unwrap();
    /// ```
    #[track_caller]
    pub fn map_all<F, R>(&self, f: F) -> impl Future<Output = Vec<Result<R, ShardError>>>
    where
        F: AsyncFn(&T) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        self.mapped(f, Location::caller())
    }

    async fn mapped<F, R>(&self, f: F, at: &'static Location<'static>) -> Vec<Result<R, ShardError>>
    where
        F: AsyncFn(&T) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        let f = Arc::new(f);
        let mut calls = Vec::with_capacity(self.cores());
        for core in 0..self.cores() {
            let f = f.clone();
            calls.push(self.start(core, async move |value: &T| f(value).await, at).await);
        }
        let mut values = Vec::with_capacity(calls.len());
        for call in calls {
            values.push(match call {
                Ok(call) => call.await.unwrap_or_else(|e| Err(e.into())),
                Err(e) => Err(e),
            });
        }
        values
    }

    /// As [`map_all`](Self::map_all), and folds what the cores give, in their order, into one value.
    ///
    /// # Errors
    /// The [`ShardError`] of the first core that gave none.
    ///
    /// # Cancel safety
    /// As for [`on`](Self::on).
    #[track_caller]
    pub fn map_reduce<F, R, A>(
        &self,
        map: F,
        first: A,
        reduce: impl FnMut(A, R) -> A,
    ) -> impl Future<Output = Result<A, ShardError>>
    where
        F: AsyncFn(&T) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        let at = Location::caller();
        async move {
            let values: Result<Vec<R>, _> = self.mapped(map, at).await.into_iter().collect();
            Ok(values?.into_iter().fold(first, reduce))
        }
    }

    /// The value of the core that runs on this thread; none outside of the runtime's cores, and where that
    /// core is at its end.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use coreloop::Handle;
    /// use coreloop::cross::Sharded;
    /// coreloop::run(async {
    ///     let hits = Sharded::new(&Handle::current(), async |_| Cell::new(1)).await.unwrap();
    ///     let mine = hits.local().unwrap();
    ///     mine.set(mine.get() + 1);
    ///     assert_eq!(hits.on(0, async |hits| hits.get()).await, Ok(2));
    /// })
    /// .unwrap();
    /// ```
    ///
    /// It stays on its core:
    ///
    /// ```compile_fail,E0277
    /// fn is_send<T: Send>(_: T) {}
    /// fn of(sharded: coreloop::cross::Sharded<u8>) {
    ///     is_send(sharded.local());
    /// }
    /// ```
    pub fn local(&self) -> Option<Local<T>> {
        local(self.shards.number)
    }

    /// How many cores there are, and so values.
    pub fn cores(&self) -> usize {
        self.shards.handle.cores()
    }

    async fn start<F, R>(
        &self,
        core: usize,
        f: F,
        at: &'static Location<'static>,
    ) -> Result<RemoteJoinHandle<Result<R, ShardError>>, ShardError>
    where
        F: AsyncFnOnce(&T) -> R + Send + 'static,
        R: Send + 'static,
    {
        // With the call goes a share of the values: they are not taken away before it has begun.
        let shards = self.shards.clone();
        let call = move || async move {
            match local::<T>(shards.number) {
                Some(value) => Ok(f(&value).await),
                None => Err(ShardError::CoreGone),
            }
        };
        let (job, task) = spawning(call, at);
        self.shards.handle.post(core, Box::new(job)).await?;
        Ok(task)
    }
}

fn local<T: 'static>(number: u64) -> Option<Local<T>> {
    let value = context::with_core(|core| core.kept.get(number))??;
    Some(Local { value: value.downcast().ok()? })
}

impl Drop for Shards {
    fn drop(&mut self) {
        let number = self.number;
        for core in 0..self.handle.cores() {
            let removes = move || {
                context::with_core(|core| core.kept.remove(number));
            };
            // One for each value that was made, and no more.
            _ = self.handle.post_anyway(core, Box::new(removes));
        }
    }
}

impl<T: 'static> Clone for Sharded<T> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), values: PhantomData }
    }
}

impl<T: 'static> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharded").field("cores", &self.cores()).finish_non_exhaustive()
    }
}

/// This core's value of a [`Sharded`]; keeps it alive. Keep it within tasks of its core.
pub struct Local<T: 'static> {
    value: Rc<T>,
}

impl<T> Deref for Local<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
