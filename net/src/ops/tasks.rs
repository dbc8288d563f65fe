//! Tasks as a document, and that as text.
//!
//! Owns the form of a list of tasks for a person with curl. Knows neither cores nor requests.

use std::fmt::Write as _;
use std::time::Duration;

use coreloop::task::{TaskInfo, TaskState, WaitsFor};
use coreloop::{PostError, TaskList};

use super::doc;

/// What a core answered.
pub(super) fn of_core(core: usize, list: Result<TaskList, PostError>) -> doc::CoreTasks {
    match list {
        Ok(list) => doc::CoreTasks {
            core,
            missing: None,
            left_out: list.left_out,
            tasks: list.tasks.into_iter().map(task).collect(),
        },
        Err(why) => doc::CoreTasks { core, missing: Some(why.to_string()), ..Default::default() },
    }
}

fn task(info: TaskInfo) -> doc::Task {
    doc::Task {
        id: info.id.to_string(),
        name: info.name.map(|name| name.to_string()),
        parent: info.parent.map(|parent| parent.to_string()),
        queue: info.queue.map(|queue| queue.to_string()),
        spawned_at: info.spawned_at.map(ToString::to_string),
        age_ns: ns(info.age),
        state: match info.state {
            TaskState::Running => "running",
            TaskState::Ready => "ready",
            TaskState::Waiting => "waiting",
            _ => "unknown",
        }
        .to_owned(),
        waits_for: info.waits_for.into_iter().map(|what| wait(&what)).collect(),
    }
}

fn wait(what: &WaitsFor) -> doc::Wait {
    let text = what.to_string();
    let plain = doc::Wait { text, ..Default::default() };
    match what {
        WaitsFor::Op { name, fd } => doc::Wait { op: Some((*name).to_owned()), fd: *fd, ..plain },
        WaitsFor::Timer { left } => doc::Wait { left_ns: Some(ns(*left)), ..plain },
        WaitsFor::Task(id) => doc::Wait { task: Some(id.to_string()), ..plain },
        _ => plain,
    }
}

/// One line for each task: id, state, age, name, queue (if any task has another than the default one), what
/// it waits for, where it was spawned, by whom.
pub(super) fn text(document: &doc::Tasks) -> String {
    let mut out = String::new();
    let queues =
        document.cores.iter().flat_map(|core| &core.tasks).any(|task| task.queue.is_some());
    for core in &document.cores {
        let _ = match &core.missing {
            Some(why) => writeln!(out, "core {}: {why}", core.core),
            None => writeln!(out, "core {}: {} tasks", core.core, core.tasks.len() + core.left_out),
        };
        let rows: Vec<[String; 8]> = core.tasks.iter().map(row).collect();
        let wide = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).min(WIDE_MAX)
        };
        let widths: [usize; 8] = std::array::from_fn(wide);
        for row in &rows {
            out.push(' ');
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                if column == QUEUE && !queues {
                    continue;
                }
                let _ = write!(out, " {cell:<width$} ");
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        if core.left_out > 0 {
            let _ = writeln!(out, "  and {} more: ask for them with ?max=", core.left_out);
        }
    }
    out
}

/// One cell that is wider moves its own line only.
const WIDE_MAX: usize = 60;

/// Which column names the queue.
const QUEUE: usize = 4;

fn row(task: &doc::Task) -> [String; 8] {
    let waits: Vec<&str> = task.waits_for.iter().map(|wait| wait.text.as_str()).collect();
    let age = Duration::from_millis(task.age_ns / 1_000_000);
    [
        task.id.clone(),
        task.state.clone(),
        if task.spawned_at.is_some() {
            format!("{:.1} s", age.as_secs_f64())
        } else {
            "-".to_owned()
        },
        task.name.clone().unwrap_or_else(|| "-".to_owned()),
        task.queue.as_ref().map_or("-".to_owned(), |queue| format!("queue {queue}")),
        if waits.is_empty() { "-".to_owned() } else { waits.join(" or ") },
        task.spawned_at.clone().unwrap_or_else(|| "main".to_owned()),
        task.parent.as_ref().map_or(String::new(), |parent| format!("by {parent}")),
    ]
}

fn ns(d: Duration) -> u64 {
    d.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_line_for_each_task_and_says_what_is_missing() {
        let sleeper = doc::Task {
            id: "0.1.1".into(),
            name: Some("nap".into()),
            parent: Some("0.0.1".into()),
            spawned_at: Some("src/main.rs:7:9".into()),
            queue: None,
            age_ns: 1_500_000_000,
            state: "waiting".into(),
            waits_for: vec![doc::Wait { text: "a timer in 1 s".into(), ..Default::default() }],
        };
        let batch = doc::Task { queue: Some("batch".into()), ..sleeper.clone() };
        let main = doc::Task { id: "0.0.1".into(), state: "running".into(), ..Default::default() };
        let cores = vec![
            doc::CoreTasks {
                tasks: vec![main.clone(), sleeper],
                left_out: 3,
                ..Default::default()
            },
            of_core(1, Err(PostError::CoreGone)),
        ];
        let expected = "\
core 0: 5 tasks
  0.0.1  running  -      -    -               main
  0.1.1  waiting  1.5 s  nap  a timer in 1 s  src/main.rs:7:9  by 0.0.1
  and 3 more: ask for them with ?max=
core 1: the core has ended
";
        assert_eq!(text(&doc::Tasks { cores, ..Default::default() }), expected);
        let cores = vec![doc::CoreTasks { tasks: vec![main, batch], ..Default::default() }];
        let expected = "\
core 0: 2 tasks
  0.0.1  running  -      -    -            -               main
  0.1.1  waiting  1.5 s  nap  queue batch  a timer in 1 s  src/main.rs:7:9  by 0.0.1
";
        assert_eq!(text(&doc::Tasks { cores, ..Default::default() }), expected);
    }
}
