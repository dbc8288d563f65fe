//! The progress bar of work that has a budget of time, on stderr.
//!
//! Owns when it shows: only on a terminal, unless told to be quiet. It fills with the time, since that is
//! what is bounded; the words say what runs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    budget: Duration,
}

impl Progress {
    /// A bar over `budget`.
    pub fn new(budget: Duration, quiet: bool) -> Progress {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(budget.as_millis() as u64), target);
        let style = ProgressStyle::with_template("  {bar:16} {prefix} · {wide_msg}");
        bar.set_style(
            style.expect("a constant template, drawn by a test").progress_chars("█▉▊▋▌▍▎▏ "),
        );
        let progress = Progress { bar, budget };
        progress.bar.set_prefix(progress.prefix(Duration::ZERO));
        progress
    }

    /// Something begins.
    pub fn step(&self, elapsed: Duration, words: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_prefix(self.prefix(elapsed));
            self.bar.set_message(words());
            self.bar.set_position(elapsed.as_millis() as u64);
        }
    }

    /// `1m 05s of 5m 00s`.
    fn prefix(&self, elapsed: Duration) -> String {
        let text = |time: Duration| format!("{}m {:02}s", time.as_secs() / 60, time.as_secs() % 60);
        format!("{} of {}", text(elapsed), text(self.budget))
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_bar_asks_for_no_words() {
        let progress = Progress::new(Duration::from_secs(5), true);
        progress.step(Duration::from_secs(1), || panic!("nobody sees them"));
        assert_eq!(progress.bar.length(), Some(5_000));
        assert_eq!(progress.prefix(Duration::from_secs(65)), "1m 05s of 0m 05s");
        progress.finish();
    }
}
