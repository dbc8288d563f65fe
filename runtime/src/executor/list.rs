//! The tasks of a loop, with what each waits for.
//!
//! Owns the look that brings together what the layers below know of a task: its slot, the ops and timers that
//! would wake it, the tasks whose end it waits for. Nothing of it is kept while tasks run: it is read off the
//! wakers when somebody asks, and costs nothing before.

use std::time::Duration;

use super::{Core, context};
use crate::task::{TaskInfo, WaitsFor};

/// Every task of the running loop that has not ended, the main future first, then in the order of their
/// slots. Empty outside a loop.
///
/// It reads all tasks, ops and timers of the core: for a look by a person, not for a hot path.
///
/// ```
/// use coreloop::{all_tasks, spawn_named, time::sleep, yield_now};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let _nap = spawn_named("nap", sleep(Duration::from_secs(3600)));
///     yield_now().await;
///     for task in all_tasks() {
///         println!("{task}");
///     }
///     let nap = all_tasks().into_iter().find(|task| task.name.as_deref() == Some("nap")).unwrap();
///     assert!(nap.waits_for[0].to_string().starts_with("a timer in 3600"));
/// })
/// .unwrap();
/// ```
pub fn all_tasks() -> Vec<TaskInfo> {
    context::with_core(Core::all_tasks).unwrap_or_default()
}

impl Core {
    /// See [`all_tasks`].
    pub(crate) fn all_tasks(&self) -> Vec<TaskInfo> {
        let mut infos = self.tasks.infos();
        self.driver.each_waiting(|waker, op, fd| {
            if let Some(slot) = self.tasks.slot_of(waker) {
                self.tasks.add_wait(&mut infos, slot, WaitsFor::Op { name: op, fd });
            }
        });
        let now = self.timers.now_ns();
        self.timers.each(|deadline_ns, waker| {
            if let Some(slot) = self.tasks.slot_of(waker) {
                let left = Duration::from_nanos(deadline_ns.saturating_sub(now));
                self.tasks.add_wait(&mut infos, slot, WaitsFor::Timer { left });
            }
        });
        infos.into_iter().map(|(_, info)| info).collect()
    }
}
