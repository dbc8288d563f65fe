//! The check for descriptors that tests leave open: it sees one, and sees none where there is none.
//!
//! `cargo run -p coreloop-tests --bin leaks` does it for every test there is.

use std::fs::File;
use std::path::Path;

use coreloop_tests::{figure, leaks, skip};

/// Set by those that watch the planted tests.
const PLANT: &str = "CORELOOP_LEAK_PLANT";

/// Leaves one descriptor open where it is told to; the watched test of the next ones.
#[test]
fn leak_check_planted() {
    if let Some(path) = std::env::var_os(PLANT) {
        coreloop::run(async move { std::mem::forget(File::open(path).unwrap()) }).unwrap();
    }
}

fn watched(path: Option<&Path>) -> Option<leaks::Watched> {
    let this = std::env::current_exe().unwrap();
    let watched = leaks::run(&this, "leak_check_planted", &[(PLANT, path)]);
    match watched {
        Ok(watched) => {
            assert!(watched.status.success(), "{watched:?}");
            Some(watched)
        }
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn leak_check_sees_a_descriptor_that_is_left_open() {
    let Some(clean) = watched(None) else { skip!("processes may not be traced here") };
    assert_eq!(clean.left, [""; 0], "a test that leaves nothing open");
    let leaky = watched(Some(Path::new("/dev/full"))).unwrap();
    figure!("left open: {:?}", leaky.left);
    assert_eq!(leaky.left.len(), 1, "{leaky:?}");
    assert!(leaky.left[0].ends_with("/dev/full"), "{leaky:?}");
}
