//! Which settings go together: what the kernel would refuse, and what would do nothing.
//!
//! Owns those rules, each between two rows of the table. Knows values alone, not where they came from.

use super::Settings;
use super::table::Field;
use super::value::Value;
use crate::driver::asked::TaskWork;

/// Two settings that exclude each other.
pub(crate) struct Clash {
    pub(crate) name: &'static str,
    pub(crate) with: &'static str,
    pub(crate) why: String,
}

/// A setting that does nothing because of another.
pub(super) struct Idle {
    pub(super) name: &'static str,
    pub(super) why: String,
}

impl Settings {
    /// Settings that exclude each other.
    pub(crate) fn clashes(&self) -> impl Iterator<Item = Clash> {
        let v = &self.values;
        let thread = v.sqpoll.is_some() && v.task_work != TaskWork::Auto;
        let thread = thread.then(|| Clash {
            name: "sqpoll",
            with: "task_work",
            why: format!(
                "it does not go with task_work = {}: Linux refuses a ring with both (EINVAL); use task_work \
                 = auto, or sqpoll = off",
                v.task_work
            ),
        });
        // The kernel makes powers of two of both before it compares them; above their ranges there are none.
        let power = |entries: u32| entries.checked_next_power_of_two().unwrap_or(u32::MAX);
        let queues = power(v.cq_entries) < power(v.ring_entries);
        let queues = queues.then(|| Clash {
            name: "cq_entries",
            with: "ring_entries",
            why: format!(
                "{} are too few for ring_entries = {}: Linux refuses a ring with a completion queue that is \
                 smaller than its submission queue (EINVAL); use cq_entries = {} or more, or smaller \
                 ring_entries",
                v.cq_entries, v.ring_entries, v.ring_entries
            ),
        });
        thread.into_iter().chain(queues)
    }

    /// Settings that are not what they are by default, and do nothing beside the others.
    pub(super) fn idle(&self) -> impl Iterator<Item = Idle> {
        let v = &self.values;
        let off = |name: &str| format!("{name} is off");
        let set = |name: &str| {
            let field = Field::all().iter().find(|field| field.name == name);
            field.is_some_and(|field| field.get(self) != field.default_text())
        };
        let rules = [
            ("sqpoll_cpu", v.sqpoll.is_none(), off("sqpoll")),
            ("min_wait_completions", v.min_wait.is_none(), off("min_wait")),
            (
                "min_wait",
                v.min_wait_completions == 1,
                "with min_wait_completions = 1 the first completion ends each sleep".to_owned(),
            ),
            ("napi_prefer", v.napi.is_none(), off("napi")),
            (
                "flush_interval",
                v.flush_interval.is_some_and(|interval| interval >= v.tick_quota),
                format!("tick_quota = {} ends a turn before", v.tick_quota.write()),
            ),
            ("slow_poll", !v.debug, off("debug")),
        ];
        let idle = rules.into_iter().filter(move |(name, idle, _)| *idle && set(name));
        idle.map(|(name, _, why)| Idle { name, why })
    }
}
