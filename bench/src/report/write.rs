//! The result files: JSON, and the percentile distribution of HdrHistogram.
//!
//! Owns the formats and the error that names the file. Knows nothing of the terminal; the interval
//! log, written while a run goes on, is `hlog`'s.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use coreloop::report::format::percentile_distribution;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A result file that could not be written.
#[derive(Debug)]
pub struct WriteError {
    path: PathBuf,
    cause: io::Error,
}

impl WriteError {
    /// `cause`, while writing `path`.
    pub fn new(path: &Path, cause: io::Error) -> WriteError {
        WriteError { path: path.to_owned(), cause }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't write {}: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for WriteError {}

/// Checks that `path` can be written, and creates it empty. Called before a run: finding out after
/// ten minutes of load that a folder doesn't exist would be rude.
pub fn probe(path: &Path) -> Result<(), WriteError> {
    File::create(path).map(drop).map_err(|cause| WriteError::new(path, cause))
}

/// Writes `report` as indented JSON.
pub fn json(path: &Path, report: &impl Serialize) -> Result<(), WriteError> {
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    })
}

/// Writes text as it is.
pub fn text(path: &Path, text: &str) -> Result<(), WriteError> {
    write_file(path, |out| out.write_all(text.as_bytes()))
}

/// Writes the percentile distribution of `histogram` (in ns) in µs.
pub fn hgrm(path: &Path, histogram: &Histogram<u64>) -> Result<(), WriteError> {
    write_file(path, |out| percentile_distribution(out, histogram, 1e3))
}

/// Where an open loop's uncorrected distribution goes: beside the corrected one.
pub fn uncorrected_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".uncorrected");
    PathBuf::from(name)
}

fn write_file(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        content(&mut out)?;
        out.flush()
    };
    write().map_err(|cause| WriteError::new(path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn the_distribution_reads_as_hdrhistogram_prints_it() {
        let mut values = histogram();
        for us in [1u64, 2, 3, 4, 5, 6, 7, 8, 9, 10] {
            values.saturating_record(us * 1_000);
        }
        let mut out = Vec::new();
        percentile_distribution(&mut out, &values, 1e3).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        assert!(lines.contains(&"       5.003 0.500000000000          5           2.00"), "{text}");
        let last = lines.iter().rposition(|line| !line.starts_with('#')).unwrap();
        assert_eq!(lines[last], "      10.007 1.000000000000         10");
        assert_eq!(
            lines[last + 1..],
            [
                "#[Mean    =        5.502, StdDeviation   =        2.874]",
                "#[Max     =       10.007, Total count    =           10]",
                "#[Buckets =           26, SubBuckets     =         2048]",
            ]
        );
    }

    #[test]
    fn an_error_names_the_file() {
        let path = Path::new("/nonexistent/dir/run.json");
        let error = json(path, &1).unwrap_err().to_string();
        assert!(
            error.starts_with("can't write /nonexistent/dir/run.json: No such file"),
            "{error}"
        );
        assert!(probe(path).is_err());
    }

    #[test]
    fn the_uncorrected_distribution_lies_beside_the_corrected() {
        assert_eq!(uncorrected_path(Path::new("a/run.hgrm")), Path::new("a/run.hgrm.uncorrected"));
    }
}
