//! Tries to set up a ring, for the doctor.
//!
//! Owns the translation from the kernel's answer to the doctor's words. This is the bare system
//! call: which flags and ops the runtime negotiates is the runtime's to say.

use crate::doctor::{RingFacts, RingFailure, RingFailureKind};
use crate::sys;

/// What the kernel answers to the smallest possible ring.
pub fn ring() -> Result<RingFacts, RingFailure> {
    match sys::probe_io_uring() {
        Ok(bits) => Ok(RingFacts { features: named(bits), ..RingFacts::default() }),
        Err(error) => {
            let kind = error.raw_os_error().map_or(RingFailureKind::Other, RingFailureKind::from);
            Err(RingFailure { kind, message: error.to_string() })
        }
    }
}

/// Names of `io_uring_params.features`, bit by bit from 0, as in linux/io_uring.h.
const FEATURES: [&str; 18] = [
    "SINGLE_MMAP",
    "NODROP",
    "SUBMIT_STABLE",
    "RW_CUR_POS",
    "CUR_PERSONALITY",
    "FAST_POLL",
    "POLL_32BITS",
    "SQPOLL_NONFIXED",
    "EXT_ARG",
    "NATIVE_WORKERS",
    "RSRC_TAGS",
    "CQE_SKIP",
    "LINKED_FILE",
    "REG_REG_RING",
    "RECVSEND_BUNDLE",
    "MIN_TIMEOUT",
    "RW_ATTR",
    "NO_IOWAIT",
];

fn named(bits: u32) -> Vec<String> {
    let set = FEATURES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    set.map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_bits_have_names() {
        assert_eq!(named(0b1_0000_0010), ["NODROP", "EXT_ARG"]);
        assert_eq!(named(1 << 31), Vec::<String>::new(), "a bit of tomorrow is passed over");
    }
}
