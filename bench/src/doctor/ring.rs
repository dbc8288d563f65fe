//! Findings about the ring itself.
//!
//! Owns the words for what it does without, and for each way in which there can be none.

use crate::cli::parse::bytes;
use crate::doctor::{Finding, KERNEL_MIN, RingFacts, RingFailure, RingFailureKind, Severity};
use crate::machine::{MachineFacts, Seccomp};
use crate::report::units::grouped;

/// Findings about a ring that works, and what it does without.
pub fn works(ring: &RingFacts) -> Vec<Finding> {
    let mut findings = vec![
        Finding::ok(format!("io_uring works: {}", ring.features.join(" "))),
        Finding::ok(format!(
            "a ring has {} submission and {} completion entries, and {}",
            grouped(ring.sq_entries.into()),
            grouped(ring.cq_entries.into()),
            match ring.buffers {
                0 => "no ring of receive buffers".to_owned(),
                n => format!(
                    "{} receive buffers of {}",
                    grouped(n.into()),
                    bytes(ring.buffer_size_bytes.into())
                ),
            }
        )),
    ];
    if ring.step_downs.is_empty() && ring.settings.is_empty() {
        findings
            .push(Finding::ok("nothing was stepped down; the ops that the loop needs are there"));
    }
    for step in &ring.step_downs {
        findings.push(Finding::warn(
            format!("{} is not in force: {}", step.what, step.why),
            "the loop works without it, but slower or with more memory",
            step.change.clone(),
        ));
    }
    for step in &ring.settings {
        let setting = &step.setting;
        findings.push(Finding::warn(
            format!("{setting}: asked {}, in force {}", step.asked, step.in_force),
            &step.why,
            step.change.clone(),
        ));
    }
    findings
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
            "there was no memory for a ring (ENOMEM)".to_owned(),
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK= in systemd, --ulimit \
             memlock=-1 for docker run) and the memory limit of the container (memory.max); use \
             fewer cores or smaller rings until then"
                .to_owned(),
        ),
        RingFailureKind::Files => (
            "there was no file descriptor left for a ring (EMFILE)".to_owned(),
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
            format!("a ring could not be set up: {}", failure.message),
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
