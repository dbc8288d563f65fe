#!/bin/sh
# A small set under valgrind's memcheck: uninitialised reads, which the sanitizers here don't see, and leaks.
# See docs/TESTING.md.
#   tests/valgrind.sh [filter of the runtime's own tests…]
# Valgrind may not know io_uring, and is some thirty times slower: what enters no ring is run. Those are the
# wheel (but for its long random test), the task slab, the op slab and its orphans, the mailbox's queue, buffers, and whole loops on the
# simulated kernel (but for many seeds of the plainest workload, which others run too).
set -eu
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "SKIPPED valgrind: it is not installed"; exit 0; }
[ $# -gt 0 ] || set -- wheel:: task:: mailbox:: driver::op_slab metrics:: sim::
# The newest instructions are unknown to it.
export RUSTFLAGS="-Ctarget-cpu=x86-64" CARGO_PROFILE_DEV_DEBUG=line-tables-only
built=$(cargo test -p coreloop --features sim --lib --no-run --target-dir target/valgrind 2>&1)
program=$(printf '%s\n' "$built" | sed -n 's/.*(\(target[^)]*\)).*/\1/p' | tail -1)
[ -n "$program" ] || { printf '%s\n' "$built"; exit 1; }
failed=
for filter in "$@"; do
    echo "== memcheck: $filter"
    valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite --num-callers=30 --fair-sched=yes \
        --suppressions=tests/valgrind.supp \
        "$program" -q --test-threads=1 --skip random_operations_match --skip sim_echo_over_many_seeds "$filter" || failed="$failed $filter"
done
[ -z "$failed" ] || { echo "failed under memcheck:$failed"; exit 1; }
