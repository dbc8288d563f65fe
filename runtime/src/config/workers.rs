//! Where the kernel's workers may run, as a setting.

use std::fmt;

use super::Settings;

/// The CPUs that the kernel's workers for a core's ring may run on: what the setting `worker_cpus` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerCpus {
    /// Beside the cores that are pinned, where there are other CPUs; else as the kernel likes.
    #[default]
    Auto,
    /// As the kernel likes: up to Linux 6.1 any that the process may use, later those of the core's thread.
    Kernel,
    /// These.
    These(Vec<usize>),
}

impl WorkerCpus {
    /// Those that are named.
    pub(super) fn named(&self) -> Option<&[usize]> {
        match self {
            Self::These(cpus) => Some(cpus),
            _ => None,
        }
    }
}

impl Settings {
    /// Whether the workers are to run beside the pinned cores.
    pub(crate) fn workers_beside(&self) -> bool {
        self.values.worker_cpus == WorkerCpus::Auto
    }
}

impl fmt::Display for WorkerCpus {
    /// As files and flags write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Kernel => f.write_str("kernel"),
            Self::These(cpus) => {
                let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
                f.write_str(&cpus.join(","))
            }
        }
    }
}
