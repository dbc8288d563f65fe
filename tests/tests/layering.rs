//! The shape of the source: arrows point down, files say what they own, unsafe code says why.
//!
//! Reads the text of `runtime/src` and `net/src`; what only tests use is left out of the arrows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module of `coreloop` with its height. A module may use lower ones only; two of the
/// same height know nothing of each other.
const LAYERS: [(&str, u32); 37] = [
    ("contain", 0),
    // Mistakes that tests plant anywhere.
    ("planted", 0),
    // Mutated input for tests.
    ("fuzz_tests", 0),
    // Times in words.
    ("words", 0),
    // The system's numbers and calls, and the book that everybody writes into.
    ("sys", 0),
    ("metrics", 1),
    // What a subscriber is told of tasks, for all who wake them.
    ("spans", 1),
    // Three that stand alone: deadlines, the ring, mail.
    ("wheel", 2),
    ("driver", 2),
    ("mailbox", 2),
    ("task", 3),
    // Threads beside a loop.
    ("blocking", 3),
    // Who looks whether loops move.
    ("stall", 4),
    // The loop, which brings these together.
    ("executor", 4),
    // What user code is written with.
    ("buf", 5),
    ("time", 5),
    ("spawn", 5),
    // Shares of a core's time.
    ("sched", 5),
    ("sync", 5),
    // Descriptors from and to other processes.
    ("fds", 5),
    // Plain functions as tasks, and tasks for what blocks.
    ("call", 6),
    ("spawn_blocking", 6),
    ("op", 6),
    // Sets of tasks, which are spawned and have limits.
    ("combine", 6),
    ("systemd", 6),
    ("signal", 7),
    // Tokens that ops, sets of tasks and scopes listen to.
    ("cancel", 7),
    // How loops are made, placed and spoken to.
    ("placement", 7),
    ("config", 8),
    ("handle", 8),
    // What cores did, for whoever asks.
    ("report", 9),
    // The end of a server, which tokens and signals bring about.
    ("shutdown", 8),
    ("event_loop", 9),
    // What cores say to each other.
    ("cross", 9),
    ("runtime", 10),
    // Another kernel behind the seam, and what steps loops over it.
    ("sim", 11),
    ("lib", 12),
];

/// Ignorance that modules promise in their own docs, beyond what the heights say.
const KNOWS_NOT: [(&str, &str); 11] = [
    ("task", "driver"),
    ("task", "wheel"),
    ("wheel", "metrics"),
    ("blocking", "mailbox"),
    ("mailbox", "driver"),
    ("time", "driver"),
    ("combine", "executor"),
    ("sync", "driver"),
    ("sync", "executor"),
    ("cancel", "driver"),
    ("cancel", "executor"),
];

struct Source {
    path: PathBuf,
    text: String,
}

fn sources(crate_dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_dir).join("src");
    let mut found = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 3, "{crate_dir}/src is there");
    found
}

fn all_sources() -> Vec<Source> {
    let mut all = sources("runtime");
    all.extend(sources("net"));
    all
}

impl Source {
    /// The top-level module that it belongs to.
    fn module(&self) -> String {
        let first = self.path.iter().next().unwrap().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first).to_owned()
    }

    fn is_test(&self) -> bool {
        self.path.file_stem().is_some_and(|s| s.to_str().unwrap().ends_with("tests"))
    }

    /// Its lines without comments and without the test module at its end.
    fn code(&self) -> String {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().filter(|l| !l.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// The modules that a source names by `crate::…`, also in braces, each with the path that follows.
fn named_modules(code: &str) -> BTreeSet<(String, String)> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        if let Some(list) = rest.strip_prefix('{') {
            for part in list[..list.find("};").unwrap_or(list.len())].split(',') {
                let first = part.trim().split("::").next().unwrap_or_default();
                named.insert((first.to_owned(), part.trim().to_owned()));
            }
        } else {
            let first = path.split("::").next().unwrap_or_default();
            named.insert((first.to_owned(), path.clone()));
        }
    }
    named
}

/// Arrows between modules: (from, to) with where they come from. Items of the crate's root, such as
/// `crate::spawn`, have a module of their name or none.
fn arrows() -> BTreeMap<(String, String), Vec<String>> {
    let mut arrows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for source in sources("runtime").iter().filter(|s| !s.is_test()) {
        let from = source.module();
        for (to, path) in named_modules(&source.code()) {
            if to != from && LAYERS.iter().any(|(m, _)| *m == to) {
                let at = format!("{} uses {path}", source.shown());
                arrows.entry((from.clone(), to)).or_default().push(at);
            }
        }
    }
    arrows
}

fn height(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(m, _)| *m == module).map(|(_, h)| *h)
}

#[test]
fn layering_every_arrow_points_down() {
    let arrows = arrows();
    assert!(arrows.len() > 30, "only {} arrows were found: the reading is wrong", arrows.len());
    let mut bad = Vec::new();
    for ((from, to), at) in &arrows {
        let (Some(above), Some(below)) = (height(from), height(to)) else {
            bad.push(format!("{from} has no place in the table"));
            continue;
        };
        if below >= above {
            bad.push(format!("{from} ({above}) -> {to} ({below}): {}", at.join("; ")));
        }
    }
    assert!(bad.is_empty(), "arrows that point up or sideways:\n{}", bad.join("\n"));
}

#[test]
fn layering_every_module_has_its_place() {
    let modules: BTreeSet<_> = sources("runtime").iter().map(Source::module).collect();
    let table: BTreeSet<_> = LAYERS.iter().map(|(m, _)| (*m).to_owned()).collect();
    assert_eq!(modules, table, "modules of runtime/src and the table of this test");
}

#[test]
fn layering_modules_do_not_know_what_they_say_they_do_not() {
    let arrows = arrows();
    let broken: Vec<_> = KNOWS_NOT
        .iter()
        .filter_map(|(from, to)| arrows.get(&((*from).into(), (*to).into())))
        .map(|at| at.join("; "))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn layering_net_uses_the_public_face_only() {
    let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src/lib.rs");
    let lib = fs::read_to_string(public).unwrap();
    let mut bad = Vec::new();
    for source in sources("net") {
        let code = source.code();
        if code.contains("#[path") || code.contains("include!") {
            bad.push(format!("{} reaches into other files", source.shown()));
        }
        for (at, _) in code.match_indices("coreloop::") {
            let rest = &code[at + "coreloop::".len()..];
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = lib.contains(&format!("pub mod {name};"))
                || lib.lines().any(|l| l.starts_with("pub use") && l.contains(&name));
            let multi_line = lib.contains(&format!(" {name},"));
            // The locks of a run under ThreadSanitizer.
            if name == "__tsan" {
                continue;
            }
            if !name.is_empty() && !known && !multi_line {
                bad.push(format!("{} uses coreloop::{name}", source.shown()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn layering_every_file_says_what_it_owns() {
    let mut bad = Vec::new();
    for source in all_sources() {
        if !source.text.starts_with("//! ") {
            bad.push(format!("{} does not open with `//!`", source.shown()));
        }
        let lines = source.text.lines().count();
        if lines > 600 {
            bad.push(format!("{} has {lines} lines", source.shown()));
        }
        if let Some(long) = source.text.lines().position(|l| l.chars().count() > 110) {
            bad.push(format!("{}:{} is far beyond 100 columns", source.shown(), long + 1));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn layering_no_dead_ends() {
    let words = ["todo!", "unimplemented!", "#[ignore", "FIXME", "XXX", "dbg!("];
    let tests = sources_of_tests();
    let mut bad = Vec::new();
    for source in all_sources().iter().chain(&tests) {
        for (i, line) in source.text.lines().enumerate() {
            if source.path.ends_with("layering.rs") {
                continue;
            }
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                bad.push(format!("{}:{}: {word}", source.shown(), i + 1));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn sources_of_tests() -> Vec<Source> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|path| Source { text: fs::read_to_string(&path).unwrap(), path })
        .collect()
}

#[test]
fn layering_every_test_file_says_what_it_shows() {
    let mut bad = Vec::new();
    for source in sources_of_tests() {
        if !source.text.starts_with("//! ") {
            bad.push(format!("{} does not open with `//!`", source.shown()));
        }
        let lines = source.text.lines().count();
        if lines > 400 {
            bad.push(format!("{} has {lines} lines", source.shown()));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Lines within which an unsafe block's reason must stand before it.
const SAFETY_REACH: usize = 8;

#[test]
fn layering_unsafe_code_says_why() {
    let (mut bad, mut blocks) = (Vec::new(), 0);
    for source in all_sources().iter().chain(&sources_of_tests()) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = ["unsafe {", "unsafe impl"].iter().any(|w| code.contains(w));
            if !opens || code.contains('"') {
                continue;
            }
            blocks += 1;
            let before = &lines[i.saturating_sub(SAFETY_REACH)..=i];
            if !before.iter().any(|l| l.contains("SAFETY")) {
                bad.push(format!("{}:{}", source.shown(), i + 1));
            }
        }
    }
    assert!(blocks > 50, "only {blocks} unsafe blocks were found: the reading is wrong");
    assert!(
        bad.is_empty(),
        "unsafe without SAFETY within {SAFETY_REACH} lines:\n{}",
        bad.join("\n")
    );
}

#[test]
fn layering_unsafe_code_stays_where_it_may_be() {
    // Lines of `unsafe` elsewhere need an `allow` of their own, item by item.
    let homes = ["sys", "driver", "op", "task", "buf", "executor", "mailbox", "sim"];
    let lib =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src/lib.rs"));
    let lib = lib.unwrap();
    let lines: Vec<&str> = lib.lines().collect();
    let mut allowed = BTreeSet::new();
    for (i, line) in lines.iter().enumerate() {
        if line.contains("#[allow(unsafe_code)]") {
            let module = lines[i + 1].trim_end_matches(';').rsplit(' ').next().unwrap();
            allowed.insert(module);
        }
    }
    let homes: BTreeSet<_> = homes.into_iter().collect();
    assert_eq!(allowed, homes, "modules with unsafe code");
    // Single items elsewhere: pin projections, and a test of the seam.
    let items: BTreeSet<String> = sources("runtime")
        .iter()
        .filter(|source| source.code().contains("allow(unsafe_code)"))
        .map(|source| source.shown())
        .filter(|shown| !homes.iter().any(|home| shown.starts_with(&format!("{home}/"))))
        .collect();
    let known = [
        "cancel/run.rs",
        "combine/group.rs",
        "combine/race.rs",
        "event_loop.rs",
        "lib.rs",
        "time/timed.rs",
        "time/timeout.rs",
    ];
    assert_eq!(items, known.into_iter().map(str::to_owned).collect(), "single items with unsafe");
    for source in sources("net") {
        assert!(!source.code().contains("unsafe"), "net has no unsafe code: {}", source.shown());
    }
}

/// `eprintln!` panics where nobody reads standard error, which in a destructor ends the process.
#[test]
fn layering_nothing_is_told_by_what_panics() {
    for source in all_sources().iter().filter(|source| !source.is_test()) {
        for word in ["eprintln!(", "eprint!(", "println!(", "dbg!("] {
            let says = source.code().contains(word);
            assert!(!says, "{}: {word}: use contain::tell", source.shown());
        }
    }
}
