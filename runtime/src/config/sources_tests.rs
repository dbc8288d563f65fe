//! Sources of settings: their order, where a value is said to come from, and what is refused.

use super::{Field, Settings, Sources};
use crate::placement::Cores;

fn none() -> [(&'static str, &'static str); 0] {
    []
}

fn value(resolved: &super::Resolved, name: &str, core: Option<usize>) -> (String, String) {
    let settings = core
        .and_then(|n| resolved.special().find(|(core, _)| *core == n))
        .map_or(resolved.settings(), |(_, settings)| settings);
    let text = Field::named(name).unwrap().get(settings);
    (text, resolved.origin(name, core).unwrap().to_string())
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.into(), origin.into())
}

#[test]
fn nothing_said_is_the_default_of_everything() {
    let resolved = Sources::new().environment(none()).unwrap().resolve().unwrap();
    for field in Field::all() {
        assert_eq!(value(&resolved, field.name, None), pair(&field.default_text(), "default"));
    }
    assert_eq!(resolved.cores(), &Cores::All);
    assert!(resolved.pinned());
}

/// Each source alone, and each pair: the stronger one counts in whatever order they were given.
#[test]
fn flags_count_more_than_the_environment_than_files_than_profiles_than_the_program() {
    type Step = fn(Sources) -> Sources;
    let steps: [(Step, &str, &str); 5] = [
        (
            |s| s.program(Settings::default().tick_quota(std::time::Duration::from_micros(1))),
            "1us",
            "program",
        ),
        (|s| s.toml("profile = 'latency'", "a.toml").unwrap(), "200us", "profile latency"),
        (|s| s.toml("\ntick_quota = '3us'", "b.toml").unwrap(), "3us", "b.toml:2"),
        (
            |s| s.environment([("CORELOOP_TICK_QUOTA", "4us")]).unwrap(),
            "4us",
            "CORELOOP_TICK_QUOTA",
        ),
        (|s| s.flag("tick_quota=5us").unwrap(), "5us", "tick_quota=5us"),
    ];
    for (i, (weak, text, origin)) in steps.iter().enumerate() {
        let alone = weak(Sources::new()).resolve().unwrap();
        assert_eq!(value(&alone, "tick_quota", None), pair(text, origin));
        for (strong, text, origin) in &steps[i + 1..] {
            for both in [strong(weak(Sources::new())), weak(strong(Sources::new()))] {
                let both = both.resolve().unwrap();
                assert_eq!(value(&both, "tick_quota", None), pair(text, origin));
            }
        }
    }
}

#[test]
fn one_core_has_its_own_and_a_stronger_source_for_all_counts_more() {
    let file = "spin = '20us'\n[core.1]\nspin = 'off'\nring_entries = 64\n";
    let sources = Sources::new().toml(file, "f").unwrap();
    let resolved = sources.resolve().unwrap();
    assert_eq!(value(&resolved, "spin", None), pair("20us", "f:1"));
    assert_eq!(value(&resolved, "spin", Some(0)), pair("20us", "f:1"));
    assert_eq!(value(&resolved, "spin", Some(1)), pair("off", "f:3"));
    assert_eq!(value(&resolved, "ring_entries", Some(1)), pair("64", "f:4"));
    let resolved = sources.named_flag("spin", "dial").unwrap().resolve().unwrap();
    assert_eq!(value(&resolved, "spin", Some(1)), pair("dial", "--spin"));
    let env = [("CORELOOP_CORE_2_CHUNK_QUOTA", "3"), ("OTHER", "x")];
    let resolved = Sources::new().environment(env).unwrap().resolve().unwrap();
    let from = "CORELOOP_CORE_2_CHUNK_QUOTA";
    assert_eq!(value(&resolved, "chunk_quota", Some(2)), pair("3", from));
    assert_eq!(value(&resolved, "chunk_quota", Some(1)), pair("8", "default"));
    let resolved = Sources::new().flag("core.3.stats=off").unwrap().resolve().unwrap();
    assert_eq!(value(&resolved, "stats", Some(3)), pair("off", "core.3.stats=off"));
}

#[test]
fn every_profile_is_made_of_settings_that_there_are() {
    for profile in super::Profile::ALL {
        let resolved = Sources::new().profile(profile).resolve().unwrap();
        for (name, text) in profile.settings() {
            let origin = format!("profile {profile}");
            assert_eq!(value(&resolved, name, None), pair(text, &origin));
            assert_ne!(*text, Field::named(name).unwrap().default_text(), "{profile}: {name}");
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_nearest_right_name() {
    for (text, told) in [
        ("spinn = 'off'", "f:1: there is no setting \"spinn\"; did you mean spin?"),
        (
            "\n\nring_entires = 8",
            "f:3: there is no setting \"ring_entires\"; did you mean ring_entries?",
        ),
        ("[core.0]\nbufers = 1", "f:2: there is no setting \"bufers\"; did you mean buffers?"),
        ("ring_entries = 4", "f:1: ring_entries: 4 is not between 8 and 32768"),
        ("tick_quota = 5", "f:1: tick_quota: \"5\" is not a time such as 500us, 1ms or 2s"),
        ("tick_quota = '2s'", "f:1: tick_quota: 2s is not between 1us and 1s"),
        ("spin = '2s'", "f:1: spin: a spin of 2s is longer than 1 s"),
        (
            "spin = 1.5",
            "f:1: spin: a value is text, a whole number, true or false, or a list of names",
        ),
        (
            "profile = 'fast'",
            "f:1: profile: \"fast\" is no profile; there are throughput, latency, shared",
        ),
        ("profile = 'latancy'", "f:1: profile: \"latancy\" is no profile; did you mean latency?"),
        (
            "\n[cores.0]\nspin = 'off'",
            "f:2: cores: it is no table; settings of one core stand below [core.0]",
        ),
        (
            "mask = 'min_wat'",
            "f:1: mask: no io_uring feature is called \"min_wat\"; did you mean min_wait?",
        ),
        ("[core.x]\nspin = 'off'", "f:1: a core is named by its number, as in [core.1]"),
        ("[core]\n1 = 2", "f:2: settings of a core are a table, as in [core.1]"),
        ("[core.1]\ncores = '0'", "f:2: cores: it is of the whole runtime, not of one core"),
        ("[core.9000]\nspin = 'off'", "f:2: spin: there is no core beyond 8191"),
        ("cores = 'numa'", "f:1: cores: \"numa\" names no CPUs"),
        ("mask = ['no_iowait', 'x']", "f:1: mask: no io_uring feature is called \"x\""),
        ("spin = 'off'\nspin = 'dial'", "f:2: duplicate key"),
        ("spin = ", "f:1: "),
    ] {
        let error = Sources::new().toml(text, "f").unwrap_err().to_string();
        assert!(error.starts_with(told), "{text:?}: {error}");
    }
    let error = Sources::new().environment([("CORELOOP_SPINN", "off")]).unwrap_err();
    assert_eq!(error.nearest(), Some("spin"));
    assert!(error.to_string().starts_with("CORELOOP_SPINN: "), "{error}");
    let error = Sources::new().flag("core.1.spin").unwrap_err().to_string();
    assert!(error.contains("core.1.name=value"), "{error}");
    let error = Sources::new().flag("something_else=1").unwrap_err();
    assert!(error.is_unknown() && error.nearest().is_none(), "{error}");
    let error = Sources::new().file("/nowhere/at-all.toml").unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/at-all.toml: "), "{error}");
}

#[test]
fn what_is_printed_has_every_setting_its_value_and_its_origin() {
    let file = "stats = 'histograms'\nmask = ['no_iowait']\n[core.1]\nstats = 'off'\n";
    let resolved = Sources::new().toml(file, "s.toml").unwrap().resolve().unwrap();
    let text = resolved.to_string();
    let words: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), Field::all().len() + 4, "{text}");
    for row in [
        &["cores", "all", "default"][..],
        &["stats", "histograms", "s.toml:1"],
        &["mask", "no_iowait", "s.toml:2"],
        &["core.1.stats", "off", "s.toml:4"],
        &["grace", "5s", "default"],
    ] {
        assert!(words.iter().any(|words| words == row), "{row:?} in\n{text}");
    }
}

#[test]
fn numbers_have_any_of_tomls_forms_and_text_may_have_space_around_it() {
    let file = "ring_entries = 0x200\ncq_entries = 1_024\nbuffers = 0b10000000\n";
    let sources = Sources::new().toml(file, "f").unwrap();
    let env = [("CORELOOP_PIN", "false\n"), ("CORELOOP_OPS_ADDR", " 9464 ")];
    let resolved = sources.environment(env).unwrap().resolve().unwrap();
    let text = resolved.to_string();
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    for (name, value) in [
        ("ring_entries", "512"),
        ("cq_entries", "1024"),
        ("buffers", "128"),
        ("pin", "false"),
        ("ops_addr", "127.0.0.1:9464"),
    ] {
        assert!(rows.iter().any(|row| row[..2] == [name, value]), "{name} in\n{text}");
    }
    let error = Sources::new().toml("ring_entries = 0xFFFF_FFFF_FFFF_FFFF_FF", "f").unwrap_err();
    assert!(error.to_string().contains("ring_entries"), "{error}");
}

#[test]
fn a_runtime_takes_them() {
    let cpu = crate::placement::allowed_cpus()[0];
    let file = format!("cores = '{cpu}'\n[core.1]\nspin = 'off'");
    let resolved = Sources::new().toml(&file, "f").unwrap().resolve().unwrap();
    let refused = crate::Runtime::builder().configured(&resolved).build().unwrap_err();
    let why = "settings for core 1, but there are only 1, counted from 0";
    assert_eq!(refused.to_string(), format!("f:3: {why}"));
    let file = format!("cores = '{cpu},{cpu}'\npin = false\n[core.1]\nring_entries = 64");
    let resolved = Sources::new().toml(&file, "f").unwrap().resolve().unwrap();
    let runtime = crate::Runtime::builder().configured(&resolved).build().unwrap();
    let entries = runtime.run(|_core| async {
        crate::executor::context::with_core(|core| core.driver.report().sq_entries).unwrap()
    });
    assert_eq!(entries.unwrap(), [1024, 64]);
}

#[test]
fn settings_of_a_core_that_is_not_there_are_refused_with_their_place() {
    let cpu = crate::placement::allowed_cpus()[0];
    let of = |builder: crate::runtime::Builder| {
        let builder = builder.cores(crate::Cores::These(vec![cpu, cpu])).unpinned();
        builder.build().unwrap_err().to_string()
    };
    let why = "settings for core 5, but there are only 2, counted from 0";
    let told =
        |sources: Sources| of(crate::Runtime::builder().configured(&sources.resolve().unwrap()));
    let file = "stats = 'off'\n\n[core.5]\n# of its own\nspin = 'off'\nring_entries = 64";
    let file = Sources::new().toml(file, "server.toml").unwrap();
    assert_eq!(told(file.clone()), format!("server.toml:5: {why}"), "its first line");
    // The stronger source is the place, whatever is said of all and of other cores there.
    let env = [("CORELOOP_CORE_5_STATS", "off"), ("CORELOOP_CORE_0_SPIN", "off")];
    let env = file.environment(env).unwrap();
    assert_eq!(told(env.clone()), format!("CORELOOP_CORE_5_STATS: {why}"));
    let flag = env.flag("core.5.spin=off").unwrap().flag("core.1.spin=off").unwrap();
    assert_eq!(told(flag.clone()), format!("core.5.spin=off: {why}"));
    let builder = || crate::Runtime::builder();
    let own = Settings::default();
    assert_eq!(of(builder().core(5, own.clone())), format!("Builder::core(5, …): {why}"));
    // What the program says last is where it is.
    let resolved = flag.resolve().unwrap();
    let last = of(builder().configured(&resolved).core(5, own.clone()));
    assert_eq!(last, format!("Builder::core(5, …): {why}"));
    let last = of(builder().core(5, own).configured(&resolved));
    assert_eq!(last, format!("core.5.spin=off: {why}"));
    // Of several the first one.
    let two = Sources::new().flag("core.7.spin=off").unwrap().flag("core.6.spin=off").unwrap();
    assert!(told(two).starts_with("core.6.spin=off: settings for core 6"));
}

#[test]
fn the_ops_listener_is_off_unless_said_and_at_loopback_unless_said() {
    let of = |sources: Sources| sources.resolve().unwrap().ops_addr().map(|addr| addr.to_string());
    assert_eq!(of(Sources::new()), None);
    for (text, addr) in [
        ("off", None),
        ("9464", Some("127.0.0.1:9464")),
        ("0.0.0.0:9464", Some("0.0.0.0:9464")),
        ("[::1]:80", Some("[::1]:80")),
    ] {
        let sources = Sources::new().flag(&format!("ops_addr={text}")).unwrap();
        assert_eq!(of(sources).as_deref(), addr, "{text}");
    }
    let weak = Sources::new().toml("ops_addr = '127.0.0.1:1'", "a.toml").unwrap();
    let strong = weak.environment([("CORELOOP_OPS_ADDR", "2")]).unwrap().resolve().unwrap();
    assert_eq!(strong.ops_addr(), Some(([127, 0, 0, 1], 2).into()));
    assert_eq!(strong.origin("ops_addr", None).unwrap().to_string(), "CORELOOP_OPS_ADDR");
    let row = strong.rows().into_iter().find(|row| row.1 == "ops_addr").unwrap();
    assert_eq!((row.0, row.2.as_str()), (None, "127.0.0.1:2"));
    for (flag, words) in [
        ("ops_addr=everywhere", "127.0.0.1:9464"),
        ("ops_addr=65536", "127.0.0.1:9464"),
        ("core.1.ops_addr=1", "of the whole runtime"),
        ("ops_adr=1", "ops_addr"),
    ] {
        let error = Sources::new().flag(flag).unwrap_err().to_string();
        assert!(error.contains(words), "{flag}: {error}");
    }
}

#[test]
fn a_completion_queue_below_the_submission_queue_is_refused_wherever_it_is_said() {
    let told = |sources: Sources| sources.resolve().unwrap_err().to_string();
    let why = "too few for ring_entries";
    let file = Sources::new().toml("\ncq_entries = 512", "f").unwrap();
    let error = told(file.clone());
    assert!(
        error.starts_with("f:2: cq_entries: 512 are too few for ring_entries = 1024"),
        "{error}"
    );
    assert!(
        error.ends_with(
            "use cq_entries = 1024 or more, or smaller ring_entries (ring_entries is \
                             the default)"
        ),
        "{error}"
    );
    // Of the two the stronger source is the place: what was said last, most likely.
    let error = told(Sources::new().named_flag("ring_entries", "8192").unwrap());
    assert!(error.starts_with("--ring-entries: cq_entries: 4096 are too few"), "{error}");
    let env = Sources::new().environment([("CORELOOP_CQ_ENTRIES", "16")]).unwrap();
    assert!(told(env.clone()).starts_with("CORELOOP_CQ_ENTRIES: cq_entries: 16"));
    let error = told(env.flag("core.1.ring_entries=8").unwrap());
    assert!(error.starts_with("CORELOOP_CQ_ENTRIES: "), "core 0 is left with it: {error}");
    let error = told(file.flag("ring_entries=8").unwrap().flag("core.1.ring_entries=1k").unwrap());
    assert!(error.starts_with("core.1.ring_entries=1k: cq_entries: 512 are too few"), "{error}");
    let program = Settings::default().cq_entries(16);
    assert!(told(Sources::new().program(program.clone())).contains(why));
    let error = crate::EventLoop::with(program.clone()).err().unwrap().to_string();
    assert!(error.starts_with("setting cq_entries: 16 are too few"), "{error}");
    let error = crate::Runtime::builder().core(0, program).build().unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    // What the kernel makes of both decides: 1,024 of 1,000.
    let even = Sources::new().flag("ring_entries=1024").unwrap().flag("cq_entries=1000").unwrap();
    assert!(even.resolve().is_ok());
}

#[test]
fn what_does_nothing_is_told_if_somebody_said_it() {
    let idle =
        |text: &str| Sources::new().toml(text, "f").unwrap().resolve().unwrap().without_effect();
    assert_eq!(idle(""), []);
    for (text, name, why) in [
        ("sqpoll_cpu = 1", "sqpoll_cpu", "sqpoll is off"),
        ("napi_prefer = true", "napi_prefer", "napi is off"),
        ("min_wait_completions = 4", "min_wait_completions", "min_wait is off"),
        (
            "min_wait = '1ms'\nmin_wait_completions = 1",
            "min_wait",
            "with min_wait_completions = 1 the first completion ends each sleep",
        ),
        ("slow_poll = '1ms'", "slow_poll", "debug is off"),
        ("flush_interval = '500us'", "flush_interval", "tick_quota = 500us ends a turn before"),
    ] {
        assert_eq!(idle(text), [(None, name, why.to_owned())], "{text}");
        let resolved = Sources::new().toml(text, "f").unwrap().resolve().unwrap().to_string();
        let line = resolved.lines().find(|line| line.ends_with(&format!(" (does nothing: {why})")));
        assert!(line.unwrap().starts_with(&format!("{name} ")), "{resolved}");
        // For one core, with its place.
        let of_core = text.lines().fold(Sources::new(), |sources, line| {
            sources.flag(&format!("core.2.{}", line.replace([' ', '\''], ""))).unwrap()
        });
        assert_eq!(of_core.resolve().unwrap().without_effect(), [(Some(2), name, why.to_owned())]);
    }
    for text in [
        "sqpoll = '1ms'\nsqpoll_cpu = 1",
        "napi = '1us'\nnapi_prefer = true",
        "min_wait = '1ms'\nmin_wait_completions = 4",
        "flush_interval = '499us'",
        "debug = true\nslow_poll = '1ms'",
        // Said, and what it is anyway.
        "min_wait_completions = 32",
    ] {
        assert_eq!(idle(text), [], "{text}");
    }
    // A core that switches off what the details are of.
    let text = "sqpoll = '1ms'\nsqpoll_cpu = 1\n[core.1]\nsqpoll = 'off'";
    let resolved = Sources::new().toml(text, "f").unwrap().resolve().unwrap();
    assert_eq!(resolved.without_effect().len(), 1);
    let text = resolved.to_string();
    assert!(text.ends_with("\n# core.1.sqpoll_cpu does nothing: sqpoll is off\n"), "{text}");
}

#[test]
fn what_is_the_process_s_is_not_taken_of_one_core() {
    let error = Sources::new().flag("core.1.accept_spread=cpu").unwrap_err().to_string();
    assert!(
        error.starts_with("core.1.accept_spread=cpu: accept_spread: it is the process's"),
        "{error}"
    );
    assert!(Sources::new().flag("core.0.accept_spread=cpu").unwrap().resolve().is_ok());
}

/// Whatever others put into the environment, only what is meant for settings is looked at.
#[test]
fn variables_that_are_no_text_matter_only_where_they_are_settings() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    let bad = OsStr::from_bytes(b"o\xfff").to_owned();
    let name = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let of = |key: OsString, value: OsString| {
        let quota = ("CORELOOP_TICK_QUOTA".into(), "4us".into());
        Sources::new().environment([(key, value), quota])
    };
    for key in [&b"LESS_TERMCAP"[..], b"\xff", b"XCORELOOP_SPIN", b"CORELOO\xffP_SPIN"] {
        let resolved = of(name(key), bad.clone()).unwrap().resolve().unwrap();
        assert_eq!(value(&resolved, "tick_quota", None), pair("4us", "CORELOOP_TICK_QUOTA"));
    }
    let error = of("CORELOOP_SPIN".into(), bad.clone()).unwrap_err().to_string();
    assert_eq!(
        error,
        "CORELOOP_SPIN: the variable's value is not UTF-8 (\"o\\xFFf\"): set it anew, or unset it"
    );
    let error = of(name(b"CORELOOP_\xff"), "off".into()).unwrap_err().to_string();
    assert!(error.starts_with("CORELOOP_\u{fffd}: the variable's name is not UTF-8"), "{error}");
    assert!(Sources::new().environment(std::env::vars_os()).is_ok(), "the process's own");
}

#[test]
fn a_spread_by_cpu_does_nothing_where_cores_move() {
    let told = |flags: &[&str]| {
        let sources = flags.iter().try_fold(Sources::new(), |sources, flag| sources.flag(flag));
        sources.unwrap().resolve().unwrap().without_effect()
    };
    let idle = told(&["accept_spread=cpu", "pin=false", "core.1.spin=off"]);
    let why = "with pin = false no core stays on its CPU".to_owned();
    assert_eq!(idle, [(None, "accept_spread", why)], "once");
    assert_eq!(told(&["accept_spread=cpu"]), []);
    assert_eq!(told(&["accept_spread=reuseport", "pin=false"]), []);
}
