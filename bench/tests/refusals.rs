//! What can't be: bad command lines, and kernels that forbid or hide io_uring.

#![allow(unsafe_code, reason = "a seccomp filter is set between fork and exec")]

mod common;

use std::io;
use std::os::unix::process::CommandExt;

use common::{Ended, bench, end, io_uring_works, run, try_end};

#[test]
fn bad_flags_exit_with_2_and_say_what_would_be_right() {
    for (args, part) in [
        (&["run", "echo", "--connections", "0"][..], "must be 1 to 100,000"),
        (&["run", "echo", "--duration", "10"], "10s, 500ms or 2m"),
        (&["run", "echo", "--load-cores", "1023"], "--load-cores names core 1023"),
        (&["load", "echo", "--addr", "127.0.0.1:0"], "such as 127.0.0.1:7000"),
        (&["load", "idle", "--addr", "127.0.0.1:0"], "such as 127.0.0.1:7000"),
        (&["serve", "echo", "--congestion", "nonesuch"], "--congestion nonesuch"),
        (&["serve", "nothing"], "unrecognized subcommand 'nothing'"),
        (&["frobnicate"], "--help"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{args:?}: {ended:?}");
    }
}

#[test]
fn settings_of_a_core_that_is_not_there_are_told_with_their_place() {
    let file = std::env::temp_dir().join(format!("coreloop-core-5-{}.toml", std::process::id()));
    std::fs::write(&file, "stats = 'off'\n[core.5]\nspin = 'off'\n").unwrap();
    let path = file.to_str().unwrap();
    let serve = ["serve", "echo", "--addr", "127.0.0.1:0", "--set", "cores=count:1"];
    let config = format!("{path}:3");
    for (more, place) in [
        (&["--config", path][..], config.as_str()),
        (&["--set", "core.5.spin=off"], "core.5.spin=off"),
        (&["--print-config", "--set", "core.5.spin=off"], "core.5.spin=off"),
    ] {
        let ended = run(&[&serve[..], more].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let told = format!("error: {place}: settings for core 5, but there are only 1");
        assert!(ended.stderr.starts_with(&told), "{told}: {ended:?}");
    }
    let mut command = bench(&serve);
    command.env("CORELOOP_CORE_5_SPIN", "off");
    let ended = end(command);
    assert!(ended.stderr.starts_with("error: CORELOOP_CORE_5_SPIN: settings for"), "{ended:?}");
    for args in [&["run", "echo"][..], &["doctor", "--cores", "count:1"]] {
        let ended = run(&[args, &["--set", "core.5.spin=off"]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("error: core.5.spin=off: settings for"), "{ended:?}");
    }
    std::fs::remove_file(file).unwrap();
}

/// A full disk is an error, a reader that went away is none.
#[test]
fn what_can_not_be_written_is_an_error() {
    if !io_uring_works() {
        return;
    }
    for args in [
        &["serve", "echo", "--print-config"][..],
        &["doctor"],
        &["doctor", "--json"],
        &["tune", "--help"],
    ] {
        let given = |stdout: std::process::Stdio| {
            let mut command = bench(args);
            command.stdout(stdout);
            end(command)
        };
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = given(full.into());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("error: stdout can't be written: No space left"),
            "{ended:?}"
        );
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let ended = given(writer.into());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    }
}

#[test]
fn a_flag_takes_cores_in_the_words_of_the_setting() {
    if !io_uring_works() {
        return;
    }
    for words in ["count:1", "physical", "numa:0", "all"] {
        let by = |flags: &[&str]| run(&[&["doctor", "--print-config"], flags].concat());
        let flag = by(&["--cores", words]);
        // What this machine does not have is refused by both.
        let setting = by(&["--set", &format!("cores={words}")]);
        assert_eq!(flag.code, setting.code, "{flag:?} {setting:?}");
        let row = |text: &str| {
            let row = text.lines().find(|line| line.starts_with("cores ")).map(str::to_owned);
            row.unwrap_or_default()
        };
        assert!(flag.code != Some(0) || row(&flag.stdout).ends_with("--cores"), "{flag:?}");
    }
    let ended = run(&["doctor", "--cores", "count:9999"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("9999"), "{ended:?}");
    let ended = run(&["doctor", "--cores", "some"]);
    assert!(ended.stderr.contains("0,2-5, all, count:4, numa:0 or physical"), "{ended:?}");
}

/// Nothing of anybody else's in the environment keeps a command from running.
#[test]
fn variables_that_are_no_text_matter_only_where_they_are_settings() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let bad = OsStr::from_bytes(b"\xff");
    let fixed: [&[&str]; 3] = [&["serve", "echo"], &["run", "echo"], &["doctor"]];
    for args in fixed {
        let args = [args, &["--print-config"]].concat();
        let given = |name: &str| {
            let mut command = bench(&args);
            command.env(name, bad);
            end(command)
        };
        if io_uring_works() {
            let ended = given("SOMEBODY_ELSE");
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        let ended = given("CORELOOP_SPIN");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let told = "error: CORELOOP_SPIN: the variable's value is not UTF-8";
        assert!(ended.stderr.starts_with(told), "{ended:?}");
    }
}

#[test]
fn a_mask_shows_as_steps_down() {
    if !io_uring_works() {
        return;
    }
    let mut command = bench(&["doctor"]);
    command.env("CORELOOP_MASK", "defer_taskrun,no_sqarray");
    let ended = end(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for feature in ["defer_taskrun", "no_sqarray"] {
        let line = format!("{feature} is not in force: masked");
        assert!(ended.stdout.contains(&line), "{ended:?}");
    }
}

#[test]
fn the_doctor_tries_the_settings_of_every_core_wherever_they_are_said() {
    if !io_uring_works() {
        return;
    }
    let file = std::env::temp_dir().join(format!("coreloop-doctor-{}.toml", std::process::id()));
    let text = "pin = false\nmask = ['min_wait', 'napi', 'sqpoll']\n[core.1]\nmin_wait = '50us'\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let cpu = coreloop::Cores::Count(1).resolve().unwrap()[0].to_string();
    let twice = format!("cores={cpu},{cpu}");
    let given = ["doctor", "--config", path, "--napi", "7us", "--set", &twice];
    let doctor = |more: &[&str]| {
        let mut command = bench(&[&given[..], more].concat());
        command.env("CORELOOP_CORE_0_SQPOLL", "1ms").env("CORELOOP_CORE_1_SQPOLL_CPU", "0");
        end(command)
    };
    let ended = doctor(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let words = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "warn napi: asked 7µs (--napi), in force off why: masked by settings change: unmask it"
            .into(),
        "warn core 0: sqpoll: asked 1ms (CORELOOP_CORE_0_SQPOLL), in force off why: masked".into(),
        format!(
            "warn core 1: min_wait: asked 50µs ({path}:4), in force off why: masked by settings"
        ),
        "warn core.1.sqpoll_cpu does nothing: sqpoll is off".into(),
    ] {
        assert!(words.contains(&told), "{told}: {}", ended.stdout);
    }
    let json: serde_json::Value = serde_json::from_str(&doctor(&["--json"]).stdout).unwrap();
    assert_eq!(json["rings"][1]["settings"][0]["origin"], format!("{path}:4"), "{json}");
    let config = doctor(&["--print-config"]).stdout;
    assert!(config.contains("# core.1.min_wait: asked 50µs, in force off"), "{config}");
    std::fs::remove_file(file).unwrap();
    // With so few descriptors that a ring is not there, its core is told.
    let left = (4..16).any(|limit| {
        let script = format!("ulimit -n {limit}; exec \"$0\" doctor --set {twice} --set pin=false");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_coreloop-bench")]);
        let told = shell.output().unwrap();
        String::from_utf8_lossy(&told.stdout).contains("descriptor left for the ring of core ")
    });
    assert!(left, "a program that starts, and has no ring");
}

#[test]
fn a_mask_that_names_nothing_is_refused() {
    if !io_uring_works() {
        return;
    }
    // It is a setting, as a flag is.
    for args in [&["doctor"][..], &["serve", "echo", "--addr", "127.0.0.1:0"]] {
        let mut command = bench(args);
        command.env("CORELOOP_MASK", "defer_taskrnu");
        let ended = end(command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert!(told.contains("defer_taskrnu"), "{ended:?}");
    }
}

#[test]
fn io_uring_that_is_forbidden_is_told_with_who_forbids_it() {
    let Some(doctor) = without_io_uring(libc::EPERM, &["doctor"]) else { return };
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("seccomp filter forbids io_uring"), "{doctor:?}");
    assert!(doctor.stdout.contains("io_uring_setup"), "what to allow: {doctor:?}");
    assert!(doctor.stdout.contains("coreloop can't run here"), "{doctor:?}");
    for args in [&["serve", "echo", "--addr", "127.0.0.1:0"][..], &["run", "echo"]] {
        let Some(ended) = without_io_uring(libc::EPERM, args) else { return };
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("io_uring is blocked"), "{ended:?}");
        assert!(ended.stderr.contains("EPERM"), "{ended:?}");
    }
}

#[test]
fn io_uring_that_is_missing_is_told_so() {
    let Some(doctor) = without_io_uring(libc::ENOSYS, &["doctor"]) else { return };
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("ENOSYS"), "{doctor:?}");
    let args = ["serve", "echo", "--addr", "127.0.0.1:0"];
    let Some(serve) = without_io_uring(libc::ENOSYS, &args) else { return };
    assert_eq!(serve.code, Some(1), "{serve:?}");
    assert!(serve.stderr.contains("ENOSYS"), "{serve:?}");
}

/// Runs the binary under a filter that answers `io_uring_setup` with `errno`; none where filters
/// can't be set.
fn without_io_uring(errno: i32, args: &[&str]) -> Option<Ended> {
    let mut command = bench(args);
    // SAFETY: between fork and exec only two system calls are made, on memory of the stack: nothing
    // is allocated, no lock is taken.
    unsafe { command.pre_exec(move || forbid_io_uring(errno as u32)) };
    let ended = try_end(command);
    if let Err(error) = &ended {
        println!("skipped: a seccomp filter can't be set here: {error}");
    }
    ended.ok()
}

fn forbid_io_uring(errno: u32) -> io::Result<()> {
    // Since the numbers of all architectures were unified, io_uring_setup has this one on each.
    const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, IO_URING_SETUP),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: without new privileges any process may set a filter; it reads `filter`, which points at
    // `program`, both alive during the calls.
    let answers = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64),
            libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &filter),
        ]
    };
    if answers.iter().any(|answer| *answer != 0) {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
