//! Which signals there are.
//!
//! Owns [`Signal`], a number that the system knows and that may be waited for, and [`SignalError`]. Knows no
//! handler.

use std::fmt;
use std::io;

use crate::sys::signals::real_time_range;

/// A signal that can be waited for.
///
/// ```
/// use coreloop::signal::Signal;
///
/// assert_eq!(Signal::HUP.to_string(), "SIGHUP");
/// assert_eq!(Signal::from_raw(libc::SIGTERM).unwrap(), Signal::TERM);
/// assert_eq!(Signal::real_time(2).unwrap().to_string(), "SIGRTMIN+2");
/// let refused = Signal::from_raw(libc::SIGKILL).unwrap_err();
/// assert!(refused.is_refused());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

macro_rules! signals {
    ($($name:ident = $number:ident: $what:literal,)*) => {
        impl Signal {
            $(
                #[doc = $what]
                pub const $name: Self = Self(libc::$number);
            )*
        }

        const NAMES: &[(i32, &str)] = &[$((libc::$number, stringify!($number))),*];
    };
}

signals! {
    HUP = SIGHUP: "SIGHUP: the terminal has gone; for servers by custom, read the configuration again.",
    INT = SIGINT: "SIGINT: ctrl-c.",
    QUIT = SIGQUIT: "SIGQUIT: ctrl-\\\\.",
    USR1 = SIGUSR1: "SIGUSR1: the program's own.",
    USR2 = SIGUSR2: "SIGUSR2: the program's own.",
    PIPE = SIGPIPE: "SIGPIPE: a write that nobody reads. Rust programs ignore it from their start on.",
    ALRM = SIGALRM: "SIGALRM: a timer of `alarm(2)`.",
    TERM = SIGTERM: "SIGTERM: the request to end.",
    CHLD = SIGCHLD: "SIGCHLD: a child has ended or stopped.",
    CONT = SIGCONT: "SIGCONT: going on after a stop.",
    TSTP = SIGTSTP: "SIGTSTP: ctrl-z. Who waits for it is not stopped by it.",
    TTIN = SIGTTIN: "SIGTTIN: a read from the terminal in the background.",
    TTOU = SIGTTOU: "SIGTTOU: a write to the terminal in the background.",
    URG = SIGURG: "SIGURG: urgent data on a socket.",
    XCPU = SIGXCPU: "SIGXCPU: the limit of CPU time.",
    XFSZ = SIGXFSZ: "SIGXFSZ: the limit of a file's size.",
    VTALRM = SIGVTALRM: "SIGVTALRM: a timer of CPU time.",
    PROF = SIGPROF: "SIGPROF: a profiler's timer.",
    WINCH = SIGWINCH: "SIGWINCH: the terminal has another size.",
    IO = SIGIO: "SIGIO: a descriptor is ready.",
    PWR = SIGPWR: "SIGPWR: the power fails.",
    ABRT = SIGABRT: "SIGABRT: sent by others. `abort(3)` ends the process in spite of who waits.",
}

/// Those that say that the program itself has gone wrong, and come again if a handler just returns, and
/// the two that can't be caught.
const REFUSED: [i32; 8] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];

impl Signal {
    /// The signal of this number.
    ///
    /// # Errors
    /// [`SignalError`]: there is none, or it can't be waited for.
    pub fn from_raw(number: i32) -> Result<Self, SignalError> {
        if REFUSED.contains(&number) {
            return Err(SignalError::Refused { number });
        }
        let known = (1..32).contains(&number) || real_time_range().contains(&number);
        if known { Ok(Self(number)) } else { Err(SignalError::NoSuchSignal { number }) }
    }

    /// SIGRTMIN + `n`: one of the real-time signals, of which Linux leaves some 30 to programs.
    ///
    /// # Errors
    /// [`SignalError::NoSuchSignal`] beyond SIGRTMAX.
    pub fn real_time(n: u8) -> Result<Self, SignalError> {
        Self::from_raw(real_time_range().start() + i32::from(n))
    }

    /// The system's number of it.
    pub fn as_raw(self) -> i32 {
        self.0
    }

    /// For numbers that came from the system.
    pub(super) fn known(number: i32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, self.0)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, self.0)
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, number: i32) -> fmt::Result {
    if let Some((_, name)) = NAMES.iter().find(|(n, _)| *n == number) {
        return f.write_str(name);
    }
    let first = *real_time_range().start();
    match number - first {
        0 => f.write_str("SIGRTMIN"),
        n if n > 0 => write!(f, "SIGRTMIN+{n}"),
        _ => write!(f, "signal {number}"),
    }
}

/// Why a signal can't be waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// SIGKILL and SIGSTOP can't be caught; SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP and SIGSYS say that the
    /// program itself has gone wrong, and can't be dealt with later.
    #[error(
        "signal {number} can't be waited for: it stops the process, or says that it went wrong"
    )]
    Refused {
        /// Its number.
        number: i32,
    },
    /// Not a signal, or one that the C library keeps for itself.
    #[error("there is no signal {number} for programs")]
    NoSuchSignal {
        /// The number.
        number: i32,
    },
    /// The system has no descriptor left, or refused the handler.
    #[error("no way to be told of signals: {0}")]
    System(#[from] io::Error),
}

impl SignalError {
    /// Whether it is a signal that nobody may wait for.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<SignalError> for io::Error {
    fn from(e: SignalError) -> Self {
        match e {
            SignalError::System(e) => e,
            e => io::Error::new(io::ErrorKind::InvalidInput, e),
        }
    }
}
