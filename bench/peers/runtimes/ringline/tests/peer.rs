//! The binary keeps to the protocol: its servers echo, its workloads print figures.

use peers_common::testing;

const BINARY: &str = env!("CARGO_BIN_EXE_peer-ringline");

#[test]
fn describes_itself() {
    testing::describes_itself(BINARY, "ringline", include_str!("../../../Cargo.lock"));
}

/// ringline 0.6.12 refuses every send on a connection whose stream has ended ("connection closing"),
/// also of data that came before the end and that the task has not seen yet, by whichever of its
/// ways to send. A client that ends its stream only when it has all answers loses nothing.
#[test]
fn echoes_bytes() {
    testing::echoes_bytes_of_open_streams(BINARY);
}

#[test]
fn works() {
    testing::works(BINARY);
}
