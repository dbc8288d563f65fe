//! The stored counts: reading, writing, comparing.
//!
//! Knows nothing of how they were counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Instructions per operation of each workload, and what they were counted with.
#[derive(Serialize, Deserialize, Debug)]
pub struct Baseline {
    /// `rustc --version`, up to the commit.
    pub rustc: String,
    /// The architecture.
    pub arch: String,
    /// By workload.
    pub instructions: BTreeMap<String, f64>,
}

/// What a count says against the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Holds,
    /// Above it.
    Grew,
    /// Below it: the baseline allows more than it has to.
    Shrank,
    /// There is none stored.
    Unknown,
}

impl Baseline {
    /// What was counted here and now.
    pub fn counted(counts: &[(&str, f64)]) -> Result<Self, String> {
        let instructions =
            counts.iter().map(|(name, n)| ((*name).to_owned(), (n * 10.0).round() / 10.0));
        Ok(Self {
            rustc: rustc()?,
            arch: std::env::consts::ARCH.to_owned(),
            instructions: instructions.collect(),
        })
    }

    /// Reads a stored one.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Stores it.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Why counts of this machine can't be held against it, if they can't.
    pub fn not_comparable(&self) -> Result<Option<String>, String> {
        let here = rustc()?;
        if self.rustc != here {
            return Ok(Some(format!("the baseline is of {}, here is {here}", self.rustc)));
        }
        if self.arch != std::env::consts::ARCH {
            let here = std::env::consts::ARCH;
            return Ok(Some(format!("the baseline is of {}, this is {here}", self.arch)));
        }
        if Command::new("valgrind").arg("--version").output().is_err() {
            return Ok(Some("valgrind is not installed".into()));
        }
        Ok(None)
    }

    /// The stored count, the change in per cent, and what it means.
    pub fn compare(&self, name: &str, now: f64, tolerance: f64) -> (f64, f64, Verdict) {
        let Some(&was) = self.instructions.get(name) else {
            return (f64::NAN, f64::NAN, Verdict::Unknown);
        };
        let change = (now / was - 1.0) * 100.0;
        let verdict = if change > tolerance {
            Verdict::Grew
        } else if change < -tolerance {
            Verdict::Shrank
        } else {
            Verdict::Holds
        };
        (was, change, verdict)
    }
}

/// The compiler's version, such as `rustc 1.95.0`.
fn rustc() -> Result<String, String> {
    let told =
        Command::new("rustc").arg("--version").output().map_err(|e| format!("rustc: {e}"))?;
    let text = String::from_utf8_lossy(&told.stdout);
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Baseline {
        Baseline::counted(&[("spawn", 100.0)]).unwrap()
    }

    #[test]
    fn growth_beyond_the_tolerance_is_told() {
        assert_eq!(stored().compare("spawn", 101.9, 2.0).2, Verdict::Holds);
        assert_eq!(stored().compare("spawn", 102.1, 2.0).2, Verdict::Grew);
        assert_eq!(stored().compare("spawn", 98.1, 2.0).2, Verdict::Holds);
        assert_eq!(stored().compare("spawn", 97.9, 2.0).2, Verdict::Shrank);
        assert_eq!(stored().compare("yield", 1.0, 2.0).2, Verdict::Unknown);
    }

    #[test]
    fn another_compiler_is_not_compared_with() {
        let mut other = stored();
        other.rustc = "rustc 1.0.0".into();
        assert!(other.not_comparable().unwrap().unwrap().contains("rustc 1.0.0"));
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("hot-paths-{}.json", std::process::id()));
        stored().write(&path).unwrap();
        let read = Baseline::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.instructions["spawn"], 100.0);
        assert_eq!(read.rustc, stored().rustc);
    }
}
