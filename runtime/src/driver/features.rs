//! What a kernel offers, what was asked for, and what is in force.
//!
//! Owns the list of [`Feature`]s, masking them (by builder, or by the environment variable
//! `CORELOOP_MASK`), and the [`RingReport`] that `doctor` prints. Each feature has a step down: without it
//! the loop still works, only slower. Knows nothing of how a ring is set up; see `setup`.

use std::fmt;
use std::str::FromStr;

use crate::words::nearest;

/// Something of `io_uring` that coreloop uses where the kernel has it, and does without where not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Feature {
    /// `IORING_SETUP_SUBMIT_ALL` (5.18): one bad submission does not hold up those behind it.
    SubmitAll,
    /// `IORING_SETUP_COOP_TASKRUN` (5.19): completions do not interrupt user code.
    CoopTaskrun,
    /// `IORING_SETUP_TASKRUN_FLAG` (5.19): pending completion work shows in shared memory.
    TaskrunFlag,
    /// `IORING_SETUP_SINGLE_ISSUER` (6.0): one thread submits.
    SingleIssuer,
    /// `IORING_SETUP_DEFER_TASKRUN` (6.1): completion work runs only when the loop enters.
    DeferTaskrun,
    /// `IORING_SETUP_NO_SQARRAY` (6.6): submissions without an index array.
    NoSqarray,
    /// `IORING_REGISTER_RING_FDS` (5.18): enters without a descriptor look-up.
    RegisteredRing,
    /// `IORING_REGISTER_PBUF_RING` (5.19): the kernel picks a receive buffer when data is there.
    BufferRing,
    /// `IORING_ACCEPT_MULTISHOT` (5.19): one submission accepts many connections.
    MultishotAccept,
    /// `IORING_RECV_MULTISHOT` (6.0): one submission receives for a busy connection again and again.
    MultishotRecv,
    /// `IORING_ENTER_ABS_TIMER` (6.12): waits until a point in time, not for a span.
    AbsTimer,
    /// `IORING_REGISTER_SEND_MSG_RING` (6.13): a parked core is woken by a message to its ring; without
    /// it, by an eventfd.
    MsgRing,
    /// `IORING_REGISTER_FILES2` (5.19, and closes at once since 6.13), only if asked for: sockets that ops
    /// name without a look-up of their descriptor.
    FixedFiles,
    /// `IORING_ENTER_NO_IOWAIT` (6.15): a parked core does not count as waiting for a disk.
    NoIowait,
    /// `IORING_SETUP_SQPOLL` (5.11 without privilege), only if asked for: a thread of the kernel submits.
    SqPoll,
    /// `IORING_REGISTER_IOWQ_MAX_WORKERS` (5.15), only if asked for: a limit on the kernel's workers.
    MaxWorkers,
    /// `IORING_REGISTER_NAPI` (6.9), only if asked for: a wait polls the network card first.
    Napi,
    /// `IORING_FEAT_MIN_TIMEOUT` (6.12), only if asked for: a wait gathers completions for a while.
    MinWait,
    /// `IORING_OP_SEND_ZC` (6.0), only if asked for: large sends without a copy.
    SendZc,
}

impl Feature {
    /// Every feature, the oldest first.
    pub const ALL: [Feature; 19] = [
        Feature::SqPoll,
        Feature::MaxWorkers,
        Feature::SubmitAll,
        Feature::RegisteredRing,
        Feature::CoopTaskrun,
        Feature::TaskrunFlag,
        Feature::BufferRing,
        Feature::MultishotAccept,
        Feature::SingleIssuer,
        Feature::MultishotRecv,
        Feature::SendZc,
        Feature::DeferTaskrun,
        Feature::NoSqarray,
        Feature::Napi,
        Feature::AbsTimer,
        Feature::MinWait,
        Feature::MsgRing,
        Feature::FixedFiles,
        Feature::NoIowait,
    ];

    /// The name that `CORELOOP_MASK` and `doctor` use.
    pub fn name(self) -> &'static str {
        match self {
            Feature::SubmitAll => "submit_all",
            Feature::CoopTaskrun => "coop_taskrun",
            Feature::TaskrunFlag => "taskrun_flag",
            Feature::SingleIssuer => "single_issuer",
            Feature::DeferTaskrun => "defer_taskrun",
            Feature::NoSqarray => "no_sqarray",
            Feature::RegisteredRing => "registered_ring",
            Feature::BufferRing => "buffer_ring",
            Feature::MultishotAccept => "multishot_accept",
            Feature::MultishotRecv => "multishot_recv",
            Feature::AbsTimer => "abs_timer",
            Feature::MsgRing => "msg_ring",
            Feature::FixedFiles => "fixed_files",
            Feature::NoIowait => "no_iowait",
            Feature::SqPoll => "sqpoll",
            Feature::MaxWorkers => "max_workers",
            Feature::Napi => "napi",
            Feature::MinWait => "min_wait",
            Feature::SendZc => "send_zc",
        }
    }

    /// The first kernel that has it.
    pub fn since(self) -> &'static str {
        match self {
            Feature::SubmitAll | Feature::RegisteredRing => "5.18",
            Feature::CoopTaskrun
            | Feature::TaskrunFlag
            | Feature::BufferRing
            | Feature::MultishotAccept => "5.19",
            Feature::SingleIssuer | Feature::MultishotRecv | Feature::SendZc => "6.0",
            Feature::DeferTaskrun => "6.1",
            Feature::NoSqarray => "6.6",
            Feature::AbsTimer | Feature::MinWait => "6.12",
            Feature::MsgRing | Feature::FixedFiles => "6.13",
            Feature::NoIowait => "6.15",
            Feature::SqPoll => "5.11",
            Feature::MaxWorkers => "5.15",
            Feature::Napi => "6.9",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of no feature, as given to [`Feature::from_str`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no io_uring feature is called {name:?}; {}", meant(name))]
pub struct UnknownFeature {
    name: String,
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(s: &str) -> Result<Self, UnknownFeature> {
        let found = Feature::ALL.into_iter().find(|f| f.name() == s);
        found.ok_or_else(|| UnknownFeature { name: s.to_owned() })
    }
}

fn meant(name: &str) -> String {
    let known = Feature::ALL.map(Feature::name);
    match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known ones: {}", known.join(", ")),
    }
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet(u32);

impl FeatureSet {
    /// No feature.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Whether `feature` is in the set.
    pub fn contains(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Whether one of the two is in the set.
    #[inline]
    pub(crate) fn has_any(self, one: Feature, other: Feature) -> bool {
        self.0 & (one.bit() | other.bit()) != 0
    }

    /// Puts `feature` into the set.
    pub fn insert(&mut self, feature: Feature) {
        self.0 |= feature.bit();
    }

    /// Takes `feature` out of the set.
    pub fn remove(&mut self, feature: Feature) {
        self.0 &= !feature.bit();
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads names parted by commas; spaces and empty parts are ignored.
    ///
    /// # Errors
    /// A name that is no feature's.
    pub fn parse(list: &str) -> Result<Self, UnknownFeature> {
        let mut set = Self::none();
        for name in list.split(',').map(str::trim).filter(|s| !s.is_empty()) {
            set.insert(name.parse()?);
        }
        Ok(set)
    }
}

impl FromIterator<Feature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = Feature>>(iter: I) -> Self {
        let mut set = Self::none();
        iter.into_iter().for_each(|f| set.insert(f));
        set
    }
}

/// Why a feature is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// Masked by the builder or by `CORELOOP_MASK`.
    Masked,
    /// The kernel refused it or does not announce it.
    Kernel,
    /// It builds on another one that is not in force.
    Needs(Feature),
    /// The call that brings it failed with this errno.
    Failed(i32),
    /// A setting of this name was chosen with which it does not go.
    Excluded(&'static str),
    /// Memory that may be locked was short.
    Memory,
    /// Kernels of this version have it and do it wrong, in this way.
    Faulty(&'static str),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Masked => f.write_str("masked by settings"),
            Missing::Kernel => f.write_str("this kernel does not have it"),
            Missing::Needs(other) => write!(f, "needs {other}"),
            Missing::Failed(errno) => {
                write!(f, "refused: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Missing::Excluded(setting) => write!(f, "the setting {setting} excludes it"),
            Missing::Memory => f.write_str("memory that may be locked is short"),
            Missing::Faulty(how) => write!(f, "kernels of this version do it wrong: {how}"),
        }
    }
}

/// A setting that is not in force as it was asked for. Its text says all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SteppedDown {
    /// The setting's name.
    pub setting: &'static str,
    /// What was asked for.
    pub asked: String,
    /// What there is instead.
    pub in_force: String,
    /// Why.
    pub why: Missing,
}

impl SteppedDown {
    /// Its text without the name.
    fn outcome(&self) -> String {
        let Self { asked, in_force, why, .. } = self;
        format!("asked {asked}, in force {in_force}, because {why}")
    }
}

impl fmt::Display for SteppedDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.outcome())
    }
}

/// What the set-up of a ring arrived at.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RingReport {
    /// The kernel's release string.
    pub kernel: String,
    /// What is in force.
    pub in_force: FeatureSet,
    /// What is not, and why.
    pub missing: Vec<(Feature, Missing)>,
    /// Settings that are not in force as they were asked for.
    pub stepped: Vec<SteppedDown>,
    /// Submission queue entries that were got.
    pub sq_entries: u32,
    /// Submission queue entries that were asked for; more than were got if memory was short.
    pub sq_entries_asked: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
    /// Receive buffers of the per-core buffer ring, 0 without one.
    pub buffers: u32,
    /// Bytes in each of them.
    pub buffer_size: u32,
}

impl RingReport {
    /// Names of the features in force, the oldest first.
    pub fn names_in_force(&self) -> Vec<&'static str> {
        Feature::ALL.iter().filter(|f| self.in_force.contains(**f)).map(|f| f.name()).collect()
    }

    /// What is not as it was asked for, and why in words, each name once: of a setting that is called like
    /// its feature, what the setting came to.
    pub(crate) fn step_downs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let settings = self.stepped.iter().map(|step| (step.setting, step.outcome()));
        let is_setting = |name: &str| self.stepped.iter().any(|step| step.setting == name);
        let features = self.missing.iter().filter(move |(f, _)| !is_setting(f.name()));
        settings.chain(features.map(|(f, why)| (f.name(), why.to_string())))
    }

    pub(crate) fn without(&mut self, feature: Feature, why: Missing) {
        self.in_force.remove(feature);
        if !self.missing.iter().any(|(f, _)| *f == feature) {
            self.missing.push((feature, why));
        }
    }

    /// It is in force after all.
    pub(crate) fn again(&mut self, feature: Feature) {
        self.missing.retain(|(f, _)| *f != feature);
        self.in_force.insert(feature);
    }

    /// Why a feature is not in force.
    pub(crate) fn why(&self, feature: Feature) -> Missing {
        let found = self.missing.iter().find(|(f, _)| *f == feature);
        found.map_or(Missing::Kernel, |(_, why)| why.clone())
    }

    pub(crate) fn step_down(
        &mut self,
        setting: &'static str,
        asked: impl fmt::Display,
        in_force: impl fmt::Display,
        why: Missing,
    ) {
        let (asked, in_force) = (asked.to_string(), in_force.to_string());
        self.stepped.push(SteppedDown { setting, asked, in_force, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for f in Feature::ALL {
            assert_eq!(f.name().parse::<Feature>(), Ok(f));
        }
        let set = FeatureSet::parse(" defer_taskrun,,no_sqarray ").unwrap();
        assert!(set.contains(Feature::DeferTaskrun) && set.contains(Feature::NoSqarray));
        assert!(!set.contains(Feature::BufferRing));
        let err = FeatureSet::parse("defer_taskrnu").unwrap_err().to_string();
        assert!(err.contains("defer_taskrnu") && err.contains("defer_taskrun"), "{err}");
    }
}
