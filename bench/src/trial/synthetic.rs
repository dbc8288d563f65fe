//! A runner without processes: figures made up from planted effects and noise.

use std::time::Duration;

use super::*;
use crate::peers::draw::Draw;

/// What its runs are like.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// What the CPU per request (and each latency) is multiplied with.
    pub effects: fn(&[Change]) -> f64,
    /// Whose runs fail.
    pub fails: fn(&[Change]) -> bool,
    /// Latency p99 in µs at a rate.
    pub p99_us: fn(Option<u64>) -> f64,
    /// From which rate on the generator is the limit.
    pub generator_max: u64,
    /// Requests per second that the server answers at most, however soon it answers those.
    pub capacity: u64,
    /// Deviation of a run's logarithm.
    pub noise: f64,
    /// Amplitude of a slow wave over all runs.
    pub drift: f64,
    /// Share of the cores that others use.
    pub foreign: f64,
    /// Time that a run takes.
    pub cost: Duration,
    /// Runs until Ctrl-C.
    pub runs_left: Option<usize>,
    /// Runs so far.
    pub runs: usize,
    /// Time of all runs.
    pub elapsed: Duration,
    /// Where the noise comes from.
    pub draw: Draw,
}

impl Synthetic {
    /// Little noise, no effects.
    pub fn calm() -> Synthetic {
        Synthetic {
            effects: |_| 1.0,
            fails: |_| false,
            p99_us: |_| 100.0,
            generator_max: u64::MAX,
            capacity: u64::MAX,
            noise: 0.001,
            drift: 0.0,
            foreign: 0.0,
            cost: Duration::from_secs(1),
            runs_left: None,
            runs: 0,
            elapsed: Duration::ZERO,
            draw: Draw::new(1, "synthetic"),
        }
    }

    /// Noise of `noise`, from a seed.
    pub fn noisy(noise: f64, seed: u64) -> Synthetic {
        Synthetic { noise, draw: Draw::new(seed, "synthetic"), ..Synthetic::calm() }
    }

    fn factor(&mut self) -> f64 {
        // The sum of twelve is as good as a bell.
        let sum: f64 = (0..12).map(|_| self.draw.below(1 << 20) as f64 / f64::from(1 << 20)).sum();
        (self.noise * (sum - 6.0)).exp()
    }
}

impl Runner for Synthetic {
    fn run(&mut self, ask: &Ask<'_>) -> Result<Measured, Trouble> {
        match &mut self.runs_left {
            Some(0) => return Err(Trouble::Interrupted),
            Some(left) => *left -= 1,
            None => {}
        }
        self.runs += 1;
        self.elapsed += self.cost;
        if (self.fails)(ask.changes) {
            return Err(Trouble::Failed("it would not".into()));
        }
        let wave = 1.0 + self.drift * (self.runs as f64 / 15.0).sin();
        let scale = (self.effects)(ask.changes) * wave;
        let mut measured = Measured::default();
        measured.usage.foreign(self.foreign);
        let p99 = (self.p99_us)(ask.rate);
        let limited = ask.rate.is_some_and(|rate| rate > self.generator_max);
        for (key, value) in [
            ("cpu_ns_per_request", 5_000.0 * scale),
            ("requests_per_s", ask.rate.map_or(100_000.0 / scale, |rate| rate as f64)),
            ("p50_us", p99 / 4.0 * scale),
            ("p99_us", p99 * scale),
            ("p999_us", p99 * 3.0 * scale),
        ] {
            let value = value * self.factor();
            measured.figures.insert(key.into(), value);
        }
        let share = ask.rate.map_or(1.0, |rate| (self.capacity as f64 / rate as f64).min(1.0));
        measured.figures.insert("rate_reached".into(), share);
        if share < 0.97 {
            measured.usage.faults.push("it fell behind".into());
        }
        measured.figures.insert("server_cpu_percent".into(), 60.0);
        measured.figures.insert("generator_limited".into(), if limited { 1.0 } else { 0.0 });
        Ok(measured)
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}
