//! How connections come to be served by several cores.
//!
//! Owns the ways, of which a server chooses one or combines two:
//! - **A listener for each core**, between which the kernel chooses by a hash of the addresses: plain
//!   [`TcpListener::bind`](crate::TcpListener::bind) on every core, and nothing of this module.
//! - **A listener for each core, chosen by the CPU** that a connection arrives on: [`Group`].
//! - **One core accepts** and deals connections out, in turn or to whoever has the fewest: [`dealer`].
//! - **A connection moves** when its user's code says so: [`detach`](crate::TcpStream::detach) and
//!   [`serve_on`](crate::DetachedStream::serve_on); a [`Balancer`] says when it would do good.
//!
//! [`Acceptors`] is the way that the setting `accept_spread` says: one of the first three.
//!
//! The guide's page on cores says when which is meant to win. Knows no protocol.

mod accept;
mod balance;
mod deal;
mod group;
mod loads;
mod policy;

pub use accept::{Accepted, Acceptor, Acceptors};
pub use balance::Balancer;
pub use deal::{Deal, DealError, Dealer, Dealt, Seat, Tally, dealer};
pub use group::{Group, SteeredListener};
pub use loads::{Counted, Load, Loads};
pub use policy::{Measure, Policy};
