//! The end of a tick: submit, and wait if there is nothing to do.
//!
//! Owns the decision between going on, spinning and sleeping. Invariant: a core sleeps only after it has
//! announced so and then looked for mail once more; whoever publishes after that look sees the
//! announcement and writes to the eventfd. The park is four steps, which [`Core::sleep`] takes in one go and
//! a simulation one by one, with other cores running in between:
//! ```text
//! announce -> look again -> enter -> end
//!                 |                   ^
//!                 +------- mail ------+
//! ```

use std::hint;
use std::time::Duration;

use super::Core;
use super::tick::Wait;
use crate::driver::ring::Entered;
use crate::metrics::Kind;
use crate::planted::{self, Fault};

/// Pause after an enter that the kernel turned away while nothing else could be done.
const PRESSED_PAUSE: Duration = Duration::from_micros(500);

impl Core {
    /// Submits, unless the turn may end in a sleep, which does that itself: then gives its limit.
    #[inline]
    pub(super) fn submit_or_sleep(&self, wait: Wait) -> Option<u64> {
        self.driver.give_turns();
        // Put by no poll that ended well: by closures, wakers, destructors.
        self.unsent.send();
        self.driver.queue_waiting();
        let until = match self.limit(wait) {
            Some(until) if !self.has_work() => until,
            _ => {
                self.submit();
                return None;
            }
        };
        self.driver.arm_wake();
        if !self.driver.may_wait() {
            // The kernel turned an early flush away: what waits for room would wait for ever.
            if self.driver.submit_and_wait(0, None) == Entered::Pressed && !self.has_work() {
                self.driver.pool().ways().moves_on();
                self.kernel.pause(PRESSED_PAUSE);
            }
            return None;
        }
        let spin_ns = if self.driver.sees_completions() {
            self.dial.plan(self.driver.take_called())
        } else {
            0
        };
        if (spin_ns > 0 || self.driver.pool().ways().is_judging()) && self.driver.has_unsubmitted()
        {
            self.driver.submit_and_wait(0, None);
            if self.has_work() {
                return None;
            }
        }
        if spin_ns > 0 && self.spin(spin_ns, until) {
            return None;
        }
        Some(until)
    }

    /// Leaves the loop as if parked, so that completions, wakes and closures make the ring's descriptor
    /// readable while nobody drives it; `false` if that can't be said because there is something to do, or
    /// because the kernel turned the enter away. [`Core::end_watch`] ends it.
    pub(crate) fn begin_watch(&self) -> bool {
        self.driver.arm_wake();
        self.submit();
        self.announce_park();
        let watching = !self.has_work() && !self.driver.has_unsubmitted() && self.driver.may_wait();
        if !watching {
            self.tasks.lease().cell.unparked();
        }
        self.driver.set_watched(watching);
        watching
    }

    /// The loop is driven again.
    pub(crate) fn end_watch(&self) {
        self.driver.set_watched(false);
        self.driver.pool().ways().moves_on();
        self.tasks.lease().cell.unparked();
    }

    /// Whether a tick would find something to do now.
    pub(crate) fn has_work(&self) -> bool {
        // The likeliest first.
        self.driver.has_news()
            || self.tasks.any_ready()
            || self.has_mail()
            || self.unsent.any()
            || self.driver.owes_turns()
    }

    /// The latest time to wait until (`u64::MAX`: for ever); none for not waiting at all.
    fn limit(&self, wait: Wait) -> Option<u64> {
        let asked = match wait {
            Wait::No => return None,
            Wait::Until(at) => at,
            Wait::Ever => u64::MAX,
        };
        Some(self.timers.next_ns().map_or(asked, |timer| timer.min(asked)))
    }

    /// Hands over what was queued, if anything, and lets the kernel do its share.
    fn submit(&self) {
        // Without TASKRUN_FLAG only an enter shows whether completions are pending.
        if self.driver.needs_enter() || !self.driver.sees_completions() {
            self.driver.submit_and_wait(0, None);
        }
    }

    /// Looks at shared memory for a while, without a system call. `true` if there is something to do.
    fn spin(&self, spin_ns: u64, until: u64) -> bool {
        self.driver.pool().ways().moves_on();
        let began = self.kernel.now_ns();
        let stop = began.saturating_add(spin_ns);
        let mut now = began;
        let met = loop {
            if self.driver.has_news() || self.has_mail() {
                break true;
            }
            if now >= stop || now >= until {
                break now >= until;
            }
            hint::spin_loop();
            now = self.kernel.now_ns();
        };
        let took = now - began;
        self.metrics.add(Kind::SpinNs, took);
        self.metrics.count(if met { Kind::SpinsWon } else { Kind::SpinsLost });
        self.dial.spun(met.then_some(took));
        if met && self.driver.needs_enter() {
            // The kernel has set the flag, not the completions: those take an enter.
            self.driver.submit_and_wait(0, None);
        } else if met {
            // As old as one look.
            self.woke.set(Some(now));
        }
        met
    }

    /// Parks until something happens, at the latest until `until`. A reading of the clock after that, if
    /// there is one.
    #[inline]
    pub(super) fn sleep(&self, until: u64) -> Option<u64> {
        self.announce_park();
        if self.mail_before_park() {
            return None;
        }
        // Two readings more cost little beside a sleep, and say how much of its time a core is idle.
        let counts = self.metrics.counting();
        if counts {
            self.metrics.parks(self.kernel.now_ns());
        }
        let entered = self.enter_parked(until);
        let woke = counts.then(|| self.kernel.now_ns());
        if let Some(woke) = woke {
            self.metrics.parked(woke);
        }
        self.end_park(entered);
        woke.filter(|_| entered != Entered::Pressed)
    }

    /// First step of a park: from here on, who sends mail writes to the eventfd.
    #[inline]
    pub(crate) fn announce_park(&self) {
        self.count_remote_wakes();
        self.tasks.lease().cell.park();
    }

    /// Second step: the last look. Mail that came before the announcement ends the park here, `true`.
    #[inline]
    pub(crate) fn mail_before_park(&self) -> bool {
        // Without this look, mail between the turn's own one and the announcement wakes nobody.
        let mail = !planted::is(Fault::MissingWakeFence, 1) && self.has_mail();
        if mail {
            self.tasks.lease().cell.unparked();
            self.dial.met_soon();
            self.submit();
        }
        mail
    }

    /// Third step: the enter that submits and sleeps.
    #[inline]
    pub(crate) fn enter_parked(&self, until: u64) -> Entered {
        self.metrics.count(Kind::Parks);
        let until = (until != u64::MAX).then_some(until);
        if self.dial.wants_sample() {
            self.sleep_measured(until)
        } else {
            self.driver.submit_and_wait(1, until)
        }
    }

    /// Last step: mail needs no write any more.
    #[inline]
    pub(crate) fn end_park(&self, entered: Entered) {
        self.tasks.lease().cell.unparked();
        if entered == Entered::Pressed && !self.has_work() {
            // The kernel is short of memory for now. Without a pause this would spin; a timer or a wake
            // may come late by as much.
            self.driver.pool().ways().moves_on();
            self.kernel.pause(PRESSED_PAUSE);
        }
    }

    /// A sleep whose CPU the dial is told: submitted first, so that only the sleep is measured.
    fn sleep_measured(&self, until: Option<u64>) -> Entered {
        let entered = self.driver.submit_and_wait(0, None);
        if entered == Entered::Pressed || self.driver.has_news() {
            return entered;
        }
        let before = self.kernel.thread_cpu_ns();
        let entered = self.driver.submit_and_wait(1, until);
        self.dial.park_cost(self.kernel.thread_cpu_ns().saturating_sub(before));
        entered
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::task::{Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use crate::config::Settings;
    use crate::driver::ring::Ring;
    use crate::event_loop::EventLoop;
    use crate::executor::dial::Spin;
    use crate::metrics::Kind;

    fn start(spin: Spin) -> EventLoop {
        EventLoop::with_spin_as_given(Settings::default().spin(spin)).unwrap()
    }

    #[test]
    fn a_core_knows_whether_a_message_ended_its_park() {
        let mut event_loop = start(Spin::Off);
        let core = event_loop.core().clone();
        event_loop.block_on(crate::time::sleep(Duration::from_millis(1)));
        assert!(!core.driver.take_called(), "a timer ended it");
        let cell = core.tasks.lease().cell;
        let (tell, told) = mpsc::channel();
        let come = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let come = come.clone();
            move || {
                let waker: Waker = told.recv().unwrap();
                while !cell.is_parked() {
                    thread::yield_now();
                }
                come.store(true, Ordering::Release);
                waker.wake();
            }
        });
        event_loop.block_on(poll_fn(|cx| {
            if come.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let _ = tell.send(cx.waker().clone());
            Poll::Pending
        }));
        other.join().unwrap();
        assert!(core.driver.take_called(), "a message did");
        assert!(!core.driver.take_called(), "which is told once");
    }

    #[test]
    fn mail_that_comes_just_before_a_park_says_that_a_spin_would_have_met_it() {
        let event_loop = start(Spin::Dial);
        let core = event_loop.core();
        assert_eq!(core.dial.plan(false), 0, "nothing is known");
        core.announce_park();
        assert!(!core.mail_before_park());
        assert_eq!(core.dial.plan(false), 0, "there was none");
        core.announce_park();
        core.tasks.lease().cell.post();
        assert!(core.mail_before_park());
        assert!(core.dial.plan(false) > 0, "worth a try");
        core.tasks.lease().cell.take_post();
    }
    /// As the kernel leaves it when news and an enter meet: see `Ring::take_down_taskrun`.
    #[test]
    fn a_flag_over_no_pending_work_keeps_no_core_awake() {
        for spin in [Spin::Off, Spin::Dial, Spin::Fixed(Duration::from_micros(50))] {
            let mut event_loop = start(spin);
            let core = event_loop.core().clone();
            event_loop.block_on(crate::time::sleep(Duration::from_millis(1)));
            core.driver.with_ring(Ring::put_up_taskrun);
            let enters = core.metrics.get(Kind::Enters);
            event_loop.block_on(crate::time::sleep(Duration::from_millis(30)));
            let enters = core.metrics.get(Kind::Enters) - enters;
            // One that takes it down, the sleep, and what signals or the system may add.
            assert!(enters < 20, "{enters} enters, {spin:?}");
            assert!(!core.driver.needs_enter(), "{spin:?}");
        }
    }
}
