//! What a simulation is made with.
//!
//! Owns [`Builder`] and [`Faults`], the choice of what may go wrong. What each fault is and how often it
//! comes lies with the kernel (`faults`); a seed draws its own mix.

use std::time::Duration;

use super::control::Sim;
use super::faults;
use super::rng::Rng;
use crate::config::Settings;
use crate::driver::asked::FIXED_FILES;
use crate::executor::dial::Spin;

/// What goes wrong in a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(Extent);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Extent {
    None,
    #[default]
    Hidden,
    Calls,
    All,
    Errors,
}

impl Faults {
    /// Nothing: completions come in order and at once, reads and writes are whole.
    pub fn none() -> Self {
        Self(Extent::None)
    }

    /// What a correct program need not notice, the default: completions late and in any order, short reads
    /// and writes, segments lost and sent again, queues that overflow, enters turned away, features that
    /// the kernel lacks, buffers that run out.
    pub fn hidden() -> Self {
        Self(Extent::Hidden)
    }

    /// That, and errors of calls that make sockets, name them and wait for them, and of
    /// what processes say to each other: all but those that break a connection, or refuse one. For tests of
    /// servers whose clients are to notice nothing.
    pub fn calls() -> Self {
        Self(Extent::Calls)
    }

    /// That, and every error that the manual pages of its calls allow: see [`Call::errnos`](super::Call). A
    /// program must deal with these, and so must the test. A host whose loops can't be started is started
    /// again, as a supervisor would; [`Report::starts_failed`](super::Report::starts_failed) says how often.
    pub fn all() -> Self {
        Self(Extent::All)
    }

    /// Those errors alone, and often: any call that may fail does so one time in a few dozen. For tests of
    /// what a program does then. Bytes and completions come whole, in order and at once.
    pub fn errors() -> Self {
        Self(Extent::Errors)
    }

    pub(super) fn drawn(self, seed: u64) -> faults::Faults {
        let mut rng = Rng::new(!seed);
        let mut mix = match self.0 {
            Extent::None => faults::Faults::none(),
            Extent::Errors => faults::Faults {
                enter_pressed: 200,
                enter_interrupted: 200,
                accept_fails: 2_000,
                connect_fails: 1_000,
                stream_fails: 400,
                call_fails: 400,
                start_fails: 500,
                ..faults::Faults::none()
            },
            Extent::Hidden | Extent::Calls | Extent::All => {
                faults::Faults::default().drawn(&mut rng)
            }
        };
        mix.mixed = false;
        match self.0 {
            Extent::Hidden | Extent::Calls => {
                (mix.accept_fails, mix.connect_fails, mix.stream_fails) = (0, 0, 0);
            }
            Extent::None | Extent::All | Extent::Errors => {}
        }
        match self.0 {
            Extent::Calls | Extent::All => {
                mix.call_fails = rng.pick(&[0, 0, 20, 100, 300]);
                mix.start_fails = rng.pick(&[0, 0, 20, 200]);
            }
            Extent::None | Extent::Hidden | Extent::Errors => {}
        }
        mix
    }
}

/// Settings of a [`Sim`]. A clone makes the same one.
///
/// ```
/// use coreloop::sim::{Faults, Sim};
///
/// let sim = Sim::builder().seed(7).faults(Faults::none()).build();
/// sim.client("only", async || assert_eq!(1 + 1, 2));
/// assert_eq!(sim.run().unwrap().seed, 7);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` or `check`"]
pub struct Builder {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) settings: Settings,
    pub(super) steps_max: u64,
    pub(super) time_max: Duration,
    pub(super) fail_on_panic: bool,
}

impl Default for Builder {
    fn default() -> Self {
        // Queues and buffers so small that a test of ordinary size fills them now and then.
        let settings = Settings::default().ring_entries(64).cq_entries(128).buffers(32, 2048);
        Self {
            seed: 0,
            faults: Faults::default(),
            settings,
            steps_max: 20_000_000,
            time_max: Duration::from_secs(24 * 60 * 60),
            fail_on_panic: true,
        }
    }
}

impl Builder {
    /// What everything follows from (0): the order of steps and completions, the faults, the delays.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What goes wrong ([`Faults::hidden`]).
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Settings of every core (a ring of 64 entries, 32 buffers of 2 KiB). They never spin, whatever is
    /// said here, and where there is a table of files it has places for all that a process has open: which
    /// sockets a smaller one has no place for is a matter of descriptors' numbers, which are real here.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Steps of cores after which a simulation is given up (20 million).
    pub fn steps_max(mut self, steps: u64) -> Self {
        self.steps_max = steps;
        self
    }

    /// Virtual time after which a simulation is given up (a day).
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// Whether a panic of a task fails the simulation when the task's handle goes without its result being
    /// taken (yes): [`Failure::TaskPanicked`](super::Failure::TaskPanicked). Otherwise it is only reported,
    /// as [`Settings::on_report`] says, which it is in either case. A panic that its joiner takes is the
    /// joiner's, and one of a main future always fails the simulation.
    ///
    /// ```
    /// use coreloop::sim::Sim;
    /// use coreloop::yield_now;
    ///
    /// let one = |fails| {
    ///     let sim = Sim::builder().fail_on_panic(fails).build();
    ///     sim.client("only", async || {
    ///         drop(coreloop::spawn(async { panic!("nobody waits for me") }));
    ///         yield_now().await;
    ///     });
    ///     sim.run()
    /// };
    /// assert!(one(true).unwrap_err().to_string().contains("nobody waits for me"));
    /// assert_eq!(one(false).unwrap().counters.task_panics, 1);
    /// ```
    pub fn fail_on_panic(mut self, fails: bool) -> Self {
        self.fail_on_panic = fails;
        self
    }

    /// A simulation without hosts.
    pub fn build(&self) -> Sim {
        Sim::new(self)
    }

    /// Whoever spins waits for a clock that only moves when nobody does. The numbers of descriptors, by which
    /// sockets have places in a table of files, do not follow from the seed.
    pub(super) fn settings_of_cores(&self) -> Settings {
        let settings = self.settings.clone().spin(Spin::Off);
        // Settings that are out of their range fail each start, which says so.
        match settings.checked().map_or(0, |config| config.asked.fixed_files) {
            0 => settings,
            places => settings.fixed_files(places.max(FIXED_FILES)),
        }
    }
}
