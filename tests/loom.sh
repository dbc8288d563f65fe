#!/bin/sh
# loom's models of what threads share: about a minute, after the build. See docs/TESTING.md.
#   tests/loom.sh [name of a model, or a part of one]
set -eu
cd "$(dirname "$0")/.."
# A build of its own, and a quick one: what takes time is the models.
export CARGO_PROFILE_QUICK_DEBUG_ASSERTIONS=true
RUSTFLAGS="--cfg loom" exec cargo test --profile quick --target-dir target/loom -p coreloop --lib "${1:-loom_}"
