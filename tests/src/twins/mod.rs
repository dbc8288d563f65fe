//! The Rust twins of the Python programs in `tests/twins`, in virtual time.
//!
//! Owns the [`Twin`]s by name, and what they play on: `Play`, which runs each act as a program of its own on
//! a simulated core, and `Stage`, where events are said with the time at which they came. A unit is a second
//! of virtual time; times are rounded to half units, as those of the Python side are. What the twins say is
//! compared by `tests/tests/twins.rs`; a twin whose name begins with `d_` is a deliberate difference.

mod differences;
mod futures;
mod groups;
mod limits;
pub mod python;
mod tasks;

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use coreloop::sim::{Faults, Sim};
use coreloop::time::{Instant, sleep};

/// A program of several acts.
#[derive(Clone, Copy)]
pub struct Twin {
    /// That of its Python side, without `.py`.
    pub name: &'static str,
    run: fn(&mut Play),
}

impl Twin {
    /// What it says.
    ///
    /// # Panics
    /// If an act fails.
    pub fn transcript(&self) -> String {
        let mut play = Play { lines: Rc::default() };
        (self.run)(&mut play);
        let mut text = play.lines.take().join("\n");
        text.push('\n');
        text
    }

    /// Whether the two sides are to differ, for a reason that `DIFFERENCES.md` gives.
    pub fn differs(&self) -> bool {
        self.name.starts_with("d_")
    }
}

/// All twins, in the order of their ids; the differences last.
pub fn all() -> Vec<Twin> {
    [tasks::TWINS, limits::TWINS, futures::TWINS, groups::TWINS, differences::TWINS].concat()
}

/// Names the functions of a module as twins.
macro_rules! twins {
    ($($name:ident),* $(,)?) => {
        pub(super) const TWINS: &[super::Twin] =
            &[$(super::Twin { name: stringify!($name), run: $name }),*];
    };
}
use twins;

/// Runs acts, one after the other.
struct Play {
    lines: Rc<RefCell<Vec<String>>>,
}

impl Play {
    /// Runs `main` as a program of its own.
    #[track_caller]
    fn act<F>(&mut self, title: &str, main: impl FnOnce(Stage) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.lines.borrow_mut().push(format!("-- {title}"));
        // Some scripts let a task panic with nobody to take it, as asyncio would log it.
        let sim = Sim::builder().faults(Faults::none()).fail_on_panic(false).build();
        let (own, lines) = (sim.clone(), self.lines.clone());
        sim.client("act", move || main(Stage { began: Instant::now(), sim: own, lines }));
        if let Err(e) = sim.run() {
            panic!("{title}: {e}");
        }
    }
}

/// Where an act says what happens.
#[derive(Clone)]
struct Stage {
    began: Instant,
    sim: Sim,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Stage {
    fn say(&self, event: impl Display) {
        let halves = (self.began.elapsed().as_secs_f64() * 2.0).round();
        self.lines.borrow_mut().push(format!("{:.1} {event}", halves / 2.0));
    }

    /// Keeps the loop busy.
    fn compute(&self, n: f64) {
        self.sim.compute(units(n));
    }

    /// The point in time `n` units from now.
    fn after(&self, n: f64) -> Instant {
        Instant::now() + units(n)
    }

    /// Says when it begins and when it is over.
    async fn work(self, name: &'static str, n: u32) -> u32 {
        self.say(format_args!("{name} starts"));
        sleep(units(n)).await;
        self.say(format_args!("{name} is over"));
        n
    }

    /// Says when it was over and when it is gone.
    async fn guarded(self, name: &'static str, n: u32) -> u32 {
        let _gone = self.at_drop(format!("{name} is gone"));
        sleep(units(n)).await;
        self.say(format_args!("{name} is over"));
        n
    }

    /// Says `event` when it is dropped.
    fn at_drop(&self, event: impl Display) -> AtDrop {
        AtDrop(self.clone(), Some(event.to_string()))
    }
}

/// See [`Stage::at_drop`].
struct AtDrop(Stage, Option<String>);

impl AtDrop {
    /// It is not said.
    fn defuse(mut self) {
        self.1 = None;
    }
}

impl Drop for AtDrop {
    fn drop(&mut self) {
        if let Some(event) = &self.1 {
            self.0.say(event);
        }
    }
}

/// So many units.
fn units(n: impl Into<f64>) -> Duration {
    Duration::from_secs_f64(n.into())
}

async fn fails(n: u32, why: &'static str) -> Result<u32, &'static str> {
    sleep(units(n)).await;
    Err(why)
}

fn yes(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}
