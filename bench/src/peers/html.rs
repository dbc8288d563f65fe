//! A comparison as one page: tables and plots, nothing from elsewhere.
//!
//! Owns the page. Everything on it is drawn from the results; colour repeats what words say.

use std::fmt::Write;

use crate::peers::compare::{self, AS_THEY_COME, Cell, Comparison, Part, Row};
use crate::peers::plot::{self, Bar, Dot, STYLE, escape};
use crate::peers::results::Results;
use crate::peers::text::{digits, ratio_digits, warnings};
use crate::peers::workloads::Figure;
use crate::report::units::grouped;

const PAGE_STYLE: &str = "\
body{margin:0 auto;max-width:1340px;padding:24px;background:var(--back);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:26px;margin:0 0 8px}h2{font-size:20px;margin:44px 0 2px;border-top:1px solid var(--line);padding-top:24px}\
h3{font-size:15px;margin:20px 0 6px}p{margin:4px 0 10px;max-width:900px}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px 0}dt{color:var(--dim)}dd{margin:0}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}\
th,td{padding:4px 9px;text-align:right;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}\
th{font-weight:600;color:var(--dim);text-align:right;vertical-align:bottom;white-space:normal}th:first-child,td:first-child{text-align:left}\
td small,.dim{color:var(--dim);font-size:12px}td small{display:block}\
tr.ours td:first-child{color:var(--ours);font-weight:600}\
.ahead{color:var(--ahead)}.behind{color:var(--behind)}.unresolved{color:var(--unresolved)}\
.warn{border-left:3px solid var(--unresolved);padding:2px 12px}.fail{border-left:3px solid var(--behind);padding:2px 12px}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:18px 28px;margin:16px 0}\
.plots svg{width:100%;height:auto}a{color:var(--ours)}";

/// The page.
pub fn page(results: &Results) -> String {
    let all = compare::all(results);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>coreloop and its peers, {}</title>\n<style>{STYLE}{PAGE_STYLE}</style></head>\n<body>\n",
        escape(&results.started)
    );
    out += &head(results);
    out += &overview(&all);
    all.iter().for_each(|comparison| out += &section(comparison));
    out += &versions(results);
    out + "</body></html>\n"
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let kind = if machine.virtual_machine { "virtual CPUs" } else { "CPUs" };
    let facts = [
        ("measured", results.started.clone()),
        (
            "machine",
            format!("{}, {} {kind}, Linux {}", machine.cpu_model, machine.cpus, machine.kernel),
        ),
        (
            "cores",
            format!("server on {}, generator on {}", results.cores.server, results.cores.load),
        ),
        ("network", format!("loopback of {}, {}", machine.network, machine.congestion_control)),
        (
            "runs",
            format!(
                "{} blocks, each contender once in a block, in random order (seed {}); loads of {} s after \
                 {} ms of warm-up; disturbed runs repeated up to twice",
                results.blocks,
                results.seed,
                results.seconds,
                crate::peers::run::WARMUP.as_millis()
            ),
        ),
    ];
    let mut out = "<h1>coreloop and its peers</h1>\n<dl>".to_owned();
    for (name, value) in facts {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    let _ = writeln!(
        out,
        "<dt>command</dt><dd><code>{}</code></dd></dl>",
        escape(&results.command_line)
    );
    for line in warnings(results) {
        let _ = writeln!(out, "<p class=\"warn\">{}</p>", escape(&line));
    }
    out += "<p>A <b>ratio</b> is coreloop's figure over the contender's: the median over the blocks of the ratio \
            within a block, with its 95 % interval (percentile bootstrap of that median over blocks). \
            <b class=\"ahead\">Ahead</b> and <b class=\"behind\">behind</b> mean that the whole interval lies on \
            coreloop's or on the contender's side of 1; what contains 1 is \
            <b class=\"unresolved\">unresolved</b>. <i>Best</i> is the best of all blocks: noise only ever adds. \
            The server's CPU is what the scheduler counted for all its threads, over all answers.</p>\n";
    out
}

/// Everybody against every workload, by the first figure of each.
fn overview(all: &[Comparison]) -> String {
    let columns: Vec<(&Comparison, &Part)> = all
        .iter()
        .filter_map(|comparison| {
            let first = |part: &&Part| part.title == AS_THEY_COME && part.reference.is_some();
            Some((comparison, comparison.parts.iter().find(first)?))
        })
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for row in columns.iter().flat_map(|(_, part)| &part.rows).filter(|row| !row.is_reference) {
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    names.sort_unstable();
    let mut out = "<h3>All at a glance: the first figure of each workload</h3>\n<div class=\"wide\"><table><tr><th></th>".to_owned();
    for (comparison, _) in &columns {
        let name = comparison.workload.name;
        let _ = write!(out, "<th><a href=\"#{name}\">{name}</a></th>");
    }
    out += "</tr>\n";
    for name in names {
        let _ = write!(out, "<tr><td>{}</td>", escape(name));
        for (comparison, part) in &columns {
            let cell = part.rows.iter().find(|row| row.who == name).and_then(|row| row.cells[0]);
            let failed = comparison.failures.iter().any(|(who, _)| who == name);
            out += &match (cell.and_then(|cell| cell.against), failed) {
                (Some((ratio, verdict)), _) => format!(
                    "<td class=\"{0}\">{1}<small class=\"{0}\">{0}</small></td>",
                    verdict.as_str(),
                    ratio_digits(ratio.median)
                ),
                (None, true) => "<td class=\"dim\">failed</td>".into(),
                (None, false) => "<td></td>".into(),
            };
        }
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}

fn section(comparison: &Comparison) -> String {
    let workload = comparison.workload;
    let mut out = format!(
        "<h2 id=\"{0}\">{0}</h2>\n<p>{1}{2}</p>\n",
        workload.name,
        escape(workload.words),
        comparison.rate.map(|rate| format!(": {} requests/s", grouped(rate))).unwrap_or_default()
    );
    for part in &comparison.parts {
        if comparison.parts.len() > 1 || part.title != AS_THEY_COME {
            let _ = writeln!(out, "<h3>{}</h3>", escape(part.title));
        }
        out += &table(workload.figures, part);
        out += &plots(workload.figures, part);
    }
    for (who, why) in &comparison.failures {
        let _ = writeln!(out, "<p class=\"fail\"><b>{}</b>: {}</p>", escape(who), escape(why));
    }
    for (who, note) in &comparison.notes {
        let _ = writeln!(out, "<p class=\"dim\">{}: {}</p>", escape(who), escape(note));
    }
    out
}

fn table(figures: &[Figure], part: &Part) -> String {
    let compared = part.reference.is_some();
    let mut out = "<div class=\"wide\"><table><tr><th>contender</th>".to_owned();
    for figure in figures {
        let _ = write!(out, "<th>{}{}</th>", escape(figure.words), unit(figure));
        if compared {
            out += "<th>ratio</th>";
        }
    }
    out += "<th>blocks</th></tr>\n";
    for row in &part.rows {
        out += &table_row(figures, row, compared);
    }
    out + "</table></div>\n"
}

fn unit(figure: &Figure) -> String {
    if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) }
}

fn table_row(figures: &[Figure], row: &Row, compared: bool) -> String {
    let class = if row.is_reference { " class=\"ours\"" } else { "" };
    let mut out = format!("<tr{class}><td>{}</td>", escape(&row.who));
    for (figure, cell) in figures.iter().zip(&row.cells) {
        match cell {
            Some(cell) => {
                let _ = write!(
                    out,
                    "<td>{}<small>best {}</small></td>",
                    digits(cell.median / figure.scale),
                    digits(cell.best / figure.scale)
                );
            }
            None => out += "<td></td>",
        }
        if compared {
            out += &ratio_cell(cell.as_ref());
        }
    }
    let disturbed = match row.disturbed {
        0 => String::new(),
        n => format!("<small>{n} disturbed</small>"),
    };
    let _ = writeln!(out, "<td>{}{disturbed}</td></tr>", row.blocks);
    out
}

fn ratio_cell(cell: Option<&Cell>) -> String {
    match cell.and_then(|cell| cell.against) {
        Some((ratio, verdict)) => format!(
            "<td class=\"{0}\">{1} {0}<small>{2} to {3}</small></td>",
            verdict.as_str(),
            ratio_digits(ratio.median),
            ratio_digits(ratio.low),
            ratio_digits(ratio.high)
        ),
        None => "<td></td>".into(),
    }
}

fn plots(figures: &[Figure], part: &Part) -> String {
    let mut out = "<div class=\"plots\">".to_owned();
    let first = &figures[0];
    let bars: Vec<Bar<'_>> = part
        .rows
        .iter()
        .filter_map(|row| {
            let cell = row.cells[0]?;
            Some(Bar {
                label: &row.who,
                value: cell.median / first.scale,
                best: cell.best / first.scale,
                is_reference: row.is_reference,
            })
        })
        .collect();
    out += &plot::bars(&format!("{}{}: median, and best", first.words, unit(first)), &bars);
    for (i, figure) in figures.iter().enumerate().filter(|_| part.reference.is_some()) {
        let dots: Vec<Dot<'_>> = part
            .rows
            .iter()
            .filter(|row| !row.is_reference)
            .map(|row| Dot { label: &row.who, ratio: row.cells[i].and_then(|cell| cell.against) })
            .filter(|dot| dot.ratio.is_some())
            .collect();
        if !dots.is_empty() {
            let title = format!("{}: coreloop / contender", figure.words);
            out += &plot::forest(&title, &dots, figure.less_is_better);
        }
    }
    out + "</div>\n"
}

fn versions(results: &Results) -> String {
    let mut out =
        "<h2>Who took part</h2>\n<div class=\"wide\"><table><tr><th>contender</th><th>version</th>\
                   <th></th></tr>\n"
            .to_owned();
    for who in &results.contenders {
        let about = match (&who.broken, who.spins, who.ring) {
            (Some(why), ..) => why.as_str(),
            (None, true, _) => "io_uring, spins",
            (None, false, true) => "io_uring",
            (None, false, false) => "",
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&who.id),
            escape(&who.version),
            escape(about)
        );
    }
    out + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::results::sample;

    #[test]
    fn the_page_stands_alone_and_has_everything() {
        let page = page(&sample::results());
        for part in [
            "<!doctype html>",
            "id=\"echo-64\"",
            "id=\"echo-1\"",
            "monoio flags",
            "unresolved",
            "those that spin before they sleep",
            "exit status: 101: boom",
            "unsupported: &lt;no&gt; server",
            "A CPU &amp; co",
            "seed 7",
            "a note",
            "prefers-color-scheme:dark",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let links = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!links.contains("http"), "nothing from elsewhere");
        assert!(!page.contains("<script"));
    }

    #[test]
    fn tags_are_closed() {
        let page = page(&sample::results());
        for tag in ["table", "svg", "div", "tr", "td", "th", "p", "h2", "h3", "dl", "g", "small"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
