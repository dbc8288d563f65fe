//! Settings in TOML: keys of all cores at the top, `[core.1]` for one core.

use std::path::Path;

use toml::de::{DeInteger, DeTable, DeValue};

use super::error::SettingError;
use super::sources::{Origin, Sources};

impl Sources {
    /// A file of settings in TOML.
    ///
    /// # Errors
    /// If it can't be read, is no TOML, names what is no setting, or has a value that can't be taken;
    /// with the
    /// line.
    pub fn file(self, path: impl AsRef<Path>) -> Result<Self, SettingError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| SettingError::other(format!("{name}: {e}")))?;
        self.toml(&text, &name)
    }

    /// The text of such a file, and its name for messages.
    ///
    /// # Errors
    /// As [`file`](Self::file), reading aside.
    pub fn toml(mut self, text: &str, name: &str) -> Result<Self, SettingError> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(span.start));
            SettingError::other(e.message()).at(format!("{name}:{line}"))
        })?;
        let mut said = Vec::new();
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            match (&**key.get_ref(), value.get_ref()) {
                ("core", DeValue::Table(cores)) => {
                    for (number, settings) in cores {
                        let line = line_of(number.span().start);
                        let at = format!("{name}:{line}");
                        let core: usize = number.get_ref().parse().map_err(|_| {
                            let why = "a core is named by its number, as in [core.1]";
                            SettingError::other(why).at(&at)
                        })?;
                        let DeValue::Table(settings) = settings.get_ref() else {
                            let why = "settings of a core are a table, as in [core.1]";
                            return Err(SettingError::other(why).at(at));
                        };
                        for (key, value) in settings {
                            let line = line_of(key.span().start);
                            said.push((Some(core), line, key.get_ref().clone(), value));
                        }
                    }
                }
                _ => said.push((None, line, key.get_ref().clone(), value)),
            }
        }
        said.sort_by_key(|(_, line, ..)| *line);
        for (core, line, key, value) in said {
            let origin = Origin::File(name.to_owned(), line);
            let value = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => in_decimal(number),
                DeValue::Boolean(yes) => yes.to_string(),
                DeValue::Array(names) if names.iter().all(|n| n.get_ref().is_str()) => {
                    let names = names.iter().filter_map(|n| n.get_ref().as_str());
                    let joined = names.collect::<Vec<_>>().join(",");
                    if joined.is_empty() { "none".into() } else { joined }
                }
                DeValue::Table(_) => {
                    let why = "it is no table; settings of one core stand below [core.0]";
                    return Err(SettingError::value(&key, why).at(origin.to_string()));
                }
                _ => {
                    let why = "a value is text, a whole number, true or false, or a list of names";
                    return Err(SettingError::value(&key, why).at(origin.to_string()));
                }
            };
            self.say(core, &key, &value, origin)?;
        }
        Ok(self)
    }
}

/// A whole number as every setting takes it: what is not one after all is told by who reads it.
fn in_decimal(number: &DeInteger<'_>) -> String {
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => value.to_string(),
        Err(_) => number.to_string(),
    }
}
