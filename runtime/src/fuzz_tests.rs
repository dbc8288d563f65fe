//! What the machine says of itself, mutated: read or passed over. Corpora lie in `tests/corpus`.
//!
//! Owns the way to `tests/src/fuzz.rs`, which the tests that stand beside the readers use (`fuzz_…`).

use std::path::{Path, PathBuf};

#[allow(dead_code, reason = "other crates' tests use the rest")]
#[path = "../../tests/src/fuzz.rs"]
mod fuzz;
#[allow(dead_code, reason = "as above")]
#[path = "../../tests/src/rng.rs"]
mod rng;

pub(crate) use fuzz::{fuzz, signature};

pub(crate) fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}
