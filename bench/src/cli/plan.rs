//! From what was asked for to what will run: cores checked against the machine, defaults filled in.
//!
//! Owns the rules that need more than one flag, or the machine. Pure: the allowed cores come in as
//! a slice. An error says which flag to change, and to what.

use std::net::SocketAddr;
use std::time::Duration;

use coreloop::config::{Origin, Resolved};
use coreloop::{BuildError, Settings};

use crate::cli::parse::{CoreList, Spin, bytes};
use crate::cli::settings::ServerTuning;
use crate::cli::{DoctorArgs, LoadArgs, RunArgs, ServeArgs, Workload};
use crate::report::units::{core_ranges, grouped};

/// More payload in flight than this is a memory test, not a latency benchmark.
const IN_FLIGHT_BYTES_MAX: u64 = 4 << 30;

/// What an open loop has in flight per connection at most: little enough for any socket to take it
/// without waiting, so that a write's delay is never the server's.
const OPEN_BYTES_MAX: u64 = 64 << 10;
const OPEN_MESSAGES_MAX: u64 = 1024;

/// How long a load core of its own spins: longer than the gaps of any rate that a latency is
/// asked for at, so that answers and send times are met awake.
const LOAD_SPIN: Duration = Duration::from_millis(10);

/// Descriptors a process needs beside one per connection: rings, listeners, files, terminal.
const SPARE_FILES: u64 = 64;

/// A load that can run.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where the server is; `None` while it is still to be bound, in this process.
    pub addr: Option<SocketAddr>,
    /// Cores that make the load, at least one.
    pub cores: Vec<usize>,
    /// What to send.
    pub workload: Workload,
    /// Messages in flight per connection at most.
    pub depth: u64,
    /// What its cores do before they sleep.
    pub spin: Spin,
    /// TCP congestion control, if not the system's.
    pub congestion: Option<String>,
}

/// A server that can run.
#[derive(Clone, Debug)]
pub struct ServePlan {
    /// Where to listen.
    pub addr: SocketAddr,
    /// Cores that serve, at least one.
    pub cores: Vec<usize>,
    /// How its loops are set up.
    pub settings: Resolved,
    /// TCP congestion control, if not the system's.
    pub congestion: Option<String>,
    /// Where the ops listener is, if there is to be one.
    pub ops: Option<SocketAddr>,
    /// How long it serves on after the signal that ends it.
    pub lame_duck: Duration,
}

/// Fills in `run`: an in-process server on a free loopback port, and the load on it.
pub fn run(
    args: &RunArgs,
    allowed: &[usize],
    congestion: Option<String>,
) -> Result<(ServePlan, LoadPlan), String> {
    let first = *allowed.first().ok_or("this process may run on no core at all")?;
    let second = allowed.get(1).copied().unwrap_or(first);
    let said = args.tuning.resolve(Settings::default(), std::env::vars_os(), &[])?;
    let (server, by) = match (&args.server_cores, said.origin("cores", None)) {
        (Some(list), _) => (list.0.clone(), Some("--server-cores")),
        (None, None | Some(Origin::Default)) => (vec![first], Some("one, as run has it")),
        (None, Some(origin)) => (resolved_cores(&said, origin)?, None),
    };
    // The default load core steps aside if the server was asked onto it.
    let free = allowed.iter().copied().find(|core| !server.contains(core));
    let load = match (&args.load_cores, free) {
        (Some(list), _) => list.0.clone(),
        (None, Some(core)) if server.contains(&second) => vec![core],
        (None, _) => vec![second],
    };
    check_cores("--server-cores", &server, allowed)?;
    check_cores("--load-cores", &load, allowed)?;
    // Whoever spins on a shared CPU keeps the other side from running.
    let shared = load.iter().any(|core| server.contains(core));
    let spin = if shared { coreloop::Spin::Off } else { coreloop::Spin::Dial };
    let named = by.map(|by| (by, "cores", cores_text(&server)));
    let base = Settings::default().spin(spin);
    let settings = args.tuning.resolve(base, std::env::vars_os(), named.as_slice())?;
    check_special(&settings, &server)?;
    let load = load_plan(None, load, &args.workload, !shared, congestion.clone())?;
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let lame_duck = Duration::ZERO;
    let ops = settings.ops_addr();
    let serve = ServePlan { addr, cores: server, settings, congestion, ops, lame_duck };
    Ok((serve, load))
}

/// Fills in `serve`.
pub fn serve(
    args: &ServeArgs,
    allowed: &[usize],
    congestion: Option<String>,
) -> Result<ServePlan, String> {
    let ops = args.ops.map(|addr| ("--ops", "ops_addr", addr.to_string()));
    let (settings, cores) = serving(&args.tuning, args.cores.as_ref(), ops, allowed)?;
    let ops = settings.ops_addr();
    let (addr, lame_duck) = (args.addr, args.lame_duck);
    Ok(ServePlan { addr, cores, settings, congestion, ops, lame_duck })
}

/// What `doctor` tries out: what `serve` would run with.
pub fn doctor(args: &DoctorArgs, allowed: &[usize]) -> Result<(Resolved, Vec<usize>), String> {
    serving(&args.tuning, args.cores.as_ref(), None, allowed)
}

/// A server's settings and cores.
fn serving(
    tuning: &ServerTuning,
    cores: Option<&CoreList>,
    flag: Option<(&str, &str, String)>,
    allowed: &[usize],
) -> Result<(Resolved, Vec<usize>), String> {
    let named = cores.map(|list| ("--cores", "cores", cores_text(&list.0)));
    let named: Vec<_> = named.into_iter().chain(flag).collect();
    let settings = tuning.resolve(Settings::default(), std::env::vars_os(), &named)?;
    let cores = match cores {
        Some(list) => {
            check_cores("--cores", &list.0, allowed)?;
            list.0.clone()
        }
        // By default so many as the process may use, and as its quota of CPU time is worth.
        None => {
            resolved_cores(&settings, settings.origin("cores", None).unwrap_or(&Origin::Default))?
        }
    };
    check_special(&settings, &cores)?;
    Ok((settings, cores))
}

/// Refuses settings of a core that there is not, as the runtime would at the start.
fn check_special(settings: &Resolved, cores: &[usize]) -> Result<(), String> {
    let Some((core, _)) = settings.special().find(|(core, _)| *core >= cores.len()) else {
        return Ok(());
    };
    let place = settings.place_of(core).map_or_else(String::new, Origin::to_string);
    Err(BuildError::NoSuchCore { core, cores: cores.len(), place }.to_string())
}

/// Fills in `load`. `taken` says whether somebody else holds a CPU: a server, most likely.
pub fn load(
    args: &LoadArgs,
    allowed: &[usize],
    congestion: Option<String>,
    taken: impl Fn(usize) -> bool,
) -> Result<LoadPlan, String> {
    let last = *allowed.last().ok_or("this process may run on no core at all")?;
    let cores = args.cores.as_ref().map_or(vec![last], |list| list.0.clone());
    check_cores("--cores", &cores, allowed)?;
    check_port(args.addr)?;
    let own = allowed.len() > 1 && !cores.iter().any(|core| taken(*core));
    load_plan(Some(args.addr), cores, &args.workload, own, congestion)
}

/// The CPUs that the settings name; `origin` says where.
fn resolved_cores(settings: &Resolved, origin: &Origin) -> Result<Vec<usize>, String> {
    settings.cores().resolve().map_err(|error| format!("{origin}: {error}"))
}

/// As the setting `cores` has them.
fn cores_text(cores: &[usize]) -> String {
    coreloop::Cores::These(cores.to_vec()).to_string()
}

/// Refuses an address that nobody can be connected to.
pub fn check_port(addr: SocketAddr) -> Result<(), String> {
    if addr.port() == 0 {
        return Err("--addr needs the server's port, such as 127.0.0.1:7000".into());
    }
    Ok(())
}

/// Refuses a run whose connections do not fit the open-file limit. `ends` is 2 where server and
/// load share the process, so that each connection costs two descriptors.
pub fn check_files(connections: u64, ends: u64, limit: Option<u64>) -> Result<(), String> {
    let needed = connections * ends + SPARE_FILES;
    match limit {
        Some(limit) if needed > limit => Err(format!(
            "{} connections need {} open files, and the limit is {}: raise it (ulimit -n {needed}, \
             or LimitNOFILE= in systemd), or pass --connections {}",
            grouped(connections),
            grouped(needed),
            grouped(limit),
            limit.saturating_sub(SPARE_FILES).checked_div(ends).unwrap_or(0).max(1),
        )),
        _ => Ok(()),
    }
}

fn load_plan(
    addr: Option<SocketAddr>,
    cores: Vec<usize>,
    work: &Workload,
    own_cpus: bool,
    congestion: Option<String>,
) -> Result<LoadPlan, String> {
    let depth = match (work.depth, work.rate) {
        (Some(depth), _) => depth,
        (None, None) => 1,
        (None, Some(_)) => open_depth(work),
    };
    check_workload(work, depth, cores.len())?;
    let spin = match work.load_spin {
        Some(spin) => spin,
        None if own_cpus => Spin::Fixed(LOAD_SPIN),
        None => Spin::Off,
    };
    Ok(LoadPlan { addr, cores, workload: work.clone(), depth, spin, congestion })
}

fn open_depth(work: &Workload) -> u64 {
    let of_all = IN_FLIGHT_BYTES_MAX / (work.connections * work.size);
    (OPEN_BYTES_MAX / work.size).min(of_all).clamp(1, OPEN_MESSAGES_MAX)
}

fn check_cores(flag: &str, cores: &[usize], allowed: &[usize]) -> Result<(), String> {
    match cores.iter().find(|core| !allowed.contains(core)) {
        Some(core) => Err(format!(
            "{flag} names core {core}, but this process may only run on {}",
            core_ranges(allowed)
        )),
        None => Ok(()),
    }
}

fn check_workload(work: &Workload, depth: u64, cores: usize) -> Result<(), String> {
    if work.connections < cores as u64 {
        return Err(format!(
            "--connections {} leaves a load core without any: use at least {cores}, or fewer cores",
            work.connections
        ));
    }
    let in_flight = work.connections * depth * work.size;
    if in_flight > IN_FLIGHT_BYTES_MAX {
        return Err(format!(
            "--connections × --depth × --size puts {} in flight; the most is {}: lower one of them",
            bytes(in_flight),
            bytes(IN_FLIGHT_BYTES_MAX)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use coreloop::Cores;
    use coreloop::config::Field;

    use super::*;
    use crate::cli::{Cli, Command, LoadScenario, RunScenario, ServeScenario};

    fn run_cores(flags: &[&str], allowed: &[usize]) -> Result<(Vec<usize>, Vec<usize>), String> {
        let args = ["coreloop-bench", "run", "echo"].iter().chain(flags);
        match Cli::parse_from(args).command {
            Command::Run(RunScenario::Echo(args)) => {
                run(&args, allowed, None).map(|(serve, load)| (serve.cores, load.cores))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn default_cores_keep_server_and_load_apart_where_they_can() {
        assert_eq!(run_cores(&[], &[0, 1]), Ok((vec![0], vec![1])));
        assert_eq!(run_cores(&[], &[4, 6, 7]), Ok((vec![4], vec![6])));
        assert_eq!(run_cores(&[], &[3]), Ok((vec![3], vec![3])), "one CPU carries both");
        assert_eq!(run_cores(&["--server-cores", "1"], &[0, 1]), Ok((vec![1], vec![0])));
        assert_eq!(run_cores(&["--server-cores", "0,1"], &[0, 1]), Ok((vec![0, 1], vec![1])));
    }

    #[test]
    fn a_core_that_is_not_allowed_names_those_that_are() {
        let error = run_cores(&["--load-cores", "5"], &[0, 1, 2]).unwrap_err();
        assert_eq!(error, "--load-cores names core 5, but this process may only run on 0-2");
    }

    #[test]
    fn workloads_that_make_no_sense_are_refused() {
        let flags = ["--connections", "1", "--load-cores", "0,1"];
        assert!(run_cores(&flags, &[0, 1]).unwrap_err().contains("use at least 2"));
        let flags = ["--connections", "1000", "--depth", "16", "--size", "1M"];
        let error = run_cores(&flags, &[0, 1]).unwrap_err();
        assert!(error.contains("16000 MiB in flight; the most is 4 GiB"), "{error}");
    }

    #[test]
    fn load_needs_a_port() {
        let args = ["coreloop-bench", "load", "echo", "--addr", "127.0.0.1:0"];
        let Command::Load(LoadScenario::Echo(args)) = Cli::parse_from(args).command else {
            panic!("not load")
        };
        let error = load(&args, &[0], None, |_| false).unwrap_err();
        assert!(error.contains("127.0.0.1:7000"), "{error}");
    }

    fn planned(flags: &[&str], allowed: &[usize]) -> (ServePlan, LoadPlan) {
        let args = ["coreloop-bench", "run", "echo"].iter().chain(flags);
        match Cli::parse_from(args).command {
            Command::Run(RunScenario::Echo(args)) => run(&args, allowed, None).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn served(flags: &[&str], allowed: &[usize]) -> Result<ServePlan, String> {
        let args = ["coreloop-bench", "serve", "echo"].iter().chain(flags);
        match Cli::parse_from(args).command {
            Command::Serve(ServeScenario::Echo(args)) => serve(&args, allowed, None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cores_and_ops_are_told_with_their_flags() {
        let cpu = *Cores::All.resolve().unwrap().first().unwrap();
        let told = |plan: &ServePlan, name: &str| {
            let row = plan.settings.rows().into_iter().find(|row| row.1 == name).unwrap();
            (row.2, row.3.to_string())
        };
        let plan = served(&["--cores", &cpu.to_string(), "--ops", "7"], &[cpu]).unwrap();
        assert_eq!(told(&plan, "cores"), (cpu.to_string(), "--cores".into()));
        assert_eq!(told(&plan, "ops_addr"), ("127.0.0.1:7".into(), "--ops".into()));
        assert_eq!((plan.cores, plan.ops), (vec![cpu], Some(([127, 0, 0, 1], 7).into())));
        let plan = served(&[], &[cpu]).unwrap();
        assert_eq!(told(&plan, "cores"), ("all".into(), "default".into()));
        assert_eq!(plan.cores, Cores::All.resolve().unwrap(), "the quota counts");
        let plan = served(&["--set", "cores=count:1"], &[cpu]).unwrap();
        assert_eq!((plan.cores.len(), told(&plan, "cores").1), (1, "cores=count:1".into()));
        // And of `run`, whose default is one core.
        let (plan, _) = planned(&[], &[3, 4]);
        assert_eq!(told(&plan, "cores"), ("3".into(), "one, as run has it".into()));
        let (plan, _) = planned(&["--server-cores", "4"], &[3, 4]);
        assert_eq!(told(&plan, "cores"), ("4".into(), "--server-cores".into()));
        let (plan, _) = planned(&["--set", "cores=count:1"], &[cpu, cpu + 1]);
        assert_eq!((plan.cores.as_slice(), told(&plan, "cores").0), (&[cpu][..], "count:1".into()));
    }

    fn spin(plan: &ServePlan) -> String {
        Field::named("spin").unwrap().get(plan.settings.settings())
    }

    #[test]
    fn nobody_spins_on_a_shared_cpu() {
        let (serve, load) = planned(&[], &[3]);
        assert_eq!((spin(&serve), load.spin), ("off".into(), Spin::Off));
        let (serve, load) = planned(&[], &[0, 1]);
        assert_eq!((spin(&serve), load.spin), ("dial".into(), Spin::Fixed(LOAD_SPIN)));
        let (serve, _) = planned(&["--spin", "20us"], &[3]);
        assert_eq!(spin(&serve), "20us", "but for those who ask for it");
        let (_, load) = planned(&["--load-spin", "off"], &[0, 1]);
        assert_eq!(load.spin, Spin::Off);
    }

    #[test]
    fn an_open_loop_is_bounded_by_what_a_socket_takes() {
        assert_eq!(planned(&[], &[0, 1]).1.depth, 1);
        assert_eq!(planned(&["--rate", "1000"], &[0, 1]).1.depth, 1024);
        assert_eq!(planned(&["--rate", "1000", "--size", "16k"], &[0, 1]).1.depth, 4);
        assert_eq!(planned(&["--rate", "1000", "--size", "1M"], &[0, 1]).1.depth, 1);
        assert_eq!(planned(&["--rate", "1000", "--depth", "1"], &[0, 1]).1.depth, 1);
    }

    #[test]
    fn too_few_files_are_told_before_the_run() {
        assert_eq!(check_files(64, 2, Some(1024)), Ok(()));
        assert_eq!(check_files(100_000, 2, None), Ok(()));
        let error = check_files(1000, 2, Some(1024)).unwrap_err();
        assert!(error.contains("ulimit -n 2064"), "{error}");
        assert!(error.contains("--connections 480"), "{error}");
    }
}
