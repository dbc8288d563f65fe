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
use crate::sys::per_process::PerProcess;
use crate::sys::sample::spawn_unsignalled;
use crate::sys::shared::{Mutex, MutexGuard};

/// Stalls that wait to be told, of all cores. Another one is not told.
const TELLS_MAX: usize = 8;

/// What waits for a thread that is there as long as something does. There is no more than one: whoever puts
/// something says whether one is to be started, under the lock under which the last one found nothing.
struct Errands<T>(Mutex<State<T>>);

struct State<T> {
    waiting: VecDeque<T>,
    /// Whether a thread is at it.
    running: bool,
}

/// What waits in a forking process is its own to tell, and so is the thread that does it.
static TELLING: PerProcess<Errands<(Stall, StallHook)>> = PerProcess::new(Errands::new);

impl<T> Errands<T> {
    fn new() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), running: false }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether a thread is to be started, which takes until there is [`none`](Self::next).
    fn put(&self, one: T) -> bool {
        let mut state = self.lock();
        state.waiting.push_back(one);
        !std::mem::replace(&mut state.running, true)
    }

    /// What has waited for longest. None: the thread is done, whatever is put from now on.
    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        state.running = next.is_some();
        next
    }
}

/// How many more may be told just now. Only [`tell`] makes it fewer, and only the watcher calls that.
pub(super) fn room() -> usize {
    TELLS_MAX.saturating_sub(TELLING.get().waiting())
}

/// Has a stall told for which there is [`room`]. It waits for no hook.
pub(super) fn tell(stall: Stall, hook: StallHook) {
    debug_assert!(room() > 0, "the one watcher asked for room");
    if TELLING.get().put((stall, hook)) && spawn_unsignalled("coreloop-tell", tell_all).is_err() {
        // Late is better than never: by whoever found it.
        tell_all();
    }
}

fn tell_all() {
    let telling = TELLING.get();
    while let Some((stall, hook)) = telling.next() {
        contained(move || {
            hook.tell(&stall);
            // May be the last that has it.
            drop(hook);
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::Errands;
    use crate::sys::model::{check, thread};
    use crate::sys::shared::Mutex;

    /// Three are put, each when it likes; those that are told to start a thread do. Each is taken once, in
    /// order, and by threads of which one ends before the next begins.
    #[test]
    fn loom_stall_all_that_is_put_is_told_once_in_order_by_one_thread_at_a_time() {
        check(4, || {
            let errands = Arc::new(Errands::new());
            let told = Arc::new(Mutex::new(Vec::new()));
            let mut threads = Vec::new();
            for number in 0..3 {
                if errands.put(number) {
                    let (errands, told) = (errands.clone(), told.clone());
                    threads.push(thread::spawn(move || {
                        while let Some(number) = errands.next() {
                            told.lock().unwrap().push(number);
                        }
                    }));
                }
            }
            assert!(!threads.is_empty());
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(*told.lock().unwrap(), [0, 1, 2]);
            assert_eq!(errands.waiting(), 0);
        });
    }
}
