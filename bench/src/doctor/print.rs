//! The findings as text and as JSON.
//!
//! Owns their looks. The worst finding sets the last line, which says whether coreloop runs here.

use serde::Serialize;

use crate::doctor::{CoreRing, DoctorInput, Finding, RingFacts, RingFailure, Severity, usable};
use crate::machine::MachineFacts;
use crate::report::SCHEMA_VERSION;
use crate::report::paint::{Paint, Tone, wrap};

/// Columns in front of the text of a finding.
const INDENT: usize = 10;

/// What `doctor --json` prints.
#[derive(Debug, Serialize)]
pub struct DoctorReport<'a> {
    schema_version: u32,
    version: &'static str,
    usable: bool,
    findings: &'a [Finding],
    machine: &'a MachineFacts,
    ring: Option<&'a RingFacts>,
    rings: &'a [CoreRing],
    ring_failure: Option<&'a RingFailure>,
}

impl<'a> DoctorReport<'a> {
    /// The findings beside the facts they rest on.
    pub fn new(input: &'a DoctorInput, findings: &'a [Finding]) -> DoctorReport<'a> {
        let rings = input.rings.as_deref().unwrap_or_default();
        DoctorReport {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            usable: usable(input),
            findings,
            machine: &input.machine,
            ring: rings.first().map(|first| &first.ring),
            rings,
            ring_failure: input.rings.as_ref().err(),
        }
    }
}

/// A block per finding, and the conclusion.
pub fn text(input: &DoctorInput, findings: &[Finding], paint: Paint) -> String {
    let title = format!("coreloop-bench {} · doctor", env!("CARGO_PKG_VERSION"));
    let mut out = format!("{}\n\n", paint.tone(Tone::Strong, &title));
    for finding in findings {
        out += &block(finding, paint);
    }
    let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warn).count();
    out.push('\n');
    out += &match (usable(input), warnings) {
        (false, _) => paint.tone(Tone::Bad, "coreloop can't run here.") + "\n",
        (true, 0) => paint.tone(Tone::Good, "coreloop runs here; nothing to change.") + "\n",
        (true, 1) => paint.tone(Tone::Warn, "coreloop runs here, with 1 warning.") + "\n",
        (true, n) => {
            let line = format!("coreloop runs here, with {n} warnings.");
            paint.tone(Tone::Warn, &line) + "\n"
        }
    };
    out
}

fn block(finding: &Finding, paint: Paint) -> String {
    let (word, tone) = match finding.severity {
        Severity::Ok => ("ok", Tone::Good),
        Severity::Warn => ("warn", Tone::Warn),
        Severity::Problem => ("problem", Tone::Bad),
    };
    let mut out = block_lines(word, &finding.what, tone, paint);
    for (name, text) in [("why", &finding.why), ("change", &finding.change)] {
        if !text.is_empty() {
            out += &block_lines("", &format!("{name}: {text}"), tone, paint);
        }
    }
    out
}

fn block_lines(word: &str, text: &str, tone: Tone, paint: Paint) -> String {
    let mut out = String::new();
    for (i, line) in wrap(text, paint.columns - INDENT).iter().enumerate() {
        let word = if i == 0 { word } else { "" };
        let pad = " ".repeat(INDENT - 2 - word.chars().count());
        out += &format!("  {}{pad}{line}\n", paint.tone(tone, word));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{RingFailureKind, examine};
    use crate::machine::Seccomp;

    fn blocked() -> DoctorInput {
        DoctorInput {
            machine: MachineFacts {
                kernel: Some("6.8.0".into()),
                seccomp: Some(Seccomp::Filter),
                ..MachineFacts::default()
            },
            rings: Err(RingFailure {
                kind: RingFailureKind::Forbidden,
                core: 0,
                message: "Operation not permitted".into(),
            }),
            idle: Vec::new(),
        }
    }

    #[test]
    fn the_text_says_what_why_and_what_to_change() {
        let input = blocked();
        let text = text(&input, &examine(&input), Paint::plain());
        let expected = "  \
          problem a seccomp filter forbids io_uring (EPERM), as Docker's and
          containerd's default profiles do
          why: coreloop runs on io_uring alone: without it nothing starts
          change: docker run --security-opt seccomp=profile.json, with a copy of
          the default profile that also allows io_uring_setup, io_uring_enter
          and io_uring_register; in Kubernetes set
          securityContext.seccompProfile to type Localhost with that file; to
          try it out only: --security-opt seccomp=unconfined
  ok      Linux 6.8.0

coreloop can't run here.
";
        assert_eq!(text.split_once("\n\n").unwrap().1, expected);
    }

    #[test]
    fn the_json_has_findings_and_facts() {
        let input = blocked();
        let findings = examine(&input);
        let json = serde_json::to_value(DoctorReport::new(&input, &findings)).unwrap();
        assert_eq!(json["usable"], false);
        assert_eq!(json["findings"][0]["severity"], "problem");
        assert_eq!(json["ring_failure"]["kind"], "forbidden");
        assert_eq!(json["machine"]["seccomp"], "filter");
        assert!(json["ring"].is_null());
        let changes: Vec<_> =
            json["findings"].as_array().unwrap().iter().map(|f| f.get("change")).collect();
        assert!(changes[0].is_some_and(|change| change.as_str().unwrap().contains("docker")));
        assert_eq!(changes[1], None, "no empty text where nothing is to change");
    }
}
