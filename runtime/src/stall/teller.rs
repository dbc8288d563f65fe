//! The thread that tells of stalls.
//!
//! Owns the queue between the watcher and whoever is told, which has [`TELLS_MAX`] places: what does not
//! fit is counted. A hook, or the looking up of names for a line on standard error, may take seconds; the
//! watcher goes on looking meanwhile. The thread is started for what is to be told and ends when that is
//! done, so that none is there while nothing stalls. Knows nothing of cores.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::{Stall, StallHook};
use crate::contain::contained;
use crate::sys::locks::{Mutex, MutexGuard};
use crate::sys::sample::spawn_unsignalled;

/// Stalls that wait to be told, of all cores. Another one is not told.
const TELLS_MAX: usize = 8;

struct Telling {
    waiting: VecDeque<(Stall, StallHook)>,
    /// Whether a thread is at it.
    running: bool,
}

static TELLING: Mutex<Telling> = Mutex::new(Telling { waiting: VecDeque::new(), running: false });

fn lock() -> MutexGuard<'static, Telling> {
    // Nothing panics while it is held.
    TELLING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many more may be told just now. Only [`tell`] makes it fewer, and only the watcher calls that.
pub(super) fn room() -> usize {
    TELLS_MAX.saturating_sub(lock().waiting.len())
}

/// Has a stall told for which there is [`room`]. It waits for no hook.
pub(super) fn tell(stall: Stall, hook: StallHook) {
    let mut telling = lock();
    debug_assert!(telling.waiting.len() < TELLS_MAX, "the one watcher asked for room");
    telling.waiting.push_back((stall, hook));
    let start = !telling.running;
    telling.running = true;
    drop(telling);
    if start && spawn_unsignalled("coreloop-tell", tell_all).is_err() {
        // Late is better than never: by whoever found it.
        tell_all();
    }
}

fn tell_all() {
    loop {
        let mut telling = lock();
        let Some((stall, hook)) = telling.waiting.pop_front() else {
            telling.running = false;
            return;
        };
        drop(telling);
        contained(move || {
            hook.tell(&stall);
            // May be the last that has it.
            drop(hook);
        });
    }
}
