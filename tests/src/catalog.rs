//! Which tests there are.
//!
//! Owns reading the names of the behaviour tests from the text of `tests/tests`, for those that hold tables
//! to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The tests in `tests/tests`: name to file, or to one of several.
///
/// # Panics
/// If the folder can't be read.
pub fn tests() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut known = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder of tests") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for name in names(&text) {
            known.entry(name.to_owned()).or_insert_with(|| file.clone());
        }
    }
    known
}

/// The functions of a text that stand under an attribute that makes them tests.
pub fn names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[coreloop::test") {
            is_test = true;
        } else if line.starts_with("fn ") || line.starts_with("async fn ") {
            if std::mem::take(&mut is_test) {
                let name = line.split_once("fn ").map(|(_, rest)| rest).unwrap_or_default();
                names.push(
                    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""),
                );
            }
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn only_what_is_a_test_counts() {
        let text = "#[test]\nfn a_b() {\n}\nfn helper() {}\n#[coreloop::test(sim)]\n\
            #[should_panic]\nasync fn c(sim: Sim) {\n#[derive(Debug)]\nstruct S;\nfn d() {}\n";
        assert_eq!(names(text), ["a_b", "c"]);
    }
}
