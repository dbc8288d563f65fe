//! The columns of the table of cores.
//!
//! Owns which of them fit into a width, and what each says of a core.

use crate::ops::top::draw::is_silent;
use crate::ops::top::model::CoreView;
use crate::ops::top::state::State;
use crate::report::units::{grouped, percent, time_ns};

/// A column, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Core,
    Cpu,
    Time,
    Busy,
    Spinning,
    Polls,
    Spark,
    Enters,
    Wake,
    Poll,
    Tick,
    Recv,
    Tasks,
    Ready,
    Ops,
}

/// Each column, in the order of the table: its head, its width, and how soon it is left out (0 never).
const ALL: [(Column, &str, usize, u8); 15] = [
    (Column::Core, "CORE", 5, 0),
    (Column::Cpu, "CPU", 4, 1),
    (Column::Time, "TIME", 12, 0),
    (Column::Busy, "BUSY", 6, 0),
    (Column::Spinning, "SPIN", 6, 4),
    (Column::Polls, "POLLS/S", 9, 0),
    (Column::Spark, "", 10, 2),
    (Column::Enters, "ENTERS/S", 9, 5),
    (Column::Wake, "p99 WAKE", 8, 1),
    (Column::Poll, "p99 POLL", 8, 1),
    (Column::Tick, "p99 TICK", 8, 3),
    (Column::Recv, "p99 RECV", 8, 6),
    (Column::Tasks, "TASKS", 7, 1),
    (Column::Ready, "READY", 6, 4),
    (Column::Ops, "OPS", 7, 6),
];

/// The bar grows up to so many cells.
const TIME_MAX: usize = 40;

/// The columns that fit into `width`, each with its own; the bar takes what is left.
pub fn fitting(width: usize) -> Vec<(Column, usize)> {
    let needed = |least: u8| -> usize {
        let taken = ALL.iter().filter(|(.., rank)| *rank <= least);
        taken.map(|(_, _, wide, _)| wide + 1).sum()
    };
    let most = ALL.iter().map(|(.., rank)| *rank).max().unwrap_or(0);
    let rank = (0..=most).rev().find(|rank| needed(*rank) <= width).unwrap_or(0);
    let spare = width.saturating_sub(needed(rank));
    let fit = ALL.iter().filter(|(.., of)| *of <= rank);
    fit.map(|(column, _, wide, _)| {
        let more = if *column == Column::Time { spare.min(TIME_MAX - wide) } else { 0 };
        (*column, wide + more)
    })
    .collect()
}

impl Column {
    /// What stands above it.
    pub fn head(self, state: &State) -> &'static str {
        match self {
            // A line needs two rates at least.
            Column::Spark if state.history.values().any(|rates| rates.len() > 1) => "",
            _ => ALL.iter().find(|(column, ..)| *column == self).map_or("", |(_, head, ..)| head),
        }
    }

    /// `text` as it stands in the column.
    pub fn aligned(self, text: &str, wide: usize) -> String {
        match self {
            Column::Time | Column::Spark => format!("{text:<wide$}"),
            _ => format!("{text:>wide$}"),
        }
    }

    /// What it says of a core; the bar is drawn elsewhere.
    pub fn cell(self, core: &CoreView, state: &State, wide: usize) -> String {
        let p99 = |name| core.latency(name).map_or("-".to_owned(), |l| time_ns(l.p99_ns as f64));
        let rate = |name| match core.counts() {
            true => grouped(core.rate(name).round() as u64),
            false => "-".to_owned(),
        };
        match self {
            Column::Core => format!("{}{}", core.core, if is_silent(core) { "!" } else { " " }),
            Column::Cpu => core.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
            Column::Time => String::new(),
            Column::Busy => core.busy.map_or("-".to_owned(), |busy| percent(busy * 100.0)),
            Column::Spinning if !core.counts() => "-".to_owned(),
            Column::Spinning => percent(core.spinning * 100.0),
            Column::Polls => rate("polls"),
            Column::Spark => spark(state.history.get(&core.core), wide),
            Column::Enters => rate("enters"),
            Column::Wake => p99("wake_to_poll"),
            Column::Poll => p99("poll"),
            Column::Tick => p99("tick"),
            Column::Recv => p99("op_recv"),
            Column::Tasks => grouped(core.gauge("tasks")),
            Column::Ready => grouped(core.gauge("tasks_ready")),
            Column::Ops => grouped(core.gauge("ops")),
        }
    }
}

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `wide` rates, the greatest of them as the whole height.
fn spark(rates: Option<&std::collections::VecDeque<f64>>, wide: usize) -> String {
    let Some(rates) = rates.filter(|rates| rates.len() > 1) else { return String::new() };
    let last: Vec<f64> = rates.iter().skip(rates.len().saturating_sub(wide)).copied().collect();
    let most = last.iter().copied().fold(0.0, f64::max);
    let level = |rate: f64| {
        let share = if most > 0.0 { rate / most } else { 0.0 };
        LEVELS[((share * 7.0).round() as usize).min(7)]
    };
    let line: String = last.iter().map(|rate| level(*rate)).collect();
    // The newest stands at the right, always in the same place.
    format!("{line:>wide$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_into_any_width_from_that_of_the_least() {
        for width in 38..300 {
            let columns = fitting(width);
            let taken: usize = columns.iter().map(|(_, wide)| wide + 1).sum();
            assert!(taken <= width, "{taken} of {width}");
            assert!(columns.iter().any(|(column, _)| *column == Column::Busy));
        }
        let at = |width| fitting(width).iter().map(|(column, _)| *column).collect::<Vec<_>>();
        assert!(at(80).contains(&Column::Spark) && at(80).contains(&Column::Wake));
        assert!(at(120).contains(&Column::Tick) && at(140).contains(&Column::Recv));
        assert_eq!(fitting(200)[2], (Column::Time, TIME_MAX));
    }

    #[test]
    fn a_line_of_rates_ends_at_the_right() {
        let rates = [0.0, 50.0, 100.0].into();
        assert_eq!(spark(Some(&rates), 5), "  ▁▅█");
        assert_eq!(spark(Some(&rates), 2), "▅█");
        assert_eq!(spark(Some(&[0.0, 0.0].into()), 2), "▁▁");
        assert_eq!(spark(Some(&[1.0].into()), 2), "", "one rate is no line");
    }
}
