//! Which TCP congestion control the connections of a benchmark use.
//!
//! Owns the choice: what was asked for, else the system's, unless that is bbr, whose pacing by timers
//! would be what is measured over loopback. Whether a name may be used is found out by using it on a
//! socket: the lists in /proc don't say what a privilege adds.

use std::fs;
use std::io;

use socket2::{Domain, Protocol, Socket, Type};

/// What to use where the system's own is no good over loopback, the better first.
const INSTEAD_OF_BBR: [&str; 2] = ["cubic", "reno"];

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// The name to set on each socket, or `None` for the system's own, `system`.
pub fn choose(asked: Option<&str>, system: Option<&str>) -> Result<Option<String>, String> {
    choose_by(asked, system, set_on_a_socket)
}

fn choose_by(
    asked: Option<&str>,
    system: Option<&str>,
    usable: impl Fn(&str) -> io::Result<()>,
) -> Result<Option<String>, String> {
    match asked {
        Some(name) => match usable(name) {
            Ok(()) => Ok(Some(name.to_owned())),
            Err(error) => Err(refused(name, &error)),
        },
        None if system == Some("bbr") => {
            let name = INSTEAD_OF_BBR.iter().find(|name| usable(name).is_ok());
            Ok(name.map(|name| (*name).to_owned()))
        }
        None => Ok(None),
    }
}

fn refused(name: &str, error: &io::Error) -> String {
    let offered = fs::read_to_string(AVAILABLE).unwrap_or_default();
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) => "this kernel does not have it".to_owned(),
        Some(libc::EPERM) => {
            "only root may use it (see net.ipv4.tcp_allowed_congestion_control)".into()
        }
        _ => error.to_string(),
    };
    format!("--congestion {name}: {why}; it offers: {}", offered.trim())
}

fn set_on_a_socket(name: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_congestion(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only<'a>(names: &'a [&str]) -> impl Fn(&str) -> io::Result<()> + 'a {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        move |name| names.contains(&name).then_some(()).ok_or_else(missing)
    }

    #[test]
    fn bbr_is_stepped_around_where_it_can_be() {
        let bbr = Some("bbr");
        assert_eq!(choose_by(None, bbr, only(&["reno", "cubic"])), Ok(Some("cubic".into())));
        assert_eq!(choose_by(None, bbr, only(&["reno"])), Ok(Some("reno".into())));
        assert_eq!(choose_by(None, bbr, only(&[])), Ok(None));
        assert_eq!(choose_by(None, Some("cubic"), only(&["reno"])), Ok(None));
        assert_eq!(choose_by(None, None, only(&["reno"])), Ok(None));
    }

    #[test]
    fn what_is_asked_for_is_used_or_refused_in_words() {
        assert_eq!(choose_by(Some("bbr"), Some("cubic"), only(&["bbr"])), Ok(Some("bbr".into())));
        let error = choose_by(Some("vegas"), None, only(&[])).unwrap_err();
        assert!(error.contains("--congestion vegas: this kernel does not have it"), "{error}");
    }
}
