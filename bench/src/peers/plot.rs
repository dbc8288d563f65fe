//! Plots as SVG, made by hand: dots with intervals, and bars.
//!
//! Owns scales, ticks and geometry. Colours are classes, so that a page or a file can give them in light
//! and in
//! dark. Knows no workload.

use std::fmt::Write;

use crate::peers::interval::{Ratio, Verdict};
use crate::peers::text::{digits, ratio_digits};

/// One row of ratios.
#[derive(Clone, Copy, Debug)]
pub struct Dot<'a> {
    /// What stands in front.
    pub label: &'a str,
    /// The ratio, where there is one.
    pub ratio: Option<(Ratio, Verdict)>,
}

/// One bar.
#[derive(Clone, Copy, Debug)]
pub struct Bar<'a> {
    /// What stands in front.
    pub label: &'a str,
    /// Its length.
    pub value: f64,
    /// Where its tick is.
    pub best: f64,
    /// Whether it is the one that the others are compared with.
    pub is_reference: bool,
}

/// A logarithmic axis around 1.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    left: f64,
    right: f64,
}

const ROW: f64 = 22.0;
const WIDTH: f64 = 640.0;
const LABELS: f64 = 170.0;
const NUMBERS: f64 = 160.0;

/// Ratios that a tick may stand at.
const TICKS: [f64; 17] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0];

impl Axis {
    /// From `left` to `right`, so that all of these ratios and their intervals have room.
    pub fn around<'a>(dots: impl Iterator<Item = &'a Dot<'a>>, left: f64, right: f64) -> Axis {
        let ratios = dots.filter_map(|dot| dot.ratio.map(|(ratio, _)| ratio));
        let (mut low, mut high) = (0.9f64, 1.1f64);
        for ratio in ratios {
            low = low.min(ratio.low);
            high = high.max(ratio.high);
        }
        // What is farther away is drawn at the edge; its number stands beside.
        Axis { low: (low / 1.04).max(0.008), high: (high * 1.04).min(20.0), left, right }
    }

    /// Where a ratio stands.
    pub fn x(&self, ratio: f64) -> f64 {
        let (low, high) = (self.low.ln(), self.high.ln());
        let share = (ratio.max(1e-9).ln() - low) / (high - low);
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Lines and numbers from `top` to `bottom`; the number of 1 is always there.
    pub fn draw(&self, top: f64, bottom: f64) -> String {
        let mut out = String::new();
        let mut taken = vec![self.x(1.0)];
        let apart = 34.0;
        let inside = TICKS.iter().filter(|tick| (self.low..=self.high).contains(*tick));
        for tick in inside {
            let x = self.x(*tick);
            let one = *tick == 1.0;
            if !one && taken.iter().any(|other| (other - x).abs() < apart) {
                continue;
            }
            taken.push(x);
            let class = if one { "one" } else { "grid" };
            let _ = write!(
                out,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{tick}</text>",
                bottom + 14.0
            );
        }
        out
    }

    /// The dot and the interval of a row at height `y`.
    pub fn dot(&self, (ratio, verdict): (Ratio, Verdict), y: f64) -> String {
        let (low, at, high) = (self.x(ratio.low), self.x(ratio.median), self.x(ratio.high));
        let class = verdict.as_str();
        format!(
            "<g class=\"{class}\"><line class=\"span\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <line class=\"span\" x1=\"{low:.1}\" x2=\"{low:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <line class=\"span\" x1=\"{high:.1}\" x2=\"{high:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4.5\"/></g>",
            y - 4.0,
            y + 4.0,
            y - 4.0,
            y + 4.0
        )
    }
}

/// Ratios with their intervals, one below the other.
pub fn forest(title: &str, dots: &[Dot<'_>], less_is_better: bool) -> String {
    let axis = Axis::around(dots.iter(), LABELS, WIDTH - NUMBERS);
    let (top, bottom) = (44.0, 44.0 + ROW * dots.len() as f64);
    let mut out = open(WIDTH, bottom + 24.0, title);
    let _ = write!(out, "<text class=\"title\" x=\"0\" y=\"14\">{}</text>", escape(title));
    let (left, right) = match less_is_better {
        true => ("← coreloop takes less", "coreloop takes more →"),
        false => ("← coreloop does less", "coreloop does more →"),
    };
    // One side or the other may be narrow: both words stand outside of the axis' own room.
    let _ = write!(
        out,
        "<text class=\"side\" text-anchor=\"start\" x=\"{LABELS}\" y=\"34\">{left}</text>\
         <text class=\"side\" text-anchor=\"end\" x=\"{:.0}\" y=\"34\">{right}</text>",
        WIDTH - NUMBERS
    );
    out += &axis.draw(top - 4.0, bottom);
    for (i, dot) in dots.iter().enumerate() {
        let y = top + ROW * (i as f64 + 0.5);
        out += &label(dot.label, LABELS - 10.0, y);
        let Some((ratio, verdict)) = dot.ratio else { continue };
        out += &axis.dot((ratio, verdict), y);
        let _ = write!(
            out,
            "<text class=\"number {}\" x=\"{:.0}\" y=\"{:.1}\">{} <tspan class=\"tick\">{} to {}</tspan></text>",
            verdict.as_str(),
            WIDTH - NUMBERS + 12.0,
            y + 4.0,
            ratio_digits(ratio.median),
            ratio_digits(ratio.low),
            ratio_digits(ratio.high)
        );
    }
    out + "</svg>"
}

/// Bars from zero, with a tick at the best of the blocks.
pub fn bars(title: &str, bars: &[Bar<'_>]) -> String {
    let (top, left, right) = (24.0, LABELS, WIDTH - 80.0);
    let most = bars.iter().map(|bar| bar.value.max(bar.best)).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| left + (right - left) * (value / most).clamp(0.0, 1.0);
    let mut out = open(WIDTH, top + ROW * bars.len() as f64 + 6.0, title);
    let _ = write!(out, "<text class=\"title\" x=\"0\" y=\"14\">{}</text>", escape(title));
    for (i, bar) in bars.iter().enumerate() {
        let y = top + ROW * (i as f64 + 0.5);
        let class = if bar.is_reference { "bar ours" } else { "bar" };
        out += &label(bar.label, LABELS - 10.0, y);
        let (end, best) = (x(bar.value), x(bar.best));
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"13\" rx=\"2\"/>\
             <line class=\"best\" x1=\"{best:.1}\" x2=\"{best:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y - 6.5,
            (end - left).max(1.0),
            y - 8.5,
            y + 8.5,
            end.max(best) + 6.0,
            y + 4.0,
            digits(bar.value)
        );
    }
    out + "</svg>"
}

/// The beginning of a drawing.
pub fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"{}\">",
        escape(title)
    )
}

/// Words that end at `right`.
pub fn label(words: &str, right: f64, y: f64) -> String {
    let class =
        if words.starts_with(crate::peers::contenders::OURS) { "label ours" } else { "label" };
    format!(
        "<text class=\"{class}\" text-anchor=\"end\" x=\"{right:.1}\" y=\"{:.1}\">{}</text>",
        y + 4.0,
        escape(words)
    )
}

/// Text for between and within tags.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Colours and fonts of all drawings, light and dark. A page puts it into its own style, a file of its own
/// into the drawing.
pub const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--ink:#1c2128;--dim:#656d76;--line:#d8dee4;--ours:#0b6bcb;\
--bar:#a9b4c0;--ahead:#117a37;--behind:#c4281f;--unresolved:#7d6608}\
@media(prefers-color-scheme:dark){:root{--back:#0f1318;--ink:#e4e9ef;--dim:#98a2ad;--line:#303843;\
--ours:#5aa9f5;--bar:#56616e;--ahead:#4ac26b;--behind:#ff7b72;--unresolved:#d6b656}}\
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}\
svg .title{font-weight:600;font-size:13px}svg .tick,svg .side{fill:var(--dim);font-size:11px}\
svg .grid{stroke:var(--line)}svg .one{stroke:var(--ink);stroke-dasharray:3 3}\
svg .span{stroke-width:2}svg .label.ours{fill:var(--ours);font-weight:600}\
svg .bar{fill:var(--bar)}svg .bar.ours{fill:var(--ours)}svg .best{stroke:var(--ink);stroke-width:1.5}\
svg .ahead line{stroke:var(--ahead)}svg .ahead circle,svg text.ahead{fill:var(--ahead)}\
svg .behind line{stroke:var(--behind)}svg .behind circle,svg text.behind{fill:var(--behind)}\
svg .unresolved line{stroke:var(--unresolved)}svg text.unresolved{fill:var(--unresolved)}\
svg .unresolved circle{fill:var(--back);stroke:var(--unresolved);stroke-width:2}";

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(label: &str, low: f64, median: f64, high: f64) -> Dot<'_> {
        let ratio = Ratio { median, low, high, blocks: 5 };
        Dot { label, ratio: Some((ratio, ratio.verdict(true))) }
    }

    #[test]
    fn an_axis_is_logarithmic_and_holds_everything() {
        let dots = [dot("a", 0.4, 0.5, 0.6), dot("b", 1.8, 2.0, 2.2)];
        let axis = Axis::around(dots.iter(), 100.0, 300.0);
        assert!(axis.x(0.4) > 100.0 && axis.x(2.2) < 300.0);
        let step = axis.x(1.0) - axis.x(0.5);
        assert!((axis.x(2.0) - axis.x(1.0) - step).abs() < 1e-6, "a doubling is as long anywhere");
        assert_eq!(axis.x(1e6), 300.0, "what is beyond stands at the edge");
    }

    #[test]
    fn a_forest_shows_each_contender_with_its_verdict() {
        let svg =
            forest("CPU <ns>", &[dot("tokio", 0.8, 0.85, 0.9), dot("a & b", 0.9, 1.0, 1.1)], true);
        for part in
            ["CPU &lt;ns&gt;", "a &amp; b", "class=\"ahead\"", "class=\"unresolved\"", "0.850"]
        {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(svg.ends_with("</svg>"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar =
            |label, value, is_reference| Bar { label, value, best: value * 0.9, is_reference };
        let svg = bars("CPU", &[bar("coreloop", 50.0, true), bar("x", 100.0, false)]);
        assert!(svg.contains("width=\"195.0\"") && svg.contains("width=\"390.0\""), "{svg}");
        assert!(svg.contains("bar ours"));
    }
}
