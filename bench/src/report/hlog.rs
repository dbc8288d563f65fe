//! The interval log: HdrHistogram's `.hlog`, one tagged, deflated histogram per second and series.
//!
//! Owns the open file and the tags; the format is `coreloop`'s. Written while the run goes on, so that a long run needs no
//! memory for its intervals and a killed one leaves what it had. Values are in nanoseconds, times
//! in seconds since the start of the window, whose wall-clock time the header gives.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coreloop::report::format::IntervalLog;

use crate::report::write::WriteError;
use crate::stats::LatencySet;

/// A closed loop's only latency.
pub const TAG_LATENCY: &str = "latency";
/// An open loop's latency from the intended send time.
pub const TAG_CORRECTED: &str = "corrected";
/// An open loop's latency from the actual send time.
pub const TAG_UNCORRECTED: &str = "uncorrected";
/// How late the generator sent.
pub const TAG_LAG: &str = "lag";

/// An interval log being written.
pub struct HlogWriter {
    path: PathBuf,
    log: IntervalLog<BufWriter<File>>,
}

impl fmt::Debug for HlogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlogWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl HlogWriter {
    /// Creates the file. `start` is the wall-clock time at which the window begins.
    pub fn create(path: &Path, start: SystemTime, what: &str) -> Result<HlogWriter, WriteError> {
        let begun = File::create(path)
            .and_then(|file| IntervalLog::begin(BufWriter::new(file), start, what));
        let log = begun.map_err(|cause| WriteError::new(path, cause))?;
        Ok(HlogWriter { path: path.to_owned(), log })
    }

    /// Writes one interval: a line per series.
    pub fn interval(
        &mut self,
        start: Duration,
        length: Duration,
        set: &LatencySet,
    ) -> Result<(), WriteError> {
        let write = |log: &mut IntervalLog<_>| match &set.open {
            None => log.line(start, length, TAG_LATENCY, &set.uncorrected),
            Some(open) => {
                log.line(start, length, TAG_CORRECTED, &open.corrected)?;
                log.line(start, length, TAG_UNCORRECTED, &set.uncorrected)?;
                log.line(start, length, TAG_LAG, &open.lag)
            }
        };
        write(&mut self.log)
            .and_then(|()| self.log.flush())
            .map_err(|e| WriteError::new(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::stats::Moments;

    #[test]
    fn a_log_can_be_read_back() {
        let path = std::env::temp_dir().join(format!("coreloop-hlog-{}", std::process::id()));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut log = HlogWriter::create(&path, start, "echo").unwrap();
        let mut set = LatencySet::new(true);
        set.record(Moments { intended_ns: 0, room_ns: 0, sent_ns: 500, done_ns: 27_400 }, 1);
        log.interval(Duration::ZERO, Duration::from_secs(1), &set).unwrap();
        log.interval(Duration::from_secs(1), Duration::from_millis(500), &set).unwrap();
        drop(log);

        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            match entry.unwrap() {
                LogEntry::StartTime(time) | LogEntry::BaseTime(time) => {
                    assert_eq!(time, Duration::from_secs(1_700_000_000));
                }
                LogEntry::Interval(line) => {
                    let tag = line.tag().unwrap().as_str().to_owned();
                    seen.push((tag, line.start_timestamp().as_secs(), decode(&line)));
                }
            }
        }
        let expected: Vec<(String, u64, u64)> =
            [(0, "corrected", 27_400), (0, "uncorrected", 26_900), (0, "lag", 500)]
                .iter()
                .flat_map(|(_, tag, max)| [0, 1].map(|second| (tag.to_string(), second, *max)))
                .collect();
        assert_eq!(seen.len(), 6);
        for (tag, second, max) in expected {
            let found = seen.iter().find(|(t, s, _)| *t == tag && *s == second).unwrap();
            assert!(found.2.abs_diff(max) <= max / 1_000, "{found:?} against {max}");
        }
    }

    fn decode(line: &hdrhistogram::serialization::interval_log::IntervalLogHistogram<'_>) -> u64 {
        let bytes = base64_decode(line.encoded_histogram());
        let values: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        values.max()
    }

    /// Standard base64; the crate that hdrhistogram uses isn't ours to name.
    fn base64_decode(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
        for byte in text.bytes().filter(|byte| *byte != b'=') {
            let digit = ALPHABET.iter().position(|a| *a == byte).unwrap() as u32;
            bits = bits << 6 | digit;
            held += 6;
            if held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
        out
    }
}
