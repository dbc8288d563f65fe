//! Small futures and numbers for tests.
//!
//! Owns polling and stepping by hand ([`poll_once`], [`turns`], [`ticker`], [`stepped`], [`rest`]), waiting
//! for a condition with a wide limit ([`settled`]), counting drops ([`Drops`]) and repeatable random numbers
//! ([`Rng`]).

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use coreloop::task::JoinHandle;
use coreloop::{EventLoop, Settings, Spin};

pub use crate::rng::Rng;

/// Polls `future` once with the current task's waker.
pub async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(move |cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A loop to be stepped by hand, which does not spin.
pub fn stepped() -> EventLoop {
    EventLoop::with(Settings::default().spin(Spin::Off)).unwrap()
}

/// Steps a loop until nobody is ready.
///
/// # Panics
/// After 100 turns.
pub fn rest(event_loop: &mut EventLoop) {
    for _ in 0..100 {
        if !event_loop.turn(Some(Duration::ZERO)).ready {
            return;
        }
    }
    panic!("the loop does not come to rest");
}

/// Gives way for `n` turns of the loop.
pub async fn turns(n: usize) {
    for _ in 0..n {
        coreloop::yield_now().await;
    }
}

/// A task that gives way for ever, and how often it has had its turn.
pub fn ticker() -> (JoinHandle<()>, Rc<Cell<usize>>) {
    let turns = Rc::new(Cell::new(0));
    let counts = turns.clone();
    let ticker = coreloop::spawn(async move {
        loop {
            counts.set(counts.get() + 1);
            coreloop::yield_now().await;
        }
    });
    (ticker, turns)
}

/// Waits on the running loop until `condition` holds; `false` if it does not within `limit`.
pub async fn settled(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        coreloop::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Counts the guards that it made, and how many of them were dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Drops {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value whose drop is counted.
    pub fn guard(&self) -> DropGuard {
        self.1.fetch_add(1, Ordering::SeqCst);
        DropGuard(self.0.clone())
    }

    /// How many guards were made.
    pub fn made(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    /// How many were dropped.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// See [`Drops::guard`].
#[derive(Debug)]
pub struct DropGuard(Arc<AtomicUsize>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Byte `at` of the pattern that tests send: no two places within 251 bytes look alike after a shift.
pub fn pattern_at(at: usize) -> u8 {
    (at % 251) as u8 ^ (at / 251 % 241) as u8
}

/// `len` bytes of the pattern from `from` on.
pub fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(pattern_at).collect()
}

/// Runs `main` on a simulated core, in virtual time: a sleep takes no time, and is never late by chance.
///
/// # Panics
/// If the simulation fails, or `main` panics.
#[track_caller]
pub fn virtually<F: Future<Output = ()> + 'static>(main: impl FnOnce() -> F + 'static) {
    virtually_with(|_| main());
}

/// As [`virtually`], with the simulation in hand.
///
/// # Panics
/// As there.
#[track_caller]
pub fn virtually_with<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(coreloop::sim::Sim) -> F + 'static,
) {
    // Tasks may panic with nobody to take it: these are tests of what comes of that, too.
    let sim = coreloop::sim::Sim::builder().seed(1).fail_on_panic(false).build();
    let own = sim.clone();
    sim.client("main", move || main(own));
    if let Err(e) = sim.run() {
        panic!("{e}");
    }
}

/// Milliseconds of the loop's clock since it was made, in tens, rounded: what tests in virtual time compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock(coreloop::time::Instant);

impl Clock {
    /// Starts at zero.
    #[expect(clippy::new_without_default, reason = "it reads a clock")]
    pub fn new() -> Self {
        Self(coreloop::time::Instant::now())
    }

    /// Tens of milliseconds since then.
    pub fn tens(self) -> u64 {
        (self.0.elapsed().as_millis() as u64 + 4) / 10
    }
}

/// Ten milliseconds, so many times.
pub fn tens(n: u64) -> Duration {
    Duration::from_millis(10 * n)
}
