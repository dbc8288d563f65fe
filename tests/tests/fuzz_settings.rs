//! Whatever is given as settings is taken or refused in words: no panic, no long computing, no lost value.
//!
//! A second for each target; `CORELOOP_FUZZ_SECONDS=600 cargo test --release -p coreloop-tests --test
//! fuzz_settings` is the longer run. Corpora lie in `tests/corpus`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use coreloop::config::{Field, Profile, SettingError, Sources};
use coreloop::{Cores, Feature, FeatureSet, Settings};
use coreloop_tests::figure;
use coreloop_tests::fuzz::{Fuzzed, fuzz, message_signature, signature};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// Words that settings are written with.
fn words() -> Vec<&'static str> {
    let mut words: Vec<_> = Field::all().iter().map(|field| field.name).collect();
    words.extend(Feature::ALL.map(Feature::name));
    words.extend(Profile::ALL.map(Profile::name));
    words.extend([
        "profile",
        "cores",
        "pin",
        "core.1.",
        "[core.0]",
        "[core.8191]",
        "[core.8192]",
        "CORELOOP_",
        "CORELOOP_CORE_1_",
        "count:",
        "numa:",
        "physical",
        "all",
        "0-8191",
        "0-8191,",
        "dial",
        "off",
        "never",
        "histograms",
        "true",
        "none",
        "16k",
        "1 MiB",
        "500us",
        "1ms",
        "µs",
        "é",
        "''",
        "\"\"\"",
    ]);
    words
}

/// What was understood can be written, read again, and means the same.
fn holds(sources: Result<Sources, SettingError>) -> u64 {
    let resolved = match sources.and_then(|sources| sources.resolve()) {
        Ok(resolved) => resolved,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return message_signature(&e.to_string());
        }
    };
    assert!(resolved.to_string().lines().count() >= Field::all().len());
    let mut parts = Vec::new();
    for (core, name, value, origin) in resolved.rows() {
        parts.push((core.is_some(), name, std::mem::discriminant(&origin)));
        match name {
            "cores" => assert_eq!(&value.parse::<Cores>().unwrap(), resolved.cores()),
            "pin" => assert_eq!(value, resolved.pinned().to_string()),
            "ops_addr" => {
                let shown = resolved.ops_addr().map_or("off".to_owned(), |addr| addr.to_string());
                assert_eq!(value, shown);
            }
            _ => {
                let field = Field::named(name).unwrap();
                let mut again = Settings::default();
                field.set(&mut again, &value).unwrap_or_else(|e| panic!("{name} = {value}: {e}"));
                assert_eq!(field.get(&again), value, "{name}");
            }
        }
    }
    parts.truncate(40);
    signature(parts)
}

fn shown(fuzzed: Fuzzed) {
    figure!("{fuzzed:?}");
    // The corpus alone has several; a target that no input reaches would show one.
    assert!(fuzzed.signatures >= 3, "{fuzzed:?}");
}

#[test]
fn fuzz_settings_in_toml() {
    shown(fuzz(&corpus("settings_toml"), &words(), |input| {
        holds(Sources::new().toml(&String::from_utf8_lossy(input), "fuzzed.toml"))
    }));
}

#[test]
fn fuzz_settings_in_the_environment() {
    shown(fuzz(&corpus("settings_environment"), &words(), |input| {
        let text = String::from_utf8_lossy(input);
        holds(Sources::new().environment(text.lines().filter_map(|line| line.split_once('='))))
    }));
}

#[test]
fn fuzz_settings_in_flags() {
    shown(fuzz(&corpus("settings_flags"), &words(), |input| {
        let text = String::from_utf8_lossy(input);
        holds(text.lines().try_fold(Sources::new(), Sources::flag))
    }));
}

#[test]
fn fuzz_lists_of_cpus() {
    shown(fuzz(&corpus("cores"), &words(), |input| {
        let text = String::from_utf8_lossy(input);
        match Cores::from_str(&text) {
            Ok(cores) => {
                assert_eq!(cores.to_string().parse(), Ok(cores.clone()), "{text:?}");
                if let Cores::These(cpus) = &cores {
                    assert!(cpus.len() <= 8192, "{} CPUs from {} bytes", cpus.len(), input.len());
                }
                signature((std::mem::discriminant(&cores), cores.resolve().is_ok()))
            }
            Err(e) => message_signature(&e.to_string()),
        }
    }));
}

#[test]
fn fuzz_names_of_features_and_profiles() {
    shown(fuzz(&corpus("features"), &words(), |input| {
        let text = String::from_utf8_lossy(input);
        let profile = text.parse::<Profile>().map(|p| assert_eq!(p.name(), text.trim()));
        let features = match FeatureSet::parse(&text) {
            Ok(set) => signature(Feature::ALL.map(|f| set.contains(f))),
            Err(e) => message_signature(&e.to_string()),
        };
        signature((profile.is_ok(), features))
    }));
}
