//! The recorder of one load core, and the way its intervals take to the collecting thread.
//!
//! Owns when an interval ends. A load core records into histograms that only it touches, and gives
//! them away whole once per interval: no lock and no shared counter on the hot path, one channel
//! send per second. Emptied histograms come back the same way, so that nothing is allocated while
//! measuring; if none has come back, one is allocated rather than a sample lost.
//!
//! An answer counts in the interval in which it came, and only if that lies within the window: the
//! rate is then exactly answers over time, whatever was in flight at either end. In a closed loop
//! its latency is recorded with it.
//!
//! An open loop records the latencies, and the generator's lag, of the requests that were *due* within
//! the window, whenever their answers come. By the answers' time a server that stands still at the
//! window's end would not be charged with what it kept waiting, and one that stood still in the
//! warm-up would be. A latency is recorded in the interval in which the answer came; one that came
//! after the window, in the last one, which is given away after the drain. So a second's latencies may
//! be of requests that were due in one before it, as in any second after a stall, and those of the
//! last whole second of requests that were answered after it.
//!
//! States: `closed` (no window yet, records are dropped) -> `open` (window set) -> `finished`.
//! Does not know what a request is, nor how many cores there are.

use std::sync::mpsc::{Receiver, Sender};

use crate::report::core::CoreUsage;
use crate::stats::{LatencySet, Moments};

/// One interval: long enough for a p99 of thousands of requests, short enough to watch.
pub const INTERVAL_NS: u64 = 1_000_000_000;

/// The time measured, on the monotonic clock; `end_ns` is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When measuring begins: after the warm-up.
    pub start_ns: u64,
    /// When it ends.
    pub end_ns: u64,
}

impl Window {
    fn has(&self, at_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&at_ns)
    }
}

/// What a load core tells the collector.
#[derive(Debug)]
pub enum Message {
    /// An interval is over.
    Interval(Interval),
    /// The core has ended, and this is what it did and used within the window.
    Done(CoreUsage),
}

/// One interval of one load core.
#[derive(Debug)]
pub struct Interval {
    /// The core that recorded it.
    pub core: usize,
    /// Its number, from the start of the window.
    pub index: u64,
    /// How much of it lies within the window: less than a whole one where the window ends, or was cut.
    pub length_ns: u64,
    /// What was recorded.
    pub set: LatencySet,
}

/// Records on one load core.
#[derive(Debug)]
pub struct Recorder {
    core: usize,
    window: Window,
    set: LatencySet,
    index: u64,
    interval_end_ns: u64,
    requests: u64,
    answers_all: u64,
    errors: u64,
    out: Sender<Message>,
    spare: Receiver<LatencySet>,
    open_loop: bool,
}

impl Recorder {
    pub(crate) fn new(
        core: usize,
        open_loop: bool,
        out: Sender<Message>,
        spare: Receiver<LatencySet>,
    ) -> Recorder {
        Recorder {
            core,
            // Nothing lies within an empty window: until one is set, records are dropped.
            window: Window { start_ns: u64::MAX, end_ns: 0 },
            set: LatencySet::new(open_loop),
            index: 0,
            interval_end_ns: 0,
            requests: 0,
            answers_all: 0,
            errors: 0,
            out,
            spare,
            open_loop,
        }
    }

    /// The core it was made for.
    #[cfg(test)]
    pub fn core(&self) -> usize {
        self.core
    }

    /// Says what is measured. Call it once, before the window begins.
    pub fn open_window(&mut self, window: Window) {
        assert!(window.start_ns < window.end_ns, "a window has a length");
        self.window = window;
        self.interval_end_ns = window.start_ns + INTERVAL_NS;
    }

    /// Ends the window early, at `now_ns`: what comes later does not count.
    pub fn cut_window(&mut self, now_ns: u64) {
        let now_ns = now_ns.max(self.window.start_ns);
        self.window.end_ns = self.window.end_ns.min(now_ns);
    }

    /// Records `count` requests that were sent together and answered together, so far as they are
    /// of the window.
    pub fn record(&mut self, at: Moments, count: u64) {
        self.answers_all += count;
        let answered = self.window.has(at.done_ns);
        let measured = if self.open_loop { self.window.has(at.intended_ns) } else { answered };
        if !answered && !measured {
            return;
        }
        // What comes late is the last interval's.
        let now_ns = at.done_ns.min(self.window.end_ns - 1);
        if now_ns >= self.interval_end_ns {
            self.rotate(now_ns);
        }
        if measured {
            self.set.latency(at, count);
        }
        if answered {
            self.set.answered += count;
            self.requests += count;
        }
    }

    /// Counts a request or connection that failed, at any time: one in the warm-up spoils too.
    pub fn error(&mut self) {
        self.errors += 1;
    }

    /// Ends the interval if its time is over. A core without answers calls this once in a while,
    /// so that a stall shows as empty intervals while it lasts.
    pub fn tick(&mut self, now_ns: u64) {
        // The last interval is given away at the end: none begins where the window ends.
        let now_ns = now_ns.min(self.window.end_ns.saturating_sub(1));
        if now_ns >= self.interval_end_ns && self.window.start_ns < self.window.end_ns {
            self.rotate(now_ns);
        }
    }

    /// Gives away the last interval and what the core used. `usage` comes with its CPU and loop
    /// figures; requests and window are filled in, and the errors counted here are added.
    pub fn finish(mut self, mut usage: CoreUsage) {
        usage.requests = self.requests;
        usage.answers_all = self.answers_all;
        usage.errors += self.errors;
        usage.wall_ns = self.window.end_ns.saturating_sub(self.window.start_ns);
        self.give_away();
        // The collector may have given up on this core: then nobody is left to be told.
        let _ = self.out.send(Message::Done(usage));
    }

    fn rotate(&mut self, now_ns: u64) {
        self.give_away();
        self.index = (now_ns - self.window.start_ns) / INTERVAL_NS;
        self.interval_end_ns = self.window.start_ns + (self.index + 1) * INTERVAL_NS;
    }

    fn give_away(&mut self) {
        let spare = self.spare.try_recv().unwrap_or_else(|_| LatencySet::new(self.open_loop));
        let set = std::mem::replace(&mut self.set, spare);
        let begin_ns = self.window.start_ns.saturating_add(self.index * INTERVAL_NS);
        let end_ns = self.interval_end_ns.min(self.window.end_ns);
        let length_ns = end_ns.saturating_sub(begin_ns);
        let interval = Interval { core: self.core, index: self.index, length_ns, set };
        // As above: a collector that has given up needs no intervals.
        let _ = self.out.send(Message::Interval(interval));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::report::core::Role;

    const SECOND: u64 = INTERVAL_NS;

    fn recorder() -> (Recorder, Receiver<Message>, Sender<LatencySet>) {
        recorder_of(false)
    }

    fn recorder_of(open_loop: bool) -> (Recorder, Receiver<Message>, Sender<LatencySet>) {
        let (out, messages) = mpsc::channel();
        let (give_back, spare) = mpsc::channel();
        (Recorder::new(3, open_loop, out, spare), messages, give_back)
    }

    fn intervals(messages: &Receiver<Message>) -> Vec<(u64, u64)> {
        messages
            .try_iter()
            .filter_map(|message| match message {
                Message::Interval(i) => Some((i.index, i.set.requests())),
                Message::Done(_) => None,
            })
            .collect()
    }

    #[test]
    fn only_answers_within_the_window_count() {
        let (mut recorder, messages, _spare) = recorder();
        recorder.record(Moments::closed(1, 2), 1);
        recorder.open_window(Window { start_ns: 10, end_ns: 10 + SECOND });
        for done_ns in [9, 10, 9 + SECOND, 10 + SECOND] {
            recorder.record(Moments::closed(5, done_ns), 1);
        }
        recorder.finish(CoreUsage::new(Role::Load, 3));
        assert_eq!(intervals(&messages), [(0, 2)]);
    }

    /// What an open loop of two seconds from 100 s on recorded of these: for each interval the answers,
    /// and the latencies' number and maximum in s.
    fn open(intended_and_done_ns: &[(u64, u64)], cut_ns: Option<u64>) -> Vec<(u64, u64, u64)> {
        let (mut recorder, messages, _spare) = recorder_of(true);
        recorder.open_window(Window { start_ns: 100 * SECOND, end_ns: 102 * SECOND });
        for &(intended_ns, done_ns) in intended_and_done_ns {
            if let Some(cut_ns) = cut_ns.filter(|cut_ns| done_ns >= *cut_ns) {
                recorder.cut_window(cut_ns);
            }
            recorder.tick(done_ns);
            let (room_ns, sent_ns) = (0, intended_ns + 1);
            recorder.record(Moments { intended_ns, room_ns, sent_ns, done_ns }, 1);
        }
        recorder.finish(CoreUsage::new(Role::Load, 3));
        let (mut intervals, mut requests) = (Vec::new(), 0);
        for message in messages.try_iter() {
            match message {
                Message::Interval(Interval { set, .. }) => {
                    let open = set.open.as_ref().unwrap();
                    let count = open.corrected.len();
                    assert_eq!((open.lag.len(), set.uncorrected.len()), (count, count));
                    let max_s = (open.corrected.max() + SECOND / 2) / SECOND;
                    intervals.push((set.requests(), count, max_s));
                }
                Message::Done(usage) => {
                    assert_eq!(usage.answers_all, intended_and_done_ns.len() as u64);
                    requests = usage.requests;
                }
            }
        }
        assert_eq!(intervals.iter().map(|interval| interval.0).sum::<u64>(), requests);
        intervals
    }

    #[test]
    fn an_open_loop_measures_what_was_due_within_the_window() {
        let s = SECOND;
        // Due in the warm-up and answered then, due in it and answered in the window, due in the window.
        let begin = [(98 * s, 99 * s), (97 * s, 100 * s), (100 * s, 100 * s + 5)];
        assert_eq!(open(&begin, None), [(2, 1, 0)]);
        // Answered in the second after it was due; then in the drain; due after the end.
        let end = [
            (100 * s, 101 * s + 9),
            (101 * s, 101 * s + 10),
            (102 * s - 1, 102 * s),
            (101 * s + 9, 105 * s),
            (102 * s, 106 * s),
        ];
        assert_eq!(open(&end, None), [(0, 0, 0), (2, 4, 4)]);
        // All of the window but its first second is answered late, the second itself begins late.
        assert_eq!(open(&[(100 * s + 1, 105 * s)], None), [(0, 0, 0), (0, 1, 5)]);
    }

    #[test]
    fn a_window_that_is_cut_measures_what_was_due_before_that() {
        let s = SECOND;
        let requests = [
            (100 * s, 100 * s + 5),
            (100 * s + 6, 101 * s + 20),
            (101 * s + 9, 103 * s),
            (101 * s + 10, 103 * s),
        ];
        let cut = open(&requests, Some(101 * s + 10));
        assert_eq!(cut, [(1, 1, 0), (0, 2, 2)]);
    }

    #[test]
    fn intervals_follow_the_answers_and_skip_what_was_empty() {
        let (mut recorder, messages, _spare) = recorder();
        recorder.open_window(Window { start_ns: 0, end_ns: 10 * SECOND });
        recorder.record(Moments::closed(0, SECOND - 1), 1);
        recorder.record(Moments::closed(0, SECOND), 1);
        recorder.record(Moments::closed(0, 4 * SECOND + 5), 1);
        recorder.finish(CoreUsage::new(Role::Load, 3));
        assert_eq!(intervals(&messages), [(0, 1), (1, 1), (4, 1)]);
    }

    #[test]
    fn a_tick_ends_an_interval_without_answers() {
        let (mut recorder, messages, _spare) = recorder();
        recorder.tick(5);
        recorder.open_window(Window { start_ns: 0, end_ns: 10 * SECOND });
        recorder.tick(SECOND / 2);
        assert_eq!(intervals(&messages), []);
        recorder.tick(SECOND);
        assert_eq!(intervals(&messages), [(0, 0)]);
    }

    #[test]
    fn intervals_are_as_long_as_the_window_was() {
        let lengths = |end: &dyn Fn(&mut Recorder)| {
            let (mut recorder, messages, _spare) = recorder();
            recorder.open_window(Window { start_ns: 7, end_ns: 7 + 2 * SECOND });
            recorder.tick(7 + SECOND);
            end(&mut recorder);
            recorder.finish(CoreUsage::new(Role::Load, 3));
            let lengths = messages.try_iter().filter_map(|message| match message {
                Message::Interval(i) => Some((i.index, i.length_ns)),
                Message::Done(_) => None,
            });
            lengths.collect::<Vec<(u64, u64)>>()
        };
        // At the end, and late: no interval begins there.
        assert_eq!(lengths(&|r| r.tick(7 + 2 * SECOND)), [(0, SECOND), (1, SECOND)]);
        assert_eq!(lengths(&|r| r.tick(9 + 5 * SECOND)), [(0, SECOND), (1, SECOND)]);
        assert_eq!(lengths(&|r| r.cut_window(7 + 3 * SECOND / 2)), [(0, SECOND), (1, SECOND / 2)]);
        assert_eq!(lengths(&|r| r.cut_window(7 + SECOND)), [(0, SECOND), (1, 0)]);
    }

    #[test]
    fn errors_reach_the_usage_and_a_gone_collector_is_no_panic() {
        let (mut failing, messages, _spare) = recorder();
        failing.error();
        failing.finish(CoreUsage::new(Role::Load, 3));
        let done = messages.try_iter().find_map(|message| match message {
            Message::Done(usage) => Some(usage.errors),
            Message::Interval(_) => None,
        });
        assert_eq!(done, Some(1));

        let (orphan, messages, _spare) = recorder();
        drop(messages);
        orphan.finish(CoreUsage::new(Role::Load, 3));
    }

    #[test]
    fn emptied_histograms_are_used_again() {
        let (mut recorder, messages, spare) = recorder();
        let mut marked = LatencySet::new(false);
        marked.clipped = 77;
        spare.send(marked).unwrap();
        recorder.open_window(Window { start_ns: 0, end_ns: 10 * SECOND });
        recorder.tick(SECOND);
        recorder.tick(2 * SECOND);
        let clipped: Vec<u64> = messages
            .try_iter()
            .map(|message| match message {
                Message::Interval(i) => i.set.clipped,
                Message::Done(_) => unreachable!("not finished"),
            })
            .collect();
        assert_eq!(clipped, [0, 77]);
    }
}
