//! Who takes part: what a peer says about itself, and the commands that start each one.
//!
//! Owns the adapters: peers speak the protocol of `bench/peers` (`describe`, `echo`, `work`), the
//! hand-written loops and this program itself take flags of their own. Which of them is ours shows in
//! nothing but [`OURS`]. Runs nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::peers::workloads::{Echo, Kind, Work, Workload};

/// The name of the runtime that all others are compared with.
pub const OURS: &str = "coreloop";

/// Those without tasks, that others are measured by.
const HAND_WRITTEN: [&str; 2] = ["raw", "epoll"];

/// A runtime in one of its variants, or a hand-written loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// `tokio multi-thread`; of a variant `default` just the runtime.
    pub id: String,
    /// `tokio`.
    pub runtime: String,
    /// `multi-thread`.
    pub variant: String,
    /// Its version, as it says.
    pub version: String,
    /// Whether it is an io_uring runtime.
    pub ring: bool,
    /// Whether the variant spins before it sleeps.
    pub spins: bool,
    /// What can't be run on it, and why.
    pub unsupported: BTreeMap<String, String>,
    /// What can.
    pub workloads: Vec<String>,
    /// How it is started.
    pub launch: Launch,
    /// Why it can't be run at all.
    pub broken: Option<String>,
}

/// How a contender is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// Through the protocol of the peers.
    Peer {
        /// Its binary.
        binary: PathBuf,
    },
    /// `raw-echo` in the form that the variant names.
    Raw {
        /// Its binary.
        binary: PathBuf,
    },
    /// `epoll-echo`.
    Epoll {
        /// Its binary.
        binary: PathBuf,
    },
    /// `coreloop-bench serve echo`, and a peer's binary for work in process.
    Bench {
        /// This program.
        binary: PathBuf,
        /// `peer-coreloop`, if there is one.
        work: Option<PathBuf>,
    },
}

/// Where everything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// The server's, and that of work in process.
    pub server: usize,
    /// The generator's, and the second one of work that needs two.
    pub load: usize,
}

/// What `peer-X describe` prints.
#[derive(Debug, Deserialize)]
pub struct Described {
    runtime: String,
    version: String,
    variants: Vec<String>,
    #[serde(default)]
    ring: bool,
    #[serde(default)]
    spins: Vec<String>,
    workloads: Vec<String>,
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// TCP congestion control of all sockets: the peers set it on their listeners.
pub const CONGESTION: &str = "reno";

/// Reads the line of JSON that `describe` prints.
pub fn parse_description(text: &str) -> Result<Described, String> {
    let line = text.lines().rfind(|line| line.trim_start().starts_with('{'));
    let line = line.ok_or_else(|| "describe printed no JSON".to_owned())?;
    let described: Described =
        serde_json::from_str(line).map_err(|error| format!("describe: {error}"))?;
    if described.variants.is_empty() {
        return Err("describe names no variants".into());
    }
    Ok(described)
}

impl Described {
    /// A contender for each variant.
    pub fn contenders(self, launch: &Launch) -> Vec<Contender> {
        let contender = |variant: &String| Contender {
            id: id(&self.runtime, variant),
            runtime: self.runtime.clone(),
            variant: variant.clone(),
            version: self.version.clone(),
            ring: self.ring,
            spins: self.spins.contains(variant),
            unsupported: self.unsupported.clone(),
            workloads: self.workloads.clone(),
            launch: launch.clone(),
            broken: None,
        };
        self.variants.iter().map(contender).collect()
    }
}

fn id(runtime: &str, variant: &str) -> String {
    match variant {
        "default" => runtime.to_owned(),
        variant => format!("{runtime} {variant}"),
    }
}

/// One that is there, but can't say what it is.
pub fn broken(runtime: &str, binary: PathBuf, why: String) -> Contender {
    Contender { broken: Some(why), ..served(runtime, "default", "", Launch::Peer { binary }) }
}

/// A hand-written loop, or this program: echo only.
pub fn served(runtime: &str, variant: &str, version: &str, launch: Launch) -> Contender {
    Contender {
        id: id(runtime, variant),
        runtime: runtime.into(),
        variant: variant.into(),
        version: version.into(),
        ring: true,
        spins: false,
        unsupported: BTreeMap::new(),
        workloads: vec!["echo".into()],
        launch,
        broken: None,
    }
}

impl Contender {
    /// Whether it is a runtime, not a hand-written loop.
    pub fn is_runtime(&self) -> bool {
        !HAND_WRITTEN.contains(&self.runtime.as_str())
    }

    /// Whether it is a variant of ours.
    pub fn is_ours(&self) -> bool {
        self.runtime == OURS
    }

    /// Whether it takes part in a workload; an error says why it can't.
    pub fn takes_part(&self, workload: &Workload) -> Result<bool, String> {
        let asked = workload.asked_of_peers();
        // A loop without tasks has nothing to say about them.
        if !self.is_runtime() && !self.workloads.iter().any(|name| name == asked) {
            return Ok(false);
        }
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        if let Some(why) = self.unsupported.get(asked).or(self.unsupported.get(workload.name)) {
            return Err(format!("unsupported: {why}"));
        }
        if !self.workloads.iter().any(|name| name == asked) {
            return Err("unsupported: the peer does not list it".into());
        }
        // Ways to spin, and not to, matter only where there is time to sleep.
        let idle_matters = match workload.kind {
            Kind::Echo(echo) => echo.spins,
            Kind::Idle { .. } => false,
            Kind::Work(work) => work.two_cores,
        };
        let way_to_spin = self.spins || self.variant == "spin-off";
        Ok(idle_matters || !way_to_spin)
    }

    /// The command of its echo server.
    pub fn serve(&self, addr: &str, core: usize, connections: u64, size: u64) -> Command {
        let (core, buffer) = (core.to_string(), size.max(4096).to_string());
        match &self.launch {
            Launch::Peer { binary } => {
                let mut command = Command::new(binary);
                command.args(["echo", "--variant", &self.variant, "--addr", addr, "--core", &core]);
                command.args(["--size", &size.to_string()]);
                command.args(["--connections", &connections.to_string()]);
                command
            }
            Launch::Raw { binary } => {
                let mut command = Command::new(binary);
                command.args(["--form", &self.variant, "--addr", addr, "--core", &core]);
                command.args(["--congestion", CONGESTION, "--buffer-size", &buffer]);
                // What each form was found to do best with.
                match (self.variant.as_str(), size > 4096) {
                    ("own", true) => command.args(["--stride-pad", "192"]),
                    ("own", false) => &mut command,
                    ("select", true) => command.args(["--buffers", "32"]),
                    _ => command.args(["--buffers", "128"]),
                };
                command
            }
            Launch::Epoll { binary } => {
                let mut command = Command::new(binary);
                command.args(["--addr", addr, "--core", &core, "--congestion", CONGESTION]);
                command.args(["--buffer-size", &buffer]);
                command
            }
            Launch::Bench { binary, .. } => {
                let mut command = Command::new(binary);
                command.args(["serve", "echo", "--addr", addr, "--cores", &core]);
                command.args(["--congestion", CONGESTION]);
                match self.variant.as_str() {
                    "spin-off" => command.args(["--spin", "off"]),
                    "spin-50us" => command.args(["--spin", "50us"]),
                    _ => &mut command,
                };
                command
            }
        }
    }

    /// The command that does work in process; `None` if there is none.
    pub fn work(&self, name: &str, work: Work, cores: Cores) -> Option<Command> {
        let binary = match &self.launch {
            Launch::Peer { binary } => binary,
            Launch::Bench { work, .. } => work.as_ref()?,
            Launch::Raw { .. } | Launch::Epoll { .. } => return None,
        };
        let mut command = Command::new(binary);
        command.args(["work", name, "--variant", &self.variant]);
        command.args(["--core", &cores.server.to_string()]);
        command.args(["--second-core", &cores.load.to_string()]);
        command.args(["--count", &work.count.to_string(), "--rounds", &work.rounds.to_string()]);
        Some(command)
    }
}

/// The command of the generator, the same for every server.
pub fn load(bench: &std::path::Path, addr: &str, core: usize, echo: &Echo, rate: u64) -> Command {
    let mut command = Command::new(bench);
    command.args(["load", "echo", "--addr", addr, "--cores", &core.to_string()]);
    command.args(["--congestion", CONGESTION, "--load-spin", "10ms"]);
    command.args(["--connections", &echo.connections.to_string()]);
    command.args(["--size", &echo.size.to_string()]);
    match echo.open {
        true => {
            command.args(["--rate", &rate.to_string(), "--arrivals", "poisson"]);
            if let Some(limit) = echo.limit {
                command.args(["--depth", &limit.to_string()]);
            }
            &mut command
        }
        false => command.args(["--depth", &echo.depth.to_string()]),
    };
    command
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::workloads::find;

    const TOKIO: &str = r#"{"runtime":"tokio","version":"1.54.1","variants":["current-thread","spin"],
        "ring":false,"spins":["spin"],"workloads":["echo","yield"],"unsupported":{"sleeps":"no timers"}}"#;

    fn tokio() -> Vec<Contender> {
        let described =
            parse_description(&format!("warming\n{}\n", TOKIO.replace('\n', ""))).unwrap();
        described.contenders(&Launch::Peer { binary: "peer-tokio".into() })
    }

    #[test]
    fn a_description_makes_a_contender_of_each_variant() {
        let both = tokio();
        assert_eq!(both[0].id, "tokio current-thread");
        assert_eq!((both[0].spins, both[1].spins), (false, true));
        assert_eq!(both[1].version, "1.54.1");
    }

    #[test]
    fn a_description_that_is_none_says_what_is_missing() {
        assert_eq!(parse_description("hello\n").unwrap_err(), "describe printed no JSON");
        assert!(parse_description("{\"runtime\":\"x\"}").unwrap_err().contains("version"));
        let none = r#"{"runtime":"x","version":"1","variants":[],"workloads":[]}"#;
        assert_eq!(parse_description(none).unwrap_err(), "describe names no variants");
    }

    #[test]
    fn who_takes_part_and_who_can_not() {
        let [plain, spin] = &tokio()[..] else { panic!() };
        let part = |who: &Contender, name| who.takes_part(find(name).unwrap());
        assert_eq!(part(plain, "echo-64"), Ok(true));
        assert_eq!(part(spin, "echo-64"), Ok(false), "nobody sleeps there");
        assert_eq!(part(spin, "echo-1"), Ok(true));
        assert_eq!(part(plain, "sleeps"), Err("unsupported: no timers".into()));
        assert!(part(plain, "spawn-each").unwrap_err().contains("does not list it"));
        let raw = served("raw", "own", "", Launch::Raw { binary: "raw-echo".into() });
        assert_eq!((part(&raw, "echo-1"), part(&raw, "yield")), (Ok(true), Ok(false)));
        let lost = broken("lost", "peer-lost".into(), "did not build".into());
        assert_eq!(part(&lost, "echo-1"), Err("did not build".into()));
    }

    #[test]
    fn commands_are_what_each_kind_takes() {
        let any = "127.0.0.1:0";
        let peer = shown(&tokio()[0].serve(any, 0, 64, 64));
        assert_eq!(
            peer,
            "peer-tokio echo --variant current-thread --addr 127.0.0.1:0 --core 0 --size 64 \
             --connections 64"
        );
        let bench = Launch::Bench { binary: "coreloop-bench".into(), work: None };
        let ours = served(OURS, "spin-off", "0.1.0", bench);
        assert!(
            shown(&ours.serve(any, 2, 64, 64)).contains("serve echo --addr 127.0.0.1:0 --cores 2")
        );
        assert!(shown(&ours.serve(any, 2, 64, 64)).ends_with("--spin off"));
        let work = Work { count: 10, rounds: 3, two_cores: true };
        let cores = Cores { server: 0, load: 1 };
        assert!(ours.work("yield", work, cores).is_none());
        assert_eq!(
            shown(&tokio()[1].work("yield", work, cores).unwrap()),
            "peer-tokio work yield --variant spin --core 0 --second-core 1 --count 10 --rounds 3"
        );
        let raw = served("raw", "select", "", Launch::Raw { binary: "raw-echo".into() });
        let raw = shown(&raw.serve(any, 0, 64, 16384));
        assert!(raw.ends_with("--buffer-size 16384 --buffers 32"), "{raw}");
    }

    #[test]
    fn the_generator_keeps_a_rate_or_a_depth() {
        let Kind::Echo(open) = find("open-70").unwrap().kind else { panic!() };
        let command = shown(&load("b".as_ref(), "h:1", 1, &open, 90_000));
        assert!(command.ends_with("--rate 90000 --arrivals poisson"), "{command}");
        let limited = Echo { limit: Some(4), ..open };
        let command = shown(&load("b".as_ref(), "h:1", 1, &limited, 90_000));
        assert!(command.ends_with("--rate 90000 --arrivals poisson --depth 4"), "{command}");
        let Kind::Echo(deep) = find("echo-d16").unwrap().kind else { panic!() };
        assert!(shown(&load("b".as_ref(), "h:1", 1, &deep, 0)).ends_with("--depth 16"));
    }
}
