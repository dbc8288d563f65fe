//! The formats of HdrHistogram's files.
//!
//! Owns how an interval log (`.hlog`) and a percentile distribution (`.hgrm`) look. Knows no file, and
//! nothing of what the values are. For `coreloop` and its load generator alone: the crate behind the
//! histograms shows here, and may change.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

/// An interval log: one tagged, deflated histogram a line. Values are in nanoseconds, times in seconds since
/// the start, whose wall-clock time the header gives.
pub struct IntervalLog<W: Write> {
    out: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> std::fmt::Debug for IntervalLog<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntervalLog").finish_non_exhaustive()
    }
}

impl<W: Write> IntervalLog<W> {
    /// Begins one: writes the header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, start: SystemTime, what: &str) -> io::Result<Self> {
        let mut log = Self { out, serializer: V2DeflateSerializer::new() };
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(&format!("{what}; values and Interval_Max in ns"))
            .with_start_time(start)
            .with_base_time(start)
            .begin_log_with(&mut log.out, &mut log.serializer)?;
        log.out.write_all(LEGEND.as_bytes())?;
        Ok(log)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Those of what it is written to, and a tag with a comma or white space in it.
    pub fn line(
        &mut self,
        start: Duration,
        length: Duration,
        tag: &str,
        values: &Histogram<u64>,
    ) -> io::Result<()> {
        let tag = Tag::new(tag).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{tag:?} is no tag"))
        })?;
        // Without headers to write, beginning a log writes nothing: it only lends the output to the crate's
        // writer, which can't be kept since it borrows.
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.out, &mut self.serializer)?
            .write_histogram(values, start, length, Some(tag))
            .map_err(|error| match error {
                IntervalLogWriterError::IoError(cause) => cause,
                IntervalLogWriterError::SerializeError(cause) => io::Error::other(cause),
            })
    }

    /// Hands on what was written.
    ///
    /// # Errors
    /// Those of what it is written to.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// The text that HdrHistogram's `outputPercentileDistribution` prints: five steps to each halving of the
/// distance to 100 %, values divided by `unit`. The plotters of that project read it.
///
/// # Errors
/// Those of `out`.
pub fn percentile_distribution(
    out: &mut impl Write,
    histogram: &Histogram<u64>,
    unit: f64,
) -> io::Result<()> {
    const TICKS_PER_HALF_DISTANCE: u32 = 5;
    let digits = usize::from(histogram.sigfig());
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", COLUMN_4)?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / unit;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.digits$} {quantile:14.12} {total:10}")?;
        // The last line has no fourth column: it would be infinite.
        match quantile < 1.0 {
            true => writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?,
            false => writeln!(out)?,
        }
    }
    let (mean, deviation) = (histogram.mean() / unit, histogram.stdev() / unit);
    let max = histogram.max() as f64 / unit;
    let sub_buckets = (2 * 10u64.pow(digits as u32)).next_power_of_two();
    writeln!(out, "#[Mean    = {mean:12.digits$}, StdDeviation   = {deviation:12.digits$}]")?;
    writeln!(out, "#[Max     = {max:12.digits$}, Total count    = {:12}]", histogram.len())?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", histogram.buckets())
}

const COLUMN_4: &str = "1/(1-Percentile)";
