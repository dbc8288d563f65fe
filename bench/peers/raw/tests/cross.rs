//! `raw-cross` keeps to the protocol of the runtimes' binaries.

use peers_common::testing;

#[test]
fn works() {
    testing::works(env!("CARGO_BIN_EXE_raw-cross"));
}
