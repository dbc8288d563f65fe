//! The file of settings: TOML that `serve --config` and the library take, with what was found in comments.

use std::fmt::Write;

use crate::peers::interval::Ratio;
use crate::tune::results::{Ending, Results};

/// The file. Where the defaults hold, or nothing is known, it changes nothing and says so.
pub fn toml(results: &Results) -> String {
    let head = &results.head;
    let mut out = String::new();
    let _ = writeln!(out, "# {}", head.command_line);
    let _ = writeln!(out, "# {}: {}, goal {}", head.workload, head.load, head.goal);
    let machine = &head.machine;
    let _ = writeln!(out, "# {}, Linux {}, {}", head.started, machine.kernel, machine.cpu_model);
    let _ = writeln!(out, "# {}.", results.judged);
    match (results.outcome, &results.confirmed) {
        (Ending::Tuned, Some(ratio)) => {
            let _ = writeln!(
                out,
                "# {}: {} times that of the defaults, over {} blocks.\n",
                results.figure,
                of(ratio),
                ratio.blocks
            );
        }
        (Ending::DefaultsHold, _) => out.push_str("# The defaults hold: nothing is changed.\n"),
        _ => out.push_str("# Nothing was confirmed: nothing is changed.\n"),
    }
    for (name, value) in &results.settings {
        let effect = results.effects.iter().find(|effect| effect.name == *name);
        let comment = match effect.and_then(|effect| effect.ratio) {
            Some(ratio) => format!("# {} times what it is without this", of(&ratio)),
            None => "# not looked at alone".to_owned(),
        };
        let _ = writeln!(out, "{comment}\n{name} = {}", written(value));
    }
    out
}

fn of(ratio: &Ratio) -> String {
    format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.low, ratio.high)
}

fn written(value: &str) -> String {
    let plain = value.parse::<i64>().is_ok() || ["true", "false"].contains(&value);
    // Values of settings have neither quotes nor backslashes.
    if plain { value.to_owned() } else { format!("\"{value}\"") }
}

#[cfg(test)]
mod tests {
    use coreloop::config::{Field, Sources};

    use super::*;
    use crate::tune::results::sample;

    #[test]
    fn the_library_takes_the_file() {
        let results = sample::tuned();
        let text = toml(&results);
        let resolved = Sources::new().toml(&text, "tuned.toml").unwrap().resolve().unwrap();
        let value = |name: &str| Field::named(name).unwrap().get(resolved.settings());
        assert_eq!((value("spin"), value("chunk_quota")), ("off".into(), "32".into()));
        assert_eq!(value("tick_quota"), "2ms");
        assert_eq!(value("buffers"), "1024", "what was left out stays at its default");
        assert!(
            text.contains("# 0.880 (0.870 to 0.890) times what it is without this\nspin = \"off\"")
        );
        let origin = resolved.origin("spin", None).unwrap().to_string();
        assert!(origin.starts_with("tuned.toml:"), "{origin}");
    }

    #[test]
    fn a_file_of_nothing_changes_nothing() {
        for results in [
            sample::defaults_hold(),
            sample::disturbed(),
            sample::interrupted(),
            sample::interrupted_at_once(),
        ] {
            let text = toml(&results);
            let resolved = Sources::new().toml(&text, "tuned.toml").unwrap().resolve().unwrap();
            let changed =
                resolved.rows().into_iter().any(|(.., from)| from.to_string() != "default");
            assert!(!changed, "{text}");
            assert!(text.contains("nothing is changed"), "{text}");
        }
    }
}
