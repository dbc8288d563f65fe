//! A turn of the run queue while there are several task queues.
//!
//! Owns what one turn gives to which of them. Each queue is served by the rules that hold where there is
//! but one: what was ready when the turn began is polled in order, what becomes ready waits for the next
//! turn. The queue that has used the least of its share is served first; when it has no more to do in this
//! turn, or the turn has taken its time, its use is written down. The turn ends when the queue that comes
//! next has nothing in it that was ready when the turn began, and after as long as the most urgent of the
//! queues may be kept waiting, at most after the quota of a turn.
//!
//! The clock is read after each poll. It runs on while the thread is kept off its CPU, so now and then the
//! thread's CPU time is read too ([`CpuCheck`]), and what nobody used is taken back.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Core;
use super::poll_clock::PollClock;
use super::tick::{POLLS_PER_LOOK, Root};
use crate::task::queues::DEFAULT;

/// One turn.
struct Turn<'a, 'r> {
    root: Option<&'a mut Root<'r>>,
    /// The main future has ended.
    ended: bool,
    /// When it began and when it is to end, in ns.
    began: u64,
    until: u64,
    /// How many have had their turn.
    taken: u64,
}

/// Time in polls, by the clock, between two readings of the thread's CPU time.
const CPU_CHECK_NS: u64 = 1_000_000;

/// Whether polls took CPU time as the clock says that they did.
#[derive(Default)]
pub(super) struct CpuCheck {
    /// Time in polls since the last reading, by the clock.
    polled_ns: Cell<u64>,
    /// The longest of them, and of which queue: its place and number.
    longest: Cell<(u64, u8, u64)>,
    /// The last reading.
    cpu_ns: Cell<u64>,
}

/// One queue's part of a turn.
#[derive(Default)]
struct Slice {
    polls: u64,
    ns: u64,
    /// Its longest poll.
    longest_ns: u64,
    /// When the poll that is under way began.
    poll_began: u64,
}

impl Core {
    /// As [`run_ready`](Self::run_ready), which calls it.
    #[cold]
    pub(super) fn run_queues(&self, root: Option<&mut Root<'_>>, began: u64) -> (bool, bool) {
        let mut clock = PollClock::reading_each(self);
        self.tasks.begin_queues();
        let longest = self.tick_quota_ns.min(self.tasks.latency_ns());
        let until = clock.now().saturating_add(longest);
        let mut turn = Turn { root, ended: false, began, until, taken: 0 };
        while !turn.ended
            && turn.is_in_time(&clock)
            && let Some(queue) = self.tasks.serve_next()
        {
            let mut slice = Slice::default();
            // One catch for all polls: a task that panics is ended, and the others go on.
            while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
                self.poll_served(&mut turn, &mut slice, &mut clock);
            })) {
                self.tasks.end_panicked(payload);
                slice.polled(&mut clock, None);
            }
            if let Some(number) = self.tasks.end_served(queue, slice.polls, slice.ns) {
                self.cpu_check.polled(queue, number, &slice);
            }
            // Before the next one is served: what is missing may be taken for its.
            self.check_cpu();
        }
        if !self.tasks.end_queues() {
            self.cpu_check.longest.take();
        }
        clock.tick_ends(began);
        (turn.taken > 0, turn.ended)
    }

    /// If polls took less CPU time than the clock says, the thread was kept off its CPU: most likely in the
    /// longest of them, whose queue does not pay for that.
    fn check_cpu(&self) {
        let check = &self.cpu_check;
        if check.polled_ns.get() < CPU_CHECK_NS {
            return;
        }
        let cpu = self.kernel.thread_cpu_ns();
        // With what the loop itself took between polls: rather too much than too little.
        let took = cpu.saturating_sub(check.cpu_ns.replace(cpu));
        let (longest, queue, number) = check.longest.take();
        let off_cpu = check.polled_ns.take().saturating_sub(took).min(longest);
        if off_cpu > 0 {
            self.tasks.give_time_back(queue, number, off_cpu);
        }
    }

    /// Polls what is ready of the queue that is being served, as far as the turn's time reaches.
    fn poll_served(&self, turn: &mut Turn<'_, '_>, slice: &mut Slice, clock: &mut PollClock<'_>) {
        // Looked at before a poll and not after one, which may have panicked.
        while turn.is_in_time(clock) {
            if self.flush_ns != u64::MAX && self.flush_in_time(clock.now(), turn.began) {
                clock.reads();
            }
            if (turn.taken + 1).is_multiple_of(POLLS_PER_LOOK as u64) && self.has_mail() {
                self.tasks.in_queue(DEFAULT, || self.take_mail());
                clock.reads();
            }
            let Some(next) = self.tasks.pick_served() else { return };
            slice.poll_began = clock.now();
            turn.taken += 1;
            let ended = self.poll_next(next, &mut turn.root, clock, |clock, woken| {
                slice.polled(clock, Some(woken));
            });
            if ended {
                turn.ended = true;
                return;
            }
        }
    }
}

impl Turn<'_, '_> {
    /// Whether there is time for one more; the first is polled in any case.
    fn is_in_time(&self, clock: &PollClock<'_>) -> bool {
        self.taken == 0 || clock.now() < self.until
    }
}

impl CpuCheck {
    fn polled(&self, queue: u8, number: u64, slice: &Slice) {
        self.polled_ns.set(self.polled_ns.get() + slice.ns);
        if slice.longest_ns > self.longest.get().0 {
            self.longest.set((slice.longest_ns, queue, number));
        }
    }
}

impl Slice {
    fn polled(&mut self, clock: &mut PollClock<'_>, woken: Option<u32>) {
        clock.polled(woken, 0);
        let took = clock.now().saturating_sub(self.poll_began);
        self.polls += 1;
        self.ns += took;
        self.longest_ns = self.longest_ns.max(took);
    }
}
