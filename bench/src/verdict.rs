//! Whether a run measured the server, or its own generator.
//!
//! Owns the rules and their thresholds. Pure: figures in, verdict out. Each reason and note says
//! what to change. A *reason* makes the run invalid: its latencies must not be quoted. A *note*
//! tells a reader what the figures do and don't show.

use serde::Serialize;

use crate::report::core::{CoreRow, Role, per};
use crate::report::units::{core_ranges, grouped, percent, time_ns};
use crate::stats::Summary;

/// At this share of its CPU a thread is taken for full: it can't be told whether it would have
/// done more. The rest is what the system takes for interrupts and its own threads.
const BUSY_PERCENT: f64 = 95.0;

/// Of the asked rate, what an open loop must reach. A healthy one is within 0.1 %; a whole percent
/// missing means a backlog that grows, and percentiles that depend on how long one waited.
const RATE_REACHED: f64 = 0.99;

/// The lag below which nothing is objected to: one sleep and wake of a virtual CPU can take
/// this long (the baseline machine's p99 of a single connection is 67 µs), and a generator that
/// doesn't spin can't be better than that.
const LAG_NS_TOLERATED: u64 = 100_000;

/// The share of the corrected p50 or p99 that may be the generator's own lag. The corrected
/// latency includes the lag, so beyond a half the headline figure says more about the generator
/// than the server; p50 and p99 are looked at each for itself, since a slow tail of the server
/// would hide that every send was late. A fixed bound (1 ms, say) would pass a generator that made 900
/// µs out of a p99 of
/// 100 µs, and condemn one that added 2 ms to a server's 500.
const LAG_SHARE: f64 = 0.5;

/// The share from which on a reader is told, though the run stands.
const LAG_SHARE_NOTED: f64 = 0.1;

/// Waiting this long for its own CPU, a thread shared it with something that isn't measured.
const RUN_DELAY_PERCENT: f64 = 5.0;

const BBR_NOTE: &str = "congestion control is bbr, which paces sends by timers on loopback too: \
                        compare only with runs under bbr, or set net.ipv4.tcp_congestion_control \
                        to cubic or reno";

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'a> {
    /// Rows of the report, servers' and load's.
    pub cores: &'a [CoreRow],
    /// Answers within the window.
    pub requests: u64,
    /// Failed requests and connections.
    pub errors: u64,
    /// Requests that were not answered, however long one waited.
    pub unanswered: u64,
    /// Length of the window.
    pub window_ns: u64,
    /// The schedule, in an open loop.
    pub open: Option<OpenFigures>,
    /// Latencies above the histograms' bound.
    pub clipped: u64,
    /// Load cores that gave no figures.
    pub missing: &'a [usize],
    /// TCP congestion control of new sockets.
    pub congestion_control: Option<&'a str>,
}

/// The schedule of an open loop, and how it was kept.
#[derive(Clone, Copy, Debug)]
pub struct OpenFigures {
    /// Requests per second asked for.
    pub rate: u64,
    /// Whether the requests' times were random, so that their number is too.
    pub random: bool,
    /// Latency from the intended send time.
    pub corrected: Summary,
    /// The generator's lag.
    pub lag: Summary,
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the figures may be quoted.
    pub valid: bool,
    /// Whether the generator set the pace, or what it added to the latencies may not be told from the
    /// server's part.
    pub generator_limited: bool,
    /// Why not; empty if valid.
    pub reasons: Vec<String>,
    /// Those of the reasons that the server, or a load core that is gone, has to answer for: answers that
    /// are missing, and a rate that was not reached though the generator had the time for it.
    pub server_reasons: Vec<String>,
    /// What a reader should know, valid or not.
    pub notes: Vec<String>,
}

/// Judges a run.
pub fn judge(run: &Figures<'_>) -> Verdict {
    let generator_limited = generator_limited(run);
    let mut server_reasons = incomplete(run);
    let mut reasons = server_reasons.clone();
    let mut notes = Vec::new();
    if let Some(open) = &run.open {
        let missed = missed_rate(run, open);
        // Who was full, or late, may have been so for the server's sake: it can't be told.
        if !generator_limited {
            server_reasons.extend(missed.clone());
        }
        reasons.extend(missed);
        reasons.extend(generator_reasons(run, open));
        notes.extend(lag_note(open));
    }
    notes.extend(limit_note(run));
    notes.extend(shared_note(run.cores));
    notes.extend(disturbed_note(run.cores));
    if run.congestion_control == Some("bbr") {
        notes.push(BBR_NOTE.into());
    }
    if run.clipped > 0 {
        let count = grouped(run.clipped);
        notes.push(format!("{count} latencies above 60 s are counted as 60 s"));
    }
    Verdict { valid: reasons.is_empty(), generator_limited, reasons, server_reasons, notes }
}

/// In an open loop: its CPU was full, or its lag spoils a percentile. In a closed one: its CPU was full and
/// the server's, if it is known, was not.
fn generator_limited(run: &Figures<'_>) -> bool {
    let full = busiest(run.cores, Role::Load).is_some_and(|load| load >= BUSY_PERCENT);
    match &run.open {
        Some(open) => full || worst_lag(open).is_some_and(|worst| spoils(&worst)),
        None => full && busiest(run.cores, Role::Server).is_none_or(|server| server < BUSY_PERCENT),
    }
}

fn incomplete(run: &Figures<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if !run.missing.is_empty() {
        reasons.push(format!(
            "load core {} did not report in time: the server may hang, or the core be overloaded; \
             try fewer connections",
            core_ranges(run.missing)
        ));
    }
    if run.errors > 0 {
        reasons.push(format!(
            "{} requests or connections failed: see the server's messages and `doctor`, and try \
             fewer connections",
            grouped(run.errors)
        ));
    }
    if run.unanswered > 0 && run.requests > 0 {
        reasons.push(format!(
            "{} requests were still unanswered when the wait for the last answers was over: the \
             longest latencies are missing from the figures",
            grouped(run.unanswered)
        ));
    }
    if run.requests == 0 {
        reasons.push(
            "no request was answered within the measured time: check that the server runs and \
             speaks this protocol, or measure longer (--duration)"
                .into(),
        );
    }
    reasons
}

fn missed_rate(run: &Figures<'_>, open: &OpenFigures) -> Option<String> {
    let reached = 1e9 * per(run.requests, run.window_ns);
    let (load, server) = (busiest(run.cores, Role::Load), busiest(run.cores, Role::Server));
    if reached < least_rate(open, run.window_ns) && run.requests > 0 {
        let remedy = match (load, server) {
            (Some(load), _) if load >= BUSY_PERCENT => "use more load cores or a lower --rate",
            (_, Some(server)) if server >= BUSY_PERCENT => {
                "the server's CPU was full: lower --rate, or give it more cores"
            }
            _ => "lower --rate, or let more be in flight (--connections, --depth)",
        };
        return Some(format!(
            "{} requests/s were reached of {} asked for ({}): {remedy}",
            grouped(reached.round() as u64),
            grouped(open.rate),
            percent(100.0 * reached / open.rate as f64)
        ));
    }
    None
}

fn generator_reasons(run: &Figures<'_>, open: &OpenFigures) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some((point, lag_ns, latency_ns)) = worst_lag(open).filter(spoils) {
        reasons.push(format!(
            "the generator lagged behind its schedule, {point} {} of a latency {point} of {}: use \
             more load cores, a lower --rate or fewer --connections",
            time_ns(lag_ns as f64),
            time_ns(latency_ns as f64)
        ));
    }
    if let Some(load) = busiest(run.cores, Role::Load).filter(|load| *load >= BUSY_PERCENT) {
        reasons.push(format!(
            "the generator's CPU was full ({}), so its send times can't be trusted: use more load \
             cores or a lower --rate",
            percent(load)
        ));
    }
    reasons
}

/// What must be reached. The number of random requests differs from the mean by its root now and then,
/// and by four times that about never.
fn least_rate(open: &OpenFigures, window_ns: u64) -> f64 {
    let rate = open.rate as f64;
    let seconds = (window_ns as f64 / 1e9).max(1e-3);
    let chance = if open.random { 4.0 * (rate / seconds).sqrt() } else { 0.0 };
    RATE_REACHED * rate - chance
}

fn lag_note(open: &OpenFigures) -> Option<String> {
    let worst = worst_lag(open).filter(|worst| !spoils(worst))?;
    let (point, lag_ns, latency_ns) = worst;
    (per(lag_ns, latency_ns) > LAG_SHARE_NOTED).then(|| {
        format!(
            "of the corrected {point} ({}) up to {} may be the generator's own lag: the server's \
             lies between it and the uncorrected one",
            time_ns(latency_ns as f64),
            time_ns(lag_ns as f64)
        )
    })
}

/// Percentile, lag and corrected latency where the lag has the larger share; one that spoils the
/// run goes before one that doesn't.
fn worst_lag(open: &OpenFigures) -> Option<(&'static str, u64, u64)> {
    let points = [
        ("p50", open.lag.p50_ns, open.corrected.p50_ns),
        ("p99", open.lag.p99_ns, open.corrected.p99_ns),
    ];
    let weight = |point: &(&str, u64, u64)| (spoils(point), per(point.1, point.2));
    points.into_iter().max_by(|a, b| {
        let (a, b) = (weight(a), weight(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    })
}

fn spoils(&(_, lag_ns, latency_ns): &(&str, u64, u64)) -> bool {
    lag_ns > LAG_NS_TOLERATED && lag_ns as f64 > LAG_SHARE * latency_ns as f64
}

/// Which side set the pace of a closed loop; an open loop's pace is asked for.
fn limit_note(run: &Figures<'_>) -> Option<String> {
    if run.open.is_some() || !shared(run.cores).is_empty() {
        return None;
    }
    let load = busiest(run.cores, Role::Load)?;
    match busiest(run.cores, Role::Server) {
        Some(server) if load >= BUSY_PERCENT && server < BUSY_PERCENT => Some(format!(
            "the load side was the limit: server at {}, load at {} of a core; use more load cores \
             to see what the server can do",
            percent(server),
            percent(load)
        )),
        Some(server) if server >= BUSY_PERCENT && load < BUSY_PERCENT => Some(format!(
            "the server was the limit: server at {}, load at {} of a core",
            percent(server),
            percent(load)
        )),
        Some(server) if server >= BUSY_PERCENT => Some(format!(
            "both CPUs were full (server {}, load {}): the load side was as much the limit as the \
             server; CPU per request tells more than the rate here",
            percent(server),
            percent(load)
        )),
        None if load >= BUSY_PERCENT => Some(format!(
            "the load's CPU was full ({}): the server may be able to do more; compare with its own \
             report, or use more load cores",
            percent(load)
        )),
        _ => None,
    }
}

fn shared_note(cores: &[CoreRow]) -> Option<String> {
    let shared = shared(cores);
    (!shared.is_empty()).then(|| {
        format!(
            "server and load shared CPU {}: rate and latency are those of both together; CPU per \
             request is still told apart",
            core_ranges(&shared)
        )
    })
}

fn disturbed_note(cores: &[CoreRow]) -> Option<String> {
    // On a shared CPU the two sides wait for each other: that has been said already.
    let shared = shared(cores);
    let delay = |row: &CoreRow| row.run_delay_percent.unwrap_or(0.0);
    let disturbed: Vec<&CoreRow> = cores
        .iter()
        .filter(|row| delay(row) >= RUN_DELAY_PERCENT && !shared.contains(&row.usage.core))
        .collect();
    let longest = disturbed.iter().map(|row| delay(row)).max_by(f64::total_cmp)?;
    let names: Vec<usize> = disturbed.iter().map(|row| row.usage.core).collect();
    // The runtime times its spins by the wall clock: what it lost the CPU for meanwhile is in them.
    let blurred = match disturbed.iter().any(|row| row.usage.spun_ns > 0) {
        true => {
            ". Such waits count as spun where they fell into a spin: its CPU figures are too low"
        }
        false => "",
    };
    Some(format!(
        "core {} was ready but waited for its CPU up to {} of the time: something else ran there; \
         stop it, or choose other cores{blurred}",
        core_ranges(&names),
        percent(longest)
    ))
}

/// CPUs on which both sides work.
fn shared(cores: &[CoreRow]) -> Vec<usize> {
    let of = |role| cores.iter().filter(move |row| row.usage.role == role).map(|r| r.usage.core);
    of(Role::Server).filter(|server| of(Role::Load).any(|load| load == *server)).collect()
}

/// The fullest core of a side: connections are spread evenly, so it holds all of them back.
fn busiest(cores: &[CoreRow], role: Role) -> Option<f64> {
    let side = cores.iter().filter(|row| row.usage.role == role);
    side.map(|row| row.cpu_percent).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests;
