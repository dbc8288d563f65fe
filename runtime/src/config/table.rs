//! The one table of settings: each row makes a builder call, a key of files, a variable, a flag, and a
//! row of the
//! guide.
//!
//! Owns the macro and [`Field`]. Knows neither the rows nor where values come from.

use super::Settings;
use super::error::SettingError;

/// A setting of a core, as everything but a builder call sees it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Field {
    /// Its name: the builder's call, the key in files; `CORELOOP_` and this in capitals in the environment.
    pub name: &'static str,
    /// What it does, Markdown.
    pub doc: &'static str,
    /// How its values are written.
    pub form: &'static str,
    /// The least and the greatest value, as text; none where the form says it all.
    pub range: Option<fn() -> (String, String)>,
    /// Who should touch it.
    pub who: &'static str,
    /// Where its effect shows.
    pub shows: &'static str,
    pub(super) read: fn(&mut Settings, &str) -> Result<(), String>,
    pub(super) write: fn(&Settings) -> String,
    pub(super) check: fn(&Settings) -> Result<(), String>,
}

impl Field {
    /// All settings, in the order of the guide.
    pub fn all() -> &'static [Field] {
        super::FIELDS
    }

    /// The one of this name.
    ///
    /// # Errors
    /// If there is none; the error knows the nearest name.
    pub fn named(name: &str) -> Result<&'static Field, SettingError> {
        let found = Self::all().iter().find(|field| field.name == name);
        found.ok_or_else(|| SettingError::unknown(name))
    }

    /// Its value in these settings, as text that [`set`](Self::set) takes.
    pub fn get(&self, settings: &Settings) -> String {
        (self.write)(settings)
    }

    /// Sets it from text.
    ///
    /// # Errors
    /// If the text is no value of this kind, or out of its range.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), SettingError> {
        let mut trial = settings.clone();
        (self.read)(&mut trial, text.trim())
            .and_then(|()| (self.check)(&trial))
            .map_err(|why| SettingError::value(self.name, why))?;
        *settings = trial;
        Ok(())
    }

    /// The default, as text.
    pub fn default_text(&self) -> String {
        self.get(&Settings::default())
    }

    /// The variable of the environment that sets it.
    pub fn variable(&self) -> String {
        format!("CORELOOP_{}", self.name.to_uppercase())
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Field").field(&self.name).finish()
    }
}

/// Rows of `/// doc`, `name: Type = default, in least..=greatest, who "…", shows "…";`. A row that
/// begins with
/// `own` gets no builder call from here.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident ($($call:ident)?): $type:ty = $default:expr, $(in $least:expr => $most:expr,)?
        who $who:literal, shows $shows:literal;
    )+) => {
        /// What the table holds.
        #[derive(Clone, Debug)]
        pub(super) struct Values { $(pub(super) $name: $type,)+ }

        impl Default for Values {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Settings {
            $($crate::config::table::settings!(@call $($call)?, $name, $type, $($doc)+);)+
        }

        /// The rows.
        pub(super) static FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            doc: concat!($($doc, "\n"),+),
            form: <$type as Value>::FORM,
            range: $crate::config::table::settings!(@range $type, $($least => $most)?),
            who: $who,
            shows: $shows,
            read: |settings, text| {
                settings.values.$name = <$type as Value>::read(text)?;
                Ok(())
            },
            write: |settings| settings.values.$name.write(),
            check: |_settings| {
                $(
                    let (value, least, most): (&$type, $type, $type) =
                        (&_settings.values.$name, $least, $most);
                    if !(&least..=&most).contains(&value) {
                        let (value, least, most) = (value.write(), least.write(), most.write());
                        return Err(format!("{value} is not between {least} and {most}"));
                    }
                )?
                Ok(())
            },
        }),+];
    };
    (@call own, $name:ident, $type:ty, $($doc:literal)+) => {};
    (@call , $name:ident, $type:ty, $($doc:literal)+) => {
        $(#[doc = $doc])+
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.values.$name = value;
            self
        }
    };
    (@range $type:ty,) => { None };
    (@range $type:ty, $least:expr => $most:expr) => {
        Some(|| {
            let (least, most): ($type, $type) = ($least, $most);
            (least.write(), most.write())
        })
    };
}
pub(super) use settings;
