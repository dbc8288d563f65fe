//! Settings from the environment: those that a program hands over, and the two switches that count without.
//!
//! Owns the one way in which `CORELOOP_DEBUG` and `CORELOOP_MASK` are read, whoever reads them. They are read
//! once: settings that come of [`Sources`] have them among what was said, above files and below flags, and a
//! loop reads them for settings that come from nowhere else.

use std::ffi::{OsStr, OsString};

use super::error::SettingError;
use super::sources::{Origin, Sources};
use super::value::{NOTHING, Value};
use crate::driver::features::FeatureSet;
use crate::driver::setup::StartError;

const PREFIX: &str = "CORELOOP_";

/// Settings whose variables count for a whole process, and those.
const SWITCHES: [(&str, &str); 2] = [("debug", "CORELOOP_DEBUG"), ("mask", "CORELOOP_MASK")];

impl Sources {
    /// Variables of the environment: those that begin with `CORELOOP_`, in capitals, such as
    /// `CORELOOP_SPIN`, or `CORELOOP_CORE_1_SPIN` for core 1. Give it `std::env::vars_os()`
    /// (`std::env::vars()` panics where any variable at all is not UTF-8); nothing reads them by itself, but
    /// for `CORELOOP_MASK` and `CORELOOP_DEBUG`, which count as if only they had been given where this is not
    /// called. An empty one of these two is as if it were not there.
    ///
    /// ```
    /// use coreloop::config::Sources;
    ///
    /// let resolved = Sources::new().environment(std::env::vars_os())?.resolve()?;
    /// # drop(resolved);
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// A variable that names no setting, or whose value can't be taken or is not UTF-8. What other variables
    /// are does not matter.
    pub fn environment<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SettingError> {
        let ours = |key: &OsStr| key.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let mut found: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(key, _)| ours(key.as_ref()))
            .map(|(key, value)| unicode(key.as_ref(), value.as_ref()))
            .collect::<Result<_, _>>()?;
        found.sort(); // the same error first, whatever the order of the environment
        for (variable, text) in found {
            let mut key = variable[PREFIX.len()..].to_lowercase();
            let mut core = None;
            if let Some((number, rest)) = key.strip_prefix("core_").and_then(|k| k.split_once('_'))
                && let Ok(number) = number.parse()
            {
                core = Some(number);
                key = rest.to_owned();
            }
            if !is_switch_unset(&key, &text) {
                self.say(core, &key, &text, Origin::Environment(variable))?;
            }
        }
        self.has_environment = true;
        Ok(self)
    }

    /// With the process's switches, unless the environment is known already.
    pub(super) fn with_switches(&self) -> Result<Self, SettingError> {
        let mut all = self.clone();
        if all.has_environment {
            return Ok(all);
        }
        for (name, variable) in SWITCHES {
            let text = switch(name, std::env::var_os(variable));
            let text = text.map_err(|why| SettingError::value(name, why).at(variable))?;
            if let Some(text) = text {
                all.say(None, name, &text, Origin::Environment(variable.to_owned()))?;
            }
        }
        all.has_environment = true;
        Ok(all)
    }
}

/// A variable's name and value as text.
fn unicode(key: &OsStr, value: &OsStr) -> Result<(String, String), SettingError> {
    let told = |why| SettingError::other(why).at(key.to_string_lossy());
    let name = utf_8("name", key).map_err(told)?;
    let text = utf_8("value", value).map_err(told)?;
    Ok((name.to_owned(), text.to_owned()))
}

fn utf_8<'a>(what: &str, bytes: &'a OsStr) -> Result<&'a str, String> {
    let why =
        || format!("the variable's {what} is not UTF-8 ({bytes:?}): set it anew, or unset it");
    bytes.to_str().ok_or_else(why)
}

/// What the process's environment says of debug mode, and which features it masks, for settings that do not
/// know it.
pub(super) fn switches() -> Result<(Option<bool>, FeatureSet), StartError> {
    let [debug, mask] = SWITCHES.map(|(name, variable)| {
        let text = switch(name, std::env::var_os(variable));
        text.map_err(|why| StartError::BadSetting { name: variable, why })
    });
    let debug = debug?.map(|text| {
        bool::read(text.trim()).map_err(|why| {
            let why = format!("{why}: it takes 1 for on and 0 for off");
            StartError::BadSetting { name: "CORELOOP_DEBUG", why }
        })
    });
    let mask = match mask?.as_deref().map(str::trim) {
        None | Some(NOTHING) => FeatureSet::none(),
        Some(list) => FeatureSet::parse(list)?,
    };
    Ok((debug.transpose()?, mask))
}

/// What a switch says; none if nothing.
fn switch(name: &str, value: Option<OsString>) -> Result<Option<String>, String> {
    let text = value.as_deref().map(|value| utf_8("value", value)).transpose()?;
    Ok(text.filter(|text| !is_switch_unset(name, text)).map(str::to_owned))
}

/// Whether this is a switch that says nothing: it can be emptied where it can't be taken away.
fn is_switch_unset(name: &str, text: &str) -> bool {
    let between_names = |c: char| c.is_whitespace() || c == ',';
    match name {
        "debug" => text.trim().is_empty(),
        "mask" => text.chars().all(between_names),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_that_say_nothing_or_no_text() {
        let of = |name, text: &str| switch(name, Some(text.into()));
        assert_eq!(switch("debug", None), Ok(None));
        assert_eq!((of("debug", " "), of("mask", " , ")), (Ok(None), Ok(None)));
        assert_eq!(of("mask", "none"), Ok(Some("none".into())));
        let bytes = std::os::unix::ffi::OsStringExt::from_vec(vec![b'n', 0xff]);
        let why = switch("mask", Some(bytes)).unwrap_err();
        assert!(why.contains("is not UTF-8"), "{why}");
    }
}
