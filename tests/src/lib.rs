//! What the behaviour tests share.
//!
//! Owns which tests there are ([`catalog`]), which functions owe a word about drops ([`promises`]), running a test in a process of its own ([`child`]), counting
//! what a process holds ([`process`]), forks ([`forked`]), what tests leave open ([`leaks`]), mutated inputs
//! ([`fuzz`](mod@fuzz)), a virtual machine's start ([`machine`]), loopback sockets ([`net`]), a TCP proxy with
//! faults ([`proxy`]), Python programs that read ([`python`]), small futures and numbers ([`drive`]), futures polled by hand ([`by_hand`]), wakers that
//! come back ([`foreign`]), random programs against a model ([`model`]), holding times to what is promised
//! ([`trials`]), programs with a twin in Python ([`twins`]), work on two cores ([`two_cores`](mod@two_cores)),
//! and the words for tests that can't run here: [`skip!`] writes a line `SKIPPED name: why` past libtest's
//! capture, so that `.ci/run` counts it; [`figure!`] prints a measured number, shown with `--nocapture`.

/// The guide's examples, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/simulation.md")]
pub struct GuideToSimulation;

/// As above, page by page.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/from-asyncio.md")]
pub struct GuideFromAsyncio;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/from-tokio.md")]
pub struct GuideFromTokio;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/settings.md")]
pub struct GuideToSettings;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/cores.md")]
pub struct GuideToCores;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/production.md")]
pub struct GuideToProduction;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/scheduling.md")]
pub struct GuideToScheduling;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/tuning.md")]
pub struct GuideToTuning;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/histograms.md")]
pub struct GuideToHistograms;

pub mod by_hand;
pub mod catalog;
pub mod child;
pub mod drive;
#[allow(unsafe_code)]
pub mod foreign;
#[allow(unsafe_code)]
pub mod forked;
pub mod fuzz;
#[allow(unsafe_code)]
pub mod leaks;
#[allow(unsafe_code)]
pub mod machine;
pub mod model;
pub mod net;
pub mod own_path;
#[allow(unsafe_code)]
pub mod process;
pub mod promises;
pub mod proxy;
pub mod python;
pub mod rng;
pub mod sim_workload;
pub mod trials;
pub mod twins;
pub mod two_cores;

pub use by_hand::{ByHand, now};
pub use child::{Child, in_child, slowness};
pub use drive::{Rng, poll_once, rest, settled, stepped, turns};
pub use process::{fd_count, fds_settle_at, kernel_workers, rss_bytes};
pub use two_cores::two_cores;

/// Ends the test as skipped: prints `SKIPPED name: why` to the process's real stderr and returns.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        fn here() {}
        $crate::skipped(std::any::type_name_of_val(&here), &format!($($why)*));
        return;
    }};
}

/// Prints a measured number: `FIGURE name: text`.
#[macro_export]
macro_rules! figure {
    ($($text:tt)*) => {{
        fn here() {}
        println!("FIGURE {}: {}", $crate::name_of(std::any::type_name_of_val(&here)), format!($($text)*));
    }};
}

/// Asserts that memory grew by less than `limit` bytes. AddressSanitizer keeps what was freed, to find who still
/// uses it: under it this says `SKIPPED`, and the test goes on to what else it shows.
#[macro_export]
macro_rules! assert_memory_grew_less {
    ($grown:expr, $limit:expr, $what:literal) => {{
        fn here() {}
        if cfg!(any(asan, tsan)) {
            let test = std::any::type_name_of_val(&here);
            $crate::skipped(
                test,
                "the bound of its memory: a sanitizer keeps what was freed, or shadows it",
            );
        } else {
            assert!($grown < $limit, concat!("memory grew by {} bytes", $what), $grown);
        }
    }};
}

/// Writes the line of [`skip!`], in one piece and past any capture.
pub fn skipped(path: &str, why: &str) {
    write_past_capture(&format!("SKIPPED {}: {why}\n", name_of(path)));
}

/// The test's own name in the path of something declared within it.
pub fn name_of(path: &str) -> &str {
    let path = path.strip_suffix("::here").unwrap_or(path);
    let path = path.split("::{{").next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

/// Writes to stderr without libtest noticing.
pub(crate) fn write_past_capture(line: &str) {
    use std::io::Write;
    if let Ok(mut stderr) = std::fs::OpenOptions::new().append(true).open("/proc/self/fd/2") {
        // A closed stderr is nobody's failure.
        let _ = stderr.write_all(line.as_bytes());
    } else {
        // A socket or a closed one can't be opened by name.
        process::write_raw(2, line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_test_is_named_from_the_path() {
        let path = "cancel_recv::cancel_recv_dropped::{{closure}}::here";
        assert_eq!(super::name_of(path), "cancel_recv_dropped");
    }
}
