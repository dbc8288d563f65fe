//! Runs a workload under callgrind and takes the sum from its profile.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::work::Workload;

/// Functions of this name are left out of the counts: what plays the other side of a connection.
const OUTSIDE: &str = "*left_out_of_counts*";

/// Instructions that one operation takes.
pub fn per_operation(workload: &Workload) -> Result<f64, String> {
    let small = least(workload, workload.small)?;
    let large = least(workload, workload.large)?;
    let difference = large.checked_sub(small).ok_or("the longer run took fewer instructions")?;
    Ok(difference as f64 / (workload.large - workload.small) as f64)
}

/// The least of the workload's runs with `count` operations each.
fn least(workload: &Workload, count: u64) -> Result<u64, String> {
    let runs = (0..workload.runs).map(|_| total(workload, count, None));
    runs.collect::<Result<Vec<_>, _>>()?.into_iter().min().ok_or("no runs".into())
}

/// Instructions of a whole run with `count` operations.
pub fn total(workload: &Workload, count: u64, keep: Option<&Path>) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let scratch;
    let out: &Path = match keep {
        Some(path) => path,
        None => {
            scratch = Scratch(std::env::temp_dir().join(format!(
                "hot-paths-{}-{}-{count}",
                std::process::id(),
                workload.name
            )));
            &scratch.0
        }
    };
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={OUTSIDE}"))
        .arg("--collect-atstart=yes") // after the line above, which switches it off
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(own)
        .args(["run", workload.name, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(format!("{} under valgrind: {}\n{said}", workload.name, ended.status));
    }
    let profile = std::fs::read_to_string(out).map_err(|e| format!("{}: {e}", out.display()))?;
    sum(&profile).ok_or_else(|| format!("no total in {}", out.display()))
}

/// A file that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The sum over all parts of a profile.
fn sum(profile: &str) -> Option<u64> {
    let mut parts = profile.lines().filter_map(|line| line.strip_prefix("summary: "));
    let first: u64 = parts.next()?.trim().parse().ok()?;
    parts.try_fold(first, |all, part| Some(all + part.trim().parse::<u64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn the_sum_is_found() {
        assert_eq!(sum("events: Ir\nsummary: 41\nfn=x\nsummary: 1\n"), Some(42));
        assert_eq!(sum("events: Ir\n"), None);
    }
}
