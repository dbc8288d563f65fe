//! Which CPUs the loops run on.
//!
//! Owns [`Cores`] (what the user asks for) and its resolution within what the process may use: the affinity
//! mask, so also a cpuset. Pins threads with core_affinity.

use std::fmt;
use std::str::FromStr;

use crate::executor::dial::Spin;

/// Which CPUs to run loops on, one each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU that the process may use.
    #[default]
    All,
    /// The first so many of those.
    Count(usize),
    /// These. One may be named twice; two loops then share it.
    These(Vec<usize>),
}

/// CPUs that were asked for and can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoresError {
    /// Neither `all`, nor a list such as `0,2-5`.
    #[error("{text:?} names no CPUs: say `all`, or a list such as `0,2-5`")]
    Unreadable {
        /// What was given.
        text: String,
    },
    /// A CPU that the process may not use.
    #[error("CPU {cpu} is not among those that this process may use ({})", list(.allowed))]
    NotAllowed {
        /// The CPU.
        cpu: usize,
        /// Those that it may use.
        allowed: Vec<usize>,
    },
    /// More than there are.
    #[error("{asked} cores were asked for, but this process may use {} ({})", .allowed.len(), list(.allowed))]
    TooMany {
        /// How many were asked for.
        asked: usize,
        /// Those that it may use.
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
        let allowed = allowed_cpus();
        let chosen = match self {
            Cores::All => allowed,
            Cores::Count(n) if *n > allowed.len() => {
                return Err(CoresError::TooMany { asked: *n, allowed });
            }
            Cores::Count(n) => allowed[..*n].to_vec(),
            Cores::These(cpus) => {
                if let Some(&cpu) = cpus.iter().find(|c| !allowed.contains(c)) {
                    return Err(CoresError::NotAllowed { cpu, allowed });
                }
                cpus.clone()
            }
        };
        if chosen.is_empty() { Err(CoresError::None) } else { Ok(chosen) }
    }
}

/// Highest CPU number that a list may name, so that a slip such as `0-99999999` is answered at once.
const CPU_MAX: usize = 8191;

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        let unreadable = || CoresError::Unreadable { text: text.to_owned() };
        if text.trim() == "all" {
            return Ok(Cores::All);
        }
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let number = |s: &str| {
                let n = s.trim().parse::<usize>().map_err(|_| unreadable())?;
                if n <= CPU_MAX { Ok(n) } else { Err(unreadable()) }
            };
            match part.split_once('-') {
                None => cpus.push(number(part)?),
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(unreadable());
                    }
                    cpus.extend(first..=last);
                }
            }
        }
        Ok(Cores::These(cpus))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::Count(n) => write!(f, "the first {n}"),
            Cores::These(cpus) => f.write_str(&list(cpus)),
        }
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// CPUs that the calling thread may run on, in order.
pub fn allowed_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect();
    cpus.sort_unstable();
    if cpus.is_empty() {
        cpus.push(0);
    }
    cpus
}

/// Pins the calling thread; `false` if the system refuses.
pub(crate) fn pin_to(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
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
        assert_eq!("all".parse(), Ok(Cores::All));
        for bad in ["", "x", "3-1", "1,", "0-99999999999", "-"] {
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
