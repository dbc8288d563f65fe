//! The tasks as `top` shows them: in groups or one by one, the slowest or the oldest first.
//!
//! Owns how the list of tasks and the list of the longest polls become one table. A task with a long poll
//! may have ended since: then its row counts no task. Pure: knows neither the terminal nor the network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use coreloop_net::ops::doc::{Task, Tasks};

use crate::ops::top::model::LongPollView;

/// Tasks that were spawned at the same place under the same name, or one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// How many are in the list; none if they ended after their long poll, or began after the list was
    /// read.
    pub count: usize,
    /// The age of the oldest.
    pub oldest_ns: Option<u64>,
    /// The longest poll of the last 10 to 20 s, if it is among the longest of its core.
    pub longest_ns: Option<u64>,
    /// Its name, or its id where it stands alone without one.
    pub name: String,
    /// Where it was spawned.
    pub place: String,
    /// What most of them wait for.
    pub wait: String,
}

/// In which order the rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the longest poll; those that have none known stand behind, by age.
    Slowest,
    /// By age.
    Oldest,
}

/// An id where tasks stand one by one, place, name.
type Key<'a> = (&'a str, &'a str, &'a str);

#[derive(Default)]
struct Group<'a> {
    tasks: Vec<&'a Task>,
    longest_ns: Option<u64>,
}

/// The tasks of all cores, in groups or one by one. Main futures are shown only where they had a long poll.
pub fn task_rows(
    tasks: Option<&Tasks>,
    slow: &[LongPollView],
    grouped: bool,
    order: Order,
) -> Vec<TaskRow> {
    let all = tasks.iter().flat_map(|tasks| &tasks.cores).flat_map(|core| &core.tasks);
    let mut groups: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
    let mut keys: HashMap<&str, Key<'_>> = HashMap::new();
    for task in all.filter(|task| task.spawned_at.is_some()) {
        let place = task.spawned_at.as_deref().unwrap_or_default();
        let name = task.name.as_deref().unwrap_or_default();
        let key = (if grouped { "" } else { task.id.as_str() }, place, name);
        keys.insert(&task.id, key);
        groups.entry(key).or_default().tasks.push(task);
    }
    for poll in slow {
        let place = poll.spawned_at.as_deref().unwrap_or_default();
        let name = match &poll.name {
            Some(name) => name.as_str(),
            None if poll.spawned_at.is_none() => MAIN,
            None => "",
        };
        let own = if grouped { "" } else { poll.task.as_str() };
        // Of one that has ended the name may be lost: in a group it counts for its place.
        let same_place = || groups.keys().find(|key| grouped && name.is_empty() && key.1 == place);
        let known = keys.get(poll.task.as_str()).or_else(same_place).copied();
        let group = groups.entry(known.unwrap_or((own, place, name))).or_default();
        group.longest_ns = group.longest_ns.max(Some(poll.took_ns));
    }
    let whole = tasks.is_some_and(|tasks| tasks.cores.iter().all(|core| core.left_out == 0));
    let absent = if whole { "ended, or new" } else { "-" };
    let mut rows: Vec<TaskRow> = groups.into_iter().map(|one| row(one, absent)).collect();
    rows.sort_by_key(|row| {
        let longest = row.longest_ns.filter(|_| order == Order::Slowest);
        (Reverse(longest), Reverse(row.oldest_ns))
    });
    rows
}

const MAIN: &str = "(main)";

fn row(((own, place, name), group): (Key<'_>, Group<'_>), absent: &str) -> TaskRow {
    TaskRow {
        count: group.tasks.len(),
        oldest_ns: group.tasks.iter().map(|task| task.age_ns).max(),
        longest_ns: group.longest_ns,
        name: match (name, own) {
            ("", "") => "·".to_owned(),
            ("", id) => id.to_owned(),
            (name, _) => name.to_owned(),
        },
        place: place.to_owned(),
        wait: match (&group.tasks[..], name) {
            ([], MAIN) => "-".to_owned(),
            ([], _) => absent.to_owned(),
            (tasks, _) => most_common_wait(tasks),
        },
    }
}

fn most_common_wait(tasks: &[&Task]) -> String {
    let mut waits: BTreeMap<String, usize> = BTreeMap::new();
    for task in tasks {
        let what = match (task.waits_for.first(), tasks.len()) {
            (None, _) => task.state.clone(),
            // Of one its very descriptor or timer; of many the kind.
            (Some(wait), 1) => wait.text.clone(),
            (Some(wait), _) => match (&wait.op, wait.left_ns, &wait.task) {
                (Some(op), ..) => op.clone(),
                (None, Some(_), _) => "a timer".to_owned(),
                (None, None, Some(_)) => "a task".to_owned(),
                (None, None, None) => wait.text.clone(),
            },
        };
        *waits.entry(what).or_default() += 1;
    }
    let kinds = waits.len();
    let most = waits.into_iter().max_by_key(|(_, n)| *n);
    match most {
        Some((what, n)) if kinds > 1 => format!("{what} ({n})"),
        Some((what, _)) => what,
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::top::samples;

    fn slow(
        task: &str,
        name: Option<&str>,
        spawned_at: Option<&str>,
        took_ns: u64,
    ) -> LongPollView {
        let (name, spawned_at) = (name.map(str::to_owned), spawned_at.map(str::to_owned));
        LongPollView { core: 0, task: task.to_owned(), name, spawned_at, took_ns }
    }

    fn names(rows: &[TaskRow]) -> Vec<(&str, usize, Option<u64>)> {
        rows.iter().map(|row| (row.name.as_str(), row.count, row.longest_ns)).collect()
    }

    #[test]
    fn tasks_of_one_place_are_one_row() {
        let tasks = samples::tasks();
        let rows = task_rows(Some(&tasks), &[], true, Order::Slowest);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((rows[0].count, rows[0].oldest_ns), (3, Some(90_000_000_000)));
        assert_eq!((rows[0].name.as_str(), rows[0].wait.as_str()), ("echo", "recv (2)"));
        assert_eq!(rows[1].wait, "a timer in 3.0s");
        let single = task_rows(Some(&tasks), &[], false, Order::Slowest);
        assert_eq!(single.len(), 4);
        assert_eq!(single[0].wait, "recv on descriptor 9");
    }

    #[test]
    fn the_slowest_stand_first_whatever_their_age() {
        let tasks = samples::tasks();
        let polls = [
            slow("0.4.1", Some("nap"), Some("src/nap.rs:7:9"), 3_000_000),
            slow("0.2.1", Some("echo"), Some("src/echo.rs:7:9"), 2_000_000),
            slow("0.1.1", Some("echo"), Some("src/echo.rs:7:9"), 1_000_000),
        ];
        let rows = task_rows(Some(&tasks), &polls, true, Order::Slowest);
        assert_eq!(names(&rows), [("nap", 1, Some(3_000_000)), ("echo", 3, Some(2_000_000))]);
        let rows = task_rows(Some(&tasks), &polls, true, Order::Oldest);
        assert_eq!(names(&rows), [("echo", 3, Some(2_000_000)), ("nap", 1, Some(3_000_000))]);
        let rows = task_rows(Some(&tasks), &polls, false, Order::Slowest);
        let longest: Vec<_> = rows.iter().map(|row| row.longest_ns).collect();
        assert_eq!(longest, [Some(3_000_000), Some(2_000_000), Some(1_000_000), None]);
    }

    #[test]
    fn one_that_has_ended_is_shown_and_counts_for_its_place() {
        let tasks = samples::tasks();
        let polls = [
            slow("0.9.3", None, Some("src/echo.rs:7:9"), 9_000),
            slow("0.8.3", Some("gone"), Some("src/gone.rs:1:1"), 8_000),
            slow("0.0.1", None, None, 7_000),
        ];
        let rows = task_rows(Some(&tasks), &polls, true, Order::Slowest);
        let expected =
            [("echo", 3, Some(9_000)), ("gone", 0, Some(8_000)), ("(main)", 0, Some(7_000))];
        assert_eq!(names(&rows)[..3], expected);
        assert_eq!((rows[1].wait.as_str(), rows[1].oldest_ns), ("ended, or new", None));
        let rows = task_rows(None, &polls, false, Order::Slowest);
        assert_eq!(names(&rows)[0], ("0.9.3", 0, Some(9_000)), "without any list of tasks");
    }
}
