//! Which kernel is simulated.
//!
//! Owns [`Shape`]: a release with the flags, features and calls that it knows, as far as a loop asks for them
//! in a simulation. Some worlds have older kernels, or lack single ones of these as sandboxes and custom
//! builds do, so that each of those steps down is taken.

use super::faults::Faults;
use super::rng::Rng;
use crate::sys::abi::{enter, feat, setup};

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) release: &'static str,
    pub(super) setup_flags: u32,
    pub(super) features: u32,
    pub(super) enter_flags: u32,
    pub(super) ring_fds: bool,
    pub(super) buffer_rings: bool,
    /// How far it is with a ring of buffers, `IORING_REGISTER_PBUF_STATUS` (6.8).
    pub(super) buf_status: bool,
    /// A limit of a receive that goes on, `optlen` (6.17).
    pub(super) recv_limit: bool,
}

const SETUP_6_1: u32 = setup::CQSIZE
    | setup::CLAMP
    | setup::SUBMIT_ALL
    | setup::COOP_TASKRUN
    | setup::TASKRUN_FLAG
    | setup::SINGLE_ISSUER
    | setup::DEFER_TASKRUN;
const FEATURES_6_1: u32 = feat::SINGLE_MMAP | feat::NODROP | feat::EXT_ARG;
const ENTER_6_1: u32 = enter::GETEVENTS | enter::EXT_ARG | enter::REGISTERED_RING;

impl Shape {
    fn newest() -> Self {
        Self {
            release: "6.18.0-sim",
            setup_flags: SETUP_6_1 | setup::NO_SQARRAY,
            features: FEATURES_6_1 | feat::MIN_TIMEOUT | feat::NO_IOWAIT,
            enter_flags: ENTER_6_1 | enter::ABS_TIMER | enter::NO_IOWAIT,
            ring_fds: true,
            buffer_rings: true,
            buf_status: true,
            recv_limit: true,
        }
    }

    /// The newest one, or what the faults make of it.
    pub(super) fn drawn(rng: &mut Rng, faults: &Faults) -> Self {
        let mut shape = Self::newest();
        if !rng.chance(faults.features_missing) {
            return shape;
        }
        match rng.below(5) {
            0 => {
                shape.release = "6.1.0-sim";
                shape.setup_flags = SETUP_6_1;
                shape.features = FEATURES_6_1;
                shape.enter_flags = ENTER_6_1;
                (shape.buf_status, shape.recv_limit) = (false, false);
            }
            1 => {
                shape.release = "6.6.0-sim";
                shape.features = FEATURES_6_1;
                shape.enter_flags = ENTER_6_1;
                (shape.buf_status, shape.recv_limit) = (false, false);
            }
            2 => {
                shape.release = "6.12.0-sim";
                shape.features &= !feat::NO_IOWAIT;
                shape.enter_flags &= !enter::NO_IOWAIT;
                shape.recv_limit = false;
            }
            _ => {
                for flag in [setup::DEFER_TASKRUN, setup::SINGLE_ISSUER, setup::TASKRUN_FLAG] {
                    if rng.chance(4_000) {
                        shape.setup_flags &= !flag;
                    }
                }
                for flag in [setup::COOP_TASKRUN, setup::SUBMIT_ALL, setup::NO_SQARRAY] {
                    if rng.chance(4_000) {
                        shape.setup_flags &= !flag;
                    }
                }
                shape.ring_fds = !rng.chance(4_000);
                shape.buffer_rings = !rng.chance(4_000);
                shape.buf_status = !rng.chance(4_000);
                shape.recv_limit = !rng.chance(4_000);
            }
        }
        shape
    }

    /// The size of the queues for a set-up, or EINVAL.
    pub(super) fn sizes(
        &self,
        entries: u32,
        cq_entries: u32,
        flags: u32,
    ) -> Result<(u32, u32), i32> {
        let has = |flag| flags & flag != 0;
        let modes = setup::DEFER_TASKRUN | setup::COOP_TASKRUN;
        let wrong = flags & !self.setup_flags != 0
            || has(setup::DEFER_TASKRUN) && !has(setup::SINGLE_ISSUER)
            || has(setup::TASKRUN_FLAG) && !has(modes)
            || entries == 0
            || entries > ENTRIES_MAX && !has(setup::CLAMP);
        if wrong {
            return Err(libc::EINVAL);
        }
        let sq = entries.min(ENTRIES_MAX).next_power_of_two();
        if !has(setup::CQSIZE) {
            return Ok((sq, sq * 2));
        }
        if cq_entries == 0 || cq_entries > 2 * ENTRIES_MAX && !has(setup::CLAMP) {
            return Err(libc::EINVAL);
        }
        let cq = cq_entries.min(2 * ENTRIES_MAX).next_power_of_two();
        if cq < sq { Err(libc::EINVAL) } else { Ok((sq, cq)) }
    }
}

/// Entries of a submission queue, at most.
const ENTRIES_MAX: u32 = 32_768;
