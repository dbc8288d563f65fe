//! The two variables that count without being asked for: read in one way by whoever reads them, below flags,
//! and shown where what is in force is shown.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coreloop::config::{Resolved, Sources};
use coreloop::{EventLoop, Feature, Missing, Settings, StartError, spawn};
use coreloop_tests::process::set_variable;
use coreloop_tests::{Child, in_child};

/// What of a loop's is masked, and whether it is in debug mode.
fn in_force(settings: Settings) -> Result<(Vec<Feature>, bool), StartError> {
    let heard = Arc::new(AtomicBool::new(false));
    let tell = heard.clone();
    let settings = settings.on_report(move |_| tell.store(true, Ordering::SeqCst));
    let mut event_loop = EventLoop::with(settings)?;
    let missing = event_loop.ring_report().missing.iter();
    let masked = missing.filter(|(_, why)| *why == Missing::Masked).map(|(f, _)| *f).collect();
    event_loop.block_on(async { drop(spawn(std::future::pending::<()>())) });
    drop(event_loop);
    Ok((masked, heard.load(Ordering::SeqCst)))
}

fn shown(resolved: &Resolved, name: &str) -> (String, String) {
    let row = resolved.rows().into_iter().find(|row| (row.0, row.1) == (None, name)).unwrap();
    (row.2, row.3.to_string())
}

fn flagged(sources: Sources) -> Resolved {
    sources.flag("mask=no_iowait").unwrap().flag("debug=off").unwrap().resolve().unwrap()
}

#[test]
fn settings_environment_counts_less_than_flags_and_is_shown() {
    let name = "settings_environment_counts_less_than_flags_and_is_shown";
    Child::new(name).env("CORELOOP_MASK", "abs_timer").env("CORELOOP_DEBUG", "1").run(|| {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let variables = ["CORELOOP_MASK", "CORELOOP_DEBUG"];
        let variables = variables.map(|name| (name, std::env::var(name).unwrap()));
        // Of a program that hands the environment over, and of one that does not.
        for sources in [Sources::new().environment(variables).unwrap(), Sources::new()] {
            let file = sources.program(Settings::default().mask(Feature::Napi));
            let resolved = file.resolve().unwrap();
            assert_eq!(shown(&resolved, "mask"), pair("abs_timer", "CORELOOP_MASK"));
            assert_eq!(shown(&resolved, "debug"), pair("true", "CORELOOP_DEBUG"));
            let settings = resolved.settings().clone();
            assert_eq!(in_force(settings).unwrap(), (vec![Feature::AbsTimer], true));

            let resolved = flagged(file);
            assert_eq!(shown(&resolved, "mask"), pair("no_iowait", "mask=no_iowait"));
            assert_eq!(shown(&resolved, "debug"), pair("false", "debug=off"));
            let settings = resolved.settings().clone();
            assert_eq!(in_force(settings).unwrap(), (vec![Feature::NoIowait], false));
        }
        // Settings that a program makes by itself heed both, and so do those that a builder adds to.
        let plain = Settings::default().mask(Feature::NoIowait);
        let (mut masked, debug) = in_force(plain).unwrap();
        masked.sort_by_key(|feature| feature.name());
        assert_eq!((masked, debug), (vec![Feature::AbsTimer, Feature::NoIowait], true));
        // What was put together on settings that knew it does not ask again.
        let known = flagged(Sources::new()).settings().clone();
        let again = Sources::new().program(known).resolve().unwrap();
        assert_eq!(in_force(again.settings().clone()).unwrap().0, [Feature::NoIowait]);
    });
}

#[test]
fn settings_environment_is_read_alike_by_loops_and_sources() {
    let name = "settings_environment_is_read_alike_by_loops_and_sources";
    in_child(name, || {
        let one = vec![Feature::AbsTimer];
        for (variable, value, right) in [
            ("CORELOOP_DEBUG", "true", Some((vec![], true))),
            ("CORELOOP_DEBUG", "on", Some((vec![], true))),
            ("CORELOOP_DEBUG", "1", Some((vec![], true))),
            ("CORELOOP_DEBUG", "0", Some((vec![], false))),
            ("CORELOOP_DEBUG", "", Some((vec![], false))),
            ("CORELOOP_DEBUG", "yes", None),
            ("CORELOOP_DEBUG", "0", Some((vec![], false))),
            ("CORELOOP_MASK", "none", Some((vec![], false))),
            ("CORELOOP_MASK", "", Some((vec![], false))),
            ("CORELOOP_MASK", " ,", Some((vec![], false))),
            ("CORELOOP_MASK", " abs_timer,", Some((one, false))),
            ("CORELOOP_MASK", "abs_tmer", None),
        ] {
            set_variable(variable, Some(OsStr::new(value)));
            let plain = in_force(Settings::default());
            assert_eq!(plain.ok(), right, "{variable}={value:?}, plain settings");
            let given = Sources::new().environment([(variable, value)]);
            for sources in [Ok(Sources::new()), given] {
                let resolved = sources.and_then(|sources| sources.resolve());
                let got = resolved.map(|r| in_force(r.settings().clone()).unwrap());
                assert_eq!(got.ok(), right, "{variable}={value:?}");
            }
        }
    });
}

#[test]
fn settings_environment_that_is_no_text_is_refused() {
    in_child("settings_environment_that_is_no_text_is_refused", || {
        for variable in ["CORELOOP_MASK", "CORELOOP_DEBUG"] {
            set_variable(variable, Some(OsStr::from_bytes(b"abs_timer\xff")));
            let told = in_force(Settings::default()).unwrap_err().to_string();
            assert!(told.contains(variable) && told.contains("is not UTF-8"), "{told}");
            let told = Sources::new().resolve().unwrap_err().to_string();
            assert!(told.contains(variable) && told.contains("is not UTF-8"), "{told}");
        }
    });
}
