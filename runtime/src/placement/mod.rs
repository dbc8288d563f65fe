//! Which CPUs the loops run on.
//!
//! Owns [`Cores`] (what the user asks for) and its resolution within what the calling thread may use: its
//! affinity mask, so also a cpuset, and for [`Cores::All`] the quota of its cgroups. What the system says is
//! read in `machine`, anew each time: masks and cpusets change while a process runs.

mod machine;
mod pin;
#[cfg(test)]
mod recorded_tests;

use std::fmt;
use std::str::FromStr;

use crate::executor::dial::Spin;

use machine::Machine;
pub(crate) use machine::read_list;
pub use pin::allowed_cpus;
pub(crate) use pin::pin_to;

/// Which CPUs to run loops on, one each, always within what the calling thread may use: its affinity mask,
/// and the process's cpuset. That is what the process may, unless the thread was restricted. Threads inherit
/// that from whoever started them: one that was started on a pinned core may use that core's CPU alone.
///
/// As text: `all`, `count:4`, `0,2-5`, `numa:0`, `physical`.
///
/// ```
/// use coreloop::Cores;
///
/// assert_eq!("0,2-5".parse(), Ok(Cores::These(vec![0, 2, 3, 4, 5])));
/// assert_eq!("numa:0".parse(), Ok(Cores::Numa(0)));
/// assert_eq!(Cores::Count(4).to_string(), "count:4");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cores {
    /// Every CPU that the calling thread may use; with a CPU quota (cgroups, as containers set it) the first
    /// so many of them as the quota is worth, rounded down, at least one: loops beyond it would be throttled
    /// together.
    #[default]
    All,
    /// The first so many of the CPUs that the calling thread may use, whatever the quota.
    Count(usize),
    /// These. One may be named twice; two loops then share it.
    These(Vec<usize>),
    /// Those of one NUMA node.
    Numa(usize),
    /// The first of each physical core: none share one by SMT.
    Physical,
}

/// CPUs that were asked for and can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoresError {
    /// None of the forms that [`Cores`] has as text.
    #[error(
        "{text:?} names no CPUs: say `all`, `count:4`, a list such as `0,2-5`, `numa:0` or `physical`"
    )]
    Unreadable {
        /// What was given.
        text: String,
    },
    /// A CPU that the calling thread may not use.
    #[error("CPU {cpu} is not among those that this thread may use ({})", list(.allowed))]
    NotAllowed {
        /// The CPU.
        cpu: usize,
        /// Those that it may use.
        allowed: Vec<usize>,
    },
    /// More than there are.
    #[error("{asked} cores were asked for, but this thread may use {} ({})", .allowed.len(), list(.allowed))]
    TooMany {
        /// How many were asked for.
        asked: usize,
        /// Those that it may use.
        allowed: Vec<usize>,
    },
    /// A node that the machine does not have.
    #[error("there is no NUMA node {node}; this machine has {}", list(.nodes))]
    NoSuchNode {
        /// The node.
        node: usize,
        /// Those that there are.
        nodes: Vec<usize>,
    },
    /// A node none of whose CPUs the calling thread may use.
    #[error(
        "none of the CPUs of NUMA node {node} is among those that this thread may use ({})",
        list(.allowed)
    )]
    NodeNotAllowed {
        /// The node.
        node: usize,
        /// CPUs that the thread may use.
        allowed: Vec<usize>,
    },
    /// None at all.
    #[error("no core was asked for; at least one is needed")]
    None,
}

impl Cores {
    /// The CPUs that this means here.
    ///
    /// # Errors
    /// If some can't be had.
    pub fn resolve(&self) -> Result<Vec<usize>, CoresError> {
        self.resolve_on(&Machine::here())
    }

    fn resolve_on(&self, machine: &Machine) -> Result<Vec<usize>, CoresError> {
        let allowed = || machine.allowed.clone();
        let chosen = match self {
            Cores::All => machine.allowed[..machine.usable()].to_vec(),
            Cores::Count(n) if *n > machine.allowed.len() => {
                return Err(CoresError::TooMany { asked: *n, allowed: allowed() });
            }
            Cores::Count(n) => machine.allowed[..*n].to_vec(),
            Cores::These(cpus) => {
                if let Some(&cpu) = cpus.iter().find(|c| !machine.allowed.contains(c)) {
                    return Err(CoresError::NotAllowed { cpu, allowed: allowed() });
                }
                cpus.clone()
            }
            Cores::Numa(node) => match machine.of_node(*node) {
                None => {
                    return Err(CoresError::NoSuchNode { node: *node, nodes: machine.nodes() });
                }
                Some(cpus) if cpus.is_empty() => {
                    return Err(CoresError::NodeNotAllowed { node: *node, allowed: allowed() });
                }
                Some(cpus) => cpus,
            },
            Cores::Physical => machine.physical(),
        };
        if chosen.is_empty() { Err(CoresError::None) } else { Ok(chosen) }
    }
}

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        let unreadable = || CoresError::Unreadable { text: text.to_owned() };
        match text.trim() {
            "all" => return Ok(Cores::All),
            "physical" => return Ok(Cores::Physical),
            _ => {}
        }
        if let Some((kind, number)) = text.trim().split_once(':') {
            let number = number.trim().parse().map_err(|_| unreadable())?;
            return match kind.trim() {
                "count" => Ok(Cores::Count(number)),
                "numa" => Ok(Cores::Numa(number)),
                _ => Err(unreadable()),
            };
        }
        read_list(text).map(Cores::These).ok_or_else(unreadable)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::Count(n) => write!(f, "count:{n}"),
            Cores::These(cpus) => f.write_str(&list(cpus)),
            Cores::Numa(node) => write!(f, "numa:{node}"),
            Cores::Physical => f.write_str("physical"),
        }
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Where threads beside the loops (the blocking pool's and the kernel's workers) may run: the allowed CPUs
/// that no loop is pinned to, or all of them where the loops take all. (Of these, Linux 6.2 and later
/// narrow a worker's to the one that its loop is pinned to; of the free ones there is nothing to narrow.)
pub(crate) fn beside(allowed: &[usize], pinned: &[usize]) -> Vec<usize> {
    let free: Vec<usize> = allowed.iter().copied().filter(|cpu| !pinned.contains(cpu)).collect();
    if free.is_empty() { allowed.to_vec() } else { free }
}

/// The spin of a loop whose CPU `sharers` loops share: whoever spins keeps the other from running.
pub(crate) fn spin_on_these_cpus(spin: Spin, sharers: usize) -> Spin {
    if sharers > 1 || allowed_cpus().len() == 1 && spin == Spin::Dial { Spin::Off } else { spin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!("0,2-4".parse(), Ok(Cores::These(vec![0, 2, 3, 4])));
        for whole in
            [Cores::All, Cores::Count(3), Cores::These(vec![1, 7]), Cores::Numa(2), Cores::Physical]
        {
            assert_eq!(whole.to_string().parse(), Ok(whole));
        }
        for bad in
            ["", "x", "3-1", "1,", "0-99999999999", "-", "numa:", "numa:x", "count:-1", "core:1"]
        {
            assert!(bad.parse::<Cores>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name() {
        let err = Cores::These(vec![4000]).resolve().unwrap_err().to_string();
        assert!(err.contains("4000"), "{err}");
        assert!(Cores::Count(100_000).resolve().is_err());
        assert_eq!(Cores::Count(0).resolve(), Err(CoresError::None));
        assert!(!Cores::All.resolve().unwrap().is_empty());
    }
}
