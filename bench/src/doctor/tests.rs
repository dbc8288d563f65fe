//! Each finding, from the facts that call for it.

use super::*;
use crate::machine::Seccomp;
use crate::sys::Limit;

fn healthy() -> DoctorInput {
    let limit = |value| Some(Limit { soft: value, hard: value });
    DoctorInput {
        machine: MachineFacts {
            kernel: Some("6.18.44-generic".into()),
            cpus_allowed: vec![0, 1],
            memlock: limit(Some(8 << 20)),
            open_files: limit(Some(20_000)),
            somaxconn: Some(4_096),
            io_uring_disabled: Some(0),
            seccomp: Some(Seccomp::Off),
            ..MachineFacts::default()
        },
        rings: Ok(vec![CoreRing::default()]),
        idle: Vec::new(),
    }
}

fn failing(kind: RingFailureKind) -> DoctorInput {
    let message = "the runtime's own words".to_owned();
    DoctorInput { rings: Err(RingFailure { kind, core: 3, message }), ..healthy() }
}

/// The only finding that is not all right.
fn complaint(input: &DoctorInput) -> Finding {
    let mut bad = examine(input);
    bad.retain(|finding| finding.severity != Severity::Ok);
    assert_eq!(bad.len(), 1, "{bad:#?}");
    let bad = bad.remove(0);
    assert!(!bad.why.is_empty() && !bad.change.is_empty(), "{bad:#?}");
    bad
}

#[track_caller]
fn says(finding: &Finding, severity: Severity, what: &str, change: &[&str]) {
    assert_eq!(finding.severity, severity);
    assert!(finding.what.contains(what), "{finding:#?}");
    for part in change {
        assert!(finding.change.contains(part), "{part}: {finding:#?}");
    }
}

#[test]
fn a_healthy_machine_has_nothing_to_change() {
    let findings = examine(&healthy());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
    assert!(usable(&healthy()));
}

#[test]
fn seccomp_is_answered_with_the_three_calls_to_allow() {
    let mut input = failing(RingFailureKind::Forbidden);
    input.machine.seccomp = Some(Seccomp::Filter);
    let calls =
        ["--security-opt seccomp=", "io_uring_setup", "io_uring_enter", "io_uring_register"];
    says(&complaint(&input), Severity::Problem, "seccomp", &calls);
    assert!(!usable(&input));
}

#[test]
fn the_sysctl_is_explained_by_its_value() {
    let mut input = failing(RingFailureKind::Forbidden);
    input.machine.io_uring_disabled = Some(2);
    says(
        &complaint(&input),
        Severity::Problem,
        "io_uring_disabled=2 forbids io_uring to everybody",
        &["sysctl -w kernel.io_uring_disabled=0"],
    );
    input.machine.io_uring_disabled = Some(1);
    input.machine.io_uring_group = Some(-1);
    let finding = complaint(&input);
    says(&finding, Severity::Problem, "io_uring_disabled=1 allows", &["name a group"]);
    input.machine.io_uring_group = Some(985);
    input.machine.seccomp = Some(Seccomp::Filter);
    let finding = complaint(&input);
    says(&finding, Severity::Problem, "CAP_SYS_ADMIN", &["join the group 985", "seccomp"]);
}

#[test]
fn a_forbidding_nobody_admits_to_points_to_the_security_module() {
    let finding = complaint(&failing(RingFailureKind::Forbidden));
    says(&finding, Severity::Problem, "something forbids", &["SELinux"]);
}

#[test]
fn a_sysctl_that_only_privilege_passes_is_a_warning() {
    let mut input = healthy();
    input.machine.io_uring_disabled = Some(1);
    says(&complaint(&input), Severity::Warn, "allowed all the same", &["in that group"]);
}

#[test]
fn other_failures_have_their_own_remedies() {
    for (kind, what, change) in [
        (RingFailureKind::Missing, "ENOSYS", "CONFIG_IO_URING=y"),
        (RingFailureKind::Memory, "the ring of core 3 (ENOMEM)", "LimitMEMLOCK="),
        (RingFailureKind::Memory, "ENOMEM", "ulimit -l"),
        (RingFailureKind::Files, "EMFILE", "ulimit -n"),
        (RingFailureKind::TooOld, "lacks what the loop needs: the runtime's own", "6.1 or newer"),
        (RingFailureKind::BadMask, "the runtime's own words", "environment variable"),
        (RingFailureKind::Other, "set up: the runtime's own words", "output of this command"),
    ] {
        says(&complaint(&failing(kind)), Severity::Problem, what, &[change]);
    }
}

#[test]
fn kernels_are_compared_by_number_and_not_by_letter() {
    for (release, old) in [
        ("5.15.0-91-generic", true),
        ("6.0.9", true),
        ("6.1.0-18-amd64", false),
        ("6.10.3", false),
        ("10.0", false),
    ] {
        let mut input = healthy();
        input.machine.kernel = Some(release.into());
        match old {
            true => says(&complaint(&input), Severity::Problem, release, &["6.1 or newer"]),
            false => assert!(examine(&input).iter().all(|f| f.severity == Severity::Ok)),
        }
    }
}

#[test]
fn low_limits_are_warnings_with_the_command_that_raises_them() {
    let mut input = healthy();
    input.machine.memlock = Some(Limit { soft: Some(64 << 10), hard: Some(64 << 10) });
    says(&complaint(&input), Severity::Warn, "64 KiB", &["ulimit -l", "LimitMEMLOCK="]);

    let mut input = healthy();
    input.machine.open_files = Some(Limit { soft: Some(1_024), hard: Some(524_288) });
    says(&complaint(&input), Severity::Warn, "1,024 (hard limit 524,288)", &["ulimit -n 524288"]);
    input.machine.open_files = Some(Limit { soft: Some(1_024), hard: Some(1_024) });
    says(&complaint(&input), Severity::Warn, "1,024", &["raise the hard limit"]);

    let mut input = healthy();
    input.machine.somaxconn = Some(128);
    says(&complaint(&input), Severity::Warn, "somaxconn is 128", &["somaxconn=4096"]);
}

#[test]
fn pacing_is_a_warning_for_benchmarks() {
    let mut input = healthy();
    input.machine.congestion_control = Some("bbr".into());
    says(&complaint(&input), Severity::Warn, "bbr", &["=cubic"]);
    input.machine.congestion_control = Some("cubic".into());
    assert!(examine(&input).iter().all(|finding| finding.severity == Severity::Ok));
}

#[test]
fn few_cpus_and_a_quota_below_them_are_warnings() {
    let mut input = healthy();
    input.machine.cpus_allowed = vec![3];
    says(&complaint(&input), Severity::Warn, "one CPU only: 3", &["taskset"]);

    let mut input = healthy();
    input.machine.cpu_quota = Some(1.5);
    says(&complaint(&input), Severity::Warn, "1.50 CPUs' worth", &["at most 1 core,", "cpu.max"]);
    input.machine.cpu_quota = Some(2.0);
    assert!(examine(&input).iter().all(|finding| finding.severity == Severity::Ok));
}

#[test]
fn step_downs_are_warnings() {
    let mut input = healthy();
    let mut ring = RingFacts::default();
    let step = StepDown {
        what: "NO_SQARRAY".into(),
        why: "EINVAL: needs Linux 6.6".into(),
        change: "run a newer kernel".into(),
    };
    ring.step_downs.push(step);
    input.rings = Ok(vec![CoreRing { core: 0, ring }]);
    says(&complaint(&input), Severity::Warn, "NO_SQARRAY is not in force: EINVAL", &["newer"]);
}

#[test]
fn what_is_of_some_cores_is_told_with_their_numbers_and_once() {
    let mut input = healthy();
    let step = |setting: &str, origin: &str| SettingStep {
        setting: setting.into(),
        asked: "1ms".into(),
        origin: origin.into(),
        in_force: "off".into(),
        why: "masked by settings".into(),
        change: "unmask it".into(),
    };
    let ring = |core: usize, settings: Vec<SettingStep>| CoreRing {
        core,
        ring: RingFacts {
            settings,
            sq_entries: 8 << (core / 3),
            // Told by the setting that asked for it.
            step_downs: vec![StepDown {
                what: "sqpoll".into(),
                why: "masked by settings".into(),
                change: "unmask it".into(),
            }],
            ..RingFacts::default()
        },
    };
    let (of_all, of_some) = (step("sqpoll", "f:1"), step("min_wait", "f:4"));
    let both = || vec![of_all.clone(), of_some.clone()];
    input.rings =
        Ok(vec![ring(0, both()), ring(1, both()), ring(2, both()), ring(3, vec![of_all.clone()])]);
    input.idle = vec![(Some(1), "sqpoll_cpu", "sqpoll is off".into())];
    let told: Vec<_> = examine(&input).into_iter().take(6).map(|finding| finding.what).collect();
    assert_eq!(
        told,
        [
            "io_uring works: ",
            "cores 0-2: a ring has 8 submission and 0 completion entries, and no ring of receive \
             buffers",
            "core 3: a ring has 16 submission and 0 completion entries, and no ring of receive buffers",
            "sqpoll: asked 1ms (f:1), in force off",
            "cores 0-2: min_wait: asked 1ms (f:4), in force off",
            "core.1.sqpoll_cpu does nothing: sqpoll is off",
        ]
    );
}

#[test]
fn unknown_facts_are_no_findings() {
    let input = DoctorInput { machine: MachineFacts::default(), ..healthy() };
    assert_eq!(examine(&input).len(), 3, "only the ring's");
}
