//! One core, stepped.
//!
//! Owns [`SimCore`]: a real [`Core`] over a simulated kernel, and how far it has come. A step is a piece of
//! what the loop does in one go elsewhere, cut where another thread could come between, and composed of the
//! very functions that the loop calls:
//! ```text
//! Turn -> Announced -> Looked -> Asleep -> Turn     a turn that sleeps
//! Turn -> Turn                                      one that goes on at once
//! Turn -> Draining <-> Drained -> Ended             once the main future has ended
//! ```
//! An enter never blocks in here: a core that would sleep is [`Phase::Asleep`], and wakes when its kernel
//! has something for it or its limit comes. So a wake that is lost is a core that never moves again.
//! Knows neither hosts nor other cores, but for the name of its process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::kernel::SimKernel;
use super::net::ProcessId;
use super::rng::Rng;
use crate::config::Settings;
use crate::contain::contained;
use crate::driver::setup::StartError;
use crate::executor::close::Closing;
use crate::executor::tick::Wait;
use crate::executor::{Core, context};
use crate::metrics::Counters;
use crate::runtime::text_of;
use crate::task::table::ROOT;

/// A main future, with its end as a simulation judges it; none if it was stopped.
pub(super) type Main = Pin<Box<dyn Future<Output = Option<Result<(), String>>>>>;

/// How a main future ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MainEnd {
    Fine,
    Stopped,
    Failed(String),
    Panicked(String),
}

/// When a core has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Now,
    /// At this time (ns), or when its kernel has something for it.
    At(u64),
    /// Only when its kernel has something for it.
    Event,
    /// It has ended.
    Never,
}

enum Phase {
    Turn,
    Announced(u64),
    Looked(u64),
    Asleep(u64),
    Draining(Closing),
    /// Waits for what its kernel still has, at most until then.
    Drained(Closing, u64),
    Ended,
}

pub(super) struct SimCore {
    core: Rc<Core>,
    kernel: Rc<SimKernel>,
    phase: Phase,
    main: Option<Main>,
    waker: Waker,
    grace: Duration,
    end: Option<MainEnd>,
    leaked: u32,
    buffers_out: i64,
}

impl SimCore {
    pub(super) fn start(
        kernel: Rc<SimKernel>,
        settings: &Settings,
        index: usize,
    ) -> Result<Self, StartError> {
        let core = Core::new(kernel.clone(), &settings.checked()?)?;
        core.set_place(index, None);
        let waker = Waker::clone(&core.tasks.word_of(ROOT).waker());
        Ok(Self {
            core,
            kernel,
            phase: Phase::Turn,
            main: None,
            waker,
            grace: settings.grace_period(),
            end: None,
            leaked: 0,
            buffers_out: 0,
        })
    }

    /// Whose core it is.
    pub(super) fn process(&self) -> ProcessId {
        self.kernel.process
    }

    pub(super) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Gives it its main future, to be polled in the next turn.
    pub(super) fn begin(&mut self, main: Main) {
        self.main = Some(main);
        self.core.tasks.wake_slot(ROOT);
    }

    pub(super) fn next(&self, now_ns: u64) -> Next {
        match &self.phase {
            Phase::Turn | Phase::Announced(_) | Phase::Looked(_) | Phase::Draining(_) => Next::Now,
            Phase::Asleep(until) | Phase::Drained(_, until) => {
                if self.kernel.has_pending() || *until <= now_ns {
                    Next::Now
                } else if *until == u64::MAX {
                    Next::Event
                } else {
                    Next::At(*until)
                }
            }
            Phase::Ended => Next::Never,
        }
    }

    /// One step. Some are taken together, as the numbers have it: where cores may come between, they need
    /// not always.
    pub(super) fn step(&mut self, rng: &mut Rng) {
        for _ in 0..STEPS_TOGETHER_MAX {
            self.one_step();
            let parking = matches!(self.phase, Phase::Announced(_) | Phase::Looked(_));
            if !parking || rng.chance(STOPS_BETWEEN) {
                return;
            }
        }
    }

    fn one_step(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Turn => self.turn(),
            Phase::Announced(until) => {
                self.core.announce_park();
                Phase::Looked(until)
            }
            Phase::Looked(until) => {
                if self.core.mail_before_park() {
                    Phase::Turn
                } else {
                    self.enter(until)
                }
            }
            Phase::Asleep(until) => self.wake(until),
            Phase::Draining(closing) => self.drain(closing),
            Phase::Drained(mut closing, until) => {
                self.core.drain_wait(&mut closing, until);
                Phase::Draining(closing)
            }
            Phase::Ended => Phase::Ended,
        };
    }

    fn turn(&mut self) -> Phase {
        let core = self.core.clone();
        let mut end = None;
        let until = context::enter(&core, || {
            let mut poll_main = || {
                core.tasks.begin_root_poll();
                end = self.poll_main();
                end.is_some()
            };
            core.work(Some(&mut poll_main), Wait::Ever)
        });
        if let Some(end) = end {
            self.end = Some(end);
            return self.close();
        }
        until.map_or(Phase::Turn, Phase::Announced)
    }

    fn poll_main(&mut self) -> Option<MainEnd> {
        let main = self.main.as_mut()?;
        let mut cx = Context::from_waker(&self.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| main.as_mut().poll(&mut cx)));
        let end = match polled {
            Ok(Poll::Pending) => return None,
            Ok(Poll::Ready(Some(Ok(())))) => MainEnd::Fine,
            Ok(Poll::Ready(Some(Err(why)))) => MainEnd::Failed(why),
            Ok(Poll::Ready(None)) => MainEnd::Stopped,
            Err(payload) => {
                let text = text_of(&*payload);
                contained(move || drop(payload));
                MainEnd::Panicked(text)
            }
        };
        let main = self.main.take();
        contained(move || drop(main));
        Some(end)
    }

    /// The enter of a park: what is queued goes to the kernel, and the core sleeps if that enter would.
    fn enter(&mut self, until: u64) -> Phase {
        let entered = self.core.enter_parked(until);
        if self.kernel.parked().is_some() {
            return Phase::Asleep(until);
        }
        self.core.end_park(entered);
        Phase::Turn
    }

    /// The same enter comes back: it brings what is there.
    fn wake(&mut self, until: u64) -> Phase {
        let limit = (until != u64::MAX).then_some(until);
        let entered = self.core.driver.submit_and_wait(1, limit);
        self.core.end_park(entered);
        Phase::Turn
    }

    fn close(&self) -> Phase {
        self.core.begin_close(self.grace).map_or(Phase::Ended, Phase::Draining)
    }

    fn drain(&mut self, mut closing: Closing) -> Phase {
        let Some(until) = self.core.drain_on(&mut closing) else { return self.closed(closing) };
        self.core.drain_wait(&mut closing, until);
        match self.core.drain_on(&mut closing) {
            None => self.closed(closing),
            Some(until) if self.kernel.parked().is_some() => Phase::Drained(closing, until),
            Some(_) => Phase::Draining(closing),
        }
    }

    fn closed(&mut self, closing: Closing) -> Phase {
        self.buffers_out = self.core.driver.pool().out();
        self.leaked = self.core.end_close(closing).ops_leaked;
        Phase::Ended
    }

    /// Ends the core where it stands, without its main future's leave: destructors run, then its kernel is
    /// drained, in the steps that follow.
    pub(super) fn abandon(&mut self) {
        let main = self.main.take();
        context::enter(&self.core, || contained(move || drop(main)));
        if !matches!(self.phase, Phase::Draining(_) | Phase::Drained(..) | Phase::Ended) {
            self.phase = self.close();
        }
        self.end.get_or_insert(MainEnd::Stopped);
    }

    /// Whether all of it has ended, the loop's close too.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// How the main future ended, once it has.
    pub(super) fn main_end(&self) -> Option<&MainEnd> {
        self.end.as_ref()
    }

    /// Ops that the kernel did not give back when the core was closed.
    pub(super) fn leaked(&self) -> u32 {
        self.leaked
    }

    /// Receive buffers that were not given back until then.
    pub(super) fn buffers_out(&self) -> i64 {
        self.buffers_out
    }

    pub(super) fn counters(&self) -> Counters {
        self.core.metrics.counters()
    }

    /// The main future and the tasks that have not ended, for people.
    pub(super) fn waiting(&self) -> Vec<String> {
        let main = self.main.is_some().then(|| "the main future".to_owned());
        let closing = matches!(self.phase, Phase::Draining(_) | Phase::Drained(..));
        let closing = closing.then(|| "the close of the loop".to_owned());
        let tasks = self.core.tasks.unfinished().into_iter().map(|(slot, name)| match name {
            Some(name) => format!("task {slot} `{name}`"),
            None => format!("task {slot}"),
        });
        main.into_iter().chain(closing).chain(tasks).collect()
    }
}

/// How often, in 10,000, a core stops between two steps of a park.
const STOPS_BETWEEN: u32 = 3_000;

/// Steps of a park, which may be taken together: announce, look, enter.
const STEPS_TOGETHER_MAX: u32 = 3;
