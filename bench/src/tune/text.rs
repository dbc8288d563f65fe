//! What a search prints at its end: what was tried, what mattered, what was confirmed, what to do.

use crate::peers::interval::BLOCKS_MIN;
use crate::report::paint::{Paint, Tone};
use crate::trial::words::{RatioRow, figure, foot, head, paragraph, percents, ratios};
use crate::tune::contest::GaveUp;
use crate::tune::judge::FIGURES;
use crate::tune::results::{DEFAULTS, Ending, Results, TUNED};

/// Of all that was tried, the best so many …
const BEST: usize = 8;
/// … and the worst: what hurts is worth knowing too.
const WORST: usize = 4;

/// All of it.
pub fn results(results: &Results, paint: Paint) -> String {
    let mut out = head(&results.head, "tune", results.rate, paint);
    out += &paragraph(&results.judged, Tone::Dim, paint);
    out += &tried(results, paint);
    out += &effects(results, paint);
    out += &confirmed(results, paint);
    out += &left_out(results, paint);
    out.push('\n');
    out += &verdict(results, paint);
    out += &foot(&results.head, paint);
    out
}

fn tried(results: &Results, paint: Paint) -> String {
    let mut out = String::new();
    for (stage, title) in
        [("screen", "Tried, one change or profile each"), ("combine", "Tried together")]
    {
        let of: Vec<_> = results.tried.iter().filter(|tried| tried.stage == stage).collect();
        if of.is_empty() {
            continue;
        }
        let row = |tried: &&crate::tune::results::Tried| RatioRow {
            label: tried.candidate.clone(),
            cells: vec![tried.ratio.blocks.to_string()],
            ratio: Some(tried.ratio),
            less_is_better: results.less_is_better,
            word: if tried.ratio.blocks < BLOCKS_MIN { "few blocks".into() } else { String::new() },
        };
        let mut rows: Vec<RatioRow> = of.iter().map(row).collect();
        let hidden = rows.len().saturating_sub(BEST + WORST);
        rows.drain(rows.len().min(BEST)..rows.len().min(BEST) + hidden);
        let title = format!("{title}: {} ÷ that of the defaults", results.figure);
        out += &format!("\n{}", paragraph(&title, Tone::Strong, paint));
        out += &ratios(&["", "blocks"], &rows, paint);
        if hidden > 0 {
            let words = format!(
                "{hidden} more lie between the best {BEST} and the worst {WORST}: --json has them"
            );
            out += &paragraph(&words, Tone::Dim, paint);
        }
    }
    out
}

fn effects(results: &Results, paint: Paint) -> String {
    // What was not looked at did not matter, nor was it kept, unless it is what was found.
    let unseen = results.effects.iter().all(|effect| effect.ratio.is_none());
    let found = results.outcome == Ending::Tuned;
    if results.outcome == Ending::DefaultsHold || unseen && !found {
        return String::new();
    }
    let rows: Vec<RatioRow> = results
        .effects
        .iter()
        .map(|effect| RatioRow {
            label: format!("{}={}", effect.name, effect.value),
            cells: vec![effect.default.clone()],
            ratio: effect.ratio,
            less_is_better: results.less_is_better,
            word: if effect.kept { "kept".into() } else { "left out".into() },
        })
        .collect();
    let title =
        paint.tone(Tone::Strong, "What mattered: with it ÷ without it, the others in place");
    format!("\n  {title}\n{}", ratios(&["setting", "default"], &rows, paint))
}

fn confirmed(results: &Results, paint: Paint) -> String {
    let Some(candidate) = results.candidate.as_ref().filter(|_| !results.series.is_empty()) else {
        return String::new();
    };
    let mut rows = Vec::new();
    for named in FIGURES {
        let of = |who: &str| results.series.iter().find(|s| s.of == who && s.figure == named.words);
        let (Some(defaults), Some(tuned)) = (of(DEFAULTS), of(TUNED)) else { continue };
        let Some((was, is)) = results.medians(named.words) else { continue };
        let pairs: Vec<(f64, f64)> =
            tuned.samples.iter().copied().zip(defaults.samples.iter().copied()).collect();
        rows.push(RatioRow {
            label: named.words.into(),
            cells: vec![figure(was, named.unit), figure(is, named.unit)],
            ratio: crate::peers::interval::Ratio::of(&pairs),
            less_is_better: named.less_is_better,
            word: String::new(),
        });
    }
    let title = format!("{candidate}, beside the defaults in blocks of their own");
    let mut out = format!("\n{}", paragraph(&title, Tone::Strong, paint));
    out += &ratios(&["", "defaults", "with it"], &rows, paint);
    let (limited, runs) = results.generator_limited();
    if limited * 2 > runs {
        let words = "the generator was the limit in most of these runs: rates and latencies are as much its own \
                     as the server's; CPU per request is not";
        out += &paragraph(words, Tone::Warn, paint);
    }
    out
}

fn left_out(results: &Results, paint: Paint) -> String {
    let mut out = String::new();
    let untried = results.skipped.iter().filter(|(_, why)| why == "no time");
    let untried: Vec<&str> = untried.map(|(who, _)| who.as_str()).collect();
    let others = results.skipped.len() - untried.len();
    if !untried.is_empty() {
        let words = format!(
            "for want of time {} candidates were not tried, those that are least likely to matter: {}. A \
             longer --budget has time for them",
            untried.len(),
            untried.join(", ")
        );
        out += &paragraph(&words, Tone::Warn, paint);
    }
    for (who, why) in &results.failed {
        out += &paragraph(&format!("{who} failed: {why}"), Tone::Warn, paint);
    }
    if others > 0 {
        out += &paragraph(
            &format!("{others} settings or values were left out: --list says which, and why"),
            Tone::Dim,
            paint,
        );
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

fn verdict(results: &Results, paint: Paint) -> String {
    let candidate = results.candidate.as_deref().unwrap_or("nothing");
    let (tone, words) = match (results.outcome, results.confirmed) {
        (Ending::Tuned, Some(ratio)) => {
            (Tone::Good, format!("{candidate}: {} {}, resolved", results.figure, percents(&ratio)))
        }
        (Ending::DefaultsHold, Some(ratio)) => (
            Tone::Good,
            format!(
                "the defaults hold: {candidate}, which looked best, came to {} {}, which is not a resolved \
                 gain. Nothing is changed",
                results.figure,
                percents(&ratio)
            ),
        ),
        (Ending::DefaultsHold, None) if results.gave_up.is_some() => (
            Tone::Good,
            format!(
                "the defaults hold: {candidate}, which looked best, {} when it was to be confirmed. Nothing \
                 is changed",
                match results.gave_up {
                    Some(GaveUp::FellBehind) => "did not keep up with the load",
                    _ => "failed",
                }
            ),
        ),
        (Ending::DefaultsHold, None) | (Ending::Tuned, None) => (
            Tone::Good,
            "the defaults hold: nothing that was tried looked better. Nothing is changed"
                .to_owned(),
        ),
        (Ending::Disturbed, None) => (
            Tone::Warn,
            "most of these runs were disturbed: nothing is known, and nothing is changed"
                .to_owned(),
        ),
        (Ending::Disturbed, Some(ratio)) => (
            Tone::Warn,
            format!(
                "{candidate} came to {} {}, but most of these runs were disturbed: nothing is confirmed, and \
                 nothing is changed",
                results.figure,
                percents(&ratio)
            ),
        ),
        (Ending::Interrupted, _) => (
            Tone::Warn,
            match results.tried.first() {
                Some(best) => format!(
                    "ended early: {} looked best so far, but of many one always does: nothing is confirmed, \
                     and nothing is changed",
                    best.candidate
                ),
                None => "ended early: nothing is known yet, and nothing is changed".to_owned(),
            },
        ),
        (Ending::TooShort, _) if results.candidate.is_none() => (
            Tone::Warn,
            format!(
                "there was no time for {BLOCKS_MIN} blocks of runs: nothing is known. Give a longer --budget. \
                 Nothing is changed"
            ),
        ),
        (Ending::TooShort, _) => (
            Tone::Warn,
            format!(
                "{candidate} looked best, but there was no time for {BLOCKS_MIN} blocks to confirm it: give \
                 a longer --budget. Nothing is changed"
            ),
        ),
    };
    paragraph(&words, tone, paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::results::sample;

    fn text(of: &Results, columns: usize) -> String {
        let text = results(of, Paint { columns, colour: false });
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
        text
    }

    /// As it reads when the line breaks are taken out.
    fn joined(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_winner_is_told_with_what_mattered() {
        for columns in [80, 120] {
            let text = joined(&text(&sample::tuned(), columns));
            for part in [
                "tune echo-64 · goal cpu",
                "looked for the least server CPU per request",
                "What mattered",
                "kept",
                "beside the defaults in blocks of their own",
                "cq_entries=1024 failed: it would not",
                "resolved",
                "a note",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn defaults_that_hold_are_told_with_what_came_nearest() {
        let text = joined(&text(&sample::defaults_hold(), 80));
        assert!(text.contains("the defaults hold: "), "{text}");
        assert!(text.contains("which looked best, came to") && text.contains("Nothing is changed"));
        assert!(!text.contains("What mattered"), "nothing did: {text}");
    }

    #[test]
    fn a_winner_that_gave_up_is_told_with_how() {
        for (how, words) in [
            (GaveUp::Failed, "which looked best, failed when it was to be confirmed. Nothing"),
            (GaveUp::FellBehind, "which looked best, did not keep up with the load when it was"),
        ] {
            let mut results = sample::defaults_hold();
            (results.confirmed, results.gave_up) = (None, Some(how));
            let text = joined(&text(&results, 80));
            assert!(text.contains("the defaults hold: ") && text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_gain_among_disturbed_runs_is_none() {
        let text = joined(&text(&sample::disturbed(), 80));
        assert!(text.contains("most of these runs were disturbed: nothing is confirmed"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_said_to_hold() {
        for results in [sample::disturbed_without_effects(), sample::too_short()] {
            let text = joined(&text(&results, 80));
            assert!(!text.contains("the defaults hold"), "{text}");
            let told = ["nothing is known", "nothing is confirmed"];
            assert!(told.iter().any(|told| text.contains(told)), "{text}");
            assert!(text.to_lowercase().contains("nothing is changed"), "{text}");
        }
        let short = joined(&text(&sample::too_short(), 80));
        assert!(!short.contains("kept"), "{short}");
        assert!(short.contains("no time for 5 blocks of runs: nothing is known"), "{short}");
    }

    #[test]
    fn an_early_end_tells_what_looked_best_and_that_it_is_not_confirmed() {
        let text = joined(&text(&sample::interrupted(), 80));
        assert!(text.contains("ended early: "), "{text}");
        assert!(text.contains("nothing is confirmed, and nothing is changed"), "{text}");
        let text = joined(&text_of_none());
        assert!(text.contains("ended before a run that counts was over"), "{text}");
        assert!(
            text.contains("ended early: nothing is known yet, and nothing is changed"),
            "{text}"
        );
    }

    fn text_of_none() -> String {
        text(&sample::interrupted_at_once(), 80)
    }
}
