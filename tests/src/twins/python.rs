//! The Python side of the twins: the files in `tests/twins`, and the interpreter if there is one.
//!
//! Owns finding an interpreter that is new enough, running a twin on it, in virtual time or in scaled-down real
//! time, and telling apart what two transcripts differ in: the order of events, or only their times.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of the Python sides and the transcripts.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("twins")
}

/// An interpreter of Python 3.11 or newer.
#[derive(Clone, Debug)]
pub struct Interpreter {
    program: String,
    /// (3, minor).
    pub version: (u32, u32),
}

impl Interpreter {
    /// That of `CORELOOP_PYTHON`, or `python3`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find() -> Result<Self, String> {
        let program = std::env::var("CORELOOP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let code = "import sys; print(sys.version_info[0], sys.version_info[1])";
        let shown = Command::new(&program).args(["-c", code]).stderr(Stdio::null()).output();
        let shown = shown.map_err(|e| format!("no {program}: {e}"))?;
        let text = String::from_utf8_lossy(&shown.stdout);
        let numbers: Vec<u32> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [major, minor] if (major, minor) >= (3, 11) => {
                Ok(Self { program, version: (major, minor) })
            }
            [major, minor] => Err(format!("{program} is Python {major}.{minor}; 3.11 is needed")),
            _ => Err(format!("{program} does not say its version")),
        }
    }

    /// What `code` prints.
    ///
    /// # Errors
    /// What it wrote to stderr, if it failed.
    pub fn run(&self, code: &str) -> Result<String, String> {
        let output = Command::new(&self.program).args(["-c", code]).output();
        Self::text_of(output.map_err(|e| e.to_string())?)
    }

    /// Plays the Python side of a twin: in virtual time, or in real time with units of so many milliseconds.
    ///
    /// # Errors
    /// What it wrote to stderr, if it failed.
    pub fn play(&self, name: &str, unit_ms: Option<u32>) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("-B").arg(folder().join(format!("{name}.py"))).env_remove("TWIN_UNIT_MS");
        if let Some(unit_ms) = unit_ms {
            command.env("TWIN_UNIT_MS", unit_ms.to_string());
        }
        let output = command.output();
        Self::text_of(output.map_err(|e| e.to_string())?)
    }

    fn text_of(output: std::process::Output) -> Result<String, String> {
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        String::from_utf8(output.stdout).map_err(|e| e.to_string())
    }
}

/// How two transcripts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// In every line.
    Same,
    /// The same events in the same order, some of them at other times.
    OtherTimes,
    /// Other events, or another order.
    OtherOrder,
}

/// Compares two transcripts.
pub fn compare(one: &str, two: &str) -> Compared {
    if one == two {
        Compared::Same
    } else if one.lines().map(event_of).eq(two.lines().map(event_of)) {
        Compared::OtherTimes
    } else {
        Compared::OtherOrder
    }
}

/// A line without its time.
fn event_of(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, event)) if time.parse::<f64>().is_ok() => event,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::{Compared, compare};

    #[test]
    fn times_and_orders_are_told_apart() {
        let shown = "-- act\n0.0 a\n1.5 b is over\n";
        assert_eq!(compare(shown, shown), Compared::Same);
        let later = "-- act\n0.0 a\n2.0 b is over\n";
        assert_eq!(compare(shown, later), Compared::OtherTimes);
        let swapped = "-- act\n0.0 b is over\n1.5 a\n";
        assert_eq!(compare(shown, swapped), Compared::OtherOrder);
        assert_eq!(compare(shown, "-- act\n0.0 a\n"), Compared::OtherOrder);
    }
}
