//! The tables of cores: what each used, what its loop did, what it recorded about itself.
//!
//! Owns their columns. A run counts requests; a server by itself doesn't know where one ends, and counts
//! connections and bytes.

use crate::report::CoreHistogram;
use crate::report::core::{CoreRow, Role, per};
use crate::report::paint::{Paint, Tone};
use crate::report::table::{Align, Table};
use crate::report::units::{grouped, percent, ratio, time_ns};

/// The cores of a run, by requests.
pub fn cores(rows: &[CoreRow], paint: Paint) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("core", Right),
        ("role", Left),
        ("requests", Right),
        ("requests/s", Right),
        ("CPU", Right),
        ("spun", Right),
        ("waited", Right),
        ("CPU/request", Right),
    ]);
    for row in rows {
        table.row(vec![
            row.usage.core.to_string(),
            role(row.usage.role).into(),
            grouped(row.usage.requests),
            grouped(row.requests_per_s.round() as u64),
            percent(row.cpu_percent),
            percent(row.spun_percent),
            row.run_delay_percent.map_or("–".into(), percent),
            time_ns(row.cpu_ns_per_request),
        ]);
    }
    if rows.is_empty() { String::new() } else { table.render(paint) }
}

/// What the loops of a run did, per request.
pub fn loops(rows: &[CoreRow], paint: Paint) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("core", Right),
        ("role", Left),
        ("ticks", Right),
        ("parks", Right),
        ("enters", Right),
        ("enters/req", Right),
        ("polls/req", Right),
        ("cqes/req", Right),
    ]);
    let mut events = String::new();
    let mut counted = false;
    for row in rows {
        let Some(counters) = &row.usage.loop_counters else { continue };
        counted = true;
        let each = |count| ratio(per(count, row.usage.requests));
        table.row(vec![
            row.usage.core.to_string(),
            role(row.usage.role).into(),
            grouped(counters.ticks),
            grouped(counters.parks),
            grouped(counters.enters),
            each(counters.enters),
            each(counters.polls),
            each(counters.completions),
        ]);
        events += &rarer_events(row, paint);
    }
    if counted { table.render(paint) + &events } else { events }
}

/// The cores of a server by itself, by bytes.
pub fn served(rows: &[CoreRow], paint: Paint) -> String {
    use Align::Right;
    let mut table = Table::new(&[
        ("core", Right),
        ("connections", Right),
        ("bytes", Right),
        ("MB/s", Right),
        ("CPU time", Right),
        ("CPU", Right),
        ("spun", Right),
        ("waited", Right),
    ]);
    for row in rows {
        let usage = &row.usage;
        table.row(vec![
            usage.core.to_string(),
            grouped(usage.connections),
            grouped(usage.bytes),
            ratio(1e3 * per(usage.bytes, usage.wall_ns)),
            time_ns(usage.cpu_ns as f64),
            percent(row.cpu_percent),
            percent(row.spun_percent),
            row.run_delay_percent.map_or("–".into(), percent),
        ]);
    }
    if rows.is_empty() { String::new() } else { table.render(paint) }
}

/// What the loops of a server by itself did.
pub fn served_loops(rows: &[CoreRow], paint: Paint) -> String {
    use Align::Right;
    let columns = ["core", "ticks", "parks", "enters", "polls", "completions"];
    let mut table = Table::new(&columns.map(|name| (name, Right)));
    let mut events = String::new();
    let mut counted = false;
    for row in rows {
        let Some(counters) = &row.usage.loop_counters else { continue };
        counted = true;
        table.row(vec![
            row.usage.core.to_string(),
            grouped(counters.ticks),
            grouped(counters.parks),
            grouped(counters.enters),
            grouped(counters.polls),
            grouped(counters.completions),
        ]);
        events += &rarer_events(row, paint);
    }
    if counted { table.render(paint) + &events } else { events }
}

/// What cores recorded about themselves.
pub fn histograms(rows: &[CoreHistogram], paint: Paint) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("core", Right),
        ("time", Left),
        ("count", Right),
        ("p50", Right),
        ("p99", Right),
        ("p99.9", Right),
        ("max", Right),
    ]);
    for CoreHistogram { name, core, summary } in rows {
        let figures = [summary.p50_ns, summary.p99_ns, summary.p999_ns, summary.max_ns];
        let names = [core.map_or("all".into(), |core| core.to_string()), name.clone()];
        let cells = names.into_iter().chain([grouped(summary.count)]);
        table.row(cells.chain(figures.map(|ns| time_ns(ns as f64))).collect());
    }
    if rows.is_empty() { String::new() } else { table.render(paint) }
}

fn rarer_events(row: &CoreRow, paint: Paint) -> String {
    let events = row.usage.events.iter().filter(|(_, count)| **count > 0);
    let line = |(name, count): (&String, &u64)| {
        let name = name.replace('_', " ");
        let line = format!("  core {}: {} {name}\n", row.usage.core, grouped(*count));
        paint.tone(Tone::Warn, &line)
    };
    events.map(line).collect()
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Load => "load",
    }
}
