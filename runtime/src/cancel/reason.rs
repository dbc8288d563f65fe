//! Why something ended before its time.
//!
//! Owns [`Cancelled`] and [`Interrupted`], and how they travel in an [`io::Error`]: as its payload, by which
//! they are told from the system's own ECANCELED (a loop that was closed) and ETIMEDOUT (a peer that does
//! not answer).

use std::error::Error;
use std::fmt;
use std::io;

use crate::buf::{BufError, BufResult};
use crate::time::Elapsed;

/// A [`Token`](super::Token) was cancelled.
///
/// As an [`io::Error`] it is of kind `Other`; [`Cancelled::is`] knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled(());

impl Cancelled {
    pub(super) fn new() -> Self {
        Self(())
    }

    /// Whether `error` says that a token was cancelled: not that a deadline was over, nor that a loop was
    /// closed (ECANCELED).
    ///
    /// ```
    /// use coreloop::cancel::{Cancelled, Token};
    /// use std::io;
    ///
    /// coreloop::run(async {
    ///     let token = Token::new();
    ///     token.cancel();
    ///     let ended = token.run(std::future::pending::<()>()).await;
    ///     let error = io::Error::from(ended.unwrap_err());
    ///     assert!(Cancelled::is(&error));
    ///     assert!(!Cancelled::is(&io::Error::from(io::ErrorKind::TimedOut)));
    /// })
    /// .unwrap();
    /// ```
    pub fn is(error: &io::Error) -> bool {
        Interrupted::of(error) == Some(Interrupted::Cancelled)
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was cancelled by its token")
    }
}

impl Error for Cancelled {}

impl From<Cancelled> for io::Error {
    fn from(e: Cancelled) -> io::Error {
        io::Error::other(e)
    }
}

/// Why an operation was called off: what [`poll_end`](super::Interruptible::poll_end) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// A token to which it listened was cancelled.
    Cancelled,
    /// Its deadline was over.
    TimedOut,
}

impl Interrupted {
    /// The reason that `error` carries, if it is one that an interrupted operation gave.
    ///
    /// A time limit of [`timeout`](crate::time::timeout) counts too: it is the same payload.
    pub fn of(error: &io::Error) -> Option<Self> {
        let payload = error.get_ref()?;
        if payload.is::<Cancelled>() {
            return Some(Self::Cancelled);
        }
        payload.is::<Elapsed>().then_some(Self::TimedOut)
    }
}

impl From<Interrupted> for io::Error {
    /// `TimedOut` for a deadline, `Other` for a token.
    fn from(why: Interrupted) -> io::Error {
        match why {
            Interrupted::Cancelled => Cancelled::new().into(),
            Interrupted::TimedOut => Elapsed::new().into(),
        }
    }
}

/// An operation's result that can say that it was called off.
pub trait Settle {
    /// The result of an operation that was asked to end, for this reason. One that only says that the
    /// kernel's cancel reached it (ECANCELED, or EINTR if it had gone to a worker) gives the reason; any
    /// other stays, and so does success: what had arrived or gone out counts.
    #[must_use]
    fn settle(self, why: Interrupted) -> Self;
}

fn was_cancelled(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR))
}

impl<T> Settle for io::Result<T> {
    fn settle(self, why: Interrupted) -> Self {
        self.map_err(|e| if was_cancelled(&e) { why.into() } else { e })
    }
}

impl<T, B> Settle for BufResult<T, B> {
    fn settle(self, why: Interrupted) -> Self {
        self.map_err(|e| match was_cancelled(e.error()) {
            true => BufError::after(e.transferred(), why.into(), e.into_buf()),
            false => e,
        })
    }
}
