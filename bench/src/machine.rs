//! What this machine and process are: kernel, CPU, cores, limits, sysctls, and CPU time per thread.
//!
//! Owns the places in /proc and /sys where the facts stand. A fact that can't be read is `None`,
//! never an error: reports and the doctor say "unknown" and go on. Judges nothing.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::report::core::CoreUsage;
use crate::sys::{self, Limit, LimitKind};

/// Seccomp mode of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// No filter.
    Off,
    /// Only read, write, exit and sigreturn.
    Strict,
    /// A filter program decides, as in containers.
    Filter,
}

/// The facts, as read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MachineFacts {
    /// `uname -r`.
    pub kernel: Option<String>,
    /// The first CPU's model.
    pub cpu_model: Option<String>,
    /// CPUs that this process may run on.
    pub cpus_allowed: Vec<usize>,
    /// CPUs' worth of time that the cgroup grants, if it limits it.
    pub cpu_quota: Option<f64>,
    /// Locked memory, in bytes.
    pub memlock: Option<Limit>,
    /// Open files.
    pub open_files: Option<Limit>,
    /// The longest accept queue.
    pub somaxconn: Option<u64>,
    /// `kernel.io_uring_disabled`: 0 all may, 1 the privileged and a group, 2 nobody.
    pub io_uring_disabled: Option<u64>,
    /// `kernel.io_uring_group`, -1 for none.
    pub io_uring_group: Option<i64>,
    /// TCP congestion control of new sockets.
    pub congestion_control: Option<String>,
    /// Seccomp mode.
    pub seccomp: Option<Seccomp>,
}

/// What the scheduler counted for one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedStat {
    /// Time on a CPU.
    pub run_ns: u64,
    /// Time ready, but waiting for a CPU.
    pub wait_ns: u64,
    /// Times it was put on a CPU.
    pub slices: u64,
}

/// CPU use of the calling thread from [`ThreadMeter::start`] on.
#[derive(Clone, Copy, Debug)]
pub struct ThreadMeter {
    cpu_ns: u64,
    sched: Option<SchedStat>,
    wall_ns: u64,
}

impl MachineFacts {
    /// Reads the facts of this machine and process.
    pub fn read() -> MachineFacts {
        MachineFacts {
            cpus_allowed: coreloop::placement::allowed_cpus(),
            memlock: sys::limit(LimitKind::MemLock).ok(),
            open_files: sys::limit(LimitKind::OpenFiles).ok(),
            ..MachineFacts::read_files(Path::new("/"))
        }
    }

    /// Those facts that stand in files, with `root` for `/`.
    fn read_files(root: &Path) -> MachineFacts {
        let sysctl = |name: &str| text(&root.join("proc/sys").join(name));
        let cpuinfo = text(&root.join("proc/cpuinfo")).unwrap_or_default();
        let status = text(&root.join("proc/self/status")).unwrap_or_default();
        MachineFacts {
            kernel: sysctl("kernel/osrelease"),
            // x86 names the model; of the others some do under these words, some not at all.
            cpu_model: ["model name", "Model", "cpu model", "uarch"]
                .iter()
                .find_map(|key| field(&cpuinfo, key))
                .map(str::to_owned),
            cpu_quota: cpu_quota(root),
            somaxconn: sysctl("net/core/somaxconn").and_then(|text| text.parse().ok()),
            io_uring_disabled: sysctl("kernel/io_uring_disabled").and_then(|t| t.parse().ok()),
            io_uring_group: sysctl("kernel/io_uring_group").and_then(|text| text.parse().ok()),
            congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
            seccomp: field(&status, "Seccomp").and_then(|mode| match mode {
                "0" => Some(Seccomp::Off),
                "1" => Some(Seccomp::Strict),
                "2" => Some(Seccomp::Filter),
                _ => None,
            }),
            ..MachineFacts::default()
        }
    }
}

impl ThreadMeter {
    /// Begins to meter the calling thread.
    pub fn start() -> ThreadMeter {
        ThreadMeter {
            cpu_ns: sys::thread_cpu_ns(),
            sched: schedstat(std::process::id(), sys::thread_id()),
            wall_ns: sys::monotonic_ns(),
        }
    }

    /// Fills in what the calling thread, the one that started it, has used since.
    pub fn stop(self, usage: &mut CoreUsage) {
        let now = ThreadMeter::start();
        usage.wall_ns = now.wall_ns - self.wall_ns;
        usage.cpu_ns = now.cpu_ns - self.cpu_ns;
        usage.run_delay_ns =
            self.sched.zip(now.sched).map(|(then, now)| now.wait_ns.saturating_sub(then.wait_ns));
    }
}

/// Scheduler counters of a thread; `None` if it is gone or the kernel keeps none.
pub fn schedstat(pid: u32, tid: u32) -> Option<SchedStat> {
    parse_schedstat(&text(Path::new(&format!("/proc/{pid}/task/{tid}/schedstat")))?)
}

fn parse_schedstat(line: &str) -> Option<SchedStat> {
    let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(SchedStat { run_ns: next()?, wait_ns: next()?, slices: next()? })
}

/// The tightest CPU limit from the process's cgroup up to the root, in CPUs.
fn cpu_quota(root: &Path) -> Option<f64> {
    let cgroups = text(&root.join("proc/self/cgroup"))?;
    let limits = cgroups.lines().flat_map(|line| {
        // Lines are `hierarchy:controllers:path`; version 2 has no controllers in its only line.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (mount, read): (&str, fn(&Path) -> Option<f64>) = match controllers {
            "" => ("sys/fs/cgroup", quota_v2),
            list if list.split(',').any(|name| name == "cpu") => ("sys/fs/cgroup/cpu", quota_v1),
            _ => return Vec::new(),
        };
        let mount = root.join(mount);
        let below = mount.join(path.trim_start_matches('/'));
        let folders = below.ancestors().take_while(|folder| folder.starts_with(&mount));
        folders.filter_map(read).collect()
    });
    limits.min_by(f64::total_cmp)
}

fn quota_v2(folder: &Path) -> Option<f64> {
    let line = text(&folder.join("cpu.max"))?;
    let (quota, period) = line.split_once(' ')?;
    quota_of(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(folder: &Path) -> Option<f64> {
    let number = |name: &str| text(&folder.join(name))?.parse::<f64>().ok();
    quota_of(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn quota_of(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// The value behind `key` in a file of `key : value` lines.
fn field<'a>(content: &'a str, key: &str) -> Option<&'a str> {
    content.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn text(path: &Path) -> Option<String> {
    let content = fs::read_to_string(path).ok()?;
    let content = content.trim();
    (!content.is_empty()).then(|| content.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder that stands for `/`, removed at the end of its test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let folder = format!("coreloop-machine-{name}-{}", std::process::id());
            let root = Root(std::env::temp_dir().join(folder));
            for (path, content) in files {
                let path = root.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            root
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn facts_come_from_their_files() {
        let root = Root::new(
            "files",
            &[
                ("proc/sys/kernel/osrelease", "6.18.44\n"),
                ("proc/sys/kernel/io_uring_disabled", "1\n"),
                ("proc/sys/kernel/io_uring_group", "-1\n"),
                ("proc/sys/net/core/somaxconn", "4096\n"),
                ("proc/sys/net/ipv4/tcp_congestion_control", "reno\n"),
                ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"),
                ("proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            ],
        );
        let facts = MachineFacts::read_files(&root.0);
        assert_eq!(facts.kernel.as_deref(), Some("6.18.44"));
        assert_eq!(facts.cpu_model.as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!((facts.io_uring_disabled, facts.io_uring_group), (Some(1), Some(-1)));
        assert_eq!(facts.somaxconn, Some(4096));
        assert_eq!(facts.congestion_control.as_deref(), Some("reno"));
        assert_eq!(facts.seccomp, Some(Seccomp::Filter));
        assert_eq!(facts.cpu_quota, None);
    }

    #[test]
    fn missing_files_are_unknown_facts() {
        let facts = MachineFacts::read_files(Path::new("/nonexistent"));
        assert_eq!(facts, MachineFacts::default());
    }

    #[test]
    fn the_tightest_quota_on_the_way_up_counts() {
        let root = Root::new(
            "v2",
            &[
                ("proc/self/cgroup", "0::/pod/box\n"),
                ("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
            ],
        );
        assert_eq!(cpu_quota(&root.0), Some(1.5));
    }

    #[test]
    fn the_old_cgroups_have_a_quota_too() {
        let root = Root::new(
            "v1",
            &[
                ("proc/self/cgroup", "3:cpuset:/\n1:cpu,cpuacct:/box\n0::/\n"),
                ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(cpu_quota(&root.0), Some(0.5));
    }

    #[test]
    fn schedstat_lines() {
        let stat = SchedStat { run_ns: 12, wait_ns: 5, slices: 3 };
        assert_eq!(parse_schedstat("12 5 3\n"), Some(stat));
        assert_eq!(parse_schedstat("12 5"), None);
        assert_eq!(parse_schedstat("a b c"), None);
        assert_eq!(schedstat(u32::MAX, 1), None);
    }

    #[test]
    fn a_meter_counts_this_threads_cpu() {
        let mut usage = CoreUsage::new(crate::report::core::Role::Load, 0);
        let meter = ThreadMeter::start();
        let until_ns = sys::monotonic_ns() + 5_000_000;
        while sys::monotonic_ns() < until_ns {}
        meter.stop(&mut usage);
        assert!(usage.wall_ns >= 5_000_000);
        // Others may have had the CPU meanwhile, so this bound is wide.
        assert!(usage.cpu_ns > 0 && usage.cpu_ns <= usage.wall_ns + 1_000_000);
    }
}
