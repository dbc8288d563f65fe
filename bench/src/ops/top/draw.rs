//! One frame of `top`.
//!
//! Owns where everything stands, at any size, and what colours mean. Colour only ever repeats what the words
//! and marks say: without it the frame is the same text. Knows neither keys nor the network.

use coreloop::CoreState;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::cli::parse::Human;
use crate::ops::ps::{age, place, place_within};
use crate::ops::top::columns::{self, Column};
use crate::ops::top::model::{CoreView, QueueView, View};
use crate::ops::top::state::State;
use crate::ops::top::tasks::{Order, TaskRow};
use crate::report::table::cut;
use crate::report::units::{grouped, percent, time_ns};

/// Lines above the cores: three of facts, an empty one, the heads.
const ABOVE: u16 = 5;
/// Lines around the tasks: an empty one, a title, perhaps what is missing, the heads.
const BETWEEN: u16 = 4;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// On a terminal, without NO_COLOR.
    pub colour: bool,
}

impl Theme {
    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Of a share of busy time.
    fn load(self, busy: f64) -> Style {
        match busy {
            busy if busy >= 0.95 => self.of(Color::Red),
            busy if busy >= 0.8 => self.of(Color::Yellow),
            _ => self.of(Color::Green),
        }
    }
}

/// Draws all of it.
pub fn frame(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let rows = area.height.saturating_sub(1);
    let mut lines = Vec::new();
    match &state.view {
        Some(view) => {
            lines.extend(facts(view, state, theme));
            let queues = queues(view, theme);
            let around = usize::from(ABOVE + BETWEEN) + queues.len();
            let room = usize::from(rows).saturating_sub(around);
            lines.extend(cores(view, state, usize::from(area.width), room, theme));
            lines.extend(queues);
            let left = usize::from(rows).saturating_sub(lines.len());
            lines.extend(tasks(state, usize::from(area.width), left, theme));
        }
        None => lines.extend(nothing_yet(state, usize::from(area.width), theme)),
    }
    lines.truncate(usize::from(rows));
    frame.render_widget(Paragraph::new(lines), Rect { height: rows, ..area });
    if area.height > 0 {
        let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(keys(state, theme)), bottom);
    }
    if state.help {
        help(frame, area, theme);
    }
}

/// Lines that a frame of everything takes, without the keys.
pub fn height(state: &State) -> u16 {
    let cores = state.view.as_ref().map_or(0, |view| view.cores.len());
    let tasks = state.tasks.as_ref().map_or(1, |tasks| tasks.rows.len());
    let queues = state.view.as_ref().map_or(0, |view| queues(view, Theme { colour: false }).len());
    let lines = usize::from(ABOVE + BETWEEN) + cores + queues + tasks;
    u16::try_from(lines).unwrap_or(u16::MAX)
}

fn facts<'a>(view: &'a View, state: &'a State, theme: Theme) -> [Line<'a>; 4] {
    let process = &view.process;
    let ready = match (&state.notice, view.ready) {
        // What it said last is not what it is.
        (Some(_), _) => Span::styled("NO ANSWER", theme.bad()),
        (None, true) => Span::styled("ready", theme.of(Color::Green)),
        (None, false) => Span::styled("NOT READY", theme.bad()),
    };
    let running = view.cores.iter().filter(|core| core.state != CoreState::Ended).count();
    let of = if running == view.cores.len() { String::new() } else { format!("{running} of ") };
    let files = match (process.open_files, process.open_files_max) {
        (Some(open), Some(max)) => format!("   files {} of {}", grouped(open), grouped(max)),
        (Some(open), None) => format!("   files {}", grouped(open)),
        (None, _) => String::new(),
    };
    let notice = match (&state.notice, state.paused) {
        (Some(notice), _) => Line::styled(format!(" {notice}"), theme.bad()),
        (None, true) => Line::styled(" paused: p goes on", theme.strong()),
        (None, false) => Line::default(),
    };
    [
        Line::from(vec![
            Span::styled(" coreloop top", theme.strong()),
            Span::raw("   "),
            ready,
            Span::raw(format!("   {}   {} ({})", view.url, process.name, process.pid)),
            Span::raw(format!("   up {}", age(process.age_ns))),
        ]),
        Line::raw(format!(" {of}{} cores   {}", view.cores.len(), work(view))),
        Line::raw(format!(
            " process   CPU {}   memory {}{files}",
            percent(view.process_cpu * 100.0),
            memory(process.resident_bytes),
        )),
        notice,
    ]
}

/// What the cores do, if they count it.
fn work(view: &View) -> String {
    let Some(busy) = view.busy() else {
        return "busy unknown (stats off)   so are all rates: --stats counters".to_owned();
    };
    let rate = |name| grouped(view.rate(name).unwrap_or_default().round() as u64);
    format!(
        "busy {}   {} polls/s   {} enters/s   {} accepts/s",
        percent(busy * 100.0),
        rate("polls"),
        rate("enters"),
        rate("accepts"),
    )
}

/// Queues that are listed.
const QUEUES_MAX: usize = 6;

/// Task queues, if there are several: an empty line, heads, a line for each.
fn queues<'a>(view: &View, theme: Theme) -> Vec<Line<'a>> {
    if view.queues.is_empty() {
        return Vec::new();
    }
    let heads = format!(
        " {:<24} {:>7} {:>5} {:>7} {:>9} {:>6}",
        "TASK QUEUE", "SHARES", "CORES", "TASKS", "POLLS/S", "CPU"
    );
    let mut lines = vec![Line::default(), Line::styled(heads, theme.dim())];
    let hidden = view.queues.len().saturating_sub(QUEUES_MAX);
    let shown = if hidden > 0 { QUEUES_MAX - 1 } else { view.queues.len() };
    lines.extend(view.queues.iter().take(shown).map(|queue| Line::raw(queue_line(queue))));
    if hidden > 0 {
        let text = format!(" {} more queues: /metrics has them all", view.queues.len() - shown);
        lines.push(Line::styled(text, theme.dim()));
    }
    lines
}

fn queue_line(queue: &QueueView) -> String {
    format!(
        " {:<24} {:>7} {:>5} {:>7} {:>9} {:>6}",
        cut(&queue.name, 24),
        grouped(queue.shares.into()),
        queue.cores,
        grouped(queue.tasks),
        grouped(queue.polls.round() as u64),
        percent(queue.cpu_use * 100.0),
    )
}

fn cores<'a>(view: &View, state: &State, width: usize, room: usize, theme: Theme) -> Vec<Line<'a>> {
    let columns = columns::fitting(width);
    let mut heads = String::new();
    for (column, wide) in &columns {
        heads.push(' ');
        heads += &column.aligned(column.head(state), *wide);
    }
    let mut lines = vec![Line::styled(heads, theme.dim())];
    // The tasks keep a third of the room if the cores would take all of it.
    let shown = room.min(view.cores.len()).min((room * 2 / 3).max(1));
    let from = state.scroll.min(view.cores.len().saturating_sub(shown));
    for core in view.cores.iter().skip(from).take(shown) {
        lines.push(core_line(core, state, &columns, theme));
    }
    let hidden = view.cores.len().saturating_sub(from + shown);
    if hidden > 0 || from > 0 {
        let text = format!(" {from} cores above, {hidden} below: arrows move");
        lines.pop();
        lines.push(Line::styled(text, theme.dim()));
    }
    lines
}

fn core_line<'a>(
    core: &CoreView,
    state: &State,
    columns: &[(Column, usize)],
    theme: Theme,
) -> Line<'a> {
    let mut spans = Vec::new();
    for (column, wide) in columns {
        spans.push(Span::raw(" "));
        if *column == Column::Time {
            spans.extend(bar(core, *wide, theme));
            continue;
        }
        let text = column.aligned(&column.cell(core, state, *wide), *wide);
        let style = match column {
            Column::Busy => theme.load(core.busy.unwrap_or_default()),
            Column::Spark => theme.of(Color::Cyan),
            Column::Core if is_silent(core) => theme.bad(),
            _ => Style::new(),
        };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

/// Whether a core did not answer at the last look.
pub fn is_silent(core: &CoreView) -> bool {
    core.state.answers() && core.answered_s > 2.0
}

/// Work as full blocks, spinning as shades, sleep as dots.
fn bar<'a>(core: &CoreView, wide: usize, theme: Theme) -> Vec<Span<'a>> {
    if !core.state.answers() {
        return vec![Span::styled(format!("{:<wide$}", core.state.to_string()), theme.dim())];
    }
    let Some(share) = core.busy else {
        let words = ["unknown (stats off)", "stats off"].into_iter().find(|w| w.len() <= wide);
        return vec![Span::styled(format!("{:<wide$}", words.unwrap_or_default()), theme.dim())];
    };
    let cells = |share: f64| (share * wide as f64).round() as usize;
    // What is there at all is seen: a single cell.
    let busy = cells(share).max(usize::from(share > 0.001)).min(wide);
    let spun = cells(share + core.spinning).clamp(busy, wide) - busy;
    vec![
        Span::styled("█".repeat(busy), theme.load(share)),
        Span::styled("▒".repeat(spun), theme.of(Color::Blue)),
        Span::styled("·".repeat(wide - busy - spun), theme.dim()),
    ]
}

fn tasks<'a>(state: &State, width: usize, room: usize, theme: Theme) -> Vec<Line<'a>> {
    if room < usize::from(BETWEEN) {
        return Vec::new();
    }
    let mut lines = vec![Line::default()];
    let Some(tasks) = &state.tasks else {
        let text = state.tasks_note.clone().unwrap_or_else(|| "the tasks are being read".into());
        lines.push(Line::styled(format!(" {text}"), theme.dim()));
        return lines;
    };
    let timed = state.view.as_ref().is_some_and(|view| view.timed);
    lines.push(Line::styled(cut(&task_title(state, tasks.total, timed), width), theme.strong()));
    lines.extend(task_note(state, timed).map(|note| Line::styled(format!(" {note}"), theme.dim())));
    let (name, wait) = task_widths(width, timed);
    let longest = if timed { format!(" {:>8}", "LONGEST") } else { String::new() };
    let place = if width < PLACED_MIN { "" } else { " SPAWNED AT" };
    let heads = format!(
        " {:>6} {:>8}{longest}  {:<name$} {:<wait$}{place}",
        "COUNT", "OLDEST", "NAME", "WAITS FOR"
    );
    lines.push(Line::styled(heads, theme.dim()));
    let left = room - lines.len();
    lines.extend(tasks.rows.iter().take(left).map(|row| Line::raw(task_line(row, timed, width))));
    lines
}

/// How many there are, and in which order the rows stand.
fn task_title(state: &State, total: Option<u64>, timed: bool) -> String {
    let order = match (state.order, timed) {
        (Order::Slowest, true) => "the longest poll of the last 20 s first",
        _ => "the oldest first",
    };
    let how = if state.grouped { "by place of spawning" } else { "one by one" };
    let total = total.map_or("tasks".into(), |total| format!("{} tasks", grouped(total)));
    format!(" {total} {how}, {order}")
}

/// What is missing of them.
fn task_note(state: &State, timed: bool) -> Option<&str> {
    match (&state.tasks_note, timed) {
        (Some(note), _) => Some(note),
        (None, false) => {
            Some("the longest polls are known at the server's level --stats histograms")
        }
        (None, true) => None,
    }
}

/// Columns from which on a task's place is shown.
const PLACED_MIN: usize = 72;

/// Of the name and of the wait; the place takes the rest, where there is any.
fn task_widths(width: usize, timed: bool) -> (usize, usize) {
    let before = if timed { 28 } else { 19 };
    match width {
        ..PLACED_MIN => (14, width.saturating_sub(before + 14).max(8)),
        PLACED_MIN..100 => (14, 20),
        _ => (24, 32),
    }
}

fn task_line(row: &TaskRow, timed: bool, width: usize) -> String {
    let (name_wide, wait_wide) = task_widths(width, timed);
    let (name, wait) = (cut(&row.name, name_wide), cut(&row.wait, wait_wide));
    let count = grouped(row.count as u64);
    let age = row.oldest_ns.map_or("-".into(), age);
    let longest = match (timed, row.longest_ns) {
        (false, _) => String::new(),
        (true, ns) => format!(" {:>8}", ns.map_or("-".into(), |ns| time_ns(ns as f64))),
    };
    let line = format!(" {count:>6} {age:>8}{longest}  {name:<name_wide$} {wait:<wait_wide$}");
    if width < PLACED_MIN {
        return line;
    }
    let room = width.saturating_sub(line.chars().count() + 1);
    line + " " + &place_within(&place(&row.place), room)
}

/// A size to three digits.
fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        mib if mib < 99.95 => format!("{mib:.1} MiB"),
        mib if mib < 1023.5 => format!("{mib:.0} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

fn nothing_yet<'a>(state: &'a State, width: usize, theme: Theme) -> Vec<Line<'a>> {
    let first = Line::styled(format!(" coreloop top   {}", state.url), theme.strong());
    let mut lines = vec![first, Line::default()];
    match &state.notice {
        Some(notice) => {
            let rows = wrapped(notice, width.saturating_sub(2));
            lines.extend(rows.into_iter().map(|row| Line::styled(format!(" {row}"), theme.bad())));
        }
        None => lines.push(Line::raw(" two looks make a frame: a moment")),
    }
    lines
}

/// Words in lines of at most `width`; a longer word has its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split_whitespace() {
        let row = rows.last_mut().expect("there is one from the beginning");
        if row.is_empty() {
            word.clone_into(row);
        } else if row.chars().count() + 1 + word.chars().count() <= width {
            *row += &format!(" {word}");
        } else {
            rows.push(word.to_owned());
        }
    }
    rows
}

fn keys<'a>(state: &State, theme: Theme) -> Line<'a> {
    let mut spans = Vec::new();
    for (key, what) in [
        ("q", "quit".to_owned()),
        ("sr", format!("sort: {}", state.sort.as_str())),
        ("g", "group".into()),
        ("o", "order".into()),
        ("t", "tasks".into()),
        ("p", "pause".into()),
        ("+-", Human(state.interval).to_string()),
        ("h", "help".into()),
    ] {
        spans.push(Span::raw(" "));
        spans.push(Span::styled(key, theme.strong().add_modifier(Modifier::REVERSED)));
        spans.push(Span::raw(format!(" {what} ")));
    }
    Line::from(spans)
}

const HELP: &[&str] = &[
    " q, Esc, Ctrl-C   quit",
    " s, r             sort the cores by the next column; reverse",
    " arrows           move through the cores",
    " g                tasks by place, or one by one",
    " o                the longest polls first, or the oldest tasks",
    " t                read the tasks now",
    " p, space         pause",
    " + -              twice as often, half as often",
    " h, ?             this help",
    "",
    " █ work   ▒ spinning, waiting   · asleep",
    " BUSY and p99 are of the last interval. Latencies need the",
    " level `histograms` of the setting `stats`. A core with a !",
    " did not answer: a task keeps it, and its gauges are old.",
];

fn help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let (width, height) = (62, HELP.len() as u16 + 2);
    let over = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width: width.min(area.width),
        height: height.min(area.height),
    };
    frame.render_widget(Clear, over);
    let block = Block::bordered().title(" help: any key closes it ").border_style(theme.dim());
    frame.render_widget(Paragraph::new(HELP.join("\n")).block(block), over);
}
