//! What the project says of itself: licences of what it builds on, and the README against the code.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<String> {
    let deny = read("deny.toml");
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.expect("deny.toml has a list `allow`");
    list.split(',').map(|s| s.trim().trim_matches('"').to_owned()).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. AND binds closer than OR; `/` is an old
/// way to write OR; of parentheses none nest in what the crates use.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let known = |name: &str| {
        let name = name.trim().trim_matches(['(', ')']);
        allowed.iter().any(|a| a == name.split(" WITH ").next().unwrap_or(name).trim())
    };
    let flat = expression.replace('/', " OR ");
    if let Some((open, close)) = flat.find('(').zip(flat.rfind(')')) {
        let inner_met = is_met(&flat[open + 1..close], allowed);
        let stand_in = if inner_met { allowed[0].as_str() } else { "none" };
        return is_met(&format!("{}{stand_in}{}", &flat[..open], &flat[close + 1..]), allowed);
    }
    flat.split(" OR ").any(|alternative| alternative.split(" AND ").all(known))
}

/// The directories below this one that have a lock file, as seen from the root; not what was built.
fn locked(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(below)).expect("a directory").flatten() {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        if name == "Cargo.lock" {
            found.push(below.to_owned());
        } else if entry.path().is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(locked(&format!("{below}/{name}")));
        }
    }
    found
}

/// Crates that a lock file names whose licence is not on the list, and why they may stay.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A peer that is measured builds on it; no crate of ours does, and nothing of it is handed on.
    ("./bench/peers", "bitmaps"),
];

#[test]
fn papers_licences_are_on_the_list() {
    let allowed = allowed();
    let all = locked(".");
    assert!(all.len() >= 4 && all.contains(&".".to_owned()), "{all:?}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut not_here = Vec::new();
    for at in all {
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            // What other systems would need is not there offline, and not part of what we build on.
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root().join(&at))
            .output()
            .expect("cargo runs");
        if !output.status.success() {
            not_here.push(format!("{at}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            continue;
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let packages = metadata["packages"].as_array().expect("packages");
        assert!(packages.len() > 20, "{at}: {} packages", packages.len());
        for package in packages {
            let name = package["name"].as_str().expect("a name");
            let licence = package["license"].as_str();
            let licence = licence.unwrap_or_else(|| panic!("{at}: {name} states no licence"));
            let is_known = is_met(licence, &allowed) || EXCEPTIONS.contains(&(&at, name));
            assert!(is_known, "{at}: {name}: {licence}");
        }
    }
    if !not_here.is_empty() {
        coreloop_tests::skip!("cargo metadata works not offline here: {}", not_here.join("; "));
    }
}

#[test]
fn papers_spdx_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned()];
    for met in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Apache-2.0"] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR LGPL-3.0) AND MIT"] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn papers_the_example_of_the_readme_is_the_compiled_one() {
    let readme = read("README.md");
    let example = read("net/examples/echo.rs");
    let code = example.split_once("\n\n").expect("a line of documentation first").1;
    assert!(readme.contains(&format!("```rust\n{code}```")), "README.md and net/examples/echo.rs");
    assert!(code.lines().count() <= 22, "some twenty lines");
}

#[test]
fn papers_files_that_the_readme_names_exist() {
    let readme = read("README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for link in links.filter(|l| !l.starts_with("http")) {
        assert!(root().join(link).exists(), "README.md names {link}");
    }
}
