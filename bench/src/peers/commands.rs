//! The commands of a workload, for hands: on one host or on two.
//!
//! Owns the listing. Nothing is run.

use std::path::Path;

use crate::peers::contenders::{self, Contender, Cores, Launch, shown};
use crate::peers::run::WARMUP;
use crate::peers::series::participants;
use crate::peers::workloads::{Kind, Workload};

/// What has to be put in for the server's address.
const SERVER: &str = "SERVER:7000";
/// What has to be put in for the rate of an open loop.
const RATE: &str = "RATE";

/// The listing, to be read and to be copied from.
pub fn list(
    contenders: &[Contender],
    workload: &Workload,
    bench: &Path,
    cores: Cores,
    seconds: f64,
) -> String {
    let (part, unsupported) = participants(contenders, workload);
    let mut out = format!("# {}: {}\n", workload.name, workload.words);
    match workload.kind {
        Kind::Echo(echo) => {
            out += "# On the host of the server, one of these (CPU per request: the growth of the first \
                    number of /proc/PID/task/*/schedstat over the load, divided by answers_all):\n";
            for who in part {
                let command = who.serve("0.0.0.0:7000", cores.server, echo.connections, echo.size);
                out += &format!("{}\n", pasted(&shown(&command), &who.launch));
            }
            let mut load = contenders::load(bench, SERVER, cores.load, &echo, 1);
            load.args(["--warmup", &format!("{}ms", WARMUP.as_millis())]);
            load.args(["--duration", &format!("{seconds}s"), "--json", "load.json"]);
            out += "# On the host of the generator, after each of them:\n";
            out += &format!("{}\n", shown(&load).replace("--rate 1 ", &format!("--rate {RATE} ")));
            if echo.open {
                out += "# RATE: 70 % of the least requests per second that echo-64 gave for any of the ring \
                        runtimes\n";
            }
        }
        Kind::Idle { connections } => {
            out += "# On the host of the server, one of these:\n";
            for who in part {
                let command = who.serve("0.0.0.0:7000", cores.server, connections, 64);
                out += &format!("{}\n", pasted(&shown(&command), &who.launch));
            }
            out += "# On the host of the generator; meanwhile on the server's, before and during it:\n";
            out += &format!(
                "{} load idle --addr {SERVER} --connections {connections} --duration 10s\n",
                bench.display()
            );
            out += "grep RssAnon /proc/PID/status\n";
        }
        Kind::Work(work) => {
            out += "# Each on the one host that it is about:\n";
            for command in part.iter().filter_map(|who| who.work(workload.name, work, cores)) {
                out += &format!("{}\n", shown(&command));
            }
        }
    }
    for (who, why) in unsupported {
        out += &format!("# {who}: {why}\n");
    }
    out
}

/// Peers set their congestion control themselves; for the others it is a flag, which stands there already.
fn pasted(command: &str, launch: &Launch) -> String {
    match launch {
        Launch::Peer { binary } | Launch::Raw { binary } | Launch::Epoll { binary }
            if !binary.is_file() =>
        {
            format!("{command}   # was not built")
        }
        _ => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::contenders::served;
    use crate::peers::workloads::find;

    fn listed(name: &str) -> String {
        let raw = served("raw", "own", "", Launch::Raw { binary: "raw-echo".into() });
        let cores = Cores { server: 0, load: 1 };
        list(&[raw], find(name).unwrap(), Path::new("coreloop-bench"), cores, 2.0)
    }

    #[test]
    fn both_sides_of_an_echo_are_listed() {
        let text = listed("echo-d16");
        assert!(text.contains("raw-echo --form own --addr 0.0.0.0:7000 --core 0"), "{text}");
        assert!(text.contains("load echo --addr SERVER:7000 --cores 1"), "{text}");
        assert!(
            text.contains("--depth 16 --warmup 500ms --duration 2s --json load.json"),
            "{text}"
        );
    }

    #[test]
    fn an_open_loop_asks_for_its_rate() {
        assert!(
            listed("open-70").contains("--rate RATE --arrivals poisson"),
            "{}",
            listed("open-70")
        );
    }

    #[test]
    fn idle_connections_are_read_off_by_hand() {
        assert!(listed("idle-connections").contains("RssAnon"));
    }
}
