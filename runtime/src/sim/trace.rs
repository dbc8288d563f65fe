//! What happened, as a number and as a tail of lines.
//!
//! Owns [`Trace`]: a hash over every event since the beginning, and the last [`LINES_MAX`] of them to be
//! read. Events hold numbers that the seed decides: no descriptor, address or time of day.

use std::collections::VecDeque;
use std::fmt;

/// Events that are kept to be read; older ones live on in the hash alone.
const LINES_MAX: usize = 400;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    at_ns: u64,
    what: &'static str,
    numbers: [i64; 4],
    len: u8,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ns) = (self.at_ns / 1_000_000_000, self.at_ns % 1_000_000_000);
        write!(f, "{s}.{ns:09} {}", self.what)?;
        for number in &self.numbers[..usize::from(self.len)] {
            write!(f, " {number}")?;
        }
        Ok(())
    }
}

pub(super) struct Trace {
    hash: u64,
    lines: VecDeque<Line>,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        Self { hash: seed ^ 0xCBF2_9CE4_8422_2325, lines: VecDeque::new() }
    }

    /// # Panics
    /// With more than four numbers.
    pub(super) fn note(&mut self, at_ns: u64, what: &'static str, numbers: &[i64]) {
        let mut line = Line { at_ns, what, numbers: [0; 4], len: numbers.len() as u8 };
        line.numbers[..numbers.len()].copy_from_slice(numbers);
        self.mix(at_ns);
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        for number in numbers {
            self.mix(*number as u64);
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.lines.iter().cloned().collect()
    }
}
