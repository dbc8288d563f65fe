//! A comparison as it reads in a terminal.
//!
//! Owns order and wording. Colour repeats what words and signs say. Prints nothing itself.

use crate::peers::compare::{AS_THEY_COME, Cell, Comparison, Part, Row};
use crate::peers::interval::{BLOCKS_MIN, Verdict};
use crate::peers::results::Results;
use crate::peers::workloads::Figure;
use crate::report::paint::{Paint, Tone, wrap};
use crate::report::table::{Align, Table};
use crate::report::units::grouped;

/// What stands above all tables.
pub fn head(results: &Results, paint: Paint) -> String {
    let machine = &results.machine;
    let title = format!("coreloop-bench {} · peers", results.version);
    let mut out = format!("{}\n\n", paint.tone(Tone::Strong, &title));
    let virtual_or_not = if machine.virtual_machine { ", virtual" } else { "" };
    let facts = [
        ("machine", format!("Linux {} · {}{virtual_or_not}", machine.kernel, machine.cpu_model)),
        (
            "cores",
            format!(
                "server on {}, generator on {}, of {}",
                results.cores.server, results.cores.load, machine.cpus
            ),
        ),
        ("network", format!("loopback of {}, {}", machine.network, machine.congestion_control)),
        (
            "runs",
            format!(
                "{} blocks in random order, seed {}; loads of {} s",
                results.blocks, results.seed, results.seconds
            ),
        ),
    ];
    for (name, value) in facts {
        out += &format!("  {}{value}\n", paint.tone(Tone::Dim, &format!("{name:<10}")));
    }
    for line in warnings(results) {
        out += &paragraph(&line, Tone::Warn, paint);
    }
    out
}

/// What a reader has to know before any figure.
pub fn warnings(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    if results.blocks < BLOCKS_MIN {
        lines.push(format!(
            "{} blocks are too few: the intervals mean nothing, and everything is unresolved (use {} or more)",
            results.blocks, BLOCKS_MIN
        ));
    }
    if results.quick {
        lines.push("a quick look, with short runs: figures for orientation only".into());
    }
    if results.interrupted {
        lines.push("ended before its time: this is what there was".into());
    }
    lines.extend(results.notes.iter().cloned());
    lines
}

/// How to read the tables; printed once.
pub fn legend(paint: Paint) -> String {
    let words = "ratio: coreloop's figure over the contender's, the median over blocks, with the 95 % interval \
                 of a bootstrap over blocks. ahead, behind: the whole interval is on one side of 1; else \
                 unresolved, as is everything of fewer than 5 blocks. + - ~ say the same of the figures without an \
                 interval here. A figure of 0 has no ratio. best: of all blocks. \
                 d: blocks that stayed disturbed after two repeats.";
    format!("\n{}", paragraph(words, Tone::Dim, paint))
}

/// The tables of a workload.
pub fn workload(comparison: &Comparison, paint: Paint) -> String {
    let workload = comparison.workload;
    let title = paint.tone(Tone::Strong, workload.name);
    let mut out = format!("\n{title}  {}\n", workload.words);
    if let Some(rate) = comparison.rate {
        out += &format!("  {} requests/s were asked for\n", grouped(rate));
    }
    for part in &comparison.parts {
        if comparison.parts.len() > 1 || part.title != AS_THEY_COME {
            out += &format!("\n  {}\n", paint.tone(Tone::Strong, part.title));
        }
        out += &table(comparison, part, paint);
    }
    if comparison.parts.is_empty() {
        out += "  nobody has figures\n";
    }
    for (who, why) in &comparison.failures {
        out += &paragraph(&format!("{who}: {why}"), Tone::Bad, paint);
    }
    for (who, note) in &comparison.notes {
        out += &paragraph(&format!("{who}: {note}"), Tone::Dim, paint);
    }
    out
}

/// How many pairs are ahead, behind and unresolved by their headline figures.
pub fn summary(comparisons: &[Comparison], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("workload", Align::Left),
        ("figure", Align::Left),
        ("ahead", Align::Right),
        ("unresolved", Align::Right),
        ("behind", Align::Right),
        ("behind whom", Align::Left),
    ]);
    for comparison in comparisons {
        for part in &comparison.parts {
            for (i, figure) in comparison.workload.figures.iter().enumerate() {
                if !figure.headline || part.reference.is_none() {
                    continue;
                }
                // Our own other variants are in the tables, for comparison; nobody is ahead of itself.
                let others = || part.rows.iter().filter(|row| !row.is_ours);
                let of = |verdict: Verdict| -> Vec<&str> {
                    let with = |row: &&Row| {
                        row.cells[i]
                            .and_then(|cell| cell.against)
                            .is_some_and(|(_, v)| v == verdict)
                    };
                    others().filter(with).map(|row| row.who.as_str()).collect()
                };
                let place = match part.title {
                    AS_THEY_COME => comparison.workload.name.to_owned(),
                    title => format!("{}, {title}", comparison.workload.name),
                };
                let behind = of(Verdict::Behind);
                table.row(vec![
                    place,
                    figure.words.to_owned(),
                    of(Verdict::Ahead).len().to_string(),
                    of(Verdict::Unresolved).len().to_string(),
                    behind.len().to_string(),
                    behind.join(", "),
                ]);
            }
        }
    }
    format!("\n{}\n{}", paint.tone(Tone::Strong, "Summary: coreloop is …"), table.render(paint))
}

fn table(comparison: &Comparison, part: &Part, paint: Paint) -> String {
    let figures = comparison.workload.figures;
    let mut heads: Vec<(String, Align)> = vec![("contender".into(), Align::Left)];
    for figure in figures {
        heads.push((head_of(figure), Align::Right));
        let room = room(figures, figure);
        if room == Room::Much {
            heads.push(("best".into(), Align::Right));
        }
        if part.reference.is_some() {
            heads.push(("ratio".into(), Align::Right));
            if room != Room::Little {
                heads.push(("95 %".into(), Align::Left));
            }
            if room == Room::Much {
                heads.push((String::new(), Align::Left));
            }
        }
    }
    heads.push(("d".into(), Align::Right));
    let heads: Vec<(&str, Align)> =
        heads.iter().map(|(text, align)| (text.as_str(), *align)).collect();
    let mut table = Table::new(&heads);
    for row in &part.rows {
        table.row(cells(figures, row, part.reference.is_some()));
    }
    coloured(&table.render(paint), paint)
}

/// How much of a figure has room in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// The best block, the interval, and the verdict as a word.
    Much,
    /// The interval, and the verdict as a sign.
    Some,
    /// The verdict as a sign.
    Little,
}

fn room(figures: &[Figure], figure: &Figure) -> Room {
    let headlines = figures.iter().filter(|figure| figure.headline).count();
    match (figure.headline, headlines) {
        (true, 1) => Room::Much,
        (true, _) => Room::Some,
        (false, _) => Room::Little,
    }
}

fn head_of(figure: &Figure) -> String {
    let short = match figure.key {
        "cpu_ns_per_request" => return "ns/req".to_owned(),
        "requests_per_s" => return figure.unit.to_owned(),
        "p50_us" => "p50",
        "p99_us" => "p99",
        "late_p50_us" => "late p50",
        "late_p99_us" => "late p99",
        "late_max_us" => "most",
        "early" => "early",
        "insert_ns" => "insert",
        "cancel_ns" => "cancel",
        "bytes_per_task" => "a task",
        "bytes_beyond_future" => "beyond",
        "heap_bytes_per_task" => "heap",
        "mean_ns" => "mean",
        "p50_ns" => "p50",
        "p99_ns" => "p99",
        "m_per_s" => return figure.unit.to_owned(),
        "bytes_per_connection" => "a connection",
        _ => figure.words,
    };
    // Some units are in the word.
    match figure.unit {
        "" => short.to_owned(),
        unit => format!("{short} {unit}"),
    }
}

fn cells(figures: &[Figure], row: &Row, compared: bool) -> Vec<String> {
    let mut out = vec![row.who.clone()];
    for (figure, cell) in figures.iter().zip(&row.cells) {
        let number = |value: Option<f64>| match value {
            Some(value) => digits(value / figure.scale),
            None => "·".into(),
        };
        out.push(number(cell.map(|cell| cell.median)));
        let room = room(figures, figure);
        if room == Room::Much {
            out.push(number(cell.map(|cell| cell.best)));
        }
        if compared {
            out.extend(ratio_cells(cell.as_ref(), room));
        }
    }
    let disturbed = if row.disturbed > 0 { row.disturbed.to_string() } else { String::new() };
    out.push(disturbed);
    out
}

fn ratio_cells(cell: Option<&Cell>, room: Room) -> Vec<String> {
    let columns = match room {
        Room::Much => 3,
        Room::Some => 2,
        Room::Little => 1,
    };
    let Some((ratio, verdict)) = cell.and_then(|cell| cell.against) else {
        return vec![String::new(); columns];
    };
    let interval = format!("{}–{}", ratio_digits(ratio.low), ratio_digits(ratio.high));
    let sign = verdict.sign();
    match room {
        Room::Much => vec![ratio_digits(ratio.median), interval, verdict.as_str().into()],
        Room::Some => vec![format!("{}{sign}", ratio_digits(ratio.median)), interval],
        Room::Little => vec![format!("{}{sign}", short_ratio(ratio.median))],
    }
}

/// Words are coloured after the columns were aligned: colours have no width.
fn coloured(text: &str, paint: Paint) -> String {
    let words = [
        (Verdict::Ahead, Tone::Good),
        (Verdict::Behind, Tone::Bad),
        (Verdict::Unresolved, Tone::Dim),
    ];
    let mut out = text.to_owned();
    for (verdict, tone) in words {
        let word = format!("  {}", verdict.as_str());
        out = out.replace(&word, &paint.tone(tone, &word));
    }
    out
}

fn paragraph(words: &str, tone: Tone, paint: Paint) -> String {
    wrap(words, paint.columns - 2)
        .iter()
        .map(|line| format!("  {}\n", paint.tone(tone, line)))
        .collect()
}

/// A figure with three digits or more, as many as it needs before the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => grouped(value.round().max(0.0) as u64),
        size if size >= 9.995 => format!("{value:.1}"),
        0.0 => "0".into(),
        _ => format!("{value:.2}"),
    }
}

/// As [`ratio_digits`], where there is little room.
fn short_ratio(value: f64) -> String {
    if (0.0995..9.95).contains(&value) { format!("{value:.2}") } else { ratio_digits(value) }
}

/// A ratio with three decimals near 1, fewer where it is far away.
pub fn ratio_digits(value: f64) -> String {
    match value {
        value if value >= 99.5 => grouped(value.round() as u64),
        value if value >= 9.95 => format!("{value:.1}"),
        value if value >= 0.0995 => format!("{value:.3}"),
        value => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::compare;
    use crate::peers::results::sample;

    #[test]
    fn a_table_says_it_all_in_order() {
        let all = compare::all(&sample::results());
        let text = workload(&all[0], Paint::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "echo-64  TCP echo, 64 connections, 64 B");
        assert!(lines[2].trim_start().starts_with("contender"), "{text}");
        assert!(lines[3].trim_start().starts_with("coreloop "), "ours first: {text}");
        assert!(lines[4].contains("monoio flags") && lines[4].contains("unresolved"), "{text}");
        assert!(lines[5].contains("tokio") && lines[5].contains("ahead"), "{text}");
        assert!(text.contains("smol: failed once: the server ended with exit status: 101: boom"));
        assert!(text.contains("ringline: unsupported: <no> server"));
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn few_blocks_and_an_early_end_are_told_first() {
        let mut results = sample::results();
        (results.blocks, results.interrupted) = (2, true);
        let head = head(&results, Paint::plain());
        assert!(head.contains("2 blocks are too few") && head.contains("ended before its time"));
        assert!(head.contains("seed 7"), "{head}");
    }

    #[test]
    fn the_summary_names_those_who_are_ahead_of_us() {
        let mut results = sample::results();
        for run in &mut results.workloads[0].runs {
            if run.contender == "tokio" {
                run.figures.insert("cpu_ns_per_request".into(), 1_000.0);
            }
        }
        let text = summary(&compare::all(&results), Paint::plain());
        let line = text.lines().find(|line| line.contains("echo-64")).unwrap();
        assert!(line.trim_end().ends_with("tokio"), "{text}");
    }

    #[test]
    fn numbers_have_the_digits_that_they_need() {
        assert_eq!([5_073.4, 27.44, 3.2, 0.0].map(digits), ["5,073", "27.4", "3.20", "0"]);
        assert_eq!([1.0123, 0.0312, 12.34].map(ratio_digits), ["1.012", "0.0312", "12.3"]);
    }
}
