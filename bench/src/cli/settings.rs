//! Settings of the server's loops on the command line: a flag for each row of the runtime's table, a
//! profile, a
//! file, and values for one core.
//!
//! Owns how they are asked for. What they mean, their ranges, and which source counts more is the runtime's.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use coreloop::Settings;
use coreloop::config::{Field, Profile, Resolved, Sources};

/// How the server's loops are set up; shared by `run` and `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerTuning {
    /// Settings that go together: throughput, latency or shared
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    pub profile: Option<Profile>,
    /// A file of settings (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A setting by its name, of all cores or of one: spin=off, core.1.spin=50us
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Print every setting, its value and where it came from, and do nothing else
    #[arg(long)]
    pub print_config: bool,
    /// Each by its own flag.
    #[command(flatten)]
    pub named: NamedSettings,
}

/// Settings given by flags of their own, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedSettings(pub Vec<(&'static str, String)>);

impl ServerTuning {
    /// All sources put together. `base` is what the program would choose; `flags` are further ones, such as
    /// `("--ops", "ops_addr", "127.0.0.1:9464")`, which count more than everything else.
    ///
    /// # Errors
    /// The first thing that can't be taken, in words.
    pub fn resolve(
        &self,
        base: Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(&str, &str, String)],
    ) -> Result<Resolved, String> {
        let put_together = || {
            let mut sources = Sources::new().program(base).environment(environment)?;
            if let Some(path) = &self.config {
                sources = sources.file(path)?;
            }
            if let Some(profile) = self.profile {
                sources = sources.profile(profile);
            }
            for (name, value) in &self.named.0 {
                sources = sources.named_flag(name, value)?;
            }
            for flag in &self.set {
                sources = sources.flag(flag)?;
            }
            for (flag, name, value) in flags {
                sources = sources.flag_called(flag, name, value)?;
            }
            sources.resolve()
        };
        put_together().map_err(|error: coreloop::config::SettingError| error.to_string())
    }
}

impl Args for NamedSettings {
    fn augment_args(command: Command) -> Command {
        let command = Field::all().iter().fold(command, |command, field| {
            let arg = Arg::new(field.name)
                .long(field.name.replace('_', "-"))
                .value_name("VALUE")
                .help(help(field))
                .help_heading("Settings of the server's loops")
                .value_parser(move |text: &str| {
                    let mut trial = Settings::default();
                    let taken = field.set(&mut trial, text).map(|()| text.to_owned());
                    taken.map_err(|error| error.to_string())
                });
            command.arg(arg)
        });
        // Flags that the derive adds after these belong to no section of ours.
        command.next_help_heading(None)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for NamedSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in Field::all() {
            if let Some(value) = matches.get_one::<String>(field.name) {
                self.0.push((field.name, value.clone()));
            }
        }
        Ok(())
    }
}

/// One line: the first sentence, the form or range, the default.
fn help(field: &Field) -> String {
    let first = field.doc.trim().split_once(". ").map_or(field.doc.trim(), |(first, _)| first);
    let first = first.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let first = plain(&first.split_whitespace().collect::<Vec<_>>().join(" "));
    let may_be = match field.range {
        Some(range) => {
            let (least, most) = range();
            format!("{least} to {most}")
        }
        None => field.form.to_owned(),
    };
    format!("{} ({may_be}) [default: {}]", first.trim_end_matches('.'), field.default_text())
}

/// Markdown without its marks: names without backticks, links without their targets, words without stress.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out += before;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out += rest;
    out.replace(['`', '[', ']', '*'], "")
}

fn profile(text: &str) -> Result<Profile, String> {
    text.parse().map_err(|error: coreloop::config::SettingError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_left_out_of_the_help() {
        assert_eq!(plain("see [`spawn`](crate::spawn), or `off`"), "see spawn, or off");
        assert_eq!(plain("as a [`Stall`] *while it does*: [a](b)"), "as a Stall while it does: a");
        for field in Field::all() {
            let help = help(field);
            let (words, _) = help.rsplit_once(" [default: ").unwrap();
            assert!(!words.contains(['`', '[', ']', '*']), "{help}");
        }
    }

    #[test]
    fn a_flag_counts_more_than_the_file_and_the_profile() {
        let tuning = ServerTuning {
            profile: Some(Profile::Latency),
            set: vec!["spin=dial".into()],
            ..ServerTuning::default()
        };
        let resolved = tuning.resolve(Settings::default(), [], &[]).unwrap();
        let spin = Field::named("spin").unwrap();
        assert_eq!(spin.get(resolved.settings()), "dial");
        assert_eq!(resolved.origin("spin", None).unwrap().to_string(), "spin=dial");
        let origin = resolved.origin("timer_resolution", None).unwrap().to_string();
        assert_eq!(origin, "profile latency");
    }

    #[test]
    fn a_variable_that_is_wrong_is_told_by_its_name() {
        let variables = [("CORELOOP_SPIN".into(), "often".into())];
        let error =
            ServerTuning::default().resolve(Settings::default(), variables, &[]).unwrap_err();
        assert!(error.starts_with("CORELOOP_SPIN: spin: \"often\" is not off"), "{error}");
    }
}
