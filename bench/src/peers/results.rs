//! What a comparison leaves behind: every run with its marks, and what it ran on.
//!
//! Owns the shape of the JSON (`schema_version` changes when a field's meaning or place does). All
//! tables and plots are drawn from this alone, so that stored results draw the same ones again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::peers::contenders::{Contender, Cores};

/// Version of the JSON's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was typed.
    pub command_line: String,
    /// When it began, in UTC.
    pub started: String,
    /// Version of this program.
    pub version: String,
    /// What it ran on.
    pub machine: Machine,
    /// Which cores did what.
    pub cores: Cores,
    /// Where all orders come from.
    pub seed: u64,
    /// Blocks asked for.
    pub blocks: usize,
    /// Seconds that each load was measured.
    pub seconds: f64,
    /// Whether it was a quick look, whose intervals mean nothing.
    pub quick: bool,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Who took part.
    pub contenders: Vec<Contender>,
    /// What was run.
    pub workloads: Vec<WorkloadResults>,
}

/// Hardware and kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu_model: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Whether the CPUs are virtual ones.
    pub virtual_machine: bool,
    /// `private namespace` or `the machine's own`.
    pub network: String,
    /// TCP congestion control of all connections.
    pub congestion_control: String,
}

/// The runs of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadResults {
    /// Its name.
    pub name: String,
    /// Requests per second of an open loop.
    pub rate: Option<u64>,
    /// All runs in the order in which they took place, repeats included.
    pub runs: Vec<Run>,
    /// Who could not run it, and why, without trying.
    pub unsupported: BTreeMap<String, String>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which block it belongs to, from 0.
    pub block: usize,
    /// 0, and more for repeats of a disturbed run.
    pub attempt: usize,
    /// Whose.
    pub contender: String,
    /// Figures by key, those beyond the workload's own included.
    pub figures: BTreeMap<String, f64>,
    /// What disturbed it.
    pub marks: Vec<String>,
    /// How much.
    pub disturbance: f64,
    /// What the peer says about how it did it.
    pub note: Option<String>,
    /// What the contender failed at: answers that never came, a rate that it did not reach.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Why it has no figures.
    pub error: Option<String>,
}

impl Results {
    /// Reads stored results.
    pub fn read(path: &Path) -> Result<Results, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("can't read {}: {error}", path.display()))?;
        Results::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Results, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match value["schema_version"].as_u64() {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "schema_version is {version}; this program reads {SCHEMA_VERSION}"
                ));
            }
            None => return Err("no results of `coreloop-bench peers`".into()),
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
}

impl WorkloadResults {
    /// The run that counts for each block of a contender: the one that decides, if it kept up in it.
    pub fn counting<'a>(&'a self, contender: &str) -> BTreeMap<usize, &'a Run> {
        let mut deciding = self.deciding(contender);
        deciding.retain(|_, run| run.faults.is_empty());
        deciding
    }

    /// The run that decides for each block: of the attempts that have figures the least disturbed one.
    fn deciding<'a>(&'a self, contender: &str) -> BTreeMap<usize, &'a Run> {
        let mut best: BTreeMap<usize, &Run> = BTreeMap::new();
        let usable = |run: &&Run| run.contender == contender && run.error.is_none();
        for run in self.runs.iter().filter(usable) {
            let entry = best.entry(run.block).or_insert(run);
            if run.disturbance < entry.disturbance {
                *entry = run;
            }
        }
        best
    }

    /// Blocks that a contender failed in, and why: no attempt counts, and none was merely disturbed.
    pub fn failed_blocks<'a>(&'a self, contender: &str) -> BTreeMap<usize, &'a str> {
        let deciding = self.deciding(contender);
        let of = self.runs.iter().filter(|run| run.contender == contender);
        let broken = of.filter(|run| !deciding.contains_key(&run.block));
        let broken = broken.filter_map(|run| Some((run.block, run.error.as_deref()?)));
        let behind = deciding.values().filter(|run| run.marks.is_empty());
        let behind = behind.filter_map(|run| Some((run.block, run.faults.first()?.as_str())));
        broken.chain(behind).collect()
    }

    /// What went wrong with a contender, run by run: it gave no figures, or did not keep up though nothing
    /// disturbed it.
    pub fn failed(&self, contender: &str) -> Vec<&str> {
        let of = self.runs.iter().filter(|run| run.contender == contender);
        let errors = of.filter_map(|run| run.error.as_deref());
        let deciding = self.deciding(contender).into_values();
        let behind = deciding.filter(|run| run.marks.is_empty());
        errors.chain(behind.filter_map(|run| run.faults.first().map(String::as_str))).collect()
    }
}

#[cfg(test)]
pub mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_as_they_were_written() {
        let results = sample::results();
        let text = serde_json::to_string_pretty(&results).unwrap();
        assert_eq!(Results::parse(&text).unwrap(), results);
    }

    #[test]
    fn other_files_are_refused_in_words() {
        assert!(Results::parse("{}").unwrap_err().contains("no results"));
        assert!(Results::parse("x").is_err());
        let newer = r#"{"schema_version": 99}"#;
        assert!(Results::parse(newer).unwrap_err().contains("is 99; this program reads 1"));
        let missing = Results::read(Path::new("/nonexistent/x.json")).unwrap_err();
        assert!(missing.starts_with("can't read /nonexistent/x.json"), "{missing}");
    }

    #[test]
    fn of_the_attempts_the_least_disturbed_counts() {
        let workload = &sample::results().workloads[0];
        let counting = workload.counting("tokio");
        assert_eq!(counting.len(), 5);
        assert_eq!(counting[&2].attempt, 1, "block 2 was disturbed and repeated");
        let failed = workload.failed("smol");
        assert!(failed.iter().all(|why| *why == "the server ended with exit status: 101: boom"));
        assert!(!failed.is_empty());
        assert!(workload.counting("smol").is_empty());
    }
}
