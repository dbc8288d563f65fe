//! Runs every test of the workspace, but for doctests, in a process of its own and tells what it leaves open.
//!
//! `cargo run -p coreloop-tests --bin leaks [FILTER]`; the exit status is 1 if anything failed or leaked.

use std::process::ExitCode;

use coreloop_tests::leaks;

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let at_a_time = std::thread::available_parallelism().map_or(1, |n| n.get());
    match leaks::sweep(&filter, at_a_time) {
        Ok(swept) if swept.run == 0 => {
            eprintln!("no test is called {filter:?}");
            ExitCode::FAILURE
        }
        Ok(swept) => {
            println!("{} tests watched to their end, {} bad", swept.run, swept.bad.len());
            if swept.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
