//! Findings about the ring itself.
//!
//! Owns the words for what it does without, and for each way in which there can be none.

use crate::cli::parse::bytes;
use crate::doctor::{
    CoreRing, Finding, KERNEL_MIN, RingFacts, RingFailure, RingFailureKind, Severity, StepDown,
};
use crate::machine::{MachineFacts, Seccomp};
use crate::report::units::{core_ranges, grouped};

/// Findings about rings that work, and what they do without. What is so of all cores is said once, without
/// their numbers.
pub fn work(rings: &[CoreRing]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (cores, features) in alike(rings, |ring| [&ring.features]) {
        findings.push(Finding::ok(format!("{cores}io_uring works: {}", features.join(" "))));
    }
    let sizes = |ring: &RingFacts| {
        [(ring.sq_entries, ring.cq_entries, ring.buffers, ring.buffer_size_bytes)]
    };
    for (cores, (sq, cq, buffers, size)) in alike(rings, sizes) {
        let buffers = match buffers {
            0 => "no ring of receive buffers".to_owned(),
            n => format!("{} receive buffers of {}", grouped(n.into()), bytes(size.into())),
        };
        findings.push(Finding::ok(format!(
            "{cores}a ring has {} submission and {} completion entries, and {buffers}",
            grouped(sq.into()),
            grouped(cq.into()),
        )));
    }
    if rings.iter().all(|core| core.ring.step_downs.is_empty() && core.ring.settings.is_empty()) {
        findings
            .push(Finding::ok("nothing was stepped down; the ops that the loop needs are there"));
    }
    // A feature that a setting asked for is told by that setting, below.
    let asked = |step: &StepDown| {
        let mut settings = rings.iter().flat_map(|core| &core.ring.settings);
        settings.any(|setting| setting.setting == step.what && setting.why == step.why)
    };
    let steps = |ring: &'_ RingFacts| {
        ring.step_downs.iter().filter(|step| !asked(step)).cloned().collect::<Vec<_>>()
    };
    for (cores, step) in alike(rings, steps) {
        findings.push(Finding::warn(
            format!("{cores}{} is not in force: {}", step.what, step.why),
            "the loop works without it, but slower or with more memory",
            step.change,
        ));
    }
    for (cores, step) in alike(rings, |ring| &ring.settings) {
        let origin = match step.origin.as_str() {
            "" => String::new(),
            origin => format!(" ({origin})"),
        };
        let (setting, asked, in_force) = (&step.setting, &step.asked, &step.in_force);
        findings.push(Finding::warn(
            format!("{cores}{setting}: asked {asked}{origin}, in force {in_force}"),
            &step.why,
            step.change.clone(),
        ));
    }
    findings
}

/// What the rings have, each once, in the order in which it is met first, and whose it is: nothing where it
/// is everybody's, else `core 1: `.
fn alike<'a, T: PartialEq, I: IntoIterator<Item = T>>(
    rings: &'a [CoreRing],
    of: impl Fn(&'a RingFacts) -> I,
) -> Vec<(String, T)> {
    let mut found: Vec<(Vec<usize>, T)> = Vec::new();
    for CoreRing { core, ring } in rings {
        for one in of(ring) {
            match found.iter_mut().find(|(_, known)| *known == one) {
                Some((cores, _)) => cores.push(*core),
                None => found.push((vec![*core], one)),
            }
        }
    }
    let named = found.into_iter().map(|(cores, one)| match cores.as_slice() {
        all if all.len() == rings.len() => (String::new(), one),
        [core] => (format!("core {core}: "), one),
        some => (format!("cores {}: ", core_ranges(some)), one),
    });
    named.collect()
}

/// Why there is no ring, and who can change that.
pub fn fails(failure: &RingFailure, machine: &MachineFacts) -> Finding {
    const NO_RING: &str = "coreloop runs on io_uring alone: without it nothing starts";
    let (what, change) = match failure.kind {
        RingFailureKind::Forbidden => forbidden(machine),
        RingFailureKind::Missing => (
            "the kernel has no io_uring (ENOSYS)".to_owned(),
            format!(
                "run Linux {}.{} or newer, built with CONFIG_IO_URING=y; in a sandbox such as \
                 gVisor switch its io_uring on, or leave the sandbox",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
        ),
        RingFailureKind::Memory => (
            format!("there was no memory for the ring of core {} (ENOMEM)", failure.core),
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK= in systemd, --ulimit \
             memlock=-1 for docker run) and the memory limit of the container (memory.max); use \
             fewer cores or smaller rings until then"
                .to_owned(),
        ),
        RingFailureKind::Files => (
            format!(
                "there was no file descriptor left for the ring of core {} (EMFILE)",
                failure.core
            ),
            "raise the limit of open files: ulimit -n 65536, or LimitNOFILE=65536 in systemd"
                .to_owned(),
        ),
        RingFailureKind::TooOld => (
            format!("io_uring is there, but lacks what the loop needs: {}", failure.message),
            format!("run Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1),
        ),
        RingFailureKind::BadMask => {
            (failure.message.clone(), "correct the environment variable, or unset it".to_owned())
        }
        RingFailureKind::Other => (
            format!("the ring of core {} could not be set up: {}", failure.core, failure.message),
            "if the message doesn't say it, ask with the output of this command".to_owned(),
        ),
    };
    Finding::new(Severity::Problem, what, NO_RING, change)
}

/// Who forbids it: the sysctl says so itself; otherwise a filter or a security module does.
fn forbidden(machine: &MachineFacts) -> (String, String) {
    match (machine.io_uring_disabled, machine.seccomp) {
        (Some(2), _) => (
            "the sysctl kernel.io_uring_disabled=2 forbids io_uring to everybody (EPERM)".into(),
            "as root: sysctl -w kernel.io_uring_disabled=0 (or 1, which allows it to processes \
             with CAP_SYS_ADMIN or in the group kernel.io_uring_group); to keep it, write the \
             line into /etc/sysctl.d/"
                .into(),
        ),
        (Some(1), seccomp) => {
            let group = match machine.io_uring_group {
                Some(group) if group >= 0 => format!("join the group {group}"),
                _ => "name a group in kernel.io_uring_group and join it".into(),
            };
            let filter = match seccomp {
                Some(Seccomp::Filter) => "; a seccomp filter is on too, and may forbid it as well",
                _ => "",
            };
            (
                "the sysctl kernel.io_uring_disabled=1 allows io_uring only to processes with \
                 CAP_SYS_ADMIN or in the group kernel.io_uring_group (EPERM)"
                    .into(),
                format!("as root: sysctl -w kernel.io_uring_disabled=0, or {group}{filter}"),
            )
        }
        (_, Some(Seccomp::Filter)) => (
            "a seccomp filter forbids io_uring (EPERM), as Docker's and containerd's default \
             profiles do"
                .into(),
            "docker run --security-opt seccomp=profile.json, with a copy of the default profile \
             that also allows io_uring_setup, io_uring_enter and io_uring_register; in \
             Kubernetes set securityContext.seccompProfile to type Localhost with that file; \
             to try it out only: --security-opt seccomp=unconfined"
                .into(),
        ),
        _ => (
            "something forbids io_uring (EPERM), though neither a seccomp filter nor \
             kernel.io_uring_disabled is seen to"
                .into(),
            "look for a denial of a security module (SELinux, AppArmor) in dmesg or the audit log"
                .into(),
        ),
    }
}
