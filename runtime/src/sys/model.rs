//! The model checker: loom, or shuttle in its place.
//!
//! Owns what differs between them. loom tries every order within its bounds, with the values that
//! the memory model allows; shuttle (`--cfg shuttle` beside `--cfg loom`) tries some thousand random
//! ones, with the latest values only, and so can take models that are too large for loom. See
//! `docs/TESTING.md`.

#[cfg(not(shuttle))]
pub(crate) use loom::{cell, lazy_static, sync, sync::Notify, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::{lazy_static, sync};

#[cfg(shuttle)]
pub(crate) use shuttled::{Notify, cell, thread};

/// Runs a model through all orders of its threads with at most `preemptions` switches that nothing forces.
#[cfg(not(shuttle))]
pub(crate) fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Runs a model through random orders of its threads: `CORELOOP_SHUTTLE` of them, 2,000 unless told; half of
/// them by chance alone, half with at most `preemptions` changes of who goes first.
#[cfg(shuttle)]
pub(crate) fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let orders = std::env::var("CORELOOP_SHUTTLE").ok().and_then(|n| n.parse().ok());
    let each = orders.unwrap_or(2_000usize).div_ceil(2);
    let model = std::sync::Arc::new(model);
    let again = model.clone();
    shuttle::check_random(move || again(), each);
    shuttle::check_pct(move || model(), each, preemptions);
}

/// What loom has and shuttle has not.
#[cfg(shuttle)]
mod shuttled {
    use shuttle::sync::{Condvar, Mutex};

    /// Told once, waited for once.
    pub(crate) struct Notify {
        told: Mutex<bool>,
        news: Condvar,
    }

    impl Notify {
        pub(crate) fn new() -> Self {
            Self { told: Mutex::new(false), news: Condvar::new() }
        }

        pub(crate) fn notify(&self) {
            *self.told.lock().unwrap() = true;
            self.news.notify_one();
        }

        pub(crate) fn wait(&self) {
            let mut told = self.told.lock().unwrap();
            while !std::mem::take(&mut *told) {
                told = self.news.wait(told).unwrap();
            }
        }
    }

    /// Threads that may be given anything, as loom's.
    pub(crate) mod thread {
        pub(crate) use shuttle::thread::yield_now;

        struct Given<T>(T);

        // SAFETY: shuttle runs one thread of a model at a time, all of them on one of the system's.
        unsafe impl<T> Send for Given<T> {}

        impl<T> Given<T> {
            fn take(self) -> T {
                self.0
            }
        }

        pub(crate) struct JoinHandle<T>(shuttle::thread::JoinHandle<Given<T>>);

        impl<T> JoinHandle<T> {
            pub(crate) fn join(self) -> std::thread::Result<T> {
                self.0.join().map(Given::take)
            }
        }

        pub(crate) fn spawn<T: 'static>(run: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
            let run = Given(run);
            JoinHandle(shuttle::thread::spawn(move || Given(run.take()())))
        }
    }

    pub(crate) mod cell {
        /// A cell without loom's look at who uses it: shuttle switches between uses only.
        pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

        // SAFETY: shuttle runs one thread of a model at a time.
        unsafe impl<T> Sync for UnsafeCell<T> {}

        impl<T> UnsafeCell<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(std::cell::UnsafeCell::new(value))
            }

            pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
                f(self.0.get())
            }

            pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
                f(self.0.get())
            }
        }
    }
}
