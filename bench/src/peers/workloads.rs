//! The workloads: what is run, and which figures come out of it.
//!
//! Owns names, parameters, units and what is better. Knows no contender.

/// One of the workloads.
#[derive(Debug)]
pub struct Workload {
    /// Its name on the command line and in the results.
    pub name: &'static str,
    /// What it does, in words.
    pub words: &'static str,
    /// How it is run.
    pub kind: Kind,
    /// What is looked at, the most important first.
    pub figures: &'static [Figure],
}

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An echo server under a generator.
    Echo(Echo),
    /// An echo server and connections that stay silent.
    Idle {
        /// How many, if the descriptors allow.
        connections: u64,
    },
    /// Within the contender's own process.
    Work(Work),
}

/// The load on an echo server.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Connections.
    pub connections: u64,
    /// Bytes of a message.
    pub size: u64,
    /// Messages in flight per connection, of a closed loop.
    pub depth: u64,
    /// The most that may be in flight per connection of an open one; without it what the generator takes for
    /// enough.
    pub limit: Option<u64>,
    /// Whether the generator keeps a rate instead of waiting for answers.
    pub open: bool,
    /// Whether what a contender does while it has nothing to do decides: variants of ours that spin, and
    /// one that does not, take part beside the default.
    pub spins: bool,
}

/// Work in the contender's process.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Operations in a round.
    pub count: u64,
    /// Rounds in a process; the median counts.
    pub rounds: u64,
    /// Whether it needs both cores.
    pub two_cores: bool,
}

/// A number that comes out of a run.
#[derive(Debug)]
pub struct Figure {
    /// Its key in the results.
    pub key: &'static str,
    /// What it is.
    pub words: &'static str,
    /// Unit as printed, after division by `scale`.
    pub unit: &'static str,
    /// What a printed unit is in the results' unit.
    pub scale: f64,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// Whether its interval stands in the table of the terminal.
    pub headline: bool,
}

impl Workload {
    /// The group that it belongs to.
    pub fn group(&self) -> &'static str {
        match self.kind {
            Kind::Echo(_) | Kind::Idle { .. } => "echo",
            Kind::Work(_) => "tasks",
        }
    }

    /// The workload that peers name when they say what they can.
    pub fn asked_of_peers(&self) -> &'static str {
        match self.kind {
            Kind::Echo(_) | Kind::Idle { .. } => "echo",
            Kind::Work(_) => self.name,
        }
    }
}

/// The workload of that name.
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

/// Those that names and groups stand for, in the order of [`WORKLOADS`]; all of none.
pub fn select(names: &[String]) -> Result<Vec<&'static Workload>, String> {
    let is_group = |name: &str| ["echo", "tasks", "all"].contains(&name);
    if let Some(name) = names.iter().find(|name| !is_group(name) && find(name).is_none()) {
        let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        return Err(format!(
            "no workload '{name}': there are echo, tasks, all, {}",
            known.join(", ")
        ));
    }
    let wanted = |workload: &&Workload| {
        let named =
            |name: &String| name == "all" || name == workload.group() || name == workload.name;
        names.is_empty() || names.iter().any(named)
    };
    Ok(WORKLOADS.iter().filter(wanted).collect())
}

/// The closed loop whose rates tell how much the open loop asks for.
pub const CALIBRATION: &str = "echo-64";

/// Share of the slowest ring runtime's most that the open loop asks for.
pub const OPEN_SHARE: f64 = 0.7;

const fn figure(
    key: &'static str,
    words: &'static str,
    unit: &'static str,
    scale: f64,
    headline: bool,
) -> Figure {
    Figure { key, words, unit, scale, less_is_better: true, headline }
}

const CPU: Figure = figure("cpu_ns_per_request", "server CPU per request", "ns", 1.0, true);
const RATE: Figure = Figure {
    less_is_better: false,
    ..figure("requests_per_s", "requests per second", "k/s", 1e3, false)
};
const P50: Figure = figure("p50_us", "latency, median", "µs", 1.0, false);
const P99: Figure = figure("p99_us", "latency, 99 %", "µs", 1.0, false);
const SERVED: &[Figure] = &[CPU, RATE, P50, P99];
const NS_PER_TASK: &[Figure] = &[figure("ns_per_task", "time per task", "ns", 1.0, true)];
const TIMERS: &[Figure] = &[
    figure("insert_ns", "insert, per timer", "ns", 1.0, true),
    figure("cancel_ns", "cancel, per timer", "ns", 1.0, true),
];

const CLOSED: Echo =
    Echo { connections: 64, size: 64, depth: 1, limit: None, open: false, spins: false };

const fn work(count: u64) -> Kind {
    Kind::Work(Work { count, rounds: 3, two_cores: false })
}

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "echo-1",
        words: "TCP echo, one connection, 64 B, one request after the other",
        kind: Kind::Echo(Echo { connections: 1, spins: true, ..CLOSED }),
        figures: SERVED,
    },
    Workload {
        name: "echo-64",
        words: "TCP echo, 64 connections, 64 B",
        kind: Kind::Echo(CLOSED),
        figures: SERVED,
    },
    Workload {
        name: "echo-1000",
        words: "TCP echo, 1,000 connections, 64 B",
        kind: Kind::Echo(Echo { connections: 1_000, ..CLOSED }),
        figures: SERVED,
    },
    Workload {
        name: "echo-d16",
        words: "TCP echo, 64 connections, 64 B, 16 requests in flight on each",
        kind: Kind::Echo(Echo { depth: 16, ..CLOSED }),
        figures: SERVED,
    },
    Workload {
        name: "echo-16k",
        words: "TCP echo, 64 connections, 16 KiB",
        kind: Kind::Echo(Echo { size: 16 << 10, ..CLOSED }),
        figures: SERVED,
    },
    Workload {
        name: "open-70",
        words: "TCP echo, 64 connections, 64 B, open loop with random arrivals (Poisson) at 70 % of the \
                slowest ring runtime's most",
        kind: Kind::Echo(Echo { open: true, spins: true, ..CLOSED }),
        figures: &[CPU, Figure { headline: true, ..P50 }, Figure { headline: true, ..P99 }, RATE],
    },
    Workload {
        name: "idle-connections",
        words: "anonymous memory of the server per connection that stays silent",
        kind: Kind::Idle { connections: 10_000 },
        figures: &[figure("bytes_per_connection", "memory per idle connection", "B", 1.0, true)],
    },
    Workload {
        name: "spawn-batch",
        words: "tasks without an await, spawned in batches of 1,000 and waited for",
        kind: work(1_000_000),
        figures: NS_PER_TASK,
    },
    Workload {
        name: "spawn-each",
        words: "a task spawned and its handle awaited, one after the other",
        kind: work(300_000),
        figures: NS_PER_TASK,
    },
    Workload {
        name: "spawn-eager",
        words: "the same where the call that spawns a task polls it, too",
        kind: work(300_000),
        figures: NS_PER_TASK,
    },
    Workload {
        name: "yield",
        words: "1,000 tasks that give way in turn",
        kind: work(1_000_000),
        figures: &[figure("ns_per_yield", "time per yield", "ns", 1.0, true)],
    },
    Workload {
        name: "timers-ordered",
        words: "a million timers set in the order of their deadlines, then all cancelled",
        kind: work(1_000_000),
        figures: TIMERS,
    },
    Workload {
        name: "timers-random",
        words: "a million timers set with random deadlines, then all cancelled",
        kind: work(1_000_000),
        figures: TIMERS,
    },
    Workload {
        name: "sleeps",
        words: "100,000 tasks that each sleep a random time of 1 to 1,000 ms",
        kind: Kind::Work(Work { count: 100_000, rounds: 1, two_cores: false }),
        figures: &[
            figure("late_p99_us", "lateness, 99 %", "µs", 1.0, true),
            figure("cpu_ms", "CPU", "ms", 1.0, true),
            figure("late_p50_us", "lateness, median", "µs", 1.0, false),
            figure("late_max_us", "lateness, most", "µs", 1.0, false),
            figure("early", "woken too early", "", 1.0, false),
        ],
    },
    Workload {
        name: "idle-tasks",
        words: "memory of 100,000 tasks that wait for ever on a future of 8 bytes",
        kind: Kind::Work(Work { count: 100_000, rounds: 1, two_cores: false }),
        figures: &[
            figure("bytes_per_task", "memory per task", "B", 1.0, true),
            figure("bytes_beyond_future", "of these beyond its future", "B", 1.0, false),
            figure("heap_bytes_per_task", "asked of the allocator", "B", 1.0, false),
        ],
    },
    Workload {
        name: "cross-round-trip",
        words: "a message to another core's runtime and back, both parked while they wait; for 2 s at most",
        kind: Kind::Work(Work { count: 100_000, rounds: 3, two_cores: true }),
        figures: &[
            figure("mean_ns", "round trip, mean", "µs", 1e3, true),
            figure("p50_ns", "round trip, median", "µs", 1e3, false),
            figure("p99_ns", "round trip, 99 %", "µs", 1e3, false),
        ],
    },
    Workload {
        name: "cross-one-way",
        words: "numbers through a channel to a runtime on another core",
        kind: Kind::Work(Work { count: 5_000_000, rounds: 3, two_cores: true }),
        figures: &[Figure {
            less_is_better: false,
            ..figure("m_per_s", "messages per second", "M/s", 1.0, true)
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Vec<&'static str> {
        let asked: Vec<String> = asked.iter().map(|name| name.to_string()).collect();
        select(&asked).unwrap().iter().map(|workload| workload.name).collect()
    }

    #[test]
    fn groups_and_names_select_in_a_fixed_order() {
        assert_eq!(names(&["yield", "echo-64"]), ["echo-64", "yield"]);
        assert_eq!(names(&[]), names(&["all"]));
        assert_eq!(names(&["echo"]).len() + names(&["tasks"]).len(), WORKLOADS.len());
        assert_eq!(names(&["echo", "echo-1"]), names(&["echo"]));
        let error = select(&["echo-2".into()]).unwrap_err();
        assert!(error.contains("no workload 'echo-2'") && error.contains("echo-1000"), "{error}");
    }

    #[test]
    fn names_are_unique_and_each_has_a_headline_first() {
        for (i, workload) in WORKLOADS.iter().enumerate() {
            assert!(WORKLOADS[..i].iter().all(|other| other.name != workload.name));
            assert!(workload.figures[0].headline, "{}", workload.name);
        }
        assert!(find(CALIBRATION).is_some());
    }
}
