//! What a search for a rate prints at its end: each rate, the curve, the rate that holds.

use crate::peers::interval::median;
use crate::report::paint::{Paint, Tone};
use crate::report::table::{Align, Table};
use crate::report::units::{grouped, percent, time_ns};
use crate::search::bisect::{Ending, Holds};
use crate::search::curve::{Dot, draw};
use crate::search::results::{Point, Results};
use crate::trial::words::{foot, head, paragraph};
use crate::tune::judge::FIGURES;

/// All of it.
pub fn results(results: &Results, paint: Paint) -> String {
    let mut out = head(&results.head, "search", None, paint);
    if !results.settings.is_empty() {
        out += &paragraph(
            &format!("the server's settings: {}", results.settings.join(" ")),
            Tone::Dim,
            paint,
        );
    }
    if !results.points.is_empty() {
        out.push('\n');
        out += &table(results, paint);
    }
    out += &curve(results, paint);
    out.push('\n');
    out += &verdict(results, paint);
    for error in errors(results) {
        out += &paragraph(&error, Tone::Warn, paint);
    }
    out += &foot(&results.head, paint);
    out
}

fn key(results: &Results) -> &'static str {
    FIGURES.iter().find(|f| f.words == results.percentile).map_or("p99_us", |figure| figure.key)
}

fn table(results: &Results, paint: Paint) -> String {
    let percentile = results.percentile.as_str();
    let mut table = Table::new(&[
        ("requests/s", Align::Right),
        ("held", Align::Right),
        ("p50", Align::Right),
        (percentile, Align::Right),
        ("least", Align::Right),
        ("most", Align::Right),
        ("server CPU", Align::Right),
        ("", Align::Left),
    ]);
    let time = |us: Option<f64>| us.map_or("–".to_owned(), |us| time_ns(us * 1e3));
    for point in &results.points {
        let values = point.runs.iter().filter_map(|run| run.figures.get(key(results)).copied());
        let values: Vec<f64> = values.collect();
        let least = values.iter().copied().reduce(f64::min);
        let most = values.iter().copied().reduce(f64::max);
        let middle = (!values.is_empty()).then(|| median(&values));
        table.row(vec![
            grouped(point.rate),
            format!("{} of {}", point.held(), point.runs.len()),
            time(point.median("p50_us")),
            time(middle),
            time(least),
            time(most),
            point.median("server_cpu_percent").map_or("–".into(), percent),
            word(point, results).into(),
        ]);
    }
    table.render(paint)
}

fn word(point: &Point, results: &Results) -> &'static str {
    match point.holds {
        Holds::Yes if Some(point.rate) == results.highest => "● holds",
        Holds::Yes => "holds",
        Holds::No => "misses",
        Holds::Generator => "generator",
    }
}

fn curve(results: &Results, paint: Paint) -> String {
    let dots: Vec<Dot> = results
        .points
        .iter()
        .filter_map(|point| {
            let mark = match point.holds {
                Holds::Yes => '●',
                Holds::No => '○',
                Holds::Generator => '△',
            };
            Some(Dot { rate: point.rate as f64, us: point.median(key(results))?, mark })
        })
        .collect();
    // One point is no curve.
    if dots.len() < 2 {
        return String::new();
    }
    let legend = format!(
        "{} over the rate: ● holds the goal, ○ misses it, △ the generator was the limit",
        results.percentile
    );
    format!("\n{}{}", paragraph(&legend, Tone::Strong, paint), draw(&dots, results.bound_us, paint))
}

fn verdict(results: &Results, paint: Paint) -> String {
    let goal = &results.head.goal;
    let rate = |rate: Option<u64>| rate.map_or("none".to_owned(), grouped);
    let (highest, above) = (rate(results.highest), rate(results.above));
    let (tone, words) = match (results.ending, results.highest) {
        (Ending::Found, _) => (
            Tone::Good,
            format!("{goal} holds up to {highest} requests/s, and no longer at {above}"),
        ),
        (Ending::GeneratorLimit, None) => (
            Tone::Bad,
            format!(
                "the generator was the limit at every rate, so that nothing is known of {goal}: something else \
                 runs on its core, or it is too slow"
            ),
        ),
        (Ending::GeneratorLimit, _) => (
            Tone::Warn,
            format!(
                "{goal} holds at {highest} requests/s; at {above} the generator was the limit, so that the \
                 server may do more: a faster load core, fewer connections or larger messages would tell"
            ),
        ),
        (Ending::Disturbed, None) => (
            Tone::Warn,
            format!(
                "no rate held {goal}, but most of the runs were disturbed: nothing is known of the server"
            ),
        ),
        (Ending::Disturbed, _) => (
            Tone::Warn,
            format!(
                "{goal} holds at {highest} requests/s; at {above} most of the runs were disturbed, so that the \
                 server may do more"
            ),
        ),
        (Ending::NothingHolds, _) => (
            Tone::Bad,
            format!(
                "no rate holds {goal}: not even {} requests/s",
                results.points.first().map_or(0, |point| point.rate)
            ),
        ),
        (Ending::Interrupted, None) | (Ending::TooShort, None) => {
            (Tone::Warn, format!("ended before any rate was known to hold {goal}"))
        }
        (Ending::Interrupted, _) => (
            Tone::Warn,
            format!(
                "ended early: {goal} held at {highest} requests/s, not confirmed; above: {above}"
            ),
        ),
        (Ending::TooShort, _) => (
            Tone::Warn,
            format!(
                "the time was over: {goal} held at {highest} requests/s, and is not known to up to {above}; \
                 a longer --budget, or a coarser --precision, would tell"
            ),
        ),
    };
    paragraph(&words, tone, paint)
}

fn errors(results: &Results) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for run in results.points.iter().flat_map(|point| &point.runs) {
        if let Some(error) = &run.error
            && !told.contains(error)
        {
            told.push(error.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::results::sample;

    fn text(of: &Results) -> String {
        for columns in [80, 120] {
            let text = results(of, Paint { columns, colour: false });
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
        }
        let text = results(of, Paint::plain());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rate_that_was_found_is_told_with_its_neighbours_and_its_curve() {
        let text = text(&sample::results(|_| ()));
        assert!(text.contains("p99 < 2.00 ms") || text.contains("goal cpu"), "{text}");
        assert!(text.contains("holds up to 7") && text.contains("and no longer at 7"), "{text}");
        assert!(
            text.contains("● holds") && text.contains("misses") && text.contains('┄'),
            "{text}"
        );
        assert!(text.contains("the server's settings: spin=off"), "{text}");
    }

    #[test]
    fn other_ends_say_what_they_are() {
        let limited = text(&sample::results(|runner| runner.generator_max = 50_000));
        assert!(limited.contains("the generator was the limit, so that the server may do more"));
        let always = text(&sample::results(|runner| runner.generator_max = 0));
        assert!(always.contains("the generator was the limit at every rate"), "{always}");
        let loud = text(&sample::results(|runner| runner.foreign = 0.5));
        assert!(loud.contains("most of the runs were disturbed, so that"), "{loud}");
        let loud =
            text(&sample::results(|runner| (runner.foreign, runner.p99_us) = (0.5, |_| 9e3)));
        assert!(loud.contains("nothing is known of the server"), "{loud}");
        let none = text(&sample::results(|runner| runner.p99_us = |_| 9_000.0));
        assert!(none.contains("no rate holds"), "{none}");
        let early = text(&sample::results(|runner| runner.runs_left = Some(6)));
        assert!(early.contains("ended early: "), "{early}");
        let nothing = text(&sample::results(|runner| runner.runs_left = Some(1)));
        assert!(nothing.contains("ended before any rate was known to hold"), "{nothing}");
        let at_once = text(&sample::results(|runner| runner.runs_left = Some(0)));
        assert!(at_once.contains("ended before any rate was known to hold"), "{at_once}");
    }
}
