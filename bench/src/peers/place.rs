//! Where a comparison takes place: cores, network, machine.
//!
//! Owns the private network, which is entered before anything is started: processes inherit it. Without the
//! right to make one the machine's own loopback is used, with the congestion control set on each socket.

use std::fs;
use std::io::ErrorKind;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine::MachineFacts;
use crate::peers::contenders::{CONGESTION, Cores};
use crate::peers::results::Machine;
use crate::scenario::Failure;
use crate::sys::process::{self, NoNetwork};

/// The variable that says which features of the kernel to do without.
pub const MASK: &str = "CORELOOP_MASK";

const SYSCTL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Two cores of their own for server and generator, where flags name none.
pub fn cores(
    (server, load): (Option<usize>, Option<usize>),
    allowed: &[usize],
) -> Result<Cores, String> {
    let free = |taken: Option<usize>| allowed.iter().copied().find(|core| Some(*core) != taken);
    let server = server.or_else(|| free(load));
    let load = load.or_else(|| free(server));
    let few = || {
        "server and generator need a core each, and this process may use only one: allow it another \
         (taskset, the cgroup's cpuset)"
            .to_owned()
    };
    let cores = Cores { server: server.ok_or_else(few)?, load: load.ok_or_else(few)? };
    for (flag, core) in [("--server-core", cores.server), ("--load-core", cores.load)] {
        if !allowed.contains(&core) {
            return Err(format!("{flag} names core {core}, which this process may not use"));
        }
    }
    if cores.server == cores.load {
        return Err("--server-core and --load-core are the same: each needs one of its own".into());
    }
    Ok(cores)
}

/// Enters a network of its own if it may and should; says which network it is, and what a reader should know
/// if it is not that one.
pub fn network(no_namespace: bool) -> Result<(String, Option<String>), Failure> {
    let own = "the machine's own network".to_owned();
    if no_namespace {
        return Ok((own, None));
    }
    match process::enter_private_network() {
        Ok(()) => {
            // The peers set it on their sockets anyhow: this is for what does not.
            let note = fs::write(SYSCTL, CONGESTION).err().map(|error| {
                format!("the private network kept its congestion control: {SYSCTL}: {error}")
            });
            Ok(("a private network namespace".into(), note))
        }
        // That it takes a right which few users have is no news.
        Err(NoNetwork::Refused(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Ok((own, None))
        }
        Err(NoNetwork::Refused(error)) => {
            Ok((own, Some(format!("there is no private network here: {error}"))))
        }
        Err(NoNetwork::Stranded(error)) => Err(Failure::Told(format!(
            "the private network can't be set up ({error}), nor left again: use --no-namespace"
        ))),
    }
}

/// What a reader should know where the kernel was taken for less than it is.
pub fn mask_note() -> Option<String> {
    let mask = std::env::var_os(MASK).filter(|mask| !mask.is_empty())?;
    Some(format!("{MASK} was set to {mask:?}: coreloop did without these features of the kernel"))
}

/// Hardware and kernel.
pub fn machine(facts: &MachineFacts, network: String) -> Machine {
    let unknown = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".into());
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Machine {
        kernel: unknown(&facts.kernel),
        cpu_model: unknown(&facts.cpu_model),
        cpus: facts.cpus_allowed.len(),
        virtual_machine: is_virtual(&cpuinfo),
        network,
        congestion_control: CONGESTION.into(),
    }
}

fn is_virtual(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// Seconds of the wall clock since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A seed that nobody chose.
pub fn fresh_seed() -> u64 {
    let ns =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    // Short enough to be typed again.
    (ns ^ u64::from(std::process::id()).rotate_left(32)) % 1_000_000_007
}

/// `2001-02-03 04:05:06 UTC`.
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0: leap days then come at the end of a year, and every 400 years are
    // alike.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02} {:02}:{:02}:{:02} UTC",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn placed(flags: &[&str], allowed: &[usize]) -> Result<(usize, usize), String> {
        let args = ["coreloop-bench", "peers"].iter().chain(flags);
        let Command::Peers(args) = Cli::parse_from(args).command else { panic!() };
        cores((args.series.server_core, args.series.load_core), allowed)
            .map(|cores| (cores.server, cores.load))
    }

    #[test]
    fn server_and_generator_get_a_core_each() {
        assert_eq!(placed(&[], &[0, 1]), Ok((0, 1)));
        assert_eq!(placed(&["--load-core", "2"], &[2, 3]), Ok((3, 2)));
        assert_eq!(placed(&["--server-core", "3"], &[2, 3]), Ok((3, 2)));
        assert!(placed(&[], &[5]).unwrap_err().contains("only one"));
        assert!(placed(&["--server-core", "7"], &[0, 1]).unwrap_err().contains("core 7"));
        let same = ["--server-core", "1", "--load-core", "1"];
        assert!(placed(&same, &[0, 1]).unwrap_err().contains("the same"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_700_000_000), "2023-11-14 22:13:20 UTC");
    }

    #[test]
    fn a_virtual_machine_is_told_by_its_flag() {
        assert!(is_virtual("model name: x\nflags\t\t: fpu hypervisor sse\n"));
        assert!(!is_virtual("flags\t\t: fpu sse\n"));
    }
}
