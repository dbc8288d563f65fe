//! The progress bar of a run, on stderr.
//!
//! Owns when it shows: only on a terminal, unless told to be quiet, and only for runs over a
//! second. Otherwise it prints nothing at all, so that logs hold results alone. Knows nothing of
//! who does the work: it is told the time and the finished intervals.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::recorder::{INTERVAL_NS, Window};
use crate::report::units::{grouped, time_ns};
use crate::stats::{LatencySet, Summary};

/// Shorter runs are over before anybody looks.
const SHOWN_FROM_NS: u64 = 1_000_000_000;

/// Often enough to look alive; each redraw costs the measured machine some tens of µs.
const REDRAW_NS: u64 = 250_000_000;

/// A bar that fills over the warm-up and the window.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    begin_ns: u64,
    window: Window,
    last: String,
}

impl Progress {
    /// A bar from `begin_ns` (when the load began) to the end of the window.
    pub fn new(begin_ns: u64, window: Window, quiet: bool) -> Progress {
        let total_ns = window.end_ns.saturating_sub(begin_ns);
        let shown = !quiet && total_ns > SHOWN_FROM_NS && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_ns / 1_000_000), target);
        let style = ProgressStyle::with_template("  {bar:24} {prefix} · {msg}")
            .expect("a constant template, drawn by a test")
            .progress_chars("█▉▊▋▌▍▎▏ ");
        bar.set_style(style);
        Progress { bar, begin_ns, window, last: String::new() }
    }

    /// A bar that never shows.
    #[cfg(test)]
    pub fn hidden() -> Progress {
        Progress::new(0, Window { start_ns: 0, end_ns: 1 }, true)
    }

    /// Redraws for the time `now_ns`.
    pub fn update(&mut self, now_ns: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let elapsed_ns = now_ns.clamp(self.begin_ns, self.window.end_ns) - self.begin_ns;
        let total_ns = self.window.end_ns - self.begin_ns;
        let seconds = |ns: u64| ns as f64 / 1e9;
        self.bar.set_prefix(format!("{:.1} of {:.1} s", seconds(elapsed_ns), seconds(total_ns)));
        self.bar.set_message(message(now_ns, self.window, &self.last).to_owned());
        self.bar.set_position(elapsed_ns / 1_000_000);
    }

    /// Takes in what the last interval recorded, over all cores.
    pub fn interval(&mut self, set: &LatencySet) {
        if !self.bar.is_hidden() {
            self.last = rate_and_p99(set);
        }
    }

    /// How long the caller may sleep before the next [`Progress::update`].
    pub fn pause_ns(&self) -> u64 {
        if self.bar.is_hidden() { INTERVAL_NS } else { REDRAW_NS }
    }

    /// Takes the bar off the screen.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A spinner with words, for waits of unknown length (connecting); nothing where no bar shows.
pub fn waiting(words: &str, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(words.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(250));
    spinner
}

fn message(now_ns: u64, window: Window, last: &str) -> &str {
    match () {
        () if now_ns < window.start_ns => "warming up",
        () if now_ns >= window.end_ns => "waiting for the last answers",
        () if last.is_empty() => "measuring",
        () => last,
    }
}

fn rate_and_p99(set: &LatencySet) -> String {
    let p99_ns = Summary::of(set.headline()).p99_ns;
    format!("{}/s · p99 {}", grouped(set.requests()), time_ns(p99_ns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Moments;

    #[test]
    fn the_words_follow_the_run() {
        let window = Window { start_ns: 100, end_ns: 200 };
        assert_eq!(message(50, window, ""), "warming up");
        assert_eq!(message(150, window, ""), "measuring");
        assert_eq!(message(150, window, "5/s"), "5/s");
        assert_eq!(message(200, window, "5/s"), "waiting for the last answers");
    }

    #[test]
    fn an_interval_shows_as_rate_and_p99() {
        let mut set = LatencySet::new(false);
        (0..2_000).for_each(|_| set.record(Moments::closed(0, 27_400), 1));
        assert_eq!(rate_and_p99(&set), "2,000/s · p99 27.4 µs");
    }

    #[test]
    fn a_hidden_bar_draws_nothing_and_sleeps_longer() {
        let mut progress = Progress::hidden();
        progress.update(5);
        progress.interval(&LatencySet::new(false));
        assert_eq!(progress.pause_ns(), INTERVAL_NS);
        assert_eq!(progress.last, "");
        progress.finish();
    }
}
