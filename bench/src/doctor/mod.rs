//! What stands in the way of a fast run on this machine, or of any run at all.
//!
//! Owns the findings: what is so, why it matters, what to change. Pure: facts in, findings out;
//! the facts come from `machine` and from whoever tried to set up a ring. Printing is `print`'s.

use serde::Serialize;

use crate::machine::{MachineFacts, Seccomp};
use crate::report::units::{core_ranges, grouped, ratio};

pub mod print;
mod ring;

/// The oldest kernel with SINGLE_ISSUER and DEFER_TASKRUN, on which the loop rests.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Below this many open files a server of any size runs dry; also what most systems start with.
const OPEN_FILES_MIN: u64 = 4_096;

/// A burst of this many connections should fit the accept queue; the kernel's default since 5.4.
const SOMAXCONN_MIN: u64 = 1_024;

/// What the doctor looks at.
#[derive(Clone, Debug)]
pub struct DoctorInput {
    /// The machine and process.
    pub machine: MachineFacts,
    /// The rings as the runtime sets them up, all of them at a time, or why there are none.
    pub rings: Result<Vec<CoreRing>, RingFailure>,
    /// Settings that do nothing: the core (none: all), the name, why.
    pub idle: Vec<(Option<usize>, &'static str, String)>,
}

/// The ring of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoreRing {
    /// The core's number, from 0, as settings name it.
    pub core: usize,
    /// What it came to.
    #[serde(flatten)]
    pub ring: RingFacts,
}

/// What a ring came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RingFacts {
    /// Setup flags and features in force.
    pub features: Vec<String>,
    /// What was asked for and not had.
    pub step_downs: Vec<StepDown>,
    /// Settings that are not in force as they were asked for.
    pub settings: Vec<SettingStep>,
    /// Entries of the submission queue.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// Receive buffers per core; 0 without a buffer ring.
    pub buffers: u32,
    /// Bytes in each of them.
    pub buffer_size_bytes: u32,
}

/// One thing the ring does without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepDown {
    /// The flag, feature or op.
    pub what: String,
    /// Why: the kernel's answer, or that it was masked.
    pub why: String,
    /// What would bring it.
    pub change: String,
}

/// One setting that is not in force as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingStep {
    /// Its name.
    pub setting: String,
    /// What was asked for.
    pub asked: String,
    /// Who asked: a file and its line, a variable, a flag; empty where nobody knows.
    pub origin: String,
    /// What there is instead.
    pub in_force: String,
    /// Why.
    pub why: String,
    /// What would bring it.
    pub change: String,
}

/// Why there is no ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingFailure {
    /// What kind of failure it was.
    pub kind: RingFailureKind,
    /// Whose ring it was.
    pub core: usize,
    /// The runtime's own words.
    pub message: String,
}

/// Kinds of failure with a remedy of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RingFailureKind {
    /// EPERM or EACCES: somebody forbids it.
    Forbidden,
    /// ENOSYS: the kernel doesn't have it.
    Missing,
    /// ENOMEM: no memory for it, or a limit.
    Memory,
    /// EMFILE or ENFILE: no descriptor for it.
    Files,
    /// The kernel has io_uring, but not what the loop can't do without.
    TooOld,
    /// `CORELOOP_MASK` names no feature.
    BadMask,
    /// Anything else.
    Other,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It runs, but less well, or only up to a point.
    Warn,
    /// It doesn't run.
    Problem,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why that matters; empty if all is well, and then not in the JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to change; empty if nothing, and then not in the JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub change: String,
}

/// All findings, in the order in which one would mend them: the ring, the kernel, limits, CPUs.
pub fn examine(input: &DoctorInput) -> Vec<Finding> {
    let machine = &input.machine;
    let works = usable(input);
    let mut findings = match &input.rings {
        Ok(rings) => ring::work(rings),
        Err(failure) => vec![ring::fails(failure, machine)],
    };
    findings.extend(input.idle.iter().map(|(core, name, why)| {
        let place = core.map_or_else(String::new, |core| format!("core.{core}."));
        Finding::warn(
            format!("{place}{name} does nothing: {why}"),
            "somebody set it, and may count on it",
            "take it out, or give it what it belongs to".into(),
        )
    }));
    findings.extend(kernel(machine));
    findings.extend(sysctl_disabled(machine, works));
    findings.extend(seccomp(machine, works));
    findings.extend(memlock(machine));
    findings.extend(open_files(machine));
    findings.extend(somaxconn(machine));
    findings.extend(congestion_control(machine));
    findings.extend(cpus(machine));
    findings.extend(quota(machine));
    findings
}

/// Whether the runtime can run here at all.
pub fn usable(input: &DoctorInput) -> bool {
    input.rings.is_ok()
}

impl Finding {
    fn ok(what: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Ok,
            what: what.into(),
            why: String::new(),
            change: String::new(),
        }
    }

    fn new(severity: Severity, what: impl Into<String>, why: &str, change: String) -> Finding {
        Finding { severity, what: what.into(), why: why.into(), change }
    }

    fn warn(what: impl Into<String>, why: &str, change: String) -> Finding {
        Finding::new(Severity::Warn, what, why, change)
    }
}

fn kernel(machine: &MachineFacts) -> Option<Finding> {
    let release = machine.kernel.as_deref()?;
    let (major, minor) = version(release)?;
    if (major, minor) >= KERNEL_MIN {
        return Some(Finding::ok(format!("Linux {release}")));
    }
    Some(Finding::new(
        Severity::Problem,
        format!("Linux {release} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1),
        "it lacks DEFER_TASKRUN, on which the loop rests",
        format!("run Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1),
    ))
}

/// A working ring under `io_uring_disabled=1` works by privilege: worth knowing before deployment.
fn sysctl_disabled(machine: &MachineFacts, ring_works: bool) -> Option<Finding> {
    if ring_works && machine.io_uring_disabled == Some(0) {
        return Some(Finding::ok("kernel.io_uring_disabled is 0: io_uring is open to everybody"));
    }
    if !ring_works || machine.io_uring_disabled != Some(1) {
        return None;
    }
    Some(Finding::warn(
        "kernel.io_uring_disabled=1, and this process is allowed all the same",
        "under another user it will be refused: only CAP_SYS_ADMIN and the group \
         kernel.io_uring_group may",
        "run the server in that group, or as root: sysctl -w kernel.io_uring_disabled=0".into(),
    ))
}

fn seccomp(machine: &MachineFacts, ring_works: bool) -> Option<Finding> {
    let mode = machine.seccomp.filter(|_| ring_works)?;
    Some(Finding::ok(match mode {
        Seccomp::Filter => "seccomp: a filter is on, and lets io_uring through",
        _ => "seccomp: no filter",
    }))
}

fn memlock(machine: &MachineFacts) -> Option<Finding> {
    // A core's queues and buffer ring take some 200 KiB; the kernel charges them to the user, not to the
    // process, unless the user has CAP_IPC_LOCK.
    const MEMLOCK_MIN: u64 = 8 << 20;
    let limit = machine.memlock?;
    match limit.soft {
        Some(soft) if soft < MEMLOCK_MIN => Some(Finding::warn(
            format!("locked memory is limited to {} KiB per user", grouped(soft / 1024)),
            "the rings of every core count against it, over all processes of the user; rings that find too \
             little are made smaller",
            "ulimit -l 65536, or LimitMEMLOCK=64M in systemd, or --ulimit memlock=-1 for docker run"
                .into(),
        )),
        Some(soft) => Some(Finding::ok(format!("locked memory: {} KiB", grouped(soft / 1024)))),
        None => Some(Finding::ok("locked memory: unlimited")),
    }
}

fn open_files(machine: &MachineFacts) -> Option<Finding> {
    let limit = machine.open_files?;
    let hard = limit.hard.map_or("unlimited".into(), grouped);
    match limit.soft {
        Some(soft) if soft < OPEN_FILES_MIN => Some(Finding::warn(
            format!("open files: {} (hard limit {hard})", grouped(soft)),
            "each connection takes one; past it accept fails and clients wait",
            match limit.hard {
                Some(hard) if hard < OPEN_FILES_MIN => {
                    "raise the hard limit: LimitNOFILE=65536 in systemd, --ulimit nofile=65536 for \
                     docker run, or /etc/security/limits.conf"
                        .into()
                }
                _ => format!(
                    "ulimit -n {}, or LimitNOFILE=65536 in systemd",
                    limit.hard.unwrap_or(65_536)
                ),
            },
        )),
        Some(soft) => Some(Finding::ok(format!("open files: {}", grouped(soft)))),
        None => Some(Finding::ok("open files: unlimited")),
    }
}

fn somaxconn(machine: &MachineFacts) -> Option<Finding> {
    let somaxconn = machine.somaxconn?;
    if somaxconn >= SOMAXCONN_MIN {
        return Some(Finding::ok(format!("net.core.somaxconn: {}", grouped(somaxconn))));
    }
    Some(Finding::warn(
        format!("net.core.somaxconn is {somaxconn}"),
        "a listener's backlog is cut to it: in a burst of connections the rest wait a second and \
         more for a retry",
        "as root: sysctl -w net.core.somaxconn=4096 (per network namespace: --sysctl for docker)"
            .into(),
    ))
}

fn congestion_control(machine: &MachineFacts) -> Option<Finding> {
    let name = machine.congestion_control.as_deref()?;
    if name != "bbr" {
        return Some(Finding::ok(format!("TCP congestion control: {name}")));
    }
    Some(Finding::warn(
        "TCP congestion control: bbr",
        "it paces sends by timers, on loopback too: fine for a server on a real network, but a \
         benchmark over loopback then measures the pacing",
        "for benchmarks, as root: sysctl -w net.ipv4.tcp_congestion_control=cubic (or reno; each \
         network namespace has its own)"
            .into(),
    ))
}

fn cpus(machine: &MachineFacts) -> Option<Finding> {
    match machine.cpus_allowed.as_slice() {
        [] => None,
        [only] => Some(Finding::warn(
            format!("this process may run on one CPU only: {only}"),
            "server and load will share it: rate and latency are then of both together",
            "widen the affinity (taskset, --cpuset-cpus, AllowedCPUs=), or measure from another \
             machine"
                .into(),
        )),
        many => Some(Finding::ok(format!("CPUs allowed: {}", core_ranges(many)))),
    }
}

fn quota(machine: &MachineFacts) -> Option<Finding> {
    let quota = machine.cpu_quota?;
    let cpus = machine.cpus_allowed.len();
    if quota >= cpus as f64 {
        return Some(Finding::ok(format!("CPU quota: {} CPUs' worth", ratio(quota))));
    }
    let whole = (quota as usize).max(1);
    Some(Finding::warn(
        format!("the cgroup grants {} CPUs' worth of time, for {cpus} CPUs", ratio(quota)),
        "a loop that used up its share stands still for the rest of the period (mostly 100 ms): \
         the tail of every latency",
        format!(
            "use at most {whole} core{}, or raise the quota (cpu.max, docker run --cpus, \
                 limits.cpu)",
            if whole == 1 { "" } else { "s" }
        ),
    ))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
