//! Nothing but its tests: see `tests/console.rs`.
