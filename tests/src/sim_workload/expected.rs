//! What each planted fault must show as.
//!
//! Owns the table from a fault to the findings that it causes. Another failure of a seed with the fault is
//! no finding of that fault: a mistake may well be seen first by what comes of it, but then it was not
//! recognised. Words that are parted by ` … ` must all be there.

use coreloop::planted::Fault;

/// A hole, a repetition or other bytes in a stream, as the ends of a line report it.
const BYTES: [&str; 3] = [" is another one", " came instead of ", "where frame "];

/// Words of the findings that `fault` causes; any one will do.
pub fn findings_of(fault: Fault) -> &'static [&'static str] {
    match fault {
        Fault::CloseBeforeSubmission => &["ClosedBeforeSubmission at "],
        Fault::FreedInFlight => &["MemoryFreed at "],
        Fault::LostCancel => &["a deadlock: "],
        Fault::CancelAgain => &[" completed twice"],
        Fault::DroppedReceive => &BYTES,
        // EINTR: any other error there is another mistake.
        Fault::LateInterrupt => {
            &["a receive, line  … { code: 4, ", "a detach, line  … { code: 4, "]
        }
        Fault::MissingWakeFence => &["a deadlock: "],
        Fault::TwoSends => &["TwoSends at "],
        Fault::AcceptNotClosed => &["descriptors are open after the end"],
        Fault::BufferTwice => &["ProvidedTwice at "],
        Fault::StaleKey => &[
            "an operation that has ended is armed",
            "another operation was ended by a handle that is none of its",
        ],
        Fault::EarlyTimer => &[" was over after "],
        Fault::DrainWithoutWait => &["ClosedInFlight at ", "operations still in the kernel"],
        Fault::LostSignal => &["a signal of … is lost"],
        Fault::UnheardHaste => &["from the second signal on"],
        Fault::EndForReady => &[
            "was broken off at ",
            " found nobody before it",
            "a killed successor: not within",
            "one that ends: not within",
        ],
        Fault::LentTooShort => &["was broken off at "],
        Fault::UntoldLate => &["one that is late: not within"],
    }
}

/// The line of a failure that shows `fault`, if there is one.
pub fn finding(fault: Fault, failure: &str) -> Option<&str> {
    let has = |line: &str, words: &str| words.split(" … ").all(|part| line.contains(part));
    let shows = |line: &&str| findings_of(fault).iter().any(|words| has(line, words));
    // The last events of a run are no findings.
    let found = failure.lines().take_while(|line| !line.starts_with("the last events"));
    found.map(str::trim).find(shows)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// As the ledger words it.
    fn failed(what: &str, errno: i32) -> String {
        format!("{what}, line {:?}: {:?}", Some(3), io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn sim_a_late_interrupt_is_eintr_alone() {
        let found = |failure: &str| finding(Fault::LateInterrupt, failure).is_some();
        for what in ["a receive", "a detach"] {
            assert!(found(&failed(what, libc::EINTR)));
            assert!(!found(&failed(what, libc::ECONNRESET)));
            assert!(!found(&failed(what, libc::EREMOTE)));
        }
        assert!(!found(&failed("a send", libc::EINTR)));
    }
}
