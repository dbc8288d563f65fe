//! What the system says of its CPUs: which this thread may use, which share a physical core, which node they
//! are on, and how many of them a quota is worth.
//!
//! Reads `/sys` and `/proc` below a root, so that recorded trees of other machines can be read too. What is
//! not there to be read (containers hide some of it) counts as: every CPU is a core of its own, on node 0,
//! without a quota.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// CPUs and how they hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that the thread may use, in order, at least one.
    pub allowed: Vec<usize>,
    /// How many CPUs' worth of time it may use: the least quota of its cgroups, rounded down, at least 1.
    pub quota: Option<usize>,
    root: PathBuf,
}

impl Machine {
    /// This one, for the calling thread.
    pub fn here() -> Self {
        Self::below(Path::new("/"), super::pin::allowed_cpus())
    }

    /// The one whose `/sys` and `/proc` lie below `root`, for a thread that may use `allowed`.
    pub fn below(root: &Path, allowed: Vec<usize>) -> Self {
        Self { allowed, quota: quota(root), root: root.to_owned() }
    }

    /// How many of the allowed CPUs can run at a time.
    pub fn usable(&self) -> usize {
        self.quota.map_or(self.allowed.len(), |q| q.min(self.allowed.len()))
    }

    /// The first allowed CPU of each physical core, in order.
    pub fn physical(&self) -> Vec<usize> {
        let mut covered = BTreeSet::new();
        let mut chosen = Vec::new();
        for &cpu in &self.allowed {
            if !covered.contains(&cpu) {
                chosen.push(cpu);
            }
            covered.extend(self.siblings(cpu));
        }
        chosen
    }

    /// CPUs that share a physical core with `cpu`, itself among them.
    fn siblings(&self, cpu: usize) -> Vec<usize> {
        let topology = self.root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
        // The older name of the same list, for kernels before 5.3.
        let text = fs::read_to_string(topology.join("core_cpus_list"))
            .or_else(|_| fs::read_to_string(topology.join("thread_siblings_list")));
        text.ok().and_then(|t| read_list(t.trim())).unwrap_or_else(|| vec![cpu])
    }

    /// The nodes that have memory or CPUs, in order.
    pub fn nodes(&self) -> Vec<usize> {
        let online = fs::read_to_string(self.root.join("sys/devices/system/node/online"));
        online.ok().and_then(|t| read_list(t.trim())).unwrap_or_else(|| vec![0])
    }

    /// The allowed CPUs of a node; none if there is no such node.
    pub fn of_node(&self, node: usize) -> Option<Vec<usize>> {
        if !self.nodes().contains(&node) {
            return None;
        }
        let list = self.root.join(format!("sys/devices/system/node/node{node}/cpulist"));
        let Ok(text) = fs::read_to_string(list) else {
            return Some(self.allowed.clone()); // no nodes are told: all is node 0
        };
        // A node of memory alone has an empty list.
        let cpus = read_list(text.trim()).unwrap_or_default();
        Some(self.allowed.iter().copied().filter(|cpu| cpus.contains(cpu)).collect())
    }
}

/// Highest number that a list may name, so that a slip such as `0-99999999` is answered at once.
const NUMBER_MAX: usize = crate::sys::threads::CPUS_MAX - 1;

/// Most entries of a list.
const LIST_MAX: usize = NUMBER_MAX + 1;

/// A list as the kernel writes it and users do: `0,2-5`.
pub fn read_list(text: &str) -> Option<Vec<usize>> {
    let number = |s: &str| s.trim().parse::<usize>().ok().filter(|n| *n <= NUMBER_MAX);
    let mut all = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => all.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return None;
                }
                all.extend(first..=last);
            }
        }
        // One may be named twice, but a short text must not become a huge list.
        if all.len() > LIST_MAX {
            return None;
        }
    }
    Some(all)
}

/// The least quota of the cgroups that the process is in, in whole CPUs. cgroups(7): `cpu.max` of each group
/// on the way up in version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` in version 1.
fn quota(root: &Path) -> Option<usize> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounted = root.join("sys/fs/cgroup");
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, of_group): (PathBuf, fn(&Path) -> Option<u64>) = if controllers.is_empty() {
            (mounted.clone(), quota_v2)
        } else if controllers.split(',').any(|c| c == "cpu") {
            let named = mounted.join(controllers);
            (if named.is_dir() { named } else { mounted.join("cpu") }, quota_v1)
        } else {
            continue;
        };
        // In a container without a cgroup namespace the path is the host's, and only the root is there.
        for group in Path::new(path).ancestors() {
            let relative = group.strip_prefix("/").unwrap_or(group);
            if let Some(cpus) = of_group(&base.join(relative)) {
                least = Some(least.map_or(cpus, |l| l.min(cpus)));
            }
        }
    }
    least.map(|cpus| usize::try_from(cpus.max(1)).unwrap_or(usize::MAX))
}

fn quota_v2(group: &Path) -> Option<u64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    quota.parse::<u64>().ok()?.checked_div(period.parse().ok()?)
}

fn quota_v1(group: &Path) -> Option<u64> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<i64>().ok();
    let quota = u64::try_from(number("cpu.cfs_quota_us")?).ok()?; // -1: none
    quota.checked_div(u64::try_from(number("cpu.cfs_period_us")?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_tests::{corpus, fuzz, signature};

    #[test]
    fn this_machine_is_read_as_the_standard_library_reads_it() {
        let here = Machine::here();
        let parallel = std::thread::available_parallelism().unwrap().get();
        assert_eq!(here.usable(), parallel, "{here:?}");
        assert!(here.physical().iter().all(|cpu| here.allowed.contains(cpu)));
        assert!(!here.physical().is_empty());
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(read_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(read_list(""), None);
        assert_eq!(read_list("3-1"), None);
        assert_eq!(read_list("0-99999999999"), None);
        assert_eq!(read_list("0-8191").map(|list| list.len()), Some(8192));
        assert_eq!(read_list("0-8191,0"), None, "more entries than there are CPUs anywhere");
    }

    /// Parts with empty lines between them: the siblings of CPU 0 by the newer and of CPU 1 by the
    /// older name, the nodes that are online, and the CPUs of nodes 0 and 1.
    #[test]
    fn fuzz_trees_of_a_machine() {
        let root = std::env::temp_dir().join(format!("coreloop-sys-{}", std::process::id()));
        let system = root.join("sys/devices/system");
        let files = [
            "cpu/cpu0/topology/core_cpus_list",
            "cpu/cpu1/topology/thread_siblings_list",
            "node/online",
            "node/node0/cpulist",
            "node/node1/cpulist",
        ]
        .map(|name| system.join(name));
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        let words = ["0-1", "0,2", "0-8191", "8192", "1-0", "\n\n", "-", ",", " ", "\u{e9}"];
        let allowed = [0, 1, 2, 3];
        let fuzzed = fuzz(&corpus("machine_trees"), &words, |input| {
            let text = String::from_utf8_lossy(input);
            let mut parts = text.splitn(files.len(), "\n\n");
            for file in &files {
                // What is not said at all is a file that is not there.
                match parts.next() {
                    Some(part) => fs::write(file, part).unwrap(),
                    None => drop(fs::remove_file(file)),
                }
            }
            let machine = Machine::below(&root, allowed.to_vec());
            let (physical, nodes) = (machine.physical(), machine.nodes());
            assert!(physical.starts_with(&[0]) && physical.is_sorted(), "{physical:?}");
            assert!(physical.iter().all(|cpu| allowed.contains(cpu)), "{physical:?}");
            assert!((1..=LIST_MAX).contains(&nodes.len()), "{} nodes", nodes.len());
            let of_nodes = [0, 1, 2].map(|node| {
                let cpus = machine.of_node(node);
                assert_eq!(cpus.is_some(), nodes.contains(&node));
                assert!(cpus.iter().flatten().all(|cpu| allowed.contains(cpu)), "{cpus:?}");
                cpus.map(|cpus| cpus.len())
            });
            signature((physical, of_nodes))
        });
        fs::remove_dir_all(&root).unwrap();
        println!("{fuzzed:?}");
        assert!(fuzzed.signatures >= 6, "{fuzzed:?}");
    }

    /// Three parts, with empty lines between them: the process's groups, `cpu.max` of version 2, and quota
    /// and period of version 1.
    #[test]
    fn fuzz_quotas_of_cgroups() {
        let root = std::env::temp_dir().join(format!("coreloop-quota-{}", std::process::id()));
        let v1 = root.join("sys/fs/cgroup/cpu");
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::create_dir_all(&v1).unwrap();
        let words = ["0::/", "4:cpu,cpuacct:/", "max 100000", "\n\n", "-1", "100000", "/..", "/a"];
        let fuzzed = fuzz(&corpus("machine_quotas"), &words, |input| {
            let text = String::from_utf8_lossy(input);
            let mut parts = text.splitn(3, "\n\n");
            let mut part = || parts.next().unwrap_or_default();
            fs::write(root.join("proc/self/cgroup"), part()).unwrap();
            fs::write(root.join("sys/fs/cgroup/cpu.max"), part()).unwrap();
            let (quota_us, period_us) = part().split_once('\n').unwrap_or_default();
            fs::write(v1.join("cpu.cfs_quota_us"), quota_us).unwrap();
            fs::write(v1.join("cpu.cfs_period_us"), period_us).unwrap();
            let cpus = quota(&root);
            assert_ne!(cpus, Some(0), "there is always one");
            let usable = Machine::below(&root, vec![0, 1, 2]).usable();
            assert!((1..=3).contains(&usable), "{usable} of 3");
            signature((cpus.map(|cpus| cpus.min(5)), usable))
        });
        fs::remove_dir_all(&root).unwrap();
        println!("{fuzzed:?}");
        assert!(fuzzed.signatures >= 4, "{fuzzed:?}");
    }
}
