//! Looking at a running server through its ops listener: `top` and `ps`.
//!
//! Owns both commands, and how a page is fetched. Nothing here touches the server but by reading.

pub mod client;
pub mod ps;
pub mod top;
