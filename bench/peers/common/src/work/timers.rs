//! Timers: many that are dropped, and many that fire.

use std::future::{Future, poll_fn};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::Figures;
use crate::measure::{Random, Sorted, process_cpu};

/// The seed of all deadlines.
const SEED: u64 = 0x636f_7265_6c6f_6f70;

/// Between the moment in which the first sleeper is spawned and the common start: spawning is
/// measured elsewhere, and a slow spawn would otherwise make the first percents of sleepers late.
const SPAWNING: Duration = Duration::from_millis(200);

/// `timers-ordered` and `timers-random`: `count` sleeps made by `sleep`, each polled once, which
/// registers it, and then all dropped. They stand in one array that was touched before, so that
/// neither allocation nor page faults are timed that aren't the runtime's own.
///
/// All of it happens in one poll of the calling task. Where a runtime limits what a task may do in
/// one poll, the caller lifts the limit.
pub async fn timers<S: Future<Output: Sized>>(
    count: u64,
    random: bool,
    mut sleep: impl FnMut(Duration) -> S,
) -> Figures {
    let mut durations = Random::new(SEED);
    let mut nth = |index: u64| {
        Duration::from_millis(if random {
            durations.between(1000, 1_000_000)
        } else {
            1000 + index
        })
    };
    let durations: Vec<_> = (0..count).map(&mut nth).collect();
    let mut sleeps: Vec<S> = Vec::with_capacity(durations.len());
    sleeps.spare_capacity_mut().fill_with(MaybeUninit::zeroed);
    let mut figures = Figures::new();
    for durations in [&durations[..durations.len() / 10], &durations[..]] {
        let (insert_ns, cancel_ns) = poll_fn(|cx| {
            let start = Instant::now();
            for duration in durations {
                sleeps.push(sleep(*duration));
                let last = sleeps.last_mut().expect("just pushed");
                // SAFETY: the vector has room for all of them, so it moves none before it is
                // cleared, which drops them where they are.
                let last = unsafe { Pin::new_unchecked(last) };
                assert!(last.poll(cx).is_pending(), "it sleeps for a second at least");
            }
            let inserted = start.elapsed();
            let start = Instant::now();
            sleeps.clear();
            Poll::Ready((inserted.as_nanos(), start.elapsed().as_nanos()))
        })
        .await;
        let each = |ns: u128| ns as f64 / durations.len().max(1) as f64;
        figures = Figures::new()
            .number("insert_ns", each(insert_ns))
            .number("cancel_ns", each(cancel_ns));
    }
    figures
}

/// One of the tasks of `sleeps`: sleep until the deadline, then tell so.
pub struct Sleeper {
    deadline: Instant,
    book: &'static Book,
}

/// What the sleepers tell. It is written in the order in which they wake, and never freed: a place of its own
/// for each, spread over memory, and a count of who holds it would be a fifth of all that is measured.
struct Book {
    late_ns: Box<[AtomicI64]>,
    woke: AtomicUsize,
}

/// Nobody has told yet.
const UNTOLD: i64 = i64::MIN;

impl Book {
    fn is_full(&self) -> bool {
        let all = self.late_ns.len();
        let told = |late: &AtomicI64| late.load(Ordering::Acquire) != UNTOLD;
        self.woke.load(Ordering::Relaxed) == all && self.late_ns.iter().all(told)
    }
}

impl Sleeper {
    /// When to wake.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// For runtimes that know durations only.
    pub fn duration(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// To be called by the task when it has slept.
    pub fn woke(self) {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.deadline).as_nanos() as i64;
        let early = self.deadline.saturating_duration_since(now).as_nanos() as i64;
        let place = self.book.woke.fetch_add(1, Ordering::Relaxed);
        self.book.late_ns[place].store(late - early, Ordering::Release);
    }
}

/// `sleeps`: `spawn` starts a task for each sleeper; `sleep` is what the calling task waits with
/// until all have told. The CPU time is that of the whole process and contains the spawning.
pub async fn sleeps<S: Future>(
    count: u64,
    mut spawn: impl FnMut(Sleeper),
    mut sleep: impl FnMut(Duration) -> S,
) -> Figures {
    let mut random = Random::new(SEED);
    let durations: Vec<_> = (0..count).map(|_| random.between(1_000, 1_000_001)).collect();
    let late_ns = (0..count).map(|_| AtomicI64::new(UNTOLD)).collect();
    let book: &'static Book = Box::leak(Box::new(Book { late_ns, woke: AtomicUsize::new(0) }));
    let cpu = process_cpu();
    let start = Instant::now() + SPAWNING;
    for us in durations {
        spawn(Sleeper { deadline: start + Duration::from_micros(us), book });
    }
    let spawned_late = Instant::now() > start;
    while !book.is_full() {
        sleep(Duration::from_millis(20)).await;
    }
    let cpu = process_cpu() - cpu;
    let late: Vec<_> = book.late_ns.iter().map(|ns| ns.load(Ordering::Relaxed)).collect();
    let early = late.iter().filter(|ns| **ns < 0).count();
    let late = Sorted::new(late.iter().map(|ns| (*ns).max(0) as u64).collect());
    let us = |ns: u64| ns as f64 / 1e3;
    let figures = Figures::new()
        .number("late_p50_us", us(late.percentile(50.0)))
        .number("late_p99_us", us(late.percentile(99.0)))
        .number("late_max_us", us(late.max()))
        .number("cpu_ms", cpu.as_secs_f64() * 1e3)
        .number("early", early as f64);
    if spawned_late { figures.text("note", "spawning took longer than 200 ms") } else { figures }
}
