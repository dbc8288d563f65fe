//! The text that metrics are exchanged in: OpenMetrics 1.0, and the older plain format of Prometheus.
//!
//! Owns [`Family`] (a metric with its samples, one for each core) and how it is written. Invariants: names
//! hold nothing but `[a-z0-9_]`, counters never go down, a histogram's buckets are cumulative and end with
//! `+Inf`. Knows not which families there are.

use std::fmt::{self, Write as _};

use coreloop::Histogram;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Plain,
}

impl Format {
    /// The one that a field `Accept`, in lower case, asks for. OpenMetrics goes only to who names it, in the
    /// version that is written here, and likes the plain format no better. Everybody else (`curl`,
    /// `promtool`, scrapers that are older than it) takes the plain format for granted.
    pub(super) fn asked(accept: &str) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut version, mut quality) = (None, QUALITY_ONE);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "version" => version = Some(value.trim().trim_matches('"')),
                    "q" => quality = thousandths(value.trim()),
                    _ => {}
                }
            }
            match kind {
                "application/openmetrics-text" if version.is_none_or(|v| v == "1.0.0") => {
                    open = quality.max(open);
                }
                "text/plain" => plain = quality.max(plain),
                _ => {}
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Plain }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What stands after the last family.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::OpenMetrics => "# EOF\n",
            Self::Plain => "",
        }
    }
}

/// A quality (`q=`) of 1, which is that of what names none, in thousandths: it has at most three digits.
const QUALITY_ONE: u32 = 1000;

/// A quality in thousandths; 0, which is a no, for what is none.
fn thousandths(quality: &str) -> u32 {
    let quality: f64 = quality.parse().unwrap_or(0.0);
    // A cast of what is out of bounds, or no number, stops at 0.
    ((quality * f64::from(QUALITY_ONE)).round() as u32).min(QUALITY_ONE)
}

/// What the numbers of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Always 1; the labels say it.
    Info,
}

/// One metric, with a sample for each of what it is measured at.
#[derive(Debug)]
pub(super) struct Family<'a> {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// `seconds` or `bytes`: the name ends with it.
    pub(super) unit: Option<&'static str>,
    pub(super) help: String,
    pub(super) samples: Vec<(Labels, Value<'a>)>,
}

/// `core="0"` and the like, without braces; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(String);

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Whole(u64),
    /// Nanoseconds, which are written as seconds.
    Time(u64),
    /// Nanoseconds too.
    Times(&'a Histogram),
}

/// Upper bounds of the buckets: powers of two, from 256 ns to 17 s, where histograms have an edge too.
const BOUNDS: std::ops::RangeInclusive<u32> = 8..=34;

impl<'a> Family<'a> {
    pub(super) fn new(name: impl Into<String>, kind: Kind, help: impl Into<String>) -> Self {
        let name = name.into();
        let unit =
            ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        Self { name, kind, unit, help: help.into(), samples: Vec::new() }
    }

    pub(super) fn sample(mut self, labels: Labels, value: Value<'a>) -> Self {
        self.samples.push((labels, value));
        self
    }

    /// Writes it; nothing at all without samples.
    pub(super) fn write(&self, format: Format, out: &mut String) {
        // A `String` takes everything.
        let _ = self.try_write(format, out);
    }

    fn try_write(&self, format: Format, out: &mut String) -> fmt::Result {
        if self.samples.is_empty() {
            return Ok(());
        }
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let open = format == Format::OpenMetrics;
        // The plain format knows no families: there the name is that of the samples.
        let (name, family_suffix) = (&self.name, if open { "" } else { suffix });
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info if open => "info",
            Kind::Info => "gauge",
        };
        writeln!(out, "# TYPE {name}{family_suffix} {kind}")?;
        if let Some(unit) = self.unit.filter(|_| open) {
            writeln!(out, "# UNIT {name} {unit}")?;
        }
        writeln!(out, "# HELP {name}{family_suffix} {}", escaped(&self.help, open))?;
        for (labels, value) in &self.samples {
            match *value {
                Value::Times(times) => self.write_histogram(labels, times, out)?,
                Value::Whole(n) => writeln!(out, "{name}{suffix}{} {n}", labels.braced())?,
                Value::Time(ns) => {
                    writeln!(out, "{name}{suffix}{} {}", labels.braced(), Seconds(ns))?;
                }
            }
        }
        Ok(())
    }

    fn write_histogram(&self, labels: &Labels, times: &Histogram, out: &mut String) -> fmt::Result {
        let name = &self.name;
        let mut buckets = times.buckets().peekable();
        let mut count = 0;
        for bound in BOUNDS.map(|power| 1 << power) {
            while let Some((_, n)) = buckets.next_if(|(greatest, _)| *greatest < bound) {
                count += n;
            }
            let labels = labels.clone().and("le", &Seconds(bound).to_string());
            writeln!(out, "{name}_bucket{} {count}", labels.braced())?;
        }
        count += buckets.map(|(_, n)| n).sum::<u64>();
        let all = labels.clone().and("le", "+Inf");
        writeln!(out, "{name}_bucket{} {count}", all.braced())?;
        let sum = times.mean_ns() * times.count() as f64;
        writeln!(out, "{name}_count{} {count}", labels.braced())?;
        writeln!(out, "{name}_sum{} {}", labels.braced(), Seconds(sum as u64))
    }
}

impl Labels {
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn core(core: usize) -> Self {
        Self::none().and("core", &core.to_string())
    }

    pub(super) fn and(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let _ = write!(self.0, "{name}=\"{}\"", escaped(value, true));
        self
    }

    fn braced(&self) -> Braced<'_> {
        Braced(&self.0)
    }
}

struct Braced<'a>(&'a str);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}

/// Nanoseconds as seconds, with all digits and no zeros at the end but one.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let text = format!("{rest:09}");
        let digits = text.trim_end_matches('0');
        write!(f, "{whole}.{}", if digits.is_empty() { "0" } else { digits })
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(family: &Family<'_>, format: Format) -> String {
        let mut out = String::new();
        family.write(format, &mut out);
        out
    }

    #[test]
    fn a_counter_is_written_in_both_formats() {
        let family = Family::new("coreloop_park_seconds", Kind::Counter, "Time \"in\" parks\\.")
            .sample(Labels::core(0), Value::Time(1_500_000_000))
            .sample(Labels::core(1), Value::Time(1));
        assert_eq!(
            written(&family, Format::OpenMetrics),
            "# TYPE coreloop_park_seconds counter\n\
             # UNIT coreloop_park_seconds seconds\n\
             # HELP coreloop_park_seconds Time \\\"in\\\" parks\\\\.\n\
             coreloop_park_seconds_total{core=\"0\"} 1.5\n\
             coreloop_park_seconds_total{core=\"1\"} 0.000000001\n"
        );
        assert_eq!(
            written(&family, Format::Plain),
            "# TYPE coreloop_park_seconds_total counter\n\
             # HELP coreloop_park_seconds_total Time \"in\" parks\\\\.\n\
             coreloop_park_seconds_total{core=\"0\"} 1.5\n\
             coreloop_park_seconds_total{core=\"1\"} 0.000000001\n"
        );
    }

    #[test]
    fn gauges_infos_and_nothing() {
        let gauge = Family::new("coreloop_ready", Kind::Gauge, "x");
        assert_eq!(written(&gauge, Format::OpenMetrics), "");
        let gauge = gauge.sample(Labels::none(), Value::Whole(1));
        assert!(written(&gauge, Format::Plain).ends_with("\ncoreloop_ready 1\n"));
        let info = Family::new("coreloop_build", Kind::Info, "x")
            .sample(Labels::none().and("version", "a\"b\\c\nd"), Value::Whole(1));
        let text = written(&info, Format::OpenMetrics);
        assert!(text.starts_with("# TYPE coreloop_build info\n"), "{text}");
        assert!(text.ends_with("coreloop_build_info{version=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(written(&info, Format::Plain).starts_with("# TYPE coreloop_build_info gauge\n"));
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut times = Histogram::default();
        for ns in [100, 255, 256, 1_000, 1_000_000_000, 60_000_000_000] {
            times.record(ns);
        }
        let family = Family::new("coreloop_poll_seconds", Kind::Histogram, "x")
            .sample(Labels::core(3), Value::Times(&times));
        let text = written(&family, Format::OpenMetrics);
        for line in [
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"0.000000256\"} 2",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"0.000000512\"} 3",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"0.000001024\"} 4",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"0.536870912\"} 4",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"1.073741824\"} 5",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"17.179869184\"} 5",
            "coreloop_poll_seconds_bucket{core=\"3\",le=\"+Inf\"} 6",
            "coreloop_poll_seconds_count{core=\"3\"} 6",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let sum = text.lines().find(|l| l.contains("_sum")).unwrap();
        let sum: f64 = sum.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((sum - 61.0).abs() < 0.7, "{sum}");
    }

    #[test]
    fn openmetrics_goes_to_who_asks_for_it() {
        for (accept, expected) in [
            ("", Format::Plain),
            ("*/*,", Format::Plain),
            ("text/html,application/xhtml+xml,*/*;q=0.8,", Format::Plain),
            ("text/plain;version=0.0.4;q=0.3,*/*;q=0.1,", Format::Plain),
            ("application/openmetrics-text,", Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8,", Format::OpenMetrics),
            ("application/openmetrics-text;q=0,", Format::Plain),
            ("application/openmetrics-text;q=nonsense,", Format::Plain),
            ("application/openmetrics-text;q=-1,", Format::Plain),
            // A version that nobody writes here.
            ("application/openmetrics-text;version=2.0.0,", Format::Plain),
            ("application/x-openmetrics-text,", Format::Plain),
            // Prometheus 2.5, 2.40 and 3, and 3 where it was told to like the plain format better.
            (
                "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1,",
                Format::Plain,
            ),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1,",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1,",
                Format::OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,\
                 application/openmetrics-text;version=0.0.1;q=0.3,*/*;q=0.2,",
                Format::Plain,
            ),
        ] {
            assert_eq!(Format::asked(accept), expected, "{accept}");
        }
    }
}
