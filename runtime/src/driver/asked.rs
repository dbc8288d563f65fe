//! Settings of a ring that are off unless they are asked for (but for its table of files), and what became
//! of each.
//!
//! Owns [`Asked`], registering what takes a call of its own, and the account of what is not in force as it
//! was asked for. Knows nothing of the set-up flags' negotiation; see `setup`.

use std::fmt;
use std::io;
use std::ptr;
use std::time::Duration;

use super::features::{Feature, Missing, RingReport};
use super::ring::Ring;
use super::workers::WorkerCpus;
use crate::sys::abi::{Napi, register};

/// What a ring is to have beyond what every ring has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) task_work: TaskWork,
    /// How long the kernel's submitting thread stays awake with nothing to do; none: no such thread.
    pub(crate) sqpoll: Option<Duration>,
    /// The CPU that it is to run on.
    pub(crate) sqpoll_cpu: Option<u32>,
    /// How long a wait gathers completions, and how many end that.
    pub(crate) min_wait: Option<Duration>,
    pub(crate) min_wait_completions: u32,
    /// Limits on the kernel's workers, for work that ends (files) and for work that may not; 0: its own.
    pub(crate) workers: [u32; 2],
    /// The CPUs that these may run on.
    pub(crate) worker_cpus: WorkerCpus,
    /// How long a wait polls the network card, and whether it is polled by nobody else meanwhile.
    pub(crate) napi: Option<Duration>,
    pub(crate) napi_prefer: bool,
    /// Sends of at least so many bytes are not copied.
    pub(crate) zero_copy_threshold: Option<u32>,
    /// Places of the ring's table of files; 0: no table.
    pub(crate) fixed_files: u32,
}

/// Places of a table that nobody asked for. Where there is none it is a feature that is missing, and no
/// setting that is not in force as asked.
pub(crate) const FIXED_FILES: u32 = 1 << 14;

/// When the kernel does what completes an op ("task work").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskWork {
    /// As late as this kernel can, and with `sqpoll` on the kernel's thread.
    #[default]
    Auto,
    /// When the loop enters the kernel (`IORING_SETUP_DEFER_TASKRUN`, 6.1). Does not go with `sqpoll`.
    Deferred,
    /// At the loop's next system call, whichever that is (`IORING_SETUP_COOP_TASKRUN`, 5.19). Does
    /// not go with `sqpoll`.
    Cooperative,
}

impl Asked {
    /// Whether a feature is wanted at all.
    pub(super) fn wants(&self, feature: Feature) -> bool {
        match feature {
            Feature::SqPoll => self.sqpoll.is_some(),
            Feature::MinWait => self.min_wait.is_some(),
            Feature::MaxWorkers => self.workers != [0, 0],
            Feature::Napi => self.napi.is_some(),
            Feature::SendZc => self.zero_copy_threshold.is_some(),
            Feature::FixedFiles => self.fixed_files > 0,
            _ => true,
        }
    }

    /// Strikes out what does not go with what was chosen: with a thread of the kernel's that submits the
    /// kernel takes no mode of task work (EINVAL).
    pub(super) fn exclude(&self, report: &mut RingReport) {
        let modes = [Feature::DeferTaskrun, Feature::CoopTaskrun, Feature::TaskrunFlag];
        if report.in_force.contains(Feature::SqPoll) {
            modes.into_iter().for_each(|f| report.without(f, Missing::Excluded("sqpoll")));
        } else if self.task_work == TaskWork::Cooperative {
            report.without(Feature::DeferTaskrun, Missing::Excluded("task_work"));
        }
    }

    /// The kernel's submitting thread is not to be had: the modes that it excluded are asked for again.
    pub(super) fn without_thread(&self, report: &mut RingReport, why: Missing) {
        report.without(Feature::SqPoll, why);
        for feature in [Feature::DeferTaskrun, Feature::CoopTaskrun, Feature::TaskrunFlag] {
            if report.why(feature) == Missing::Excluded("sqpoll") {
                report.again(feature);
            }
        }
        self.exclude(report);
    }

    /// Milliseconds that the thread stays awake, as the kernel takes them; 0 would be its own choice.
    pub(super) fn idle_ms(&self) -> u32 {
        let ms = self.sqpoll.unwrap_or_default().as_nanos().div_ceil(1_000_000);
        u32::try_from(ms).unwrap_or(u32::MAX).max(1)
    }

    /// Has the kernel set what takes a call of its own.
    pub(super) fn register(&self, ring: &mut Ring, report: &mut RingReport) {
        if report.in_force.contains(Feature::MaxWorkers)
            && let Err(e) = limit_workers(ring, self.workers)
        {
            report.without(Feature::MaxWorkers, failed(&e));
        }
        self.worker_cpus.register(ring, report);
        if report.in_force.contains(Feature::Napi)
            && let Err(e) = self.register_napi(ring)
        {
            report.without(Feature::Napi, failed(&e));
        }
        if report.in_force.contains(Feature::MinWait) {
            ring.gather(micros(self.min_wait), self.min_wait_completions.max(1));
        }
    }

    fn register_napi(&self, ring: &Ring) -> io::Result<()> {
        let prefer_busy_poll = u8::from(self.napi_prefer);
        let mut napi =
            Napi { busy_poll_us: micros(self.napi), prefer_busy_poll, ..Napi::default() };
        // SAFETY: one live io_uring_napi, which the call reads and writes.
        unsafe { ring.register(register::NAPI, ptr::from_mut(&mut napi).cast(), 1) }.map(|_| ())
    }

    /// Notes every setting that is not in force as asked.
    pub(super) fn account(&self, report: &mut RingReport) {
        let lacks = |r: &RingReport, f| self.wants(f) && !r.in_force.contains(f);
        if lacks(report, Feature::SqPoll) {
            let (asked, why) = (self.sqpoll.unwrap_or_default(), report.why(Feature::SqPoll));
            report.step_down("sqpoll", format_args!("{asked:?}"), "off", why);
        }
        if self.task_work == TaskWork::Deferred && !report.in_force.contains(Feature::DeferTaskrun)
        {
            let other = if report.in_force.contains(Feature::CoopTaskrun) {
                "cooperative"
            } else {
                "by interrupt"
            };
            report.step_down("task_work", "deferred", other, report.why(Feature::DeferTaskrun));
        }
        if lacks(report, Feature::MinWait) {
            let (asked, why) = (self.min_wait.unwrap_or_default(), report.why(Feature::MinWait));
            report.step_down("min_wait", format_args!("{asked:?}"), "off", why);
        }
        if lacks(report, Feature::MaxWorkers) {
            let why = report.why(Feature::MaxWorkers);
            for (name, asked) in
                ["bounded_workers", "unbounded_workers"].into_iter().zip(self.workers)
            {
                if asked > 0 {
                    report.step_down(name, asked, "the kernel's own limit", why.clone());
                }
            }
        }
        if lacks(report, Feature::Napi) {
            let (asked, why) = (self.napi.unwrap_or_default(), report.why(Feature::Napi));
            report.step_down("napi", format_args!("{asked:?}"), "off", why);
        }
        if lacks(report, Feature::SendZc) {
            let (asked, why) = (self.zero_copy_threshold, report.why(Feature::SendZc));
            report.step_down("zero_copy_threshold", asked.unwrap_or_default(), "off", why);
        }
    }
}

impl fmt::Display for TaskWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskWork::Auto => "auto",
            TaskWork::Deferred => "deferred",
            TaskWork::Cooperative => "cooperative",
        })
    }
}

/// Tells the kernel how many workers it may use for this thread's rings, per NUMA node; gives what it was.
pub(super) fn limit_workers(ring: &Ring, limits: [u32; 2]) -> io::Result<[u32; 2]> {
    let mut limits = limits;
    // SAFETY: two live words, which the call reads and writes.
    unsafe { ring.register(register::IOWQ_MAX_WORKERS, limits.as_mut_ptr().cast(), 2) }?;
    Ok(limits)
}

fn failed(e: &io::Error) -> Missing {
    match e.raw_os_error() {
        Some(libc::EINVAL) => Missing::Kernel,
        errno => Missing::Failed(errno.unwrap_or(0)),
    }
}

/// In µs, rounded up.
fn micros(time: Option<Duration>) -> u32 {
    let us = time.unwrap_or_default().as_nanos().div_ceil(1_000);
    u32::try_from(us).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::event_loop::EventLoop;
    use crate::sys::abi;

    /// The kernel's own words on what is registered with a loop's ring.
    fn registered(settings: Settings) -> (EventLoop, Option<Napi>) {
        let event_loop = EventLoop::with(settings).unwrap();
        let mut napi = Napi::default();
        let on = event_loop.ring_report().in_force.contains(Feature::Napi);
        event_loop.core().driver.with_ring(|ring| {
            let (op, arg) = (abi::register::UNREGISTER_NAPI, ptr::from_mut(&mut napi).cast());
            // SAFETY: one live io_uring_napi, which the call writes.
            on.then(|| unsafe { ring.register(op, arg, 1) }.unwrap());
        });
        (event_loop, on.then_some(napi))
    }

    #[test]
    fn the_kernel_has_what_was_asked_for_napi() {
        let settings =
            Settings::default().napi(Some(Duration::from_nanos(49_001))).napi_prefer(true);
        let (event_loop, napi) = registered(settings);
        match napi {
            Some(napi) => assert_eq!((napi.busy_poll_us, napi.prefer_busy_poll), (50, 1)),
            // A kernel that was built without busy polling.
            None => assert_eq!(event_loop.ring_report().stepped[0].setting, "napi"),
        }
        let (event_loop, napi) = registered(Settings::default());
        assert!(napi.is_none() && event_loop.ring_report().stepped.is_empty());
    }

    #[test]
    fn the_kernel_has_what_was_asked_for_workers() {
        let limits = |settings| {
            let event_loop = EventLoop::with(settings).unwrap();
            event_loop.core().driver.with_ring(|ring| limit_workers(ring, [0, 0]).unwrap())
        };
        // They are the thread's, and stay: the test has a thread of its own.
        let own = limits(Settings::default());
        assert_eq!(limits(Settings::default().bounded_workers(3)), [3, own[1]]);
        assert_eq!(limits(Settings::default().unbounded_workers(2)), [3, 2]);
    }

    #[test]
    fn what_the_thread_excluded_comes_back_without_it() {
        let asked = Asked { sqpoll: Some(Duration::from_millis(1)), ..Asked::default() };
        let mut report =
            RingReport { in_force: Feature::ALL.into_iter().collect(), ..RingReport::default() };
        report.without(Feature::CoopTaskrun, Missing::Masked);
        asked.exclude(&mut report);
        assert!(!report.in_force.contains(Feature::DeferTaskrun));
        asked.without_thread(&mut report, Missing::Failed(libc::EPERM));
        assert!(report.in_force.contains(Feature::DeferTaskrun));
        assert!(!report.in_force.contains(Feature::CoopTaskrun), "it was masked");
        asked.account(&mut report);
        let text = report.stepped[0].to_string();
        assert!(text.starts_with("sqpoll: asked 1ms, in force off, because refused: "), "{text}");
    }
}
