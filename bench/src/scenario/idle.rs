//! Connections that stay silent: what they cost the server's memory.
//!
//! Owns the whole scenario. The figure is the growth of the server's anonymous memory, as the kernel
//! counts it for a process of this machine; what the kernel itself keeps per socket is not in it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::time::sleep;

use crate::cli::IdleArgs;
use crate::progress;
use crate::report::units::grouped;
use crate::scenario::Failure;
use crate::scenario::load::connect::{self, Target};
use crate::scenario::load::core::INTERRUPTED;

/// How often the number of open connections is shown.
const REDRAW: Duration = Duration::from_millis(100);

/// What silent connections came to.
#[derive(Clone, Debug)]
pub struct Idled {
    /// How many were open.
    pub connections: u64,
    /// The server's anonymous memory in bytes, before and with them, if its process was named.
    pub server_bytes: Option<(u64, u64)>,
}

/// Opens the connections, and holds them until their time is over or a signal comes.
pub fn run(args: &IdleArgs, congestion: Option<String>) -> Result<Idled, Failure> {
    let memory = || args.server_pid.map(anonymous_bytes).transpose();
    let before = memory()?;
    let connected = Arc::new(AtomicU64::new(0));
    let target = Target { addr: args.addr, congestion, connected: connected.clone() };
    let held = async {
        let signal = coreloop::signal::try_terminate().map_err(|error| error.to_string())?;
        let hold = async {
            let drawing = coreloop::spawn(draw(connected, args.connections, args.quiet));
            let streams = connect::open(&target, args.connections).await?;
            drop(drawing);
            sleep(args.duration).await;
            let with = memory()?;
            drop(streams);
            Ok(with)
        };
        match race(hold, signal).await {
            Either::First(with) => with,
            Either::Second(()) => Err(INTERRUPTED.to_owned()),
        }
    };
    let with = coreloop::run(held).map_err(|error| error.to_string())??;
    Ok(Idled { connections: args.connections, server_bytes: before.zip(with) })
}

async fn draw(connected: Arc<AtomicU64>, of: u64, quiet: bool) {
    let spinner = progress::waiting("connecting", quiet);
    loop {
        let done = connected.load(Ordering::Relaxed);
        if done == of {
            return spinner.finish_and_clear();
        }
        spinner.set_message(format!("connecting: {} of {}", grouped(done), grouped(of)));
        sleep(REDRAW).await;
    }
}

fn anonymous_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status =
        fs::read_to_string(&path).map_err(|error| format!("can't read {path}: {error}"))?;
    parse_anonymous(&status).ok_or_else(|| format!("{path} has no RssAnon: is it a process?"))
}

pub(crate) fn parse_anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_process_status() {
        let status = "Name:\tx\nVmRSS:\t    9000 kB\nRssAnon:\t    4100 kB\nRssFile:\t 1 kB\n";
        assert_eq!(parse_anonymous(status), Some(4_100 * 1_024));
        assert_eq!(parse_anonymous("Name:\tkthreadd\n"), None);
        assert!(anonymous_bytes(std::process::id()).unwrap() > 0);
    }
}
