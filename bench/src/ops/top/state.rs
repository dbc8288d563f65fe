//! What `top` knows and shows: the last looks, and what keys have set.
//!
//! Owns what each key does, and how long rates are remembered. Pure: knows neither the terminal nor the
//! network.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use coreloop_net::ops::doc::{Cores, Tasks};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::ops::{SortBy, TopArgs};
use crate::ops::top::model::View;
use crate::ops::top::tasks::{Order, TaskRow, task_rows};

/// Rates of each core that are remembered.
const HISTORY: usize = 120;
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// All that a frame is drawn from.
#[derive(Debug)]
pub struct State {
    /// Where the server's ops listener is.
    pub url: String,
    /// Time between two looks.
    pub interval: Duration,
    /// In which order the cores stand.
    pub sort: SortBy,
    /// Whether that is turned round.
    pub reverse: bool,
    /// Whether tasks are shown by place.
    pub grouped: bool,
    /// In which order the tasks stand, where polls are timed.
    pub order: Order,
    /// Whether new looks are passed over.
    pub paused: bool,
    /// Whether the help is shown.
    pub help: bool,
    /// Cores that are scrolled past.
    pub scroll: usize,
    /// What is wrong, if anything is.
    pub notice: Option<String>,
    /// The cores between the last two looks.
    pub view: Option<View>,
    /// The tasks, if they were read.
    pub tasks: Option<TaskTable>,
    /// Why they were not, where they were not.
    pub tasks_note: Option<String>,
    /// Polls per second of each core, the newest last.
    pub history: BTreeMap<usize, VecDeque<f64>>,
    last: Option<Cores>,
    last_tasks: Option<Tasks>,
}

/// The tasks as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskTable {
    /// In order.
    pub rows: Vec<TaskRow>,
    /// How many there are, also of those that were not listed; none if they were not read, and the rows are
    /// of those alone that had a long poll.
    pub total: Option<u64>,
}

/// What a key asks for beyond the state itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// The end.
    Quit,
    /// Another interval.
    Interval,
    /// The tasks, now.
    Tasks,
}

impl State {
    /// Nothing seen yet.
    pub fn new(args: &TopArgs) -> State {
        State {
            url: args.url.to_string(),
            interval: args.interval,
            sort: args.sort,
            reverse: false,
            grouped: true,
            order: Order::Slowest,
            paused: false,
            help: false,
            scroll: 0,
            notice: None,
            view: None,
            tasks: None,
            tasks_note: None,
            history: BTreeMap::new(),
            last: None,
            last_tasks: None,
        }
    }

    /// Takes a look at the cores. The first one of a process makes no frame: there is nothing to compare it
    /// with.
    pub fn looked(&mut self, now: Cores) {
        if self.paused {
            return;
        }
        self.notice = None;
        let another = self.last.as_ref().is_none_or(|last| last.process.pid != now.process.pid);
        if another {
            self.history.clear();
        } else {
            let mut view = View::between(&self.url, self.last.as_ref(), &now);
            for core in &view.cores {
                let rates = self.history.entry(core.core).or_default();
                if rates.len() == HISTORY {
                    rates.pop_front();
                }
                rates.push_back(core.rate("polls"));
            }
            view.sort(self.sort, self.reverse);
            self.view = Some(view);
        }
        self.last = Some(now);
        self.arrange_tasks();
    }

    /// Takes the tasks, or why there are none to show.
    pub fn tasks_read(&mut self, tasks: Result<Tasks, String>) {
        match tasks {
            Ok(tasks) => {
                self.last_tasks = Some(tasks);
                self.tasks_note = None;
                self.arrange_tasks();
            }
            Err(note) => {
                self.last_tasks = None;
                self.tasks_note = Some(note);
                self.arrange_tasks();
            }
        }
    }

    fn arrange_tasks(&mut self) {
        let tasks = self.last_tasks.as_ref();
        let slow = self.view.as_ref().map_or(&[][..], |view| &view.long_polls);
        let rows = task_rows(tasks, slow, self.grouped, self.order);
        let count = |tasks: &Tasks| {
            let listed = tasks
                .cores
                .iter()
                .map(|core| core.tasks.len().saturating_add(core.left_out) as u64);
            listed.fold(0, u64::saturating_add)
        };
        let is_known = tasks.is_some() || !rows.is_empty();
        self.tasks = is_known.then(|| TaskTable { rows, total: tasks.map(count) });
    }

    /// Says that the server could not be asked.
    pub fn failed(&mut self, why: String) {
        self.notice = Some(why);
    }

    /// Does what a key is for.
    pub fn key(&mut self, key: KeyEvent) -> Asked {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Asked::Quit,
            // Any other key closes the help, and does no more.
            _ if std::mem::take(&mut self.help) => {}
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.reverse = false;
                self.sort_again();
            }
            KeyCode::Char('r') => {
                self.reverse = !self.reverse;
                self.sort_again();
            }
            KeyCode::Char('g') => {
                self.grouped = !self.grouped;
                self.arrange_tasks();
            }
            KeyCode::Char('o') => {
                self.order = match self.order {
                    Order::Slowest => Order::Oldest,
                    Order::Oldest => Order::Slowest,
                };
                self.arrange_tasks();
            }
            KeyCode::Char('t') => return Asked::Tasks,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+') => return self.every(self.interval / 2),
            KeyCode::Char('-') => return self.every(self.interval * 2),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.move_by(10),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        Asked::Nothing
    }

    fn move_by(&mut self, rows: usize) {
        let cores = self.view.as_ref().map_or(0, |view| view.cores.len());
        self.scroll = (self.scroll + rows).min(cores.saturating_sub(1));
    }

    fn every(&mut self, interval: Duration) -> Asked {
        self.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        Asked::Interval
    }

    fn sort_again(&mut self) {
        if let Some(view) = &mut self.view {
            view.sort(self.sort, self.reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ops::OpsUrl;
    use crate::ops::top::samples;

    fn state() -> State {
        State::new(&TopArgs {
            url: OpsUrl::here(),
            interval: Duration::from_secs(1),
            sort: SortBy::Core,
            once: false,
            json: false,
        })
    }

    fn press(state: &mut State, code: KeyCode) -> Asked {
        state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn two_looks_make_a_view_and_a_pause_keeps_it() {
        let (early, late) = samples::cores();
        let mut state = state();
        state.failed("nobody there".into());
        state.looked(early);
        assert!(state.view.is_none() && state.notice.is_none());
        state.looked(late.clone());
        assert_eq!(state.view.as_ref().unwrap().cores.len(), 2);
        assert_eq!(state.history[&0].len(), 1);
        press(&mut state, KeyCode::Char('p'));
        state.looked(late.clone());
        assert_eq!(state.history[&0].len(), 1, "paused");
        press(&mut state, KeyCode::Char(' '));
        let mut other = late;
        other.process.pid += 1;
        state.looked(other);
        assert!(state.history.is_empty(), "another process");
    }

    #[test]
    fn keys_do_what_the_help_says() {
        let (early, late) = samples::cores();
        let mut state = state();
        state.looked(early);
        state.looked(late);
        state.tasks_read(Ok(samples::tasks()));
        assert_eq!(state.tasks.as_ref().unwrap().total, Some(5));
        let first = |state: &State| state.tasks.as_ref().unwrap().rows[0].name.clone();
        assert_eq!(first(&state), "nap", "its poll was the longest");
        press(&mut state, KeyCode::Char('o'));
        assert_eq!(first(&state), "echo", "it is the oldest");
        assert_eq!(state.tasks.as_ref().unwrap().rows.len(), 2);
        press(&mut state, KeyCode::Char('g'));
        assert_eq!(state.tasks.as_ref().unwrap().rows.len(), 4);
        press(&mut state, KeyCode::Char('r'));
        assert_eq!(state.view.as_ref().unwrap().cores[0].core, 1);
        press(&mut state, KeyCode::Char('s'));
        assert_eq!((state.sort, state.reverse), (SortBy::Busy, false));
        assert_eq!(state.view.as_ref().unwrap().cores[0].core, 0);
        assert_eq!(press(&mut state, KeyCode::Char('-')), Asked::Interval);
        assert_eq!(state.interval, Duration::from_secs(2));
        for _ in 0..20 {
            press(&mut state, KeyCode::Char('+'));
        }
        assert_eq!(state.interval, INTERVAL_MIN);
        press(&mut state, KeyCode::Down);
        press(&mut state, KeyCode::PageDown);
        assert_eq!(state.scroll, 1);
        press(&mut state, KeyCode::Char('h'));
        assert!(state.help);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Asked::Nothing, "it closes the help");
        assert!(!state.help);
        assert_eq!(press(&mut state, KeyCode::Char('t')), Asked::Tasks);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Asked::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        state.help = true;
        assert_eq!(state.key(interrupt), Asked::Quit, "also from the help");
    }

    #[test]
    fn rates_are_forgotten_after_a_while() {
        let (early, late) = samples::cores();
        let mut state = state();
        state.looked(early);
        for _ in 0..HISTORY + 5 {
            state.looked(late.clone());
        }
        assert_eq!(state.history[&0].len(), HISTORY);
    }
}
