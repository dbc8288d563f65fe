//! Panics of tasks that nobody took.
//!
//! Owns [`Panics`]: the texts of those that a simulation's cores reported. A report comes on whichever thread
//! lets go of a handle, most often that of the simulation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Settings;
use crate::task::Report;

/// What is kept; the first alone would do to fail a run.
const PANICS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Panics {
    any: AtomicBool,
    texts: Mutex<Vec<String>>,
}

impl Panics {
    /// These settings, with every report of a panic noted before it goes to whom they name.
    pub(super) fn noted(self: &Arc<Self>, settings: Settings) -> Settings {
        let (own, next) = (self.clone(), settings.reporter());
        settings.on_report(move |report| {
            if matches!(
                report,
                Report::Panicked { .. }
                    | Report::RemotePanicked { .. }
                    | Report::GroupFailed { panicked: true, .. }
            ) {
                own.note(report.to_string());
            }
            next.tell(report);
        })
    }

    fn note(&self, text: String) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() < PANICS_MAX {
            texts.push(text);
        }
        self.any.store(true, Ordering::Release);
    }

    /// What was noted; none if nothing was.
    pub(super) fn noticed(&self) -> Option<Vec<String>> {
        let any = self.any.load(Ordering::Acquire);
        any.then(|| self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
