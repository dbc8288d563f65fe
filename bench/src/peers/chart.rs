//! The one chart: server CPU per request against each contender, in the workloads that keep a server busy.
//!
//! Owns the file: an SVG that stands alone, with its own colours for light and dark, and lines that say
//! what it was measured on and by which command.

use std::fmt::Write;

use crate::peers::compare::{self, AS_THEY_COME, Comparison, Part};
use crate::peers::interval::{Ratio, Verdict};
use crate::peers::plot::{Axis, Dot, STYLE, escape, label, open};
use crate::peers::results::Results;
use crate::peers::text::ratio_digits;
use crate::report::paint::wrap;

/// The workloads, with what stands above each.
const PANELS: [(&str, &str); 3] = [
    ("echo-64", "64 connections"),
    ("echo-1000", "1,000 connections"),
    ("echo-d16", "64, depth 16"),
];

const LABELS: f64 = 160.0;
const PANEL: f64 = 236.0;
const NUMBER: f64 = 46.0;
const ROW: f64 = 22.0;
const TOP: f64 = 78.0;
/// A line of what stands below, and the width of its letters where they are wide.
const FACT: f64 = 16.0;
const LETTER: f64 = 6.6;

/// The drawing.
pub fn svg(results: &Results) -> String {
    let all = compare::all(results);
    let panels: Vec<(&str, &Part)> =
        PANELS.iter().filter_map(|(name, words)| Some((*words, part(&all, name)?))).collect();
    let names = names(&panels);
    let width = LABELS + PANEL * panels.len().max(2) as f64 + 10.0;
    let bottom = TOP + ROW * names.len() as f64;
    let title = "Server CPU per request: coreloop / contender";
    let facts = facts(results, width);
    let mut out = open(width, bottom + 34.0 + FACT * facts.len() as f64, title);
    let _ = write!(
        out,
        "<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"var(--back)\"/>\
         <text class=\"title\" x=\"16\" y=\"26\">{title}</text>\
         <text class=\"side\" x=\"16\" y=\"44\">TCP echo, 64 B. Left of 1 coreloop takes less. Dot: median over \
         {} blocks; bar: 95 % interval; hollow: unresolved.</text>",
        results.blocks
    );
    if panels.is_empty() {
        out += "<text x=\"16\" y=\"72\">no results of echo-64, echo-1000 or echo-d16</text>";
        return out + "</svg>";
    }
    for (i, name) in names.iter().enumerate() {
        out += &label(name, LABELS - 8.0, TOP + ROW * (i as f64 + 0.5));
    }
    for (i, (words, part)) in panels.iter().enumerate() {
        let left = LABELS + PANEL * i as f64;
        out += &panel(words, part, &names, left, bottom);
    }
    for (i, line) in facts.iter().enumerate() {
        let y = bottom + 40.0 + FACT * i as f64;
        let _ = write!(out, "<text class=\"side\" x=\"16\" y=\"{y:.0}\">{}</text>", escape(line));
    }
    out + "</svg>"
}

/// What it was measured on, and by which command, in lines that fit.
fn facts(results: &Results, width: f64) -> Vec<String> {
    let machine = &results.machine;
    let kind = if machine.virtual_machine { "virtual CPUs" } else { "CPUs" };
    let host = format!(
        "{}, {} {kind} (server on one, generator on another), Linux {}, {}",
        machine.cpu_model, machine.cpus, machine.kernel, results.started
    );
    [host, results.command_line.clone()]
        .iter()
        .flat_map(|line| wrap(line, columns(width)))
        .collect()
}

/// Letters of a line of facts that fit.
fn columns(width: f64) -> usize {
    ((width - 32.0) / LETTER) as usize
}

fn part<'a>(all: &'a [Comparison], name: &str) -> Option<&'a Part> {
    let comparison = all.iter().find(|comparison| comparison.workload.name == name)?;
    comparison.parts.iter().find(|part| part.title == AS_THEY_COME && part.reference.is_some())
}

/// Everybody who is compared, by the ratio in the first panel where there is one, the closest first.
fn names<'a>(panels: &[(&str, &'a Part)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, part) in panels {
        let mut rows: Vec<(&str, f64)> = part
            .rows
            .iter()
            .filter_map(|row| Some((row.who.as_str(), row.cells[0]?.against?.0.median)))
            .collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (who, _) in rows {
            if !names.contains(&who) {
                names.push(who);
            }
        }
    }
    names
}

fn panel(words: &str, part: &Part, names: &[&str], left: f64, bottom: f64) -> String {
    let against = |who: &&str| -> Option<(Ratio, Verdict)> {
        part.rows.iter().find(|row| row.who == **who)?.cells[0]?.against
    };
    let dots: Vec<Dot<'_>> =
        names.iter().map(|who| Dot { label: who, ratio: against(who) }).collect();
    let axis = Axis::around(dots.iter(), left + 6.0, left + PANEL - NUMBER - 12.0);
    let mut out = format!(
        "<text class=\"title\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
        left + 6.0,
        TOP - 12.0,
        escape(words)
    );
    out += &axis.draw(TOP, bottom);
    for (i, dot) in dots.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        let right = left + PANEL - NUMBER - 4.0;
        match dot.ratio {
            Some((ratio, verdict)) => {
                out += &axis.dot((ratio, verdict), y);
                let _ = write!(
                    out,
                    "<text class=\"number {}\" x=\"{right:.0}\" y=\"{:.1}\">{}</text>",
                    verdict.as_str(),
                    y + 4.0,
                    ratio_digits(ratio.median)
                );
            }
            None => {
                let _ = write!(
                    out,
                    "<text class=\"tick\" x=\"{right:.0}\" y=\"{:.1}\">none</text>",
                    y + 4.0
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::results::sample;

    #[test]
    fn the_chart_names_everybody_the_machine_and_the_command() {
        let svg = svg(&sample::results());
        for part in
            ["tokio", "monoio flags", "64 connections", "A CPU &amp; co", "--seed 7", "6.18.44"]
        {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("1,000 connections"), "it was not run");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
    }

    #[test]
    fn a_long_command_goes_on_in_the_next_line() {
        let mut results = sample::results();
        let short = svg(&results);
        results.command_line += &" --contenders 'raw select,raw multishot'".repeat(9);
        results.command_line += " --the-end";
        let long = svg(&results);
        let facts = |svg: &str| {
            let lines = svg.split("class=\"side\"").skip(2);
            lines
                .map(|line| line.split(['<', '>']).nth(1).unwrap().replace("&amp;", "&"))
                .collect::<Vec<_>>()
        };
        assert!(facts(&long).len() > facts(&short).len(), "{:?}", facts(&long));
        // As its viewBox says.
        let width: f64 = long.split(['"', ' ']).nth(7).unwrap().parse().unwrap();
        let columns = columns(width);
        assert!(
            facts(&long).iter().all(|line| line.chars().count() <= columns),
            "{:?}",
            facts(&long)
        );
        assert!(facts(&long).last().unwrap().ends_with("--the-end"));
    }

    #[test]
    fn without_its_workloads_it_says_so() {
        let mut results = sample::results();
        results.workloads.remove(0);
        assert!(svg(&results).contains("no results of echo-64"));
    }
}
