//! Whose CPU it is: threads of other processes that are pinned to it.
//!
//! Owns the look through /proc. A load core that spins on a CPU on which a server's core is pinned
//! would starve what it measures, so that it has to know; processes that it may not see don't count.

use std::fs;
use std::path::Path;

/// Whether a thread of another process may run on CPU `cpu` and nowhere else.
pub fn pinned_to(cpu: usize) -> bool {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = processes.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|pid| pid.parse::<u32>().is_ok() && pid != own)
    });
    // The kernel's own threads, which are pinned too, have no command line.
    let mut users = others.map(|entry| entry.path()).filter(|path| has_command_line(path));
    users.any(|path| any_thread_pinned(&path, cpu))
}

fn has_command_line(process: &Path) -> bool {
    fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty())
}

fn any_thread_pinned(process: &Path, cpu: usize) -> bool {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        only_cpu(&status) == Some(cpu)
    })
}

fn only_cpu(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_alone_is_a_pin() {
        assert_eq!(only_cpu("Name:\tx\nCpus_allowed_list:\t3\n"), Some(3));
        assert_eq!(only_cpu("Cpus_allowed_list:\t0-1\n"), None);
        assert_eq!(only_cpu("Cpus_allowed_list:\t0,2\n"), None);
        assert_eq!(only_cpu(""), None);
    }

    #[test]
    fn nobody_is_pinned_to_a_cpu_that_there_is_not() {
        assert!(!pinned_to(usize::MAX));
    }
}
