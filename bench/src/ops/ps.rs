//! `ps`: the tasks of a running server as a tree.
//!
//! Owns the tree (who spawned whom, within a core), the filter, and the text. A task whose parent has ended
//! stands under its core. On a terminal every line fits, long names, waits and places shortened; elsewhere
//! nothing is, and a long wait moves its own line only.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;

use coreloop_net::ops::doc::{CoreTasks, Task, Tasks};

use crate::cli::ops::PsArgs;
use crate::ops::client;
use crate::report::paint::{Paint, Tone};
use crate::report::table::cut;
use crate::report::units::grouped;
use crate::sys;

/// One cell that is wider moves its own line only.
const WIDE_MAX: usize = 48;
/// Tasks that descend from others for longer stand no further to the right.
const DEPTH_MAX: usize = 64;

/// Asks, filters and prints.
///
/// # Errors
/// In words, if the server can't be asked.
pub fn main(args: &PsArgs) -> Result<ExitCode, String> {
    let path = format!("/tasks?max={}", args.max);
    let mut tasks: Tasks = match args.json {
        true => client::fetch_as_it_is(&args.url, &path)?,
        false => client::fetch(&args.url, &path)?,
    };
    if let Some(text) = &args.filter {
        tasks.cores.iter_mut().for_each(|core| retain(core, text));
    }
    if args.json {
        crate::print(&format!("{}\n", client::json(&tasks)?));
    } else {
        let columns = sys::stdout_columns();
        crate::print(&text(&tasks, args.filter.as_deref(), Paint::of_stdout(), columns));
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps what has `text` somewhere, and who it descends from.
fn retain(core: &mut CoreTasks, text: &str) {
    let text = text.to_lowercase();
    let has = |task: &&Task| {
        let waits = task.waits_for.iter().map(|wait| wait.text.as_str());
        let optional = [&task.name, &task.spawned_at].into_iter().flatten().map(String::as_str);
        let all = waits.chain(optional).chain([task.id.as_str(), task.state.as_str()]);
        all.into_iter().any(|part| part.to_lowercase().contains(&text))
    };
    let parents: HashMap<&str, Option<&str>> =
        core.tasks.iter().map(|task| (task.id.as_str(), task.parent.as_deref())).collect();
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for task in core.tasks.iter().filter(has) {
        let mut next = Some(task.id.as_str());
        // A line of parents ends, or meets one that was kept before.
        while let Some(id) = next.filter(|id| kept.insert((*id).to_owned())) {
            next = parents.get(id).copied().flatten();
        }
    }
    core.tasks.retain(|task| kept.contains(&task.id));
}

/// All cores, each as a tree; in so many columns, or as wide as it is.
pub fn text(tasks: &Tasks, filter: Option<&str>, paint: Paint, columns: Option<usize>) -> String {
    let mut out = String::new();
    for core in &tasks.cores {
        let listed = grouped(core.tasks.len() as u64);
        let head = match (&core.missing, filter) {
            (Some(why), _) => format!("core {}: {why}", core.core),
            (None, Some(filter)) => {
                format!("core {}: {listed} tasks with {filter:?} or above", core.core)
            }
            (None, None) => {
                let all = grouped(core.tasks.len().saturating_add(core.left_out) as u64);
                format!("core {}: {all} tasks", core.core)
            }
        };
        out += &paint.tone(if core.missing.is_some() { Tone::Bad } else { Tone::Strong }, &head);
        out.push('\n');
        out += &table(core, paint, columns);
        if core.left_out > 0 {
            let left_out = grouped(core.left_out as u64);
            let more = format!("  {left_out} more are not listed: --max lists more\n");
            out += &paint.tone(Tone::Warn, &more);
        }
    }
    out
}

const HEADS: [&str; 7] = ["ID", "AGE", "POLLS", "STATE", "TASK", "WAITS FOR", "SPAWNED AT"];

/// What may be shortened: a name with its branch, what is waited for, where it was spawned.
const LONG: [usize; 3] = [4, 5, 6];
/// No shorter than this: beyond, nobody could tell one from another.
const SHORT: usize = 9;

fn table(core: &CoreTasks, paint: Paint, columns: Option<usize>) -> String {
    if core.tasks.is_empty() {
        return String::new();
    }
    let tasks = tree(&core.tasks);
    let rows: Vec<[String; 7]> =
        tasks.iter().map(|(branch, task)| cells(branch, task, usize::MAX)).collect();
    let widest = |column: usize, most: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count().min(most));
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 7] = match columns {
        Some(columns) => fitted(std::array::from_fn(|at| widest(at, usize::MAX)), columns),
        None => std::array::from_fn(|at| widest(at, WIDE_MAX)),
    };
    let line = |cells: [&str; 7]| {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(0..) {
            if width == 0 {
                continue;
            }
            // Numbers: their ends stand below each other.
            if matches!(column, 1 | 2) {
                line += &format!("  {cell:>width$}");
            } else {
                line += &format!("  {cell:<width$}");
            }
        }
        let line = line.trim_end();
        columns.map_or_else(|| line.to_owned(), |columns| cut(line, columns))
    };
    let mut out = paint.tone(Tone::Dim, &line(HEADS));
    out.push('\n');
    for ((branch, task), mut row) in tasks.into_iter().zip(rows) {
        if columns.is_some() {
            row[4] = cells(branch.as_str(), task, widths[4])[4].clone();
            row[5] = cut(&row[5], widths[5]);
            row[6] = place_within(&row[6], widths[6]);
        }
        out += &line(row.each_ref().map(String::as_str));
        out.push('\n');
    }
    out
}

/// What a task's row says; its name with the branch in at most `room` characters.
fn cells(branch: &str, task: &Task, room: usize) -> [String; 7] {
    let waits: Vec<&str> = task.waits_for.iter().map(|wait| wait.text.as_str()).collect();
    let main = task.spawned_at.is_none();
    let name = match &task.name {
        Some(name) => name.as_str(),
        None if main => "(main)",
        None => "·",
    };
    [
        task.id.clone(),
        if main { "-".to_owned() } else { age(task.age_ns) },
        task.polls.map_or("-".to_owned(), grouped),
        task.state.clone(),
        cut(&format!("{}{name}", branch_within(branch, room, name)), room),
        if waits.is_empty() { "-".to_owned() } else { waits.join(" or ") },
        task.spawned_at.as_deref().map_or(String::new(), place),
    ]
}

/// Left out, one after the other, where even the shortened ones have no room: the place, the polls.
const SPARE: [usize; 2] = [6, 2];

/// The widths of a table that fits, as far as it can: the widest of those that may be shortened is, again and
/// again. A column that is left out has none.
fn fitted(widths: [usize; 7], columns: usize) -> [usize; 7] {
    let taken = |widths: &[usize; 7]| {
        widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>()
    };
    let mut whole = widths;
    let mut fitted = shortened(whole, columns, taken);
    for at in SPARE {
        if taken(&fitted) <= columns {
            break;
        }
        whole[at] = 0;
        fitted = shortened(whole, columns, taken);
    }
    fitted
}

fn shortened(
    mut widths: [usize; 7],
    columns: usize,
    taken: impl Fn(&[usize; 7]) -> usize,
) -> [usize; 7] {
    // Of one that is far beyond the others nothing beyond the whole line is of use.
    LONG.iter().for_each(|at| widths[*at] = widths[*at].min(columns));
    while taken(&widths) > columns {
        let long = LONG.into_iter().filter(|at| widths[*at] > SHORT);
        let Some(widest) = long.max_by_key(|at| widths[*at]) else { break };
        widths[widest] -= 1;
    }
    widths
}

/// A branch without its beginning, where its name needs the room.
fn branch_within(branch: &str, room: usize, name: &str) -> String {
    let (wide, named) = (branch.chars().count(), name.chars().count());
    let left = room.saturating_sub(named).max("…└─ ".chars().count());
    if wide <= left {
        return branch.to_owned();
    }
    let skipped = wide - left.saturating_sub(1);
    format!("…{}", branch.chars().skip(skipped).collect::<String>())
}

/// Of a long path the file says most; and of a file that is longer yet, its end.
pub fn place_within(place: &str, room: usize) -> String {
    if place.chars().count() <= room {
        return place.to_owned();
    }
    if room == 0 {
        return String::new();
    }
    let file = place.rsplit('/').next().unwrap_or_default();
    let wide = file.chars().count();
    if wide <= room {
        return file.to_owned();
    }
    let end: String = file.chars().skip(wide - room.saturating_sub(1)).collect();
    format!("…{end}")
}

/// Each task with the branch that leads to it, parents before their children.
fn tree(tasks: &[Task]) -> Vec<(String, &Task)> {
    let known: HashMap<&str, usize> =
        tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
    let parent = |task: &Task| {
        let parent = task.parent.as_deref().and_then(|id| known.get(id).copied());
        parent.filter(|parent| tasks[*parent].id != task.id)
    };
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    let mut roots = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        match parent(task) {
            Some(parent) => children[parent].push(at),
            None => roots.push(at),
        }
    }
    let mut rows = Vec::with_capacity(tasks.len());
    // By hand and not by recursion: a chain of tasks may be as long as there are tasks.
    let mut next: Vec<(usize, String, String)> =
        roots.into_iter().rev().map(|root| (root, String::new(), String::new())).collect();
    while let Some((at, branch, below)) = next.pop() {
        rows.push((branch, &tasks[at]));
        let last = children[at].len().saturating_sub(1);
        for (nth, child) in children[at].iter().enumerate().rev() {
            let (here, under) = if nth == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let deeper = if below.chars().count() < 3 * DEPTH_MAX { under } else { "" };
            next.push((*child, format!("{below}{here}"), format!("{below}{deeper}")));
        }
    }
    rows
}

/// An age as one reads it: `12.3 s`, `4m 05s`, `3h 07m`, `2d 04h`.
pub fn age(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 => format!("{} ms", ns / 1_000_000),
        1..60 => format!("{:.1} s", ns as f64 / 1e9),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Where a task was spawned, without the folders that only this machine's cargo knows.
pub fn place(spawned_at: &str) -> String {
    let after = spawned_at
        .split_once("/registry/src/")
        .map_or(spawned_at, |(_, rest)| rest.split_once('/').map_or(rest, |(_, rest)| rest));
    after.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, parent: Option<&str>, name: Option<&str>, wait: &str) -> Task {
        let json = serde_json::json!({
            "id": id, "parent": parent, "name": name, "age_ns": 61_000_000_000u64, "polls": 1234, "state": "waiting",
            "spawned_at": parent.map(|_| "src/main.rs:7:9"), "waits_for": [{ "text": wait }],
        });
        serde_json::from_value(json).unwrap()
    }

    fn tasks() -> Tasks {
        let mut core = CoreTasks::default();
        core.tasks = vec![
            task("0.0.1", None, None, "accept on descriptor 9"),
            task("0.1.1", Some("0.0.1"), Some("session"), "task 0.2.1"),
            task("0.2.1", Some("0.1.1"), None, "recv on descriptor 12"),
            task("0.3.1", Some("0.0.1"), Some("ops"), "accept on descriptor 8"),
            task("0.4.9", Some("0.9.9"), Some("orphan"), "a mutex"),
        ];
        core.left_out = 2;
        let mut gone = CoreTasks::default();
        (gone.core, gone.missing) = (1, Some("the core has ended".into()));
        let mut tasks = Tasks::default();
        tasks.cores = vec![core, gone];
        tasks
    }

    #[test]
    fn tasks_stand_under_who_spawned_them() {
        let expected = "\
core 0: 7 tasks
  ID        AGE  POLLS  STATE    TASK        WAITS FOR               SPAWNED AT
  0.0.1       -  1,234  waiting  (main)      accept on descriptor 9
  0.1.1  1m 01s  1,234  waiting  ├─ session  task 0.2.1              src/main.rs:7:9
  0.2.1  1m 01s  1,234  waiting  │  └─ ·     recv on descriptor 12   src/main.rs:7:9
  0.3.1  1m 01s  1,234  waiting  └─ ops      accept on descriptor 8  src/main.rs:7:9
  0.4.9  1m 01s  1,234  waiting  orphan      a mutex                 src/main.rs:7:9
  2 more are not listed: --max lists more
core 1: the core has ended
";
        assert_eq!(text(&tasks(), None, Paint::plain(), None), expected);
    }

    #[test]
    fn every_line_fits_the_terminal() {
        let mut tasks = tasks();
        let core = &mut tasks.cores[0].tasks;
        for (at, depth) in (5..35).zip(1..) {
            let parent = if depth == 1 { "0.3.1".to_owned() } else { format!("0.{}.1", at - 1) };
            let name = format!("the task number {depth} of a long line");
            let wait = "recv on descriptor 1234567 or a timer in 12.345 s or a message of the core";
            core.push(task(&format!("0.{at}.1"), Some(&parent), Some(&name), wait));
            core.last_mut().unwrap().spawned_at =
                Some("/home/somebody/projects/server/src/connection/handler.rs:1234:56".into());
        }
        for columns in [80, 120] {
            let text = text(&tasks, None, Paint::plain(), Some(columns));
            let wide: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert!(wide.iter().all(|wide| *wide <= columns), "{columns}: {text}");
            assert!(wide.iter().any(|wide| *wide > columns - 12), "the room is used: {text}");
            for part in
                ["…└─ the task", "recv on descr", "r.rs:1234:56", "  0.34.1  1m 01s  1,234  "]
            {
                assert!(text.contains(part), "{columns}, {part}: {text}");
            }
        }
        let narrow = text(&tasks, None, Paint::plain(), Some(60));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        assert!(!narrow.contains("SPAWNED") && !narrow.contains("r.rs:1"), "{narrow}");
        let cells =
            narrow.lines().filter(|line| line.contains("…└─ the ") && line.contains("recv on"));
        assert!(cells.count() > 20, "what is left has room: {narrow}");
        // Elsewhere nothing is cut.
        let piped = text(&tasks, None, Paint::plain(), None);
        assert!(!piped.contains('…'), "{piped}");
        assert!(piped.lines().any(|line| line.chars().count() > 200));
        assert!(
            text(&tasks, None, Paint::plain(), Some(20)).lines().count() > 30,
            "no room at all"
        );
    }

    #[test]
    fn a_filter_keeps_matches_and_their_ancestors() {
        let mut tasks = tasks();
        retain(&mut tasks.cores[0], "RECV");
        let ids: Vec<&str> = tasks.cores[0].tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["0.0.1", "0.1.1", "0.2.1"]);
        assert!(
            text(&tasks, Some("RECV"), Paint::plain(), None)
                .starts_with("core 0: 3 tasks with \"RECV\" or above\n")
        );
        retain(&mut tasks.cores[0], "nothing of the kind");
        assert!(tasks.cores[0].tasks.is_empty());
    }

    /// Where they come from the server: the answer is made printable as it is read.
    #[test]
    fn names_reach_no_terminal_raw_and_split_no_row() {
        let name = r"a\u001b[31m\nb\u202e\u009b";
        let body = format!(
            r#"{{"schema_version":1,"pid":1,"cores":[{{"core":0,"tasks":[
            {{"id":"0.1.1","name":"{name}","state":"waiting","spawned_at":"a\nb"}}]}}]}}"#
        );
        let tasks: Tasks = client::shown(&format!("HTTP/1.1 200 OK\r\n\r\n{body}")).unwrap();
        let text = text(&tasks, None, Paint::plain(), None);
        assert!(text.contains(r"a\u{1b}[31m\u{a}b\u{202e}\u{9b}"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn a_circle_of_parents_does_not_hang() {
        let own = [task("0.1.1", Some("0.1.1"), None, "x")];
        assert_eq!(tree(&own).len(), 1);
    }

    #[test]
    fn ages_and_places_are_short() {
        assert_eq!(age(12_345_000_000), "12.3 s");
        assert_eq!(age(900_000_000), "900 ms");
        assert_eq!(age(3_600_000_000_000), "1h 00m");
        assert_eq!(age(200_000_000_000_000), "2d 07h");
        assert_eq!(
            place("/home/u/.cargo/registry/src/index-1/hyper-1.0/src/a.rs:1:2"),
            "hyper-1.0/src/a.rs:1:2"
        );
        assert_eq!(place("src/main.rs:7:9"), "src/main.rs:7:9");
    }
}
