//! Which public functions are to say what a drop does.
//!
//! Owns reading, from the text of the runtime and of net, every public function that gives a future: an
//! `async fn`, or one whose return type names a type that implements `Future` (or `impl Future`), also within
//! a `Result` or a pair. A type is told by its name and, where the file of the function has a type of that
//! name itself, by that. What is not looked at: the simulation's own functions, macros, and traits' functions
//! outside of public traits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A public function that gives a future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The type or trait that it is a function of; empty for a free one.
    pub of: String,
    /// Its own name.
    pub name: String,
    /// Whether its documentation has a heading `# Cancel safety`.
    pub is_said: bool,
    /// The file that it is in.
    pub file: PathBuf,
}

/// All of them.
///
/// # Panics
/// If the sources can't be read.
pub fn promises() -> Vec<Promise> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    sources(&root.join("runtime/src"), &mut files);
    sources(&root.join("net/src"), &mut files);
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source");
            (file, text)
        })
        .collect();
    let futures = texts.iter().flat_map(|(_, text)| implementors(text)).collect();
    texts.iter().flat_map(|(file, text)| in_text(text, file, &futures)).collect()
}

/// Files below a folder, the simulation's own aside.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("sim") {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Types that a text implements `Future` for.
fn implementors(text: &str) -> BTreeSet<&str> {
    let heads = text.lines().filter(|line| line.starts_with("impl"));
    let named = heads.filter_map(|line| line.split_once(" Future for ").map(|(_, of)| of));
    named.filter_map(|of| words(of).find(|word| *word != "mut")).collect()
}

fn in_text(text: &str, file: &Path, futures: &BTreeSet<&str>) -> Vec<Promise> {
    let own = implementors(text);
    let defined: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("struct ")))
        .filter_map(|rest| words(rest).next())
        .collect();
    let is_future = |word: &str| {
        word == "Future" || own.contains(word) || futures.contains(word) && !defined.contains(word)
    };
    let (mut found, mut docs, mut of) = (Vec::new(), String::new(), None);
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some(scope) = scope(line) {
            of = Some(scope);
        } else if *line == "}" {
            of = None;
        }
        let bare = line.trim_start();
        if bare.starts_with("///") {
            docs.push_str(bare);
            docs.push('\n');
        } else if !bare.starts_with("#[") {
            let public = bare.starts_with("pub ")
                || of.as_ref().is_some_and(|(_, is_trait)| *is_trait)
                    && line.starts_with("    fn ");
            if let Some(name) = function(bare).filter(|_| public) {
                let head = head(&lines[at..]);
                let gives = head.starts_with("pub async ") || words(returned(&head)).any(is_future);
                if gives {
                    found.push(Promise {
                        of: of.as_ref().map(|(name, _)| name.clone()).unwrap_or_default(),
                        name: name.to_owned(),
                        is_said: docs.contains("/// # Cancel safety\n"),
                        file: file.to_owned(),
                    });
                }
            }
            docs.clear();
        }
    }
    found
}

/// The type or trait whose functions follow, and whether it is a public trait.
fn scope(line: &str) -> Option<(String, bool)> {
    if let Some(rest) = line.strip_prefix("pub trait ") {
        return words(rest).next().map(|name| (name.to_owned(), true));
    }
    let rest = line.strip_prefix("impl")?;
    let rest = if rest.starts_with('<') { after_balanced(rest, '<', '>') } else { rest };
    // Of `Trait for Type`, the type.
    let of = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    words(of).next().map(|name| (name.to_owned(), false))
}

/// The name, if the line begins a function.
fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let all_words = words(before).all(|w| ["pub", "const", "async", "unsafe"].contains(&w));
    (all_words && !before.contains("//")).then(|| words(rest).next()).flatten()
}

/// A function's text from its beginning up to its body or its end.
fn head(lines: &[&str]) -> String {
    let mut head = String::new();
    for line in lines {
        head.push_str(line.trim());
        head.push(' ');
        if line.trim_end().ends_with(['{', ';']) || line.contains(" { ") {
            break;
        }
    }
    head
}

/// What stands in the place of the return type.
fn returned(head: &str) -> &str {
    let Some(at) = head.find("fn ") else { return "" };
    // Bounds of generics may have arrows and parentheses of their own.
    let name_end = head[at + 3..].find(['(', '<']).map_or(head.len(), |i| at + 3 + i);
    let rest = &head[name_end..];
    let rest = if rest.starts_with('<') { after_balanced(rest, '<', '>') } else { rest };
    let rest = after_balanced(rest, '(', ')').trim_start();
    let Some(rest) = rest.strip_prefix("->") else { return "" };
    let end = [" where ", " {", ";"].iter().filter_map(|end| rest.find(end)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// What follows the closing mark that belongs to the opening one at the beginning. An arrow closes nothing.
fn after_balanced(text: &str, open: char, close: char) -> &str {
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close && before != '-' {
            depth -= 1;
            if depth == 0 {
                return &text[at + c.len_utf8()..];
            }
        }
        before = c;
    }
    ""
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
impl<T: Fn() -> u8> Future for Waits<'_, T> {
    fn poll(self) -> Poll<()> {
}
pub struct Receiver<T>(T);
/// Waits.
///
/// # Cancel safety
/// None.
#[track_caller]
pub fn waits<F: Fn() -> Waits<u8>>(f: impl Fn(u8) -> Waits<u8>) -> io::Result<Waits<F>>
where
    F: Future,
{
pub fn takes(f: impl Fn() -> Waits<u8>) -> u8 {
impl<'a, T: Into<Vec<u8>>> Thing<'a, T> {
    /// Says nothing.
    pub async fn one(&self) {}
    pub fn two(
        &self,
    ) -> (u8, Waits<'_, T>) {
    }
    pub fn not_one() -> Receiver<T> {
    pub fn other() -> Alien { Alien }
    pub(crate) fn inner() -> Waits<T> {
    fn private() -> Waits<T> {
}
pub trait Ends {
    fn three(self) -> impl Future<Output = ()>;
}
fn helper() -> Waits<u8> {
";

    #[test]
    fn whatever_gives_a_future_counts() {
        let futures = BTreeSet::from(["Alien", "Receiver", "Waits"]);
        let found = in_text(TEXT, Path::new(""), &futures);
        let found: Vec<_> = found.iter().map(|p| (&*p.of, &*p.name, p.is_said)).collect();
        let wanted = [
            ("", "waits", true),
            ("Thing", "one", false),
            ("Thing", "two", false),
            ("Thing", "other", false),
            ("Ends", "three", false),
        ];
        assert_eq!(found, wanted);
        assert_eq!(implementors(TEXT), BTreeSet::from(["Waits"]));
    }
}
