//! A value that found no receiver.
//!
//! Owns [`SendError`], which the channels share. Knows none of them.

use std::fmt;

/// The receivers are gone, or the channel was closed; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel has no receiver any more")
    }
}

impl<T> std::error::Error for SendError<T> {}
