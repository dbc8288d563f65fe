//! Telling the service manager how it goes.
//!
//! Owns the protocol of `sd_notify(3)`: lines of text in one datagram to the socket that NOTIFY_SOCKET
//! names. No library of systemd's is needed, and any manager that speaks it will do. Nothing here waits: a
//! manager that does not read is an error, not a pause of the loop. Sockets that a manager hands in are read
//! in [`fds`](crate::fds).

use std::env;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys::linux;
use crate::time::sleep;

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State<'a> {
    /// Started, or configured again: what waits for this service may go on.
    Ready,
    /// The end has begun.
    Stopping,
    /// The configuration is being read again; to be followed by [`Ready`](Self::Ready). The time that goes
    /// with it (MONOTONIC_USEC) is taken when it is sent.
    Reloading,
    /// Alive: see [`watchdog_interval`].
    Watchdog,
    /// One line for people.
    Status(&'a str),
    /// Another process is the service's main one from now on: after a restart by hand-over. The manager hears
    /// this from the main process alone where the unit has `NotifyAccess=main`: so the predecessor says it.
    /// Its environment names it in WATCHDOG_PID; start the successor without that variable, or the successor
    /// takes the watchdog for another's.
    MainPid(u32),
    /// Starting, reloading or stopping takes longer: so much from now on.
    ExtendTimeout(Duration),
    /// Why it failed, as an errno.
    Errno(i32),
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::Reloading => {
                write!(f, "RELOADING=1\nMONOTONIC_USEC={}", linux::monotonic_ns() / 1000)
            }
            Self::Watchdog => f.write_str("WATCHDOG=1"),
            Self::Status(text) => write!(f, "STATUS={text}"),
            Self::MainPid(pid) => write!(f, "MAINPID={pid}"),
            Self::ExtendTimeout(d) => write!(f, "EXTEND_TIMEOUT_USEC={}", d.as_micros()),
            Self::Errno(errno) => write!(f, "ERRNO={errno}"),
        }
    }
}

/// Tells the service manager all of these in one message; `false` if there is none to tell
/// (NOTIFY_SOCKET is not set). Never waits, from any thread.
///
/// # Errors
/// As `sendto(2)`: `WouldBlock` if the manager is behind with reading. `InvalidInput`, with nothing sent,
/// for a status of several lines, which could say anything, and for a NOTIFY_SOCKET that is neither a path
/// nor an abstract name (`@…`).
///
/// ```
/// use coreloop::systemd::{State, notify};
///
/// let told = notify(&[State::Ready, State::Status("serving on port 7000")]).unwrap();
/// assert!(!told, "this example is no service");
/// ```
pub fn notify(states: &[State<'_>]) -> io::Result<bool> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(false);
    };
    let addr = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(&name)?,
        _ => {
            let why = format!("NOTIFY_SOCKET is neither a path nor an abstract name: {name:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    let message = message(states)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &addr)?;
    Ok(true)
}

fn message(states: &[State<'_>]) -> io::Result<String> {
    let mut lines = Vec::with_capacity(states.len());
    for state in states {
        if matches!(state, State::Status(text) if text.contains(['\n', '\0'])) {
            let why = "a status is one line of text";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        lines.push(state.to_string());
    }
    Ok(lines.join("\n"))
}

/// Within which time the service manager wants to hear [`State::Watchdog`] again and again; none if it does
/// not, or asked another process (WATCHDOG_USEC, WATCHDOG_PID).
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.trim().parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|us| *us > 0).map(Duration::from_micros)
}

/// Tells [`State::Watchdog`] at half the interval that the manager asked for, for ever; ends at once if it
/// asked for none. What it says is that *this core's* loop turns. Spawn it on a core of its own choosing; a
/// message that can't be sent is tried again after the next half interval.
///
/// # Cancel safety
/// Dropping it ends the telling.
///
/// # Panics
/// Outside a running loop, if it has to wait.
///
/// ```
/// coreloop::run(async {
///     drop(coreloop::spawn(coreloop::systemd::watchdog()));
/// })
/// .unwrap();
/// ```
pub async fn watchdog() {
    let Some(interval) = watchdog_interval() else { return };
    loop {
        // A manager that is behind hears of us the next time.
        let _ = notify(&[State::Watchdog]);
        sleep(interval / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_lines() {
        let all = [
            State::Ready,
            State::Status("well"),
            State::MainPid(7),
            State::ExtendTimeout(Duration::from_millis(3)),
            State::Errno(2),
        ];
        let text = message(&all).unwrap();
        assert_eq!(text, "READY=1\nSTATUS=well\nMAINPID=7\nEXTEND_TIMEOUT_USEC=3000\nERRNO=2");
        let reloading = message(&[State::Reloading]).unwrap();
        let (first, usec) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
        assert!(first == "RELOADING=1" && usec.parse::<u64>().unwrap() > 0);
        let e = message(&[State::Status("a\nMAINPID=1")]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
    }
}
