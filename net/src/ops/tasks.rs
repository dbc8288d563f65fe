//! Tasks as a document, or as text, in pieces.
//!
//! Owns the form of a list of tasks, for programs and for a person with curl. Invariants: a list of
//! any length is made in pieces of [`PIECE`] tasks at most, one a poll, of pages of [`PAGE`] tasks at
//! most, one in memory at a time. Knows neither connections nor requests.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use coreloop::task::{TaskInfo, TaskState, WaitsFor};
use coreloop::time::timeout;
use coreloop::{Handle, PostError, TaskList, TaskPlace, yield_now};
use serde::Serialize;

use super::doc::{self, SCHEMA_VERSION};
use super::http::{JSON, PLAIN};

/// Tasks that a core is asked for at a time: it reads all its operations and timers for each page.
const PAGE: usize = 10_000;
/// Tasks that are put into words in one poll.
const PIECE: usize = 64;

/// A list of tasks that is made while it is taken.
pub(super) struct TaskPages {
    handle: Handle,
    /// Those to come, the one that is being told of among them.
    cores: Range<usize>,
    silent: Vec<usize>,
    max: usize,
    limit: Duration,
    form: Form,
    stage: Stage,
}

enum Stage {
    Begin,
    /// The next of the cores has not been asked.
    Core,
    /// What is left of a page.
    Page(Page),
    End,
}

struct Page {
    tasks: std::vec::IntoIter<TaskInfo>,
    /// How many more may be listed.
    room: usize,
    left_out: usize,
    rest: Option<TaskPlace>,
}

impl TaskPages {
    /// Of these cores at most `max` tasks each, in text or JSON. Those that are `silent` are not asked, the
    /// others have `limit` for each page.
    pub(super) fn new(
        handle: Handle,
        cores: Range<usize>,
        silent: Vec<usize>,
        max: usize,
        limit: Duration,
        json: bool,
    ) -> Self {
        let form =
            if json { Form::Json { more_tasks: false } } else { Form::Text(Columns::default()) };
        Self { handle, cores, silent, max, limit, form, stage: Stage::Begin }
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.form {
            Form::Json { .. } => JSON,
            Form::Text(_) => PLAIN,
        }
    }

    /// The next piece; none after the last.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            let mut out = String::new();
            match std::mem::replace(&mut self.stage, Stage::End) {
                Stage::Begin => {
                    self.form.begin(&mut out);
                    self.stage = Stage::Core;
                }
                Stage::Core if self.cores.is_empty() => self.form.end(&mut out),
                Stage::Core => {
                    let core = self.cores.start;
                    match self.ask(TaskPlace::default(), self.max).await {
                        Ok(list) => {
                            let tasks = list.tasks.len() + list.left_out;
                            self.form.core_begins(core, Ok(tasks), &mut out);
                            self.page(list, self.max).await;
                        }
                        Err(why) => {
                            self.form.core_begins(core, Err(&why), &mut out);
                            self.core_ends(Some(&why), 0, &mut out);
                        }
                    }
                }
                Stage::Page(mut page) => {
                    yield_now().await;
                    for task in page.tasks.by_ref().take(PIECE) {
                        self.form.task(&task, &mut out);
                    }
                    if page.tasks.len() > 0 {
                        self.stage = Stage::Page(page);
                    } else if let Some(from) = page.rest.filter(|_| page.room > 0) {
                        match self.ask(from, page.room).await {
                            Ok(list) => self.page(list, page.room).await,
                            Err(why) => self.core_ends(Some(&why), page.left_out, &mut out),
                        }
                    } else {
                        self.core_ends(None, page.left_out, &mut out);
                    }
                }
                Stage::End => return None,
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
    }

    async fn ask(&self, from: TaskPlace, room: usize) -> Result<TaskList, PostError> {
        let (core, limit) = (self.cores.start, self.limit);
        if self.silent.contains(&core) {
            return Err(PostError::NoAnswer { limit });
        }
        let asked = self.handle.tasks_from(core, from, room.min(PAGE));
        timeout(limit, asked).await.unwrap_or(Err(PostError::NoAnswer { limit }))
    }

    async fn page(&mut self, list: TaskList, room: usize) {
        for tasks in list.tasks.chunks(PIECE) {
            self.form.see(tasks);
            yield_now().await;
        }
        let room = room - list.tasks.len();
        let (left_out, rest) = (list.left_out, list.rest);
        self.stage = Stage::Page(Page { tasks: list.tasks.into_iter(), room, left_out, rest });
    }

    fn core_ends(&mut self, why: Option<&PostError>, left_out: usize, out: &mut String) {
        let _ = self.cores.next();
        self.form.core_ends(why, left_out, !self.cores.is_empty(), out);
        self.stage = Stage::Core;
    }
}

/// How it is written.
enum Form {
    /// A [`doc::Tasks`].
    Json {
        more_tasks: bool,
    },
    Text(Columns),
}

impl Form {
    fn begin(&self, out: &mut String) {
        if let Self::Json { .. } = self {
            let pid = std::process::id();
            let _ = write!(out, "{{\"schema_version\":{SCHEMA_VERSION},\"pid\":{pid},\"cores\":[");
        }
    }

    fn end(&self, out: &mut String) {
        if let Self::Json { .. } = self {
            out.push_str("]}\n");
        }
    }

    fn core_begins(&mut self, core: usize, tasks: Result<usize, &PostError>, out: &mut String) {
        match self {
            Self::Json { more_tasks } => {
                *more_tasks = false;
                let _ = write!(out, "{{\"core\":{core},\"tasks\":[");
            }
            Self::Text(columns) => {
                *columns = Columns::default();
                let _ = match tasks {
                    Ok(tasks) => writeln!(out, "core {core}: {tasks} tasks"),
                    Err(why) => writeln!(out, "core {core}: {why}"),
                };
            }
        }
    }

    fn core_ends(&self, why: Option<&PostError>, left_out: usize, more: bool, out: &mut String) {
        match (self, why) {
            (Self::Json { .. }, _) => {
                let why = json(&why.map(ToString::to_string));
                let comma = if more { "," } else { "" };
                let _ = write!(out, "],\"missing\":{why},\"left_out\":{left_out}}}{comma}");
            }
            (Self::Text(_), Some(why)) if left_out > 0 => {
                let _ = writeln!(out, "  and {left_out} more: {why}");
            }
            (Self::Text(_), None) if left_out > 0 => {
                let _ = writeln!(out, "  and {left_out} more: ask for them with ?max=");
            }
            (Self::Text(_), _) => {}
        }
    }

    /// Tasks that will be written.
    fn see(&mut self, tasks: &[TaskInfo]) {
        if let Self::Text(columns) = self {
            tasks.iter().for_each(|info| columns.see(&task(info)));
        }
    }

    fn task(&mut self, info: &TaskInfo, out: &mut String) {
        let task = task(info);
        match self {
            Self::Json { more_tasks } => {
                if std::mem::replace(more_tasks, true) {
                    out.push(',');
                }
                out.push_str(&json(&task));
            }
            Self::Text(columns) => columns.write(&task, out),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, words and lists: nothing of it could be refused")
}

fn task(info: &TaskInfo) -> doc::Task {
    doc::Task {
        id: info.id.to_string(),
        name: info.name.as_ref().map(|name| name.to_string()),
        parent: info.parent.map(|parent| parent.to_string()),
        queue: info.queue.as_ref().map(|queue| queue.to_string()),
        spawned_at: info.spawned_at.map(ToString::to_string),
        age_ns: ns(info.age),
        polls: info.polls,
        state: match info.state {
            TaskState::Running => "running",
            TaskState::Ready => "ready",
            TaskState::Waiting => "waiting",
            _ => "unknown",
        }
        .to_owned(),
        waits_for: info.waits_for.iter().map(wait).collect(),
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

/// One line for each task: id, state, age, polls, name, queue (if any task has another than the default
/// one), what it waits for, where it was spawned, by whom.
#[derive(Default)]
struct Columns {
    widths: [usize; 9],
    queues: bool,
}

impl Columns {
    /// Makes room for a task.
    fn see(&mut self, task: &doc::Task) {
        self.queues |= task.queue.is_some();
        for (width, cell) in self.widths.iter_mut().zip(row(task)) {
            *width = cell.chars().count().min(WIDE_MAX).max(*width);
        }
    }

    fn write(&self, task: &doc::Task, out: &mut String) {
        out.push(' ');
        for (column, (cell, width)) in row(task).iter().zip(self.widths).enumerate() {
            if column == QUEUE && !self.queues {
                continue;
            }
            let _ = write!(out, " {cell:<width$} ");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
}

/// One cell that is wider moves its own line only.
const WIDE_MAX: usize = 60;

/// Which column names the queue.
const QUEUE: usize = 5;

fn row(task: &doc::Task) -> [String; 9] {
    let waits: Vec<&str> = task.waits_for.iter().map(|wait| wait.text.as_str()).collect();
    let age = Duration::from_millis(task.age_ns / 1_000_000);
    let cells = [
        task.id.clone(),
        task.state.clone(),
        if task.spawned_at.is_some() {
            format!("{:.1} s", age.as_secs_f64())
        } else {
            "-".to_owned()
        },
        task.polls.map_or("-".to_owned(), |polls| {
            format!("{polls} poll{}", if polls == 1 { "" } else { "s" })
        }),
        task.name.clone().unwrap_or_else(|| "-".to_owned()),
        task.queue.as_ref().map_or("-".to_owned(), |queue| format!("queue {queue}")),
        if waits.is_empty() { "-".to_owned() } else { waits.join(" or ") },
        task.spawned_at.clone().unwrap_or_else(|| "main".to_owned()),
        task.parent.as_ref().map_or(String::new(), |parent| format!("by {parent}")),
    ];
    // A name may be a peer's, and this is read with curl; a new line in it would be a task more.
    cells.map(|cell| doc::printable(&cell).into_owned())
}

fn ns(d: Duration) -> u64 {
    d.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_line_for_each_task() {
        let sleeper = doc::Task {
            id: "0.1.1".into(),
            name: Some("nap".into()),
            parent: Some("0.0.1".into()),
            spawned_at: Some("src/main.rs:7:9".into()),
            queue: None,
            age_ns: 1_500_000_000,
            polls: Some(12),
            state: "waiting".into(),
            waits_for: vec![doc::Wait { text: "a timer in 1 s".into(), ..Default::default() }],
        };
        let batch = doc::Task { queue: Some("batch".into()), ..sleeper.clone() };
        let main = doc::Task { id: "0.0.1".into(), state: "running".into(), ..Default::default() };
        let text = |task: &doc::Task| {
            let (mut out, mut columns) = (String::new(), Columns::default());
            columns.see(&main);
            columns.see(task);
            columns.write(&main, &mut out);
            columns.write(task, &mut out);
            out
        };
        let expected = "  0.0.1  running  -      -         -    -               main
  0.1.1  waiting  1.5 s  12 polls  nap  a timer in 1 s  src/main.rs:7:9  by 0.0.1
";
        assert_eq!(text(&sleeper), expected);
        let expected = "  0.0.1  running  -      -         -    -            -               main
  0.1.1  waiting  1.5 s  12 polls  nap  queue batch  a timer in 1 s  src/main.rs:7:9  by 0.0.1
";
        assert_eq!(text(&batch), expected);
    }

    #[test]
    fn names_reach_no_terminal_raw_and_split_no_row() {
        let task = doc::Task {
            id: "0.1.1".into(),
            name: Some("a\u{1b}[31m\nb\u{202e}\u{9b}".into()),
            queue: Some("q\r".into()),
            spawned_at: Some("src/\t.rs:7:9".into()),
            waits_for: vec![doc::Wait { text: "a\u{7f}".into(), ..Default::default() }],
            ..Default::default()
        };
        let (mut out, mut columns) = (String::new(), Columns::default());
        columns.see(&task);
        columns.write(&task, &mut out);
        let name = r"a\u{1b}[31m\u{a}b\u{202e}\u{9b}";
        let expected = r"  queue q\u{d}  a\u{7f}  src/\u{9}.rs:7:9";
        assert!(out.ends_with(&format!("  {name}{expected}\n")), "{out:?}");
        assert_eq!(out.lines().count(), 1);
        // JSON has them as they are, in its own writing.
        let back: doc::Task = serde_json::from_str(&json(&task)).unwrap();
        assert_eq!(back.name, task.name);
        assert!(!json(&task).contains(['\u{1b}', '\n']));
    }

    #[test]
    fn cores_without_an_answer_are_in_the_list() {
        let gone = PostError::CoreGone;
        let list = |mut form: Form| {
            let mut out = String::new();
            form.begin(&mut out);
            form.core_begins(0, Ok(5), &mut out);
            form.core_ends(None, 5, true, &mut out);
            form.core_begins(1, Err(&gone), &mut out);
            form.core_ends(Some(&gone), 0, true, &mut out);
            form.core_begins(2, Ok(9), &mut out);
            form.core_ends(Some(&gone), 9, false, &mut out);
            form.end(&mut out);
            out
        };
        let expected = "core 0: 5 tasks\n  and 5 more: ask for them with ?max=\n\
                        core 1: the core has ended\n\
                        core 2: 9 tasks\n  and 9 more: the core has ended\n";
        assert_eq!(list(Form::Text(Columns::default())), expected);
        let tasks: doc::Tasks =
            serde_json::from_str(&list(Form::Json { more_tasks: true })).unwrap();
        let cores =
            tasks.cores.iter().map(|core| (core.core, core.missing.is_some(), core.left_out));
        assert_eq!(cores.collect::<Vec<_>>(), [(0, false, 5), (1, true, 0), (2, true, 9)]);
    }
}
