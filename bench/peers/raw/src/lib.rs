//! Hand-written echo loops without async: the yardstick that coreloop is held against.
//!
//! One process, one thread, one core. [`serve`] is the io_uring loop (accepting, signals, one
//! enter per turn); what a turn does with received bytes is a [`serve::Form`], of which there are
//! three: [`select`] (the reference), [`own`] and [`multishot`]. The `epoll-echo` binary does the
//! same work without a ring. The `raw-load` binary is the closed-loop generator.
//!
//! A connection's slot *is* its descriptor number (or its index in the registered file table):
//! the kernel hands out the lowest free number, so the tables stay dense without a free list, and
//! one number serves as descriptor, table index and user data. The invariant this rests on: a
//! descriptor is closed only when no submission names it any more and no operation on it is in
//! flight, so a completion can never meet its slot's next owner.

pub mod memory;
pub mod multishot;
pub mod net;
pub mod options;
pub mod own;
pub mod pool;
pub mod report;
pub mod ring;
pub mod select;
pub mod serve;
pub mod signals;
