//! Placement on machines that are not here: trees of `/sys` and `/proc` as such machines show them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::machine::Machine;
use super::{Cores, CoresError, beside};

/// A tree in a directory of its own, gone with it.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(String, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("coreloop-tree-{}-{n}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Self(root)
    }

    fn machine(&self, allowed: impl IntoIterator<Item = usize>) -> Machine {
        Machine::below(&self.0, allowed.into_iter().collect())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn siblings(cpus: std::ops::Range<usize>, list: impl Fn(usize) -> String) -> Vec<(String, String)> {
    cpus.map(|cpu| (format!("sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"), list(cpu)))
        .collect()
}

fn tree(topology: &[(String, String)], more: &[(&str, &str)]) -> Tree {
    let mut files: Vec<(String, &str)> =
        topology.iter().map(|(path, text)| (path.clone(), text.as_str())).collect();
    files.extend(more.iter().map(|(path, text)| ((*path).to_owned(), *text)));
    Tree::new(&files)
}

/// A desktop of one socket: eight cores, sixteen CPUs, siblings eight apart.
fn one_socket() -> Tree {
    let pairs = siblings(0..16, |cpu| format!("{},{}", cpu % 8, cpu % 8 + 8));
    tree(
        &pairs,
        &[
            ("sys/devices/system/node/online", "0"),
            ("sys/devices/system/node/node0/cpulist", "0-15"),
            ("proc/self/cgroup", "0::/user.slice"),
            ("sys/fs/cgroup/user.slice/cpu.max", "max 100000"),
        ],
    )
}

/// A server of two sockets whose CPUs are numbered in turn, siblings beside each other, and a third node that
/// is memory alone.
fn two_nodes() -> Tree {
    let pairs = siblings(0..8, |cpu| format!("{}-{}", cpu & !1, cpu | 1));
    tree(
        &pairs,
        &[
            ("sys/devices/system/node/online", "0-2"),
            ("sys/devices/system/node/node0/cpulist", "0-1,4-5"),
            ("sys/devices/system/node/node1/cpulist", "2-3,6-7"),
            ("sys/devices/system/node/node2/cpulist", ""),
        ],
    )
}

#[test]
fn one_socket_with_siblings() {
    let tree = one_socket();
    let machine = tree.machine(0..16);
    assert_eq!(Cores::All.resolve_on(&machine).unwrap(), (0..16).collect::<Vec<_>>());
    assert_eq!(Cores::Physical.resolve_on(&machine).unwrap(), (0..8).collect::<Vec<_>>());
    assert_eq!(Cores::Numa(0).resolve_on(&machine).unwrap().len(), 16);
    assert_eq!(
        Cores::Numa(1).resolve_on(&machine),
        Err(CoresError::NoSuchNode { node: 1, nodes: vec![0] })
    );
}

#[test]
fn physical_cores_within_a_mask_that_leaves_first_siblings_out() {
    let tree = one_socket();
    // Of core 0 only the second sibling is allowed, of core 1 both, of core 2 the first.
    let machine = tree.machine([1, 2, 8, 9]);
    assert_eq!(Cores::Physical.resolve_on(&machine).unwrap(), [1, 2, 8]);
}

#[test]
fn two_nodes_are_told_apart() {
    let tree = two_nodes();
    let machine = tree.machine(0..8);
    assert_eq!(Cores::Numa(0).resolve_on(&machine).unwrap(), [0, 1, 4, 5]);
    assert_eq!(Cores::Numa(1).resolve_on(&machine).unwrap(), [2, 3, 6, 7]);
    assert_eq!(Cores::Physical.resolve_on(&machine).unwrap(), [0, 2, 4, 6]);
    let one = tree.machine([0, 1]);
    for node in [1, 2] {
        assert_eq!(
            Cores::Numa(node).resolve_on(&one),
            Err(CoresError::NodeNotAllowed { node, allowed: vec![0, 1] }),
        );
    }
}

#[test]
fn a_cpuset_of_odd_cpus_is_all_there_is() {
    let tree = two_nodes();
    let machine = tree.machine([1, 3, 5, 7]);
    assert_eq!(Cores::All.resolve_on(&machine).unwrap(), [1, 3, 5, 7]);
    assert_eq!(Cores::Count(2).resolve_on(&machine).unwrap(), [1, 3]);
    assert_eq!(Cores::Numa(1).resolve_on(&machine).unwrap(), [3, 7]);
    assert_eq!(
        Cores::These(vec![1, 2]).resolve_on(&machine),
        Err(CoresError::NotAllowed { cpu: 2, allowed: vec![1, 3, 5, 7] })
    );
    assert!(matches!(Cores::Count(5).resolve_on(&machine), Err(CoresError::TooMany { .. })));
}

#[test]
fn a_quota_without_a_cpuset_bounds_all_and_only_all() {
    let files = |group: &str, text: &'static str| {
        tree(&[], &[("proc/self/cgroup", "0::/pod/app"), (&format!("sys/fs/cgroup{group}"), text)])
    };
    for (group, text, cores) in [
        ("/pod/app/cpu.max", "250000 100000", 2), // 2.5 CPUs
        ("/pod/cpu.max", "400000 100000", 4),     // of the group above
        ("/cpu.max", "300000 100000", 3),         // a container that sees its own group as the root
        ("/pod/app/cpu.max", "50000 100000", 1),  // less than one
        ("/pod/app/cpu.max", "max 100000", 64),
        ("/pod/app/cpu.max", "12800000 100000", 64), // more than there are
        ("/pod/app/cpu.max", "100000 0", 64),        // unreadable
    ] {
        let tree = files(group, text);
        let machine = tree.machine(0..64);
        assert_eq!(Cores::All.resolve_on(&machine).unwrap().len(), cores, "{group}: {text}");
        assert_eq!(Cores::Count(9).resolve_on(&machine).unwrap().len(), 9);
    }
}

#[test]
fn the_least_quota_counts_also_in_version_1() {
    let tree = tree(
        &[],
        &[
            ("proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/docker/x\n1:name=systemd:/"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "350000"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000"),
        ],
    );
    assert_eq!(tree.machine(0..8).usable(), 3);
}

#[test]
fn nothing_to_be_read_is_a_machine_of_equal_cpus() {
    let tree = tree(&[], &[]);
    let machine = tree.machine([0, 4, 5]);
    assert_eq!(Cores::All.resolve_on(&machine).unwrap(), [0, 4, 5]);
    assert_eq!(Cores::Physical.resolve_on(&machine).unwrap(), [0, 4, 5]);
    assert_eq!(Cores::Numa(0).resolve_on(&machine).unwrap(), [0, 4, 5]);
}

#[test]
fn other_threads_are_kept_off_the_loops_where_there_is_room() {
    assert_eq!(beside(&[0, 1, 2, 3], &[1, 2]), [0, 3]);
    assert_eq!(beside(&[0, 1], &[0, 1]), [0, 1]);
}
