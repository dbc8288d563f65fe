//! `top`: what the cores of a running server do, live.
//!
//! Owns the three forms of it: the live view, one frame as text, lines of JSON. A thread of its own asks the
//! server, so that the view answers to keys while the server does not.

mod columns;
mod draw;
mod look;
mod model;
#[cfg(test)]
mod samples;
mod screen;
mod state;
mod tasks;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::cli::ops::TopArgs;
use crate::ops::top::draw::Theme;
use crate::ops::top::look::{Look, Looker};
use crate::ops::top::model::View;
use crate::ops::top::screen::Screen;
use crate::ops::top::state::{Asked, State};
use crate::report::paint::Paint;

/// How long a key may wait for its effect.
const KEYS: Duration = Duration::from_millis(50);

/// Shows it, in the form that was asked for.
///
/// # Errors
/// In words: no terminal, or (for one frame) a server that can't be asked.
pub fn main(args: &TopArgs) -> Result<ExitCode, String> {
    match (args.json, args.once) {
        (true, _) => stream(args),
        (false, true) => once(args),
        (false, false) if !std::io::stdout().is_terminal() => {
            Err("stdout is no terminal: pass --once for one frame as text, or --json".into())
        }
        (false, false) => live(args),
    }
}

fn live(args: &TopArgs) -> Result<ExitCode, String> {
    let theme = Theme { colour: Paint::of_stdout().colour };
    let mut state = State::new(args);
    let looker = Looker::start(&args.url, args.interval)?;
    let mut screen =
        Screen::open().map_err(|error| format!("no view on this terminal: {error}"))?;
    let told = |error: std::io::Error| format!("the terminal: {error}");
    let mut changed = true;
    loop {
        if let Some(signal) = screen.signal() {
            drop(screen);
            // As a shell says it of a process that a signal has ended.
            return Ok(ExitCode::from(128u8.saturating_add(signal)));
        }
        if changed {
            screen.terminal.draw(|frame| draw::frame(frame, &state, theme)).map_err(told)?;
            changed = false;
        }
        if event::poll(KEYS).map_err(told)? {
            changed = true;
            let Event::Key(key) = event::read().map_err(told)? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match state.key(key) {
                Asked::Nothing => {}
                Asked::Quit => return Ok(ExitCode::SUCCESS),
                Asked::Interval => looker.every(state.interval),
                Asked::Tasks => looker.want_tasks(),
            }
        }
        for look in looker.looks() {
            changed = true;
            match look {
                Look::Cores(Ok(cores)) => state.looked(cores),
                Look::Cores(Err(why)) => state.failed(why),
                Look::Tasks(tasks) => state.tasks_read(tasks),
            }
        }
    }
}

/// Two looks, and the frame of the time between them.
fn once(args: &TopArgs) -> Result<ExitCode, String> {
    let mut state = State::new(args);
    state.looked(look::cores(&args.url)?);
    thread::sleep(args.interval);
    state.looked(look::cores(&args.url)?);
    if state.view.is_none() {
        return Err(format!("another server answers on {} now", args.url));
    }
    state.tasks_read(look::tasks(&args.url));
    let columns = u16::try_from(Paint::of_stdout().columns).unwrap_or(u16::MAX);
    crate::print(&text(&state, columns));
    Ok(ExitCode::SUCCESS)
}

/// A frame of everything as text, without the keys.
fn text(state: &State, columns: u16) -> String {
    let height = draw::height(state).saturating_add(1);
    let mut terminal = Terminal::new(TestBackend::new(columns, height))
        .expect("a backend in memory does not fail");
    terminal
        .draw(|frame| draw::frame(frame, state, Theme { colour: false }))
        .expect("a backend in memory does not fail");
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for row in 0..height - 1 {
        let line: String = (0..columns).map(|column| buffer[(column, row)].symbol()).collect();
        out += line.trim_end();
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// A line of JSON for each interval, until nobody reads them.
fn stream(args: &TopArgs) -> Result<ExitCode, String> {
    let url = args.url.to_string();
    let mut before = look::cores(&args.url)?;
    loop {
        thread::sleep(args.interval);
        let now = look::cores(&args.url)?;
        let mut view = View::between(&url, Some(&before), &now);
        view.sort(args.sort, false);
        let json = serde_json::to_string(&view).map_err(|error| error.to_string())?;
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{json}").and_then(|()| out.flush());
        let over = written.is_err() || args.once;
        written.unwrap_or_else(crate::unwritten);
        if over {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}
