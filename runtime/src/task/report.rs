//! What went wrong with nobody to tell.
//!
//! Owns [`Report`] and the way to whoever wants to hear of it: a closure from the settings, or one line on
//! standard error. Reports are made with nothing borrowed; a panic of the closure is contained.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::info::TaskInfo;
use crate::contain::contained;
use crate::words::Time;

/// Something that a loop has to say, because no awaiter will. See
/// [`Settings::on_report`](crate::Settings::on_report).
#[derive(Debug)]
#[non_exhaustive]
pub enum Report<'a> {
    /// A task panicked, and its handle went without its result being taken.
    Panicked {
        /// Which.
        task: &'a TaskInfo,
        /// The panic's message.
        message: &'a str,
    },
    /// A task of [`spawn_fallible`](crate::spawn_fallible) gave an error, and its handle went without its
    /// result being taken.
    Failed {
        /// Which.
        task: &'a TaskInfo,
        /// The error's text.
        error: &'a str,
    },
    /// A task that another core or thread asked for panicked, and the handle to it went without its result
    /// being taken.
    RemotePanicked {
        /// Where it was asked for.
        spawned_at: &'static Location<'static>,
        /// The panic's message.
        message: &'a str,
    },
    /// A child of a [`group`](crate::combine::group()), or its body, failed, and the group could not say so
    /// any more: it was dropped, or its body panicked.
    GroupFailed {
        /// The child's number in its group; none for the body.
        child: Option<usize>,
        /// Where the child was spawned.
        spawned_at: Option<&'static Location<'static>>,
        /// Whether it panicked; else it gave an error, of which only its type knows the text.
        panicked: bool,
        /// The panic's message, if it is text.
        message: Option<&'a str>,
    },
    /// One poll of a task kept its core from everything else. In debug mode only.
    SlowPoll {
        /// Which.
        task: &'a TaskInfo,
        /// How long the poll took.
        took: Duration,
    },
    /// A closure that another thread handed to the core kept it from everything else. In debug mode only.
    SlowCall {
        /// How long it took.
        took: Duration,
    },
    /// The loop ended before the task did, which was cancelled then. In debug mode only.
    Unfinished {
        /// Which, with what it waited for.
        task: &'a TaskInfo,
    },
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { task, message } => {
                write!(f, "{task} panicked, and nobody took its result: {message}")
            }
            Self::RemotePanicked { spawned_at, message } => {
                write!(
                    f,
                    "a remote task, spawned at {spawned_at} panicked, and nobody took its result: {message}"
                )
            }
            Self::Failed { task, error } => {
                write!(f, "{task} failed, and nobody took its result: {error}")
            }
            Self::GroupFailed { child, spawned_at, panicked, message } => {
                match child {
                    Some(number) => write!(f, "child {number} of a group")?,
                    None => f.write_str("the body of a group")?,
                }
                if let Some(at) = spawned_at {
                    write!(f, ", spawned at {at},")?;
                }
                let what = if *panicked { "panicked" } else { "failed" };
                write!(f, " {what}, and the group had gone before it could say so")?;
                message.map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            Self::SlowPoll { task, took } => {
                write!(f, "{task} kept its core for {} in one poll", Time(*took))
            }
            Self::SlowCall { took } => {
                write!(f, "a closure from another thread kept its core for {}", Time(*took))
            }
            Self::Unfinished { task } => {
                write!(f, "{task} had not ended when its loop did")?;
                for (i, what) in task.waits_for.iter().enumerate() {
                    write!(f, "{}{what}", if i == 0 { "; it waited for " } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// Whom a loop tells; by default whoever reads standard error.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Option<Arc<Hook>>);

type Hook = dyn Fn(&Report<'_>) + Send + Sync;

impl Reporter {
    pub(crate) fn new(hook: impl Fn(&Report<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    #[cold]
    pub(crate) fn tell(&self, report: &Report<'_>) {
        contained(|| match &self.0 {
            Some(hook) => hook(report),
            None => crate::contain::tell(format_args!("coreloop: {report}")),
        });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a closure" } else { "standard error" })
    }
}
