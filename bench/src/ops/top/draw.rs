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
use crate::ops::ps::{age, place};
use crate::ops::top::columns::{self, Column};
use crate::ops::top::model::{CoreView, TaskRow, View};
use crate::ops::top::state::State;
use crate::report::units::{grouped, percent};

/// Lines above the cores: three of facts, an empty one, the heads.
const ABOVE: u16 = 5;
/// Lines around the tasks: an empty one, a title, the heads.
const BETWEEN: u16 = 3;

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
            let room = usize::from(rows.saturating_sub(ABOVE + BETWEEN));
            lines.extend(cores(view, state, usize::from(area.width), room, theme));
            let left = usize::from(rows).saturating_sub(lines.len());
            lines.extend(tasks(state, usize::from(area.width), left, theme));
        }
        None => lines.extend(nothing_yet(state, theme)),
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
    let lines = usize::from(ABOVE + BETWEEN) + cores + tasks;
    u16::try_from(lines).unwrap_or(u16::MAX)
}

fn facts<'a>(view: &'a View, state: &'a State, theme: Theme) -> [Line<'a>; 4] {
    let process = &view.process;
    let ready = match view.ready {
        true => Span::styled("ready", theme.of(Color::Green)),
        false => Span::styled("NOT READY", theme.bad()),
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
        Line::raw(format!(
            " {of}{} cores   busy {}   {} polls/s   {} enters/s   {} accepts/s",
            view.cores.len(),
            percent(view.busy() * 100.0),
            grouped(view.rate("polls").round() as u64),
            grouped(view.rate("enters").round() as u64),
            grouped(view.rate("accepts").round() as u64),
        )),
        Line::raw(format!(
            " process   CPU {}   memory {}{files}",
            percent(view.process_cpu * 100.0),
            memory(process.resident_bytes),
        )),
        notice,
    ]
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
            Column::Busy => theme.load(core.busy),
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
    core.state != CoreState::Ended && core.answered_s > 2.0
}

/// Work as full blocks, spinning as shades, sleep as dots.
fn bar<'a>(core: &CoreView, wide: usize, theme: Theme) -> Vec<Span<'a>> {
    if core.state == CoreState::Ended {
        return vec![Span::styled(format!("{:<wide$}", "ended"), theme.dim())];
    }
    let cells = |share: f64| (share * wide as f64).round() as usize;
    // What is there at all is seen: a single cell.
    let busy = cells(core.busy).max(usize::from(core.busy > 0.001)).min(wide);
    let spun = cells(core.busy + core.spinning).clamp(busy, wide) - busy;
    vec![
        Span::styled("█".repeat(busy), theme.load(core.busy)),
        Span::styled("▒".repeat(spun), theme.of(Color::Blue)),
        Span::styled("·".repeat(wide - busy - spun), theme.dim()),
    ]
}

fn tasks<'a>(state: &State, width: usize, room: usize, theme: Theme) -> Vec<Line<'a>> {
    if room < 3 {
        return Vec::new();
    }
    let mut lines = vec![Line::default()];
    let Some(tasks) = &state.tasks else {
        let text = state.tasks_note.clone().unwrap_or_else(|| "the tasks are being read".into());
        lines.push(Line::styled(format!(" {text}"), theme.dim()));
        return lines;
    };
    let how = if state.grouped { "by the place where they were spawned" } else { "one by one" };
    let title = format!(" tasks {how}, the oldest first: {} in all", grouped(tasks.total));
    lines.push(Line::styled(title, theme.strong()));
    let (name, wait) = task_widths(width);
    let heads = format!(
        " {:>6} {:>8}  {:<name$} {:<wait$} SPAWNED AT",
        "COUNT", "OLDEST", "NAME", "WAITS FOR"
    );
    lines.push(Line::styled(heads, theme.dim()));
    let left = room - lines.len();
    lines.extend(tasks.rows.iter().take(left).map(|row| Line::raw(task_line(row, width))));
    lines
}

/// Of the name and of the wait; the place takes the rest.
fn task_widths(width: usize) -> (usize, usize) {
    if width < 100 { (16, 22) } else { (24, 32) }
}

fn task_line(row: &TaskRow, width: usize) -> String {
    let (name_wide, wait_wide) = task_widths(width);
    let (name, wait) = (cut(&row.name, name_wide), cut(&row.wait, wait_wide));
    let count = grouped(row.count as u64);
    let age = age(row.oldest_ns);
    let line = format!(" {count:>6} {age:>8}  {name:<name_wide$} {wait:<wait_wide$} ");
    let room = width.saturating_sub(line.chars().count());
    let place = place(&row.place);
    if place.chars().count() <= room {
        return line + &place;
    }
    // Of a long path the file says most; and of a file that is longer yet, its end.
    let file = place.rsplit('/').next().unwrap_or_default();
    let skipped = file.chars().count().saturating_sub(room);
    let end: String = file.chars().skip(if skipped > 0 { skipped + 1 } else { 0 }).collect();
    if skipped > 0 { format!("{line}…{end}") } else { line + &end }
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

/// At most `wide` characters of `text`, with a mark where it was cut.
pub fn cut(text: &str, wide: usize) -> String {
    if text.chars().count() <= wide {
        return text.to_owned();
    }
    let kept: String = text.chars().take(wide.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn nothing_yet<'a>(state: &'a State, theme: Theme) -> Vec<Line<'a>> {
    let first = Line::styled(format!(" coreloop top   {}", state.url), theme.strong());
    let second = match &state.notice {
        Some(notice) => Line::styled(format!(" {notice}"), theme.bad()),
        None => Line::raw(" two looks make a frame: a moment"),
    };
    vec![first, Line::default(), second]
}

fn keys<'a>(state: &State, theme: Theme) -> Line<'a> {
    let mut spans = Vec::new();
    for (key, what) in [
        ("q", "quit".to_owned()),
        ("s", format!("sort: {}", state.sort.as_str())),
        ("r", "reverse".into()),
        ("g", "group".into()),
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
