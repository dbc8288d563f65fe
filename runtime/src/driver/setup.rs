//! Setting a ring up: ask for everything, step down to what this kernel gives, say so.
//!
//! Owns the negotiation and [`StartError`]. The order of the steps is from the newest feature to the
//! oldest, so that one EINVAL costs one feature; ENOMEM halves the queues. Knows nothing of ops.

use std::fmt;
use std::io;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use super::asked::Asked;
use super::features::{Feature, FeatureSet, Missing, RingReport};
use super::ring::Ring;
use crate::sys::Kernel;
use crate::sys::abi::{self, Params, Probe, feat, opcode, setup};

/// What a ring is to be like.
#[derive(Clone, Debug)]
pub(crate) struct RingConfig {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) mask: FeatureSet,
    pub(crate) asked: Asked,
}

/// Why a loop could not be started. The message says what to change.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `io_uring_setup(2)` answered EPERM: a seccomp filter or the sysctl `kernel.io_uring_disabled`.
    #[error(
        "io_uring is blocked for this process (EPERM). {}",
        blocked_advice(*.sysctl)
    )]
    Blocked {
        /// `kernel.io_uring_disabled` as read from `/proc`, if it could be.
        sysctl: Option<u32>,
    },
    /// `io_uring_setup(2)` answered ENOSYS.
    #[error(
        "this kernel ({kernel}) has no io_uring (ENOSYS): it was built without CONFIG_IO_URING, or a \
         sandbox hides it. Run on Linux 6.1 or newer with io_uring; coreloop has no other driver yet"
    )]
    Missing {
        /// The kernel's release string.
        kernel: String,
    },
    /// The kernel is older than Linux 6.1.
    #[error("Linux {kernel} is too old: coreloop needs 6.1 or newer")]
    KernelTooOld {
        /// The kernel's release string.
        kernel: String,
    },
    /// Not even the smallest ring fitted into the memory that may be locked.
    #[error(
        "not enough lockable memory for a ring of {entries} entries (ENOMEM): raise the limit with \
         `ulimit -l`, `LimitMEMLOCK=` or `--ulimit memlock=`; it is counted per user over all processes \
         (RLIMIT_MEMLOCK is {} now)",
        limit_text(*.memlock)
    )]
    NoMemory {
        /// Entries of the last, smallest attempt.
        entries: u32,
        /// RLIMIT_MEMLOCK in bytes; none if unlimited.
        memlock: Option<u64>,
    },
    /// No more descriptors: EMFILE or ENFILE.
    #[error("no descriptor left for {what} ({source}): raise `ulimit -n` or close something")]
    NoDescriptors {
        /// What it was wanted for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// More than 1,024 loops live in one process at a time. One that has been dropped counts until the last
    /// [`JoinHandle`](crate::task::JoinHandle) of its tasks and the last
    /// [`TaskQueue`](crate::sched::TaskQueue) of its queues are, too: its wakers name it by its number.
    #[error(
        "more than {limit} loops in one process: drop some before starting others, and the JoinHandles and \
         TaskQueues of loops that are gone (one that is kept or forgotten keeps its loop's place)"
    )]
    TooManyLoops {
        /// How many may live at once.
        limit: usize,
    },
    /// `CORELOOP_MASK` names no feature.
    #[error("CORELOOP_MASK: {0}")]
    BadMask(#[from] super::features::UnknownFeature),
    /// A setting is out of its range.
    #[error("setting {name}: {why}")]
    BadSetting {
        /// The setting.
        name: &'static str,
        /// What would be right.
        why: String,
    },
    /// Anything else, with the step that failed.
    #[error("{step} failed: {source}")]
    System {
        /// The step.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The same text as [`Display`](fmt::Display): a `main` that returns this, or an `unwrap`, then says what to
/// change.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn blocked_advice(sysctl: Option<u32>) -> String {
    match sysctl {
        Some(2) => {
            "kernel.io_uring_disabled is 2: `sysctl -w kernel.io_uring_disabled=0` allows it".into()
        }
        Some(1) => "kernel.io_uring_disabled is 1: only members of the group in \
                    kernel.io_uring_group may use it; join that group, or set the sysctl to 0"
            .into(),
        _ => {
            "Most often a container's seccomp profile (Docker's and containerd's defaults do it): \
              run with a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
                .into()
        }
    }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".into(), |b| format!("{} KiB", b / 1024))
}

/// Smallest submission queue that is worth running with.
const SQ_ENTRIES_MIN: u32 = 8;

/// Tries at full size before a smaller one is asked for, and the pause between them.
const ENOMEM_TRIES: u32 = 5;
const ENOMEM_PAUSE: Duration = Duration::from_millis(2);

/// Asks for a ring with all features that are not masked, and steps down until the kernel agrees.
pub(crate) fn negotiate(
    kernel: &Rc<dyn Kernel>,
    config: &RingConfig,
) -> Result<(Ring, RingReport), StartError> {
    let release = kernel.release();
    let mut report = RingReport {
        kernel: release.clone(),
        in_force: Feature::ALL.into_iter().filter(|f| config.asked.wants(*f)).collect(),
        sq_entries_asked: config.sq_entries,
        ..RingReport::default()
    };
    for feature in Feature::ALL {
        if config.mask.contains(feature) {
            report.without(feature, Missing::Masked);
        }
    }
    config.asked.exclude(&mut report);
    drop_dependants(&mut report);
    let (mut ring, params) = loop_until_accepted(kernel, config, &mut report, &release)?;

    if accepts_wrongly(&release)
        && report.in_force.contains(Feature::DeferTaskrun)
        && report.in_force.contains(Feature::MultishotAccept)
    {
        let how = "connections under load come with descriptors that are none";
        report.without(Feature::MultishotAccept, Missing::Faulty(how));
    }
    // Asked only now, so that a sandbox that hides io_uring is reported as such and not as an old kernel.
    if is_too_old(&release) {
        return Err(StartError::KernelTooOld { kernel: release });
    }
    for (bit, what) in
        [(feat::EXT_ARG, "IORING_FEAT_EXT_ARG"), (feat::NODROP, "IORING_FEAT_NODROP")]
    {
        if params.features & bit == 0 {
            let source = io::Error::new(io::ErrorKind::Unsupported, format!("no {what}"));
            return Err(StartError::System { step: "io_uring_setup", source });
        }
    }
    for (bit, feature) in [
        (feat::MIN_TIMEOUT, Feature::AbsTimer),
        (feat::MIN_TIMEOUT, Feature::MinWait),
        (feat::NO_IOWAIT, Feature::NoIowait),
    ] {
        if params.features & bit == 0 && report.in_force.contains(feature) {
            report.without(feature, Missing::Kernel);
        }
    }
    if report.in_force.contains(Feature::RegisteredRing)
        && let Err(e) = ring.register_ring_fd()
    {
        report.without(Feature::RegisteredRing, Missing::Failed(e.raw_os_error().unwrap_or(0)));
    }
    if report.in_force.contains(Feature::FixedFiles)
        && version(&release).is_some_and(|v| v < (6, 13))
    {
        let how =
            "a socket that is closed stays open until older operations of its ring have ended";
        report.without(Feature::FixedFiles, Missing::Faulty(how));
    }
    let probe = check_ops(&ring, &release)?;
    if report.in_force.contains(Feature::SendZc) && !does(&probe, opcode::SEND_ZC) {
        report.without(Feature::SendZc, Missing::Kernel);
    }
    // There is no asking for the flag. The same kernel, 6.0, brought these.
    let is_6_0 = report.in_force.contains(Feature::SingleIssuer) || does(&probe, opcode::SEND_ZC);
    if report.in_force.contains(Feature::MultishotRecv) && !is_6_0 {
        report.without(Feature::MultishotRecv, Missing::Kernel);
    }
    ring.use_features(report.in_force);
    // A filter may let set-ups pass and not enters: better said now than by a panic later.
    ring.enter(0, None).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => StartError::Blocked { sysctl: sysctl_disabled() },
        Some(libc::ENOSYS) => StartError::Missing { kernel: release.clone() },
        _ => StartError::System { step: "io_uring_enter", source },
    })?;
    config.asked.register(&mut ring, &mut report);
    config.asked.account(&mut report);
    report.sq_entries = params.sq_entries;
    report.cq_entries = params.cq_entries;
    for (setting, asked, got) in [
        ("ring_entries", config.sq_entries, params.sq_entries),
        ("cq_entries", config.cq_entries, params.cq_entries),
    ] {
        if got < asked {
            report.step_down(setting, asked, got, Missing::Memory);
        }
    }
    Ok((ring, report))
}

/// Features that are set-up flags, the newest first: the order in which they are given up.
const FLAGS: [(Feature, u32); 7] = [
    (Feature::NoSqarray, setup::NO_SQARRAY),
    (Feature::DeferTaskrun, setup::DEFER_TASKRUN),
    (Feature::SingleIssuer, setup::SINGLE_ISSUER),
    (Feature::TaskrunFlag, setup::TASKRUN_FLAG),
    (Feature::CoopTaskrun, setup::COOP_TASKRUN),
    (Feature::SubmitAll, setup::SUBMIT_ALL),
    (Feature::SqPoll, setup::SQPOLL),
];

fn loop_until_accepted(
    kernel: &Rc<dyn Kernel>,
    config: &RingConfig,
    report: &mut RingReport,
    release: &str,
) -> Result<(Ring, Params), StartError> {
    let (mut sq, mut cq) = (config.sq_entries, config.cq_entries);
    let mut patience = ENOMEM_TRIES;
    let thread_cpu = config.asked.sqpoll_cpu;
    // This try is without that CPU, to see whether it is what was refused.
    let mut anywhere = false;
    loop {
        let mut params = Params { cq_entries: cq, ..Params::default() };
        params.flags = setup::CQSIZE | setup::CLAMP;
        for (feature, flag) in FLAGS {
            if report.in_force.contains(feature) {
                params.flags |= flag;
            }
        }
        let with_thread = report.in_force.contains(Feature::SqPoll);
        if with_thread {
            params.sq_thread_idle = config.asked.idle_ms();
            if let Some(cpu) = thread_cpu.filter(|_| !anywhere) {
                params.flags |= setup::SQ_AFF;
                params.sq_thread_cpu = cpu;
            }
        }
        let error = match kernel.setup(sq, &mut params) {
            Ok(memory) => {
                // Most likely a CPU that this process may not use.
                if let Some(cpu) = thread_cpu.filter(|_| with_thread && anywhere) {
                    let why = Missing::Failed(libc::EINVAL);
                    report.step_down("sqpoll_cpu", cpu, "any CPU", why);
                }
                return Ok((Ring::new(kernel.clone(), memory, &params), params));
            }
            Err(e) => e,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL) if with_thread && thread_cpu.is_some() && !anywhere => {
                anywhere = true;
            }
            // A security module forbids the thread, or a limit on threads is reached.
            Some(errno @ (libc::EPERM | libc::EACCES | libc::EAGAIN)) if with_thread => {
                config.asked.without_thread(report, Missing::Failed(errno));
                drop_dependants(report);
            }
            Some(libc::EINVAL) => {
                anywhere = false;
                let Some((newest, _)) = FLAGS.into_iter().find(|f| report.in_force.contains(f.0))
                else {
                    // Before 5.6 even the flags that are never given up are refused.
                    return Err(match is_too_old(release) {
                        true => StartError::KernelTooOld { kernel: release.to_owned() },
                        false => StartError::System { step: "io_uring_setup", source: error },
                    });
                };
                report.without(newest, Missing::Kernel);
                if newest == Feature::SqPoll {
                    config.asked.without_thread(report, Missing::Kernel);
                }
                drop_dependants(report);
            }
            // What a ring that has just been closed was charged for is given back a little later.
            Some(libc::ENOMEM) if patience > 0 => {
                patience -= 1;
                kernel.pause(ENOMEM_PAUSE);
            }
            Some(libc::ENOMEM) if cq > sq * 2 => cq /= 2,
            Some(libc::ENOMEM) if sq > SQ_ENTRIES_MIN => {
                sq /= 2;
                cq = sq * 2;
            }
            Some(libc::ENOMEM) => {
                return Err(StartError::NoMemory {
                    entries: sq,
                    memlock: soft_limit(libc::RLIMIT_MEMLOCK),
                });
            }
            Some(libc::EPERM | libc::EACCES) => {
                return Err(StartError::Blocked { sysctl: sysctl_disabled() });
            }
            Some(libc::ENOSYS) => return Err(StartError::Missing { kernel: release.to_owned() }),
            Some(libc::EMFILE | libc::ENFILE) => {
                return Err(StartError::NoDescriptors { what: "a ring", source: error });
            }
            _ => return Err(StartError::System { step: "io_uring_setup", source: error }),
        }
    }
}

/// DEFER_TASKRUN wants SINGLE_ISSUER, and so does the table of files: without it a forked child that drops a
/// connection would take it out of its parent's. TASKRUN_FLAG wants one of the two taskrun modes.
fn drop_dependants(report: &mut RingReport) {
    let has = |r: &RingReport, f| r.in_force.contains(f);
    for feature in [Feature::DeferTaskrun, Feature::FixedFiles] {
        if !has(report, Feature::SingleIssuer) && has(report, feature) {
            report.without(feature, Missing::Needs(Feature::SingleIssuer));
        }
    }
    let modes = [Feature::DeferTaskrun, Feature::CoopTaskrun];
    if has(report, Feature::TaskrunFlag) && !modes.iter().any(|f| has(report, *f)) {
        report.without(Feature::TaskrunFlag, Missing::Needs(Feature::CoopTaskrun));
    }
}

/// Every op that the loop can't do without was there long before 6.1; a filter may still forbid one.
fn check_ops(ring: &Ring, release: &str) -> Result<Probe, StartError> {
    let mut probe = Probe::default();
    let arg = ptr::from_mut(&mut probe).cast();
    // SAFETY: a live io_uring_probe with room for LAST_KNOWN ops.
    let asked = unsafe { ring.register(abi::register::PROBE, arg, u32::from(opcode::LAST_KNOWN)) };
    if let Err(source) = asked {
        return Err(match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => StartError::Blocked { sysctl: sysctl_disabled() },
            Some(libc::ENOSYS) => StartError::Missing { kernel: release.to_owned() },
            _ => StartError::System { step: "io_uring_register(PROBE)", source },
        });
    }
    let needed = [
        opcode::READ,
        opcode::SEND,
        opcode::RECV,
        opcode::SENDMSG,
        opcode::ACCEPT,
        opcode::CONNECT,
        opcode::ASYNC_CANCEL,
    ];
    for op in needed {
        if !does(&probe, op) {
            let source = io::Error::new(
                io::ErrorKind::Unsupported,
                format!("this kernel ({release}) does not do op {op} of enum io_uring_op"),
            );
            return Err(StartError::System { step: "the probe of io_uring's ops", source });
        }
    }
    Ok(probe)
}

fn does(probe: &Probe, op: u8) -> bool {
    probe.ops[usize::from(op)].flags & abi::OP_SUPPORTED != 0
}

/// Major and minor of a release string such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether it is older than Linux 6.1.
fn is_too_old(release: &str) -> bool {
    version(release).is_some_and(|v| v < (6, 1))
}

/// Whether multishot accept with DEFER_TASKRUN gives wrong descriptors there: it did from 6.6.1 to 6.8-rc3
/// (liburing's issue 1062). Later ones of 6.6 and 6.7 may be mended; they do without it, too.
fn accepts_wrongly(release: &str) -> bool {
    // Candidates are named in many ways: 6.8.0-rc3, 6.8.0-0.rc3.20240205git.fc40, 6.8.0-060800rc3-generic.
    let is_candidate = |number: &str| {
        number.starts_with(['1', '2', '3'])
            && !number[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    match version(release) {
        Some((6, 6 | 7)) => true,
        Some((6, 8)) => release.split("rc").skip(1).any(is_candidate),
        _ => false,
    }
}

fn sysctl_disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// What `getrlimit(2)` says of this resource; none if it is unlimited.
pub(super) fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the call fills.
    let ok = unsafe { libc::getrlimit(resource, &mut limit) } == 0;
    (ok && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_tests::{corpus, fuzz, signature};

    #[test]
    fn release_strings_are_understood() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("weird"), None);
    }

    #[test]
    fn kernels_that_accept_wrongly_are_known() {
        let fedora = "6.8.0-0.rc3.20240205git.26.fc40.x86_64";
        let ubuntu = "6.8.0-060800rc3-generic";
        for wrong in
            ["6.6.1", "6.6.9-generic", "6.7.4", "6.8.0-rc3", "6.8.0-rc1-next", fedora, ubuntu]
        {
            assert!(accepts_wrongly(wrong), "{wrong}");
        }
        for right in
            ["6.5.7-rc3", "6.8.0-rc4", "6.8.0-rc10", "6.8.0-31-generic", "6.12.95", "weird"]
        {
            assert!(!accepts_wrongly(right), "{right}");
        }
    }

    #[test]
    fn defer_goes_with_single_issuer() {
        let mut r =
            RingReport { in_force: Feature::ALL.into_iter().collect(), ..Default::default() };
        r.without(Feature::SingleIssuer, Missing::Masked);
        r.without(Feature::CoopTaskrun, Missing::Masked);
        drop_dependants(&mut r);
        assert!(!r.in_force.contains(Feature::DeferTaskrun));
        assert!(!r.in_force.contains(Feature::TaskrunFlag));
    }
    #[test]
    fn fuzz_releases_of_kernels() {
        let words = ["6.8", "6.6.1", "-rc", "rc3", "rc", ".", "4294967295", "\u{e9}", "-generic"];
        let fuzzed = fuzz(&corpus("machine_releases"), &words, |input| {
            let text = String::from_utf8_lossy(input);
            let (read, wrong) = (version(&text), accepts_wrongly(&text));
            // None of a kernel that is not known to do so.
            assert!(!wrong || matches!(read, Some((6, 6..=8))), "{text:?}");
            signature((read.map(|(major, minor)| (major.min(7), minor.min(9))), wrong))
        });
        println!("{fuzzed:?}");
        assert!(fuzzed.signatures >= 6, "{fuzzed:?}");
    }
}
