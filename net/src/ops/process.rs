//! The process, from `/proc/self`.
//!
//! Owns which files say what. Each look is a few short reads of files that the kernel makes up on the spot:
//! they don't wait for a disk. What can't be read is zero, or none.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::doc::Process;

/// What the kernel calls USER_HZ, in which it tells times to programs: 100 on every Linux since 2.6.
const TICKS_PER_SECOND: u64 = 100;
const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// What is known of this process now.
pub(super) fn look() -> Process {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let Said { cpu_ns, age_ns, resident_bytes, open_files_max } =
        Said::of(&read("stat"), &read("status"), &read("limits"), &uptime);
    // Found out once: a start that moved whenever it is looked at would be another process's.
    static STARTED: OnceLock<u64> = OnceLock::new();
    let started_unix_ns = *STARTED.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).saturating_sub(age_ns)
    });
    Process {
        pid: std::process::id(),
        name: program(),
        started_unix_ns,
        age_ns,
        cpu_ns,
        resident_bytes,
        // The directory's size is their number since Linux 6.2, and was zero before. To count them by
        // listing would take as long as there are many.
        open_files: fs::metadata("/proc/self/fd").ok().map(|dir| dir.len()).filter(|n| *n > 0),
        open_files_max,
    }
}

/// What the files' texts say.
pub(super) struct Said {
    pub(super) cpu_ns: u64,
    pub(super) age_ns: u64,
    pub(super) resident_bytes: u64,
    pub(super) open_files_max: Option<u64>,
}

impl Said {
    pub(super) fn of(stat: &str, status: &str, limits: &str, uptime: &str) -> Self {
        let stat = Stat::of(stat);
        Self {
            cpu_ns: stat.cpu_ns,
            age_ns: uptime_ns(uptime).saturating_sub(stat.started_ns),
            resident_bytes: resident_bytes(status),
            open_files_max: open_files_max(limits),
        }
    }
}

fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    cpu_ns: u64,
    /// After the system's start.
    started_ns: u64,
}

impl Stat {
    fn of(text: &str) -> Self {
        // The name in parentheses may hold anything; the third field follows it.
        let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after.split_whitespace().collect();
        let field = |n: usize| -> u64 {
            fields.get(n - 3).and_then(|field| field.parse().ok()).unwrap_or_default()
        };
        let ns = |ticks: u64| ticks.saturating_mul(NS_PER_TICK);
        Self { cpu_ns: ns(field(14).saturating_add(field(15))), started_ns: ns(field(22)) }
    }
}

fn uptime_ns(text: &str) -> u64 {
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or_default();
    (seconds * 1e9) as u64
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>();
    kib.unwrap_or_default().saturating_mul(1024)
}

fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_has_files_open() {
        let now = look();
        assert_eq!(now.pid, std::process::id());
        assert!(now.name.starts_with("coreloop_net"), "{now:?}");
        assert!(now.resident_bytes > 100_000, "{now:?}");
        assert!(now.open_files.is_none_or(|n| n >= 3), "{now:?}");
        assert!(now.open_files_max.is_none_or(|n| n >= 3), "{now:?}");
        assert!(now.age_ns < 3_600_000_000_000, "{now:?}");
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 12345 99 88";
        let expected = Stat { cpu_ns: 3_000_000_000, started_ns: 123_450_000_000 };
        assert_eq!(Stat::of(text), expected);
        assert_eq!(Stat::of("nothing"), Stat::default());
    }

    #[test]
    fn limits_and_memory_are_read() {
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024    4096     files\n";
        assert_eq!(open_files_max(limits), Some(1024));
        assert_eq!(open_files_max("Max open files  unlimited  unlimited  files"), None);
        assert_eq!(resident_bytes("VmSize:\t 9 kB\nVmRSS:\t    2048 kB\n"), 2048 * 1024);
        assert_eq!(uptime_ns("12.50 3.0\n"), 12_500_000_000);
    }
}
