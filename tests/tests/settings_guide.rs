//! The guide's page on settings is what the table of settings says, and every name in it is known.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use coreloop::config::{Field, Profile, Sources};
use coreloop::{Counters, Gauges};

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/settings.md")
}

const BEGINS: &str = "<!-- made from the table of settings: begin -->\n";
const ENDS: &str = "<!-- made from the table of settings: end -->\n";

fn rows() -> String {
    let mut out = String::new();
    for field in Field::all() {
        let (name, default) = (field.name, field.default_text());
        let may_be = match field.range {
            Some(range) => {
                let (least, most) = range();
                format!("{least} to {most}")
            }
            None => field.form.to_owned(),
        };
        let lines: Vec<&str> = field.doc.lines().map(str::trim).collect();
        let doc = linked(
            lines.join("\n").trim().replace("(crate::spawn_blocking)", "(../ARCHITECTURE.md)"),
        );
        let flag = name.replace('_', "-");
        let _ = write!(
            out,
            "### `{name}`\n\n{doc}\n\n| default | may be | flag | variable | who should touch it | where its \
             effect shows |\n|---|---|---|---|---|---|\n| `{default}` | {may_be} | `--{flag}` | `{}` | {} | {} \
             |\n\n",
            field.variable(),
            field.who,
            field.shows,
        );
    }
    out
}

/// Names without the brackets by which rustdoc finds them: on a page they would lead nowhere.
fn linked(doc: String) -> String {
    let parts: Vec<&str> = doc.split("[`").collect();
    let mut out = parts[0].to_owned();
    for part in &parts[1..] {
        let (name, rest) = part.split_once("`]").unwrap_or_else(|| panic!("[`{part}"));
        match rest.starts_with('(') {
            true => out += &format!("[`{name}`]{rest}"),
            false => out += &format!("`{name}`{rest}"),
        }
    }
    out
}

/// What `bench/knobs` and the table give no figure for is named.
#[test]
fn settings_without_a_figure_are_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let told = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let seen = told("bench/knobs") + &told("tests/src/bin/knobs.rs");
    let text = fs::read_to_string(page()).unwrap();
    let list = text.split_once("There is no figure of ").unwrap().1.split_once("\n\n").unwrap().0;
    let without = Field::all().iter().filter(|field| {
        let figure = field.doc.contains("Counted") || seen.contains(field.name);
        !figure && !list.contains(&format!("`{}`", field.name))
    });
    let without: Vec<&str> = without.map(|field| field.name).collect();
    assert!(without.is_empty(), "{without:?}: neither counted nor seen, and not said to be so");
}

/// A link without a target is text in brackets.
#[test]
fn settings_every_link_of_the_page_leads_somewhere() {
    let text = fs::read_to_string(page()).unwrap();
    for (at, _) in text.match_indices("`]") {
        let around: String =
            text[..at].chars().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect();
        assert!(text[at + 2..].starts_with('('), "{around}`]: a link without a target");
    }
}

/// The time that the page promises is the script's.
#[test]
fn settings_the_page_gives_the_time_of_the_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = fs::read_to_string(root.join("bench/knobs")).unwrap();
    let time = script.split_once("all parts: ").unwrap().1.lines().next().unwrap();
    let text = fs::read_to_string(page()).unwrap();
    let line = text.lines().find(|line| line.starts_with("bench/knobs ")).unwrap();
    assert!(line.contains(&format!("# {time}")), "{line}: {time}");
}

/// `CORELOOP_WRITE_GUIDE=1` writes it.
#[test]
fn settings_the_page_says_what_the_table_says() {
    let text = fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(BEGINS).expect("the mark where the rows begin");
    let (written, after) = rest.split_once(ENDS).expect("the mark where they end");
    let rows = format!("\n{}", rows());
    if std::env::var_os("CORELOOP_WRITE_GUIDE").is_some() {
        fs::write(page(), format!("{before}{BEGINS}{rows}{ENDS}{after}")).unwrap();
        return;
    }
    assert!(
        written == rows,
        "docs/guide/settings.md is not what the table says: CORELOOP_WRITE_GUIDE=1 cargo test -p \
         coreloop-tests --test settings_guide writes it"
    );
}

/// Whoever is sent to a counter, a gauge or a page finds it.
#[test]
fn settings_what_a_row_says_shows_its_effect_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let counters = Counters::DOCS.iter().chain(Gauges::DOCS).map(|(name, _)| *name);
    let known: Vec<&str> = counters.chain(Field::all().iter().map(|field| field.name)).collect();
    // Of other programs and of the system: the thread's names, a command.
    let elsewhere = ["doctor", "taskset -p", "iou-sqp-…", "iou-wrk-…"];
    for field in Field::all() {
        assert!(!field.shows.is_empty() && !field.who.is_empty(), "{}", field.name);
        for word in field.shows.split('`').skip(1).step_by(2) {
            let there = known.contains(&word)
                || elsewhere.contains(&word)
                || word.ends_with(".md") && root.join(word).exists();
            assert!(there, "{}: nobody finds {word}", field.name);
        }
    }
}

#[test]
fn settings_the_profiles_of_the_page_are_the_profiles() {
    let text = fs::read_to_string(page()).unwrap();
    for profile in Profile::ALL {
        let sets: Vec<String> =
            profile.settings().iter().map(|(name, value)| format!("`{name} = {value}`")).collect();
        let row = format!("| `{profile}` | {} |", sets.join(", "));
        assert!(text.contains(&row), "the page lacks {row}");
    }
}

#[test]
fn settings_the_file_of_the_page_is_taken() {
    let text = fs::read_to_string(page()).unwrap();
    let files: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("it ends").0)
        .collect();
    assert!(!files.is_empty());
    for file in files {
        Sources::new().toml(file, "settings.md").unwrap().resolve().unwrap();
    }
}
