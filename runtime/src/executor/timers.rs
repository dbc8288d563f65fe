//! One core's timers: the wheel, in real units.
//!
//! Owns the translation between instants (ns of CLOCK_MONOTONIC) and the wheel's ticks: a deadline is
//! rounded up and the time now is rounded down, so nothing fires early. `u64::MAX` means never and is not
//! even entered.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::context;
use crate::contain::{contained, let_go};
use crate::metrics::{Kind, Latency, Recorder};
use crate::planted::{self, Fault};
use crate::sys::Kernel;
use crate::task::{Tasks, Word};
use crate::wheel::{TimerKey, Wheel};

pub(crate) struct Timers {
    wheel: RefCell<Wheel<Waker>>,
    resolution: Resolution,
    kernel: Rc<dyn Kernel>,
    closed: Cell<bool>,
    /// The last reading of the clock that was seen here, in ns: the time now is at least that.
    seen_ns: Cell<u64>,
}

/// Timers that are taken out of the wheel at a time. The tasks of all are asked for before the first is
/// woken.
const BATCH: usize = 16;

/// Tasks whose memory a turn's timers ask for: more would drive each other out of the first cache.
const AHEAD_MAX: usize = 128;

/// What a tick of the wheel lasts.
struct Resolution {
    /// In ns; not 0.
    ns: u64,
    /// 2^64 over it, rounded down, and not above what a word holds.
    inverse: u64,
}

impl Resolution {
    fn new(ns: u64) -> Self {
        let inverse = u64::try_from((1 << 64) / u128::from(ns)).unwrap_or(u64::MAX);
        Self { ns, inverse }
    }

    /// How many whole ticks a time has, and the ns that are left. Each timer asks: two multiplications take
    /// half the time of a division.
    #[inline]
    fn divide(&self, time_ns: u64) -> (u64, u64) {
        // Too low by 1 at most: the inverse is by 1 at most, and a time is less than 2^64.
        let ticks = ((u128::from(time_ns) * u128::from(self.inverse)) >> 64) as u64;
        let rest = time_ns - ticks * self.ns;
        if rest >= self.ns { (ticks + 1, rest - self.ns) } else { (ticks, rest) }
    }

    /// Rounded down.
    #[inline]
    fn ticks(&self, time_ns: u64) -> u64 {
        self.divide(time_ns).0
    }

    /// Rounded up.
    #[inline]
    fn ticks_up(&self, time_ns: u64) -> u64 {
        let (ticks, rest) = self.divide(time_ns);
        ticks + u64::from(rest > 0)
    }
}

impl Timers {
    pub(crate) fn new(kernel: Rc<dyn Kernel>, resolution: Duration) -> Rc<Self> {
        let resolution = Resolution::new((resolution.as_nanos() as u64).max(1));
        let now = kernel.now_ns();
        let wheel = Wheel::new(resolution.ticks(now));
        Rc::new(Self {
            wheel: RefCell::new(wheel),
            resolution,
            kernel,
            closed: Cell::new(false),
            seen_ns: Cell::new(now),
        })
    }

    /// A fresh reading of the clock, in ns.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        let now = self.kernel.now_ns();
        self.seen_ns.set(now);
        now
    }

    /// Whether a deadline has come. Reads the clock only if no earlier reading says so.
    #[inline]
    pub(crate) fn has_come(&self, deadline_ns: u64) -> bool {
        self.seen_ns.get() >= deadline_ns || self.now_ns() >= deadline_ns
    }

    /// Whether a deadline was further ahead than a tick when the clock was last read. It may have come since,
    /// all the same: the wheel will know, and being told of it there makes it later by a tick at most.
    #[inline]
    pub(crate) fn was_far(&self, deadline_ns: u64) -> bool {
        deadline_ns > self.seen_ns.get().saturating_add(self.resolution.ns)
    }

    /// Wakes `waker` at `deadline` or up to one resolution later. None if that is never.
    pub(crate) fn insert(&self, deadline_ns: u64, waker: Waker) -> Option<TimerKey> {
        if deadline_ns == u64::MAX || self.closed.get() {
            return None;
        }
        let tick = if planted::is(Fault::EarlyTimer, 1) {
            self.resolution.ticks(deadline_ns) // Rounded down; `Sleep` takes the wheel's word for it.
        } else {
            self.resolution.ticks_up(deadline_ns)
        };
        Some(self.wheel.borrow_mut().insert(tick, waker))
    }

    /// As [`insert`](Self::insert); a deadline that has passed is due at the next look, without the rounding
    /// up.
    pub(crate) fn insert_or_due(&self, deadline_ns: u64, waker: Waker) -> Option<TimerKey> {
        let now = self.now_ns();
        // The present tick and no earlier one: it keeps its place behind what is due already.
        let whole = now - now % self.resolution.ns;
        self.insert(if deadline_ns <= now { whole } else { deadline_ns }, waker)
    }

    /// Takes a timer out; its waker is dropped with nothing borrowed.
    pub(crate) fn cancel(&self, key: TimerKey) {
        let waker = self.wheel.borrow_mut().cancel(key);
        let_go(waker);
    }

    /// Makes a timer wake another waker. `false` if there is none any more: it has fired, its loop was
    /// closed, or another loop is the one that runs (several may take turns on a thread), which would wait
    /// for ever for what this one does not come to.
    pub(crate) fn rewake(&self, key: TimerKey, waker: &Waker) -> bool {
        let known = self.wheel.borrow_mut().get_mut(key).map(|w| w.will_wake(waker));
        match known {
            None => false,
            // A task's own waker is of one loop.
            Some(true) if Word::of_waker(waker).is_some() => true,
            Some(_) if self.another_runs() => {
                self.cancel(key);
                false
            }
            Some(true) => true,
            Some(false) => {
                let mut new = waker.clone();
                // Cloning a foreign waker runs its code, which may have driven the loop until it fired.
                let place = self.wheel.borrow_mut().get_mut(key).map(|place| {
                    std::mem::swap(place, &mut new);
                });
                let_go(new);
                place.is_some()
            }
        }
    }

    /// Whether the loop that runs on this thread is another one than these timers'.
    fn another_runs(&self) -> bool {
        context::with_core(|core| !ptr::eq(&*core.timers, self)).unwrap_or(false)
    }

    /// Fires what is due at `now`, at most as many as there are timers at the outset. Those of a batch have
    /// fired before the first of them is told: a stranger's waker that calls another one off comes too late
    /// for that one. Whether any has fired.
    #[inline]
    pub(crate) fn fire(&self, now_ns: u64, tasks: &Tasks, metrics: &Recorder) -> bool {
        self.seen_ns.set(now_ns);
        self.len() > 0 && self.fire_due(now_ns, tasks, metrics)
    }

    #[inline(never)]
    fn fire_due(&self, now_ns: u64, tasks: &Tasks, metrics: &Recorder) -> bool {
        let bound = self.len();
        let now = if planted::is(Fault::EarlyTimer, 2) {
            self.resolution.ticks_up(now_ns)
        } else {
            self.resolution.ticks(now_ns)
        };
        let mut fired = 0;
        while fired < bound {
            let Some(first) = self.pop_due(now, now_ns, metrics) else { break };
            tasks.prefetch_slot(&first);
            let mut batch = [const { None }; BATCH];
            batch[0] = Some(first);
            let mut count = 1;
            while count < BATCH.min(bound - fired) {
                let Some(waker) = self.pop_due(now, now_ns, metrics) else { break };
                tasks.prefetch_slot(&waker);
                batch[count] = Some(waker);
                count += 1;
            }
            metrics.add(Kind::Timers, count as u64);
            for waker in batch.into_iter().flatten() {
                if fired < AHEAD_MAX {
                    tasks.call_ahead(waker);
                } else {
                    tasks.call(waker);
                }
            }
            fired += count;
        }
        fired > 0
    }

    fn pop_due(&self, now: u64, now_ns: u64, metrics: &Recorder) -> Option<Waker> {
        let (deadline, waker) = self.wheel.borrow_mut().pop_due(now)?;
        metrics.took(Latency::TimerLate, now_ns.saturating_sub(deadline * self.resolution.ns));
        Some(waker)
    }

    /// The time of the next look at the wheel, in ns: nothing is due before.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let tick = self.wheel.borrow().next_expiry()?;
        Some(tick.saturating_mul(self.resolution.ns))
    }

    /// Places of timers that there are, used or free.
    pub(crate) fn places(&self) -> u32 {
        self.wheel.borrow().places()
    }

    /// The timer in `place`, if one is set there: its deadline in ns, rounded up to the wheel's ticks, and
    /// whom it wakes.
    pub(crate) fn at(&self, place: u32, f: impl FnOnce(u64, &Waker)) {
        if let Some((tick, waker)) = self.wheel.borrow().at(place) {
            f(tick.saturating_mul(self.resolution.ns), waker);
        }
    }

    /// Timers that are set.
    pub(crate) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// Bytes of their table.
    pub(crate) fn bytes(&self) -> usize {
        self.wheel.borrow().bytes()
    }

    /// Drops all wakers; later timers never fire.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let mut old = self.wheel.replace(Wheel::new(0));
        while let Some((_, waker)) = old.pop_due(u64::MAX) {
            contained(|| drop(waker));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_as_many_ticks_as_a_division_says() {
        let powers = (0..64).map(|bit| 1_u64 << bit).chain([1_000, 50_000, 1_000_000, u64::MAX]);
        let near: Vec<u64> = powers
            .chain((0..20).map(|n| 10_u64.pow(n)))
            .flat_map(|n| [n.wrapping_sub(1), n, n.wrapping_add(1), n.wrapping_mul(3)])
            .collect();
        for ns in near.iter().copied().filter(|ns| *ns > 0) {
            let resolution = Resolution::new(ns);
            for around in &near {
                let whole = around.wrapping_mul(ns);
                let times = [*around, whole, whole.wrapping_sub(1)];
                for time in times {
                    assert_eq!(resolution.ticks(time), time / ns, "{time} / {ns}");
                    assert_eq!(resolution.ticks_up(time), time.div_ceil(ns), "{time} / {ns}");
                }
            }
        }
    }
}
