//! What is wrong with a setting, where it stands, and what it may have been meant to be.

use std::fmt;

use super::table::Field;
use crate::words::nearest;

/// A setting that can't be taken. The text names the place, what is wrong, and the nearest right name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    place: Option<String>,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Unknown { name: String, nearest: Option<&'static str> },
    Value { name: String, why: String },
    Other(String),
}

/// Names beside those of the fields.
pub(super) const SPECIAL: [&str; 4] = ["profile", "cores", "pin", "ops_addr"];

/// Words of the kernel's for what has another name here.
const KERNELS: [(&str, &str); 12] = [
    ("defer_taskrun", "task_work"),
    ("deferred_task_work", "task_work"),
    ("coop_taskrun", "task_work"),
    ("single_issuer", "mask"),
    ("sq_thread_idle", "sqpoll"),
    ("sq_thread_cpu", "sqpoll_cpu"),
    ("sq_aff", "sqpoll_cpu"),
    ("busy_poll", "napi"),
    ("prefer_busy_poll", "napi_prefer"),
    ("min_wait_usec", "min_wait"),
    ("max_workers", "bounded_workers"),
    ("iowq_max_workers", "bounded_workers"),
];

impl SettingError {
    /// No setting has this name.
    pub(super) fn unknown(name: &str) -> Self {
        if let Some((_, ours)) =
            KERNELS.iter().find(|(theirs, _)| name.eq_ignore_ascii_case(theirs))
        {
            let problem = Problem::Unknown { name: name.to_owned(), nearest: Some(ours) };
            return Self { place: None, problem };
        }
        let names = Field::all().iter().map(|field| field.name).chain(SPECIAL);
        let nearest = nearest(name, names);
        let problem = Problem::Unknown { name: name.to_owned(), nearest };
        Self { place: None, problem }
    }

    pub(super) fn value(name: &str, why: impl Into<String>) -> Self {
        Self { place: None, problem: Problem::Value { name: name.to_owned(), why: why.into() } }
    }

    pub(super) fn other(text: impl Into<String>) -> Self {
        Self { place: None, problem: Problem::Other(text.into()) }
    }

    /// Says where it stands.
    #[must_use]
    pub(super) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Whether there is no setting of the name that was given.
    pub fn is_unknown(&self) -> bool {
        matches!(self.problem, Problem::Unknown { .. })
    }

    /// The known name that is nearest to an unknown one, if one is near.
    pub fn nearest(&self) -> Option<&'static str> {
        match self.problem {
            Problem::Unknown { nearest, .. } => nearest,
            _ => None,
        }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        match &self.problem {
            Problem::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "there is no setting {name:?}; did you mean {nearest}?")
            }
            Problem::Unknown { name, nearest: None } => {
                write!(
                    f,
                    "there is no setting {name:?}; the guide's page \"Settings\" has them all"
                )
            }
            Problem::Value { name, why } => write!(f, "{name}: {why}"),
            Problem::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for SettingError {}
