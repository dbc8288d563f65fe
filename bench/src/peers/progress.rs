//! The progress bar of a comparison, on stderr.
//!
//! Owns when it shows: only on a terminal, unless told to be quiet. Its length is in runs; repeats make it
//! longer.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::peers::contenders::Contender;
use crate::peers::results::Results;
use crate::peers::series::{Step, participants};
use crate::peers::workloads::{CALIBRATION, Workload};

/// The bar.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    blocks: usize,
}

impl Progress {
    /// A bar over all runs of these workloads.
    pub fn new(results: &Results, workloads: &[&Workload], quiet: bool) -> Progress {
        let of = |workload: &&Workload| participants(&results.contenders, workload).0.len();
        let runs = workloads.iter().map(of).sum::<usize>() * results.blocks;
        let shown = !quiet && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(runs as u64), target);
        let style = ProgressStyle::with_template(
            "  {bar:24} {pos} of {len} runs, {elapsed}, about {eta} left · {msg}",
        );
        bar.set_style(
            style.expect("a constant template, drawn by a test").progress_chars("█▉▊▋▌▍▎▏ "),
        );
        if shown {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Progress { bar, blocks: results.blocks }
    }

    /// A run begins.
    pub fn step(&self, workload: &Workload, step: &Step<'_>) {
        match step.attempt {
            0 => self.bar.inc(1),
            _ => self.bar.println(format!("  {} {}: disturbed, again", workload.name, step.who.id)),
        }
        let (block, of) = (step.block + 1, self.blocks);
        self.bar.set_message(format!("{} block {block} of {of}: {}", workload.name, step.who.id));
    }

    /// A run that only tells how fast a contender can be.
    pub fn calibrating(&self, who: &Contender) {
        self.bar.set_message(format!("{CALIBRATION}, for the rate: {}", who.id));
    }

    /// Prints something in the bar's place.
    pub fn hide(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the bar off the screen.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::results::sample;
    use crate::peers::workloads::find;

    #[test]
    fn the_bar_is_as_long_as_the_runs_and_draws() {
        let results = sample::results();
        let workload = find("echo-64").unwrap();
        let mut progress = Progress::new(&results, &[workload], true);
        // coreloop, tokio, monoio flags and smol: those that spin, and ours that must not, stay out.
        assert_eq!(progress.bar.length(), Some(20));
        let who = &results.contenders[0];
        progress.step(workload, &Step { block: 0, attempt: 0, who });
        progress.step(workload, &Step { block: 0, attempt: 1, who });
        assert_eq!(progress.bar.position(), 1);
        assert_eq!(progress.bar.message(), "echo-64 block 1 of 5: coreloop");
        progress.finish();
    }
}
