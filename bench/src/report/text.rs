//! The reports as people read them in a terminal, or in a pipe.
//!
//! Owns order and wording: what it ran on, what was done, each core, latencies, chart, and the
//! verdict last, where the eye ends up. Prints nothing itself: it returns the text.

use std::time::Duration;

use crate::cli::IdleArgs;
use crate::cli::parse::{Human, bytes};
use crate::report::chart;
use crate::report::paint::{Paint, Tone, wrap};
use crate::report::table::{Align, Table};
use crate::report::tables::{cores, histograms, loops, served, served_loops};
use crate::report::units::{core_ranges, grouped, ratio, time_ns};
use crate::report::{
    ChangedSetting, Parameters, Platform, RunReport, ServeReport, ServerParameters, Totals,
};
use crate::scenario::idle::Idled;
use crate::stats::Summary;
use crate::verdict::Verdict;

/// Width of the names in front of a fact, with their indent and gap.
const FACT_INDENT: usize = 12;

/// The whole report of a run.
pub fn run(report: &RunReport, paint: Paint) -> String {
    let title = format!("coreloop-bench {} · {}", report.platform.version, report.command);
    let mut out = format!("{}\n\n", paint.tone(Tone::Strong, &title));
    out += &platform(&report.platform, paint);
    out += &parameters(&report.parameters, paint);
    out += &section("Cores", &cores(&report.cores, paint), paint);
    out += &section("Loop", &loops(&report.cores, paint), paint);
    out += &section("Inside the server", &histograms(&report.core_histograms, paint), paint);
    let latency = &report.latency;
    if latency.uncorrected.count > 0 {
        out += &section("Latency", &latencies(report, paint), paint);
        let headline = latency.corrected.as_ref().unwrap_or(&latency.uncorrected);
        out.push('\n');
        out += &chart::render(&latency.buckets, headline, paint);
    }
    out.push('\n');
    out += &totals(&report.totals, &report.parameters, paint);
    out += &verdict(&report.verdict, paint);
    out
}

/// The report of a server that has stopped.
pub fn serve(report: &ServeReport, paint: Paint) -> String {
    let title = format!("coreloop-bench {} · {}", report.platform.version, report.command);
    let mut out = format!("{}\n\n", paint.tone(Tone::Strong, &title));
    out += &platform(&report.platform, paint);
    out += &fact("address", &report.addr, paint);
    out += &fact("server", &server(&report.server), paint);
    out += &section("Cores", &served(&report.cores, paint), paint);
    out += &section("Loop", &served_loops(&report.cores, paint), paint);
    out += &section("Inside the server", &histograms(&report.core_histograms, paint), paint);
    out
}

/// What a server says when it begins to listen.
pub fn listening(platform_facts: &Platform, addr: &str, cores: &[usize], paint: Paint) -> String {
    let mut out = platform(platform_facts, paint);
    let what = format!("{addr} on core {}; Ctrl-C ends it", core_ranges(cores));
    out += &fact("listening", &what, paint);
    out
}

/// Where the ops listener is.
pub fn ops(addr: std::net::SocketAddr, paint: Paint) -> String {
    let what = format!("http://{addr}/; coreloop-bench top {addr} shows it live");
    let mut out = fact("ops", &what, paint);
    if !addr.ip().is_loopback() {
        let words = "whoever reaches that address reads all of it: put a network policy before it";
        out += &paint.tone(Tone::Warn, &fact("", words, Paint { colour: false, ..paint }));
    }
    out
}

/// What silent connections cost.
pub fn idle(idled: &Idled, args: &IdleArgs) -> String {
    let count = grouped(idled.connections);
    let mut out = format!("  {count} connections to {} were open, silent\n", args.addr);
    if let Some((before, with)) = idled.server_bytes {
        let grown = with.saturating_sub(before);
        out += &format!(
            "  anonymous memory of the server: {} KiB before, {} KiB with them: {} bytes each (of a \
             server that had none before; it keeps memory for later ones)\n",
            grouped(before / 1024),
            grouped(with / 1024),
            grouped(grown / idled.connections)
        );
    }
    out
}

fn platform(platform: &Platform, paint: Paint) -> String {
    let unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let machine = format!(
        "Linux {} · {}",
        unknown(&platform.kernel),
        platform.cpu_model.as_deref().unwrap_or("CPU model unknown")
    );
    let quota = platform.cpu_quota.map(|quota| format!(", {} CPUs' worth of time", ratio(quota)));
    let cores =
        format!("{} allowed{}", core_ranges(&platform.cpus_allowed), quota.unwrap_or_default());
    let mut out = fact("machine", &machine, paint);
    out += &fact("CPUs", &cores, paint);
    out += &fact(
        "TCP",
        &format!("{} congestion control", unknown(&platform.congestion_control)),
        paint,
    );
    if !platform.ring_features.is_empty() {
        out += &fact("ring", &platform.ring_features.join(", "), paint);
    }
    if !platform.ring_step_downs.is_empty() {
        out += &fact("without", &platform.ring_step_downs.join("; "), paint);
    }
    out
}

fn parameters(asked: &Parameters, paint: Paint) -> String {
    let depth = grouped(asked.depth);
    let random = match asked.arrivals.as_deref() {
        Some("poisson") => " at random",
        _ => "",
    };
    let (depth, pace) = match asked.rate {
        Some(rate) => (
            format!(", up to {depth} in flight each"),
            format!("open loop at {} requests/s{random}", grouped(rate)),
        ),
        None => (format!(" × depth {depth}"), "closed loop".into()),
    };
    let what = format!(
        "{} connection{}{depth}, {} each way, {pace}",
        grouped(asked.connections),
        if asked.connections == 1 { "" } else { "s" },
        bytes(asked.size_bytes)
    );
    let time = format!(
        "{} after {} of warm-up, against {}",
        span(asked.duration_ns),
        span(asked.warmup_ns),
        asked.addr
    );
    let mut out = fact("load", &what, paint);
    out += &fact("measured", &time, paint);
    if let Some(tuning) = &asked.server {
        out += &fact("server", &server(tuning), paint);
    }
    out
}

/// To the millisecond: a run that was interrupted has an odd length.
fn span(ns: u64) -> Human {
    Human(Duration::from_millis(ns / 1_000_000))
}

fn server(tuning: &ServerParameters) -> String {
    let mut out = format!("spin {}, stats {}", tuning.spin, tuning.stats);
    for ChangedSetting { name, value, .. } in &tuning.changed {
        if !["spin", "stats"].contains(&&**name) {
            out += &format!(", {name} {value}");
        }
    }
    out
}

fn latency_row(name: String, figures: &Summary) -> Vec<String> {
    let points = [
        figures.min_ns,
        figures.p50_ns,
        figures.p90_ns,
        figures.p99_ns,
        figures.p999_ns,
        figures.p9999_ns,
        figures.max_ns,
    ];
    [name].into_iter().chain(points.map(|ns| time_ns(ns as f64))).collect()
}

fn latencies(report: &RunReport, paint: Paint) -> String {
    let points = ["", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut table =
        Table::new(&points.map(|p| (p, if p.is_empty() { Align::Left } else { Align::Right })));
    let latency = &report.latency;
    match (&latency.corrected, &latency.lag) {
        (Some(corrected), Some(lag)) => {
            table.row(latency_row("corrected".into(), corrected));
            table.row(latency_row("uncorrected".into(), &latency.uncorrected));
            table.row(latency_row("send lag".into(), lag));
            let legend = "corrected: from the intended send time; uncorrected: from the actual \
                          one; send lag: the generator's own lateness";
            table.render(paint) + &dim_lines(legend, paint)
        }
        _ => {
            table.row(latency_row("latency".into(), &latency.uncorrected));
            table.render(paint)
        }
    }
}

fn totals(totals: &Totals, asked: &Parameters, paint: Paint) -> String {
    let rate = format!("{} requests/s", grouped(totals.requests_per_s.round() as u64));
    let mut out = format!(
        "  {} · {} requests in {} · {} MB/s each way\n",
        paint.tone(Tone::Strong, &rate),
        grouped(totals.requests),
        span(asked.duration_ns),
        ratio(totals.bytes_per_s / 1e6)
    );
    let losses =
        [(totals.errors, "failed"), (totals.unanswered, "unanswered when the time was over")];
    for (count, what) in losses.into_iter().filter(|(count, _)| *count > 0) {
        out += &format!("  {} {what}\n", grouped(count));
    }
    out
}

fn verdict(verdict: &Verdict, paint: Paint) -> String {
    let mut out = String::new();
    for note in &verdict.notes {
        out += &bullet("note", note, Tone::Warn, paint);
    }
    if verdict.valid {
        return out;
    }
    for reason in &verdict.reasons {
        out += &bullet("INVALID", reason, Tone::Bad, paint);
    }
    out
}

/// A word in front, and text that hangs behind it.
fn bullet(word: &str, text: &str, tone: Tone, paint: Paint) -> String {
    let indent = word.chars().count() + 4;
    let mut out = String::new();
    for (i, line) in wrap(text, paint.columns - indent).iter().enumerate() {
        out += &match i {
            0 => format!("  {}: {line}\n", paint.tone(tone, word)),
            _ => format!("{}{line}\n", " ".repeat(indent)),
        };
    }
    out
}

fn dim_lines(text: &str, paint: Paint) -> String {
    let lines = wrap(text, paint.columns - 2);
    lines.iter().map(|line| format!("{}\n", paint.tone(Tone::Dim, &format!("  {line}")))).collect()
}

fn fact(name: &str, text: &str, paint: Paint) -> String {
    let mut out = String::new();
    for (i, line) in wrap(text, paint.columns - FACT_INDENT).iter().enumerate() {
        let name = if i == 0 { name } else { "" };
        let name = format!("  {name:<width$}", width = FACT_INDENT - 2);
        out += &format!("{}{line}\n", paint.tone(Tone::Dim, &name));
    }
    out
}

fn section(title: &str, body: &str, paint: Paint) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!("\n{}\n{body}", paint.tone(Tone::Strong, title))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Golden outputs stand in files, so that a diff shows what a reader would see. To renew them:
    /// `UPDATE_GOLDEN=1 cargo test -p coreloop-bench`.
    fn matches_golden(name: &str, text: &str) {
        let path = format!("{}/src/report/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, golden, "{path} differs; UPDATE_GOLDEN=1 renews it");
    }

    fn fits(text: &str, columns: usize) {
        for line in text.lines() {
            assert!(line.chars().count() <= columns, "{} wide: {line}", line.chars().count());
        }
    }

    #[test]
    fn a_closed_loop_reads_well_in_80_columns() {
        let text = run(&sample::closed_run(), Paint::plain());
        fits(&text, 80);
        matches_golden("closed", &text);
    }

    #[test]
    fn an_invalid_open_loop_says_so_last() {
        let text = run(&sample::open_run(), Paint::plain());
        fits(&text, 80);
        matches_golden("open_invalid", &text);
    }

    #[test]
    fn a_wide_terminal_gets_longer_bars() {
        let text = run(&sample::closed_run(), Paint { columns: 120, colour: false });
        fits(&text, 120);
        matches_golden("closed_wide", &text);
    }

    #[test]
    fn a_server_reports_its_cores() {
        let text = serve(&sample::server(), Paint::plain());
        fits(&text, 80);
        matches_golden("serve", &text);
    }

    #[test]
    fn colours_change_no_character_of_the_text() {
        let coloured = run(&sample::open_run(), Paint { columns: 80, colour: true });
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            plain += before;
            rest = after.split_once('m').unwrap().1;
        }
        plain += rest;
        assert_eq!(plain, run(&sample::open_run(), Paint::plain()));
    }

    #[test]
    fn a_run_without_answers_has_no_latency_to_show() {
        let text = run(&sample::silent_run(), Paint::plain());
        assert!(!text.contains("Latency"), "{text}");
        assert!(text.contains("INVALID: no request was answered"), "{text}");
    }
}
