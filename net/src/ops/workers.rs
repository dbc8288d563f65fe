//! The kernel's workers for the cores' rings, from `/proc/self/task`.
//!
//! The kernel tells the owner of a ring nothing of ops that it hands ("punts") to workers (io-wq): there is
//! no bit in a completion and no count. What shows is the workers: threads of this process that are called
//! `iou-wrk-` and the number of the thread that they work for, and live for some seconds after their last
//! op. That thread is the core's, or the kernel's submitting one (`sqpoll`), which is called `iou-sqp-` and
//! the core's number. Owns the reading of these names, which are looked at for a page alone, and at most
//! [`THREADS_MAX`] of them.

use std::collections::HashMap;
use std::fs;

use coreloop::{Snapshot, yield_now};

use super::doc::RingWorkers;

/// Where a process has more threads, nothing is said.
const THREADS_MAX: usize = 4096;
/// Names that are read before others have a turn.
const AT_A_TIME: usize = 32;

/// The workers of each core.
pub(super) async fn look(cores: &[Snapshot]) -> Vec<RingWorkers> {
    let mut names = HashMap::new();
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    for (at, thread) in threads.flatten().enumerate() {
        if at >= THREADS_MAX {
            return Vec::new();
        }
        if at % AT_A_TIME == AT_A_TIME - 1 {
            yield_now().await;
        }
        let number = thread.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has ended meanwhile has no name.
        if let (Some(number), Ok(name)) = (number, fs::read_to_string(thread.path().join("comm"))) {
            names.insert(number, name.trim_end().to_owned());
        }
    }
    of_cores(cores, &names)
}

/// By the names of all threads of the process.
pub(super) fn of_cores(cores: &[Snapshot], names: &HashMap<u32, String>) -> Vec<RingWorkers> {
    let after = |name: &str, prefix| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut all: Vec<RingWorkers> = cores
        .iter()
        .filter(|core| core.thread.is_some())
        .map(|core| RingWorkers { core: core.core, workers: 0 })
        .collect();
    let mut of_nobody = 0;
    for name in names.values() {
        let Some(owner) = after(name, "iou-wrk-") else { continue };
        let Some(owned_by) = names.get(&owner) else {
            of_nobody += 1;
            continue;
        };
        let owner = after(owned_by, "iou-sqp-").unwrap_or(owner);
        let core = cores.iter().find(|core| core.thread == Some(owner));
        // Another thread may have a ring of its own.
        if let Some(core) = core
            && let Some(one) = all.iter_mut().find(|one| one.core == core.core)
        {
            one.workers += 1;
        }
    }
    if of_nobody > 0 {
        // Names have the numbers that the system knows threads by; in a PID namespace those are others.
        all.retain(|one| one.workers > 0);
        all.push(RingWorkers { core: None, workers: of_nobody });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[(u32, &str)]) -> Vec<(Option<usize>, u64)> {
        let names = names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect();
        let cores = [(0, Some(10)), (1, Some(11)), (2, None)].map(|(core, thread)| {
            let mut snapshot = Snapshot::default();
            (snapshot.core, snapshot.thread) = (Some(core), thread);
            snapshot
        });
        of_cores(&cores, &names).iter().map(|one| (one.core, one.workers)).collect()
    }

    #[test]
    fn workers_are_of_the_core_that_they_are_called_after() {
        assert_eq!(told(&[(10, "core-0"), (11, "core-1")]), [(Some(0), 0), (Some(1), 0)]);
        let threads = [
            (10, "core-0"),
            (11, "core-1"),
            (12, "other"),
            (13, "iou-sqp-11"),
            (14, "iou-wrk-10"),
            (15, "iou-wrk-13"),
            (16, "iou-wrk-10"),
            (17, "iou-wrk-12"),
        ];
        assert_eq!(told(&threads), [(Some(0), 2), (Some(1), 1)]);
    }

    #[test]
    fn workers_of_a_namespace_are_of_no_core() {
        let threads = [(10, "core-0"), (11, "core-1"), (14, "iou-wrk-70010")];
        assert_eq!(told(&threads), [(None, 1)]);
    }
}
