#!/bin/sh
# Models of what threads share in random orders, by shuttle: those that are too large for loom, and loom's own
# once more. See docs/TESTING.md.
#   tests/shuttle.sh [name of a model, or a part of one]
# CORELOOP_SHUTTLE says how many orders each model is run in (2,000).
set -eu
cd "$(dirname "$0")/.."
export CARGO_PROFILE_QUICK_DEBUG_ASSERTIONS=true
RUSTFLAGS="--cfg loom --cfg shuttle" exec cargo test --profile quick --target-dir target/shuttle -p coreloop --lib \
    "${1:-shuttle_}"
