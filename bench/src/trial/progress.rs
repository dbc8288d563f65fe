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
}

impl Progress {
    /// A bar over `budget`.
    pub fn new(budget: Duration, quiet: bool) -> Progress {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(budget.as_millis() as u64), target);
        let style = ProgressStyle::with_template("  {bar:20} {elapsed} of {prefix} · {wide_msg}");
        bar.set_style(
            style.expect("a constant template, drawn by a test").progress_chars("█▉▊▋▌▍▎▏ "),
        );
        bar.set_prefix(format!("{}s", budget.as_secs()));
        Progress { bar }
    }

    /// Something begins.
    pub fn step(&self, elapsed: Duration, words: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(words());
            self.bar.set_position(elapsed.as_millis() as u64);
        }
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
        progress.finish();
    }
}
