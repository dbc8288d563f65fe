//! One connection at growing gaps between requests: what the server's spin costs and brings.
//!
//! Owns the sweep. For each way to spin it starts `coreloop-bench serve echo` and sends
//! one request after the other, each a gap after the answer to the last. The client never sleeps (gaps from
//! 1 ms on are slept, its wait for an answer is not), so that what is seen is the server's own waking up.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

/// Latency and CPU of a server over the gap between requests, by the way it spins.
#[derive(Parser)]
struct Options {
    /// The built `coreloop-bench`.
    #[arg(long, default_value = "../../target/release/coreloop-bench")]
    bench: PathBuf,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// CPU of the server; the client takes the other one.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// CPU of the client.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// `off` twice: how much two runs of the same differ is what the other differences have to exceed.
const SPINS: [&str; 4] = ["off", "dial", "50us", "off"];
const GAPS_US: [u64; 11] = [0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000];

/// One run's figures.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    cpu_us: f64,
    core_share: f64,
    p50_us: f64,
}

fn main() -> ExitCode {
    match sweep(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("gaps: {why}");
            ExitCode::FAILURE
        }
    }
}

fn sweep(options: &Options) -> Result<(), String> {
    let mut all: BTreeMap<(usize, u64), Vec<Figures>> = BTreeMap::new();
    for round in 0..options.rounds {
        for turn in 0..SPINS.len() {
            let spin = (turn + round as usize) % SPINS.len();
            eprint!("\rround {} of {}, spin {:<5}", round + 1, options.rounds, SPINS[spin]);
            let (mut server, addr) = serve(options, SPINS[spin])?;
            let measured = measure(options, &addr, server.id());
            let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
            let _ = server.wait();
            for (gap, figures) in measured? {
                all.entry((spin, gap)).or_default().push(figures);
            }
        }
    }
    eprint!("\r{:40}\r", "");
    report(&all);
    Ok(())
}

fn serve(options: &Options, spin: &str) -> Result<(Child, String), String> {
    let mut child = Command::new(&options.bench)
        .args(["serve", "echo", "--addr", "127.0.0.1:0", "--congestion", "reno", "--spin", spin])
        .args(["--cores", &options.server_core.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", options.bench.display()))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some(at) = line.find("listening 127.0.0.1:") {
            let addr = line[at..].split_whitespace().nth(1).unwrap_or_default().to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((child, addr));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err("the server told no address".into())
}

fn measure(options: &Options, addr: &str, pid: u32) -> Result<Vec<(u64, Figures)>, String> {
    // On a thread of its own, so that the servers that are started later inherit no pinning.
    let (addr, core) = (addr.to_owned(), options.client_core);
    let client = std::thread::spawn(move || {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
        let mut stream = TcpStream::connect(&addr).map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        GAPS_US.iter().map(|gap| Ok((*gap, at_gap(&mut stream, *gap, pid)?))).collect()
    });
    client.join().map_err(|_| "the client panicked".to_owned())?
}

fn at_gap(stream: &mut TcpStream, gap_us: u64, pid: u32) -> Result<Figures, String> {
    let (warmup, window) = (Duration::from_millis(200), Duration::from_millis(500));
    let gap = Duration::from_micros(gap_us);
    let began = Instant::now();
    while began.elapsed() < warmup {
        request(stream)?;
        pause(gap);
    }
    let mut latencies = Vec::new();
    let cpu = cpu_ns(pid)?;
    let began = Instant::now();
    while began.elapsed() < window {
        latencies.push(request(stream)?.as_nanos() as f64);
        pause(gap);
    }
    let wall = began.elapsed().as_nanos() as f64;
    let cpu = (cpu_ns(pid)? - cpu) as f64;
    let n = latencies.len() as f64;
    Ok(Figures {
        rate: n / wall * 1e9,
        cpu_us: cpu / n / 1e3,
        core_share: cpu / wall,
        p50_us: median(latencies) / 1e3,
    })
}

fn request(stream: &mut TcpStream) -> Result<Duration, String> {
    let mut answer = [0; 64];
    let sent = Instant::now();
    stream.write_all(&[7; 64]).map_err(|e| e.to_string())?;
    let mut got = 0;
    while got < answer.len() {
        match stream.read(&mut answer[got..]) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(e) => return Err(e.to_string()),
        }
        if sent.elapsed() > Duration::from_secs(5) {
            return Err("no answer within 5 s".into());
        }
    }
    Ok(sent.elapsed())
}

fn pause(gap: Duration) {
    if gap >= Duration::from_millis(1) {
        std::thread::sleep(gap);
        return;
    }
    let until = Instant::now() + gap;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// CPU time of all threads of a process.
fn cpu_ns(pid: u32) -> Result<u64, String> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())? {
        let path = task.map_err(|e| e.to_string())?.path().join("schedstat");
        let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
        sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

fn report(all: &BTreeMap<(usize, u64), Vec<Figures>>) {
    print!("gap µs");
    for spin in SPINS {
        print!(" | {:^29}", format!("spin {spin}"));
    }
    println!(" | dial against off         | off against off");
    print!("      ");
    for _ in SPINS {
        print!(" |   k/s  CPU µs  core %  p50 µs");
    }
    println!(" |  CPU   p50  rate  holds |  CPU   p50");
    for gap in GAPS_US {
        print!("{gap:>6}");
        let middle: Vec<Figures> = (0..SPINS.len()).map(|spin| mid(&all[&(spin, gap)])).collect();
        for f in &middle {
            let (rate, share) = (f.rate / 1e3, f.core_share * 100.0);
            print!(" | {rate:>5.1} {:>7.1} {share:>7.1} {:>7.1}", f.cpu_us, f.p50_us);
        }
        let (off, dial, again) = (middle[0], middle[1], middle[3]);
        // At the same rate of requests: 2.5 times the CPU of no spin and 2 % of a core beside.
        let allowed = 2.5 * off.cpu_us + 0.02 / dial.rate * 1e6;
        println!(
            " | {:>4.2}  {:>4.2}  {:>4.2}    {:<3} | {:>4.2}  {:>4.2}",
            dial.cpu_us / off.cpu_us,
            dial.p50_us / off.p50_us,
            dial.rate / off.rate,
            if dial.cpu_us <= allowed { "yes" } else { "NO" },
            again.cpu_us / off.cpu_us,
            again.p50_us / off.p50_us,
        );
    }
}

fn mid(runs: &[Figures]) -> Figures {
    let of = |f: fn(&Figures) -> f64| median(runs.iter().map(f).collect());
    Figures {
        rate: of(|f| f.rate),
        cpu_us: of(|f| f.cpu_us),
        core_share: of(|f| f.core_share),
        p50_us: of(|f| f.p50_us),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
