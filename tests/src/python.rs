//! Programs of Python's that read what coreloop writes.
//!
//! Owns finding an interpreter that has a package, or making one in a folder of the build: by `venv` and
//! `pip`, where they can. Changes nothing outside that folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An interpreter that can import `module`: the system's, or one in `folder` for which `package` (a name
/// with its version) is installed, if need be. None where neither is to be had.
pub fn with_module(module: &str, package: &str, folder: &Path) -> Option<PathBuf> {
    let has = |python: &Path| {
        let check = Command::new(python).args(["-c", &format!("import {module}")]).output();
        check.is_ok_and(|output| output.status.success())
    };
    let system = PathBuf::from("python3");
    if has(&system) {
        return Some(system);
    }
    let name: String = package.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let made = folder.join(format!("python-{name}"));
    let own = made.join("bin/python");
    if has(&own) {
        return Some(own);
    }
    let begun = Command::new("python3").args(["-m", "venv"]).arg(&made).output().ok()?;
    let pip = ["-m", "pip", "install", "--quiet", "--timeout", "20", package];
    let installed =
        begun.status.success() && Command::new(&own).args(pip).output().ok()?.status.success();
    (installed && has(&own)).then_some(own)
}

/// Runs a program with these arguments and this input: whether it ended well, and all that it said. None if
/// it can't be started.
pub fn run(program: &Path, args: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut to = child.stdin.take()?;
    let input = input.to_owned();
    // One that ended early is told by its status.
    let writing = std::thread::spawn(move || drop(to.write_all(input.as_bytes())));
    let output = child.wait_with_output().ok()?;
    writing.join().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}
