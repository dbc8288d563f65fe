//! The channel between two loops: the one place that names it.

pub use coreloop::cross::channel as new;

/// What the results call it.
pub const NAME: &str = "coreloop::cross::channel(1024)";
