//! The binary keeps to the protocol: its servers echo, its workloads print figures.

use peers_common::testing;

const BINARY: &str = env!("CARGO_BIN_EXE_peer-glommio");

#[test]
fn describes_itself() {
    testing::describes_itself(BINARY, "glommio", include_str!("../../../Cargo.lock"));
}

#[test]
fn echoes_bytes() {
    testing::echoes_bytes(BINARY);
}

#[test]
fn works() {
    testing::works(BINARY);
}
