#!/bin/sh
# The suite, or some of its test targets, under a sanitizer. See docs/TESTING.md.
#   tests/sanitize.sh address|thread [all | test target[:filter]…]
# A target is `lib` (the runtime's own tests), `net` or `bench` (those of these crates), or the name of a file in
# tests/tests. `all` is all of them; without targets those run that matter most. Every target runs, whatever failed.
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
address) flags="-Zsanitizer=address --cfg asan" ;;
thread) flags="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg tsan" ;;
*)
    echo "usage: tests/sanitize.sh address|thread [all | test target[:filter]...]" >&2
    exit 2
    ;;
esac
kind=$1
shift
[ "${1:-}" != all ] || set -- lib net bench $(cd tests/tests && ls *.rs | sed 's/\.rs$//')
[ $# -gt 0 ] || set -- lib $(cd tests/tests && ls cross_*.rs blocking_*.rs signal_*.rs shutdown_*.rs spread_*.rs handover_*.rs report_*.rs regress_*.rs \
    sync_stress.rs cancel_races.rs task_wakes.rs task_panics.rs net_echo.rs resource_*.rs | sed 's/\.rs$//')
here=$PWD/tests
target=x86_64-unknown-linux-gnu
# The compiler's switch for sanitizers is not stable; the language is.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" CARGO_PROFILE_DEV_DEBUG=line-tables-only
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:malloc_context_size=60"
export LSAN_OPTIONS="suppressions=$here/lsan.supp:print_suppressions=0"
# A backtrace is made with lists of std's own, behind a lock that ThreadSanitizer does not see.
export RUST_BACKTRACE=0
export TSAN_OPTIONS="halt_on_error=0:second_deadlock_stack=1:suppressions=$here/tsan.supp"
# Not under ThreadSanitizer, whose symbolizer is a process of its own with descriptors of its own: a test that
# forbids new processes, and two that count descriptors. Nor six that signal the whole process: the kernel
# picks its first thread, in which libtest sleeps by a bare system call, and the sanitizer keeps a signal back until
# that thread next calls a function that it knows. Nor those in which a thread has a table of descriptors of its own: to
# the sanitizer a number is one file, whoever's. (Signals that a thread raises in itself come at once.) For the same
# reason a core that is kept sleeping does not say within 10 ms which task it is in. Nor two in which forked children
# start threads: the sanitizer knows no threads there. Nor one that closes a listener and listens there at once: a
# symbolizer that was forked just then has it for a while.
skip=
[ "$kind" = address ] || skip="--skip b1_a_thread_that_is_refused --skip b1_threads_and_descriptors \
    --skip shutdown_a_signal_lets --skip shutdown_past_the_limit --skip shutdown_a_second_signal --skip shutdown_signals_are_heard \
    --skip wake_of_terminate --skip cancel_shutdown_1000_runtimes --skip resource_10_000 --skip report_a_stall_of_50_ms \
    --skip report_stalls_of_a_forked --skip report_stalls_are_told_in_children --skip spread_refused_a_core_that_can_not"
# What threads print when they panic libtest would keep in a Vec, behind a lock that the sanitizer does not see.
[ "$kind" = address ] || skip="$skip --nocapture"
failed=
for one in "$@"; do
    name=${one%%:*}
    filter=
    case $one in *:*) filter=${one#*:} ;; esac
    case $name in
    lib) what="-p coreloop --features sim --lib" ;;
    net) what="-p coreloop-net --all-features --lib" ;;
    bench) what="-p coreloop-bench --bins --tests" ;;
    *) what="-p coreloop-tests --test $name" ;;
    esac
    echo "== $kind: $one ($(date -u +%H:%M:%S))"
    # shellcheck disable=SC2086 # several words each
    cargo test -q --no-fail-fast --target "$target" --target-dir "target/$kind" $what -- $skip $filter || failed="$failed $one"
done
[ -z "$failed" ] || { echo "failed under $kind:$failed"; exit 1; }
