//! Hours of mixed load on one machine: connections come and go, calls are cancelled, loops end and begin
//! again; every byte is looked at, and descriptors and memory are watched.
//!
//! `cargo run --release -p coreloop-tests --bin soak -- --minutes 60` (`tests/soak` runs it and the long forms
//! of the tests). The exit status is 1 if a byte was wrong, a connection hung or broke by itself, or memory
//! or descriptors grew.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use coreloop::combine::{Either, race};
use coreloop::time::{sleep, timeout};
use coreloop::{Cores, Runtime, Settings, spawn, spawn_blocking};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::{Rng, pattern, pattern_at};
use coreloop_tests::proxy::{Faults, Proxy};
use coreloop_tests::{fd_count, fds_settle_at, rss_bytes};
use socket2::{Domain, Socket, Type};

/// Whoever is dropped with a runtime has so long to go.
const SOON: Duration = Duration::from_secs(60);
/// A connection that nobody cuts and that has no byte more after so long is stuck: on a machine that has other
/// work, and with buffers for the fewest, whole ones take seconds, and a step of one does not. Well under a
/// runtime's life, so that one which is stuck is seen before it goes with the runtime.
const HANGS: Duration = Duration::from_secs(10);
/// Resident memory may grow by so much per hour once it is warm: what a leak of 100 bytes per connection
/// would be many times of.
const GROWTH_PER_HOUR: f64 = 8e6;
/// And by so much in any run: allocators keep what they once had.
const GROWTH_SLACK: f64 = 6e6;
/// What it is told from: lives with all settings in turn, twice.
const LIVES_MIN: usize = 6;

/// Mixed load for so long.
#[derive(Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Connections at a time on each core
    #[arg(long, default_value_t = 40)]
    connections: usize,
    /// Seconds that a runtime lives before it is stopped in the middle of everything and begun again; more than
    /// 10, or what hangs can't be seen
    #[arg(long, default_value_t = 20.0)]
    life: f64,
    /// Where all choices come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What has been done, over all lives.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicU64,
    /// Of those, or of those that `visit` left: to their end with no limit of time.
    patient: AtomicU64,
    left: AtomicU64,
    cut: AtomicU64,
    bytes: AtomicU64,
    cancels: AtomicU64,
    calls: AtomicU64,
    wrong: AtomicU64,
    /// Came no further, whether or not it ended after all; or ended by an error that nobody had made.
    hung: AtomicU64,
    broken: AtomicU64,
    /// Milliseconds that the slowest one took which had no limit of time.
    slowest_ms: AtomicU64,
}

impl Tally {
    fn add(of: &AtomicU64, n: u64) {
        of.fetch_add(n, Ordering::Relaxed);
    }

    fn line(&self) -> String {
        let n = |of: &AtomicU64| of.load(Ordering::Relaxed);
        format!(
            "{} connections whole, {} left by us, {} cut, {} with no limit (the slowest {:.1} s); \
             {:.1} GB there and back, {} calls cancelled, {} blocking calls, {} wrong, {} hung, {} broken",
            n(&self.whole),
            n(&self.left),
            n(&self.cut),
            n(&self.patient),
            n(&self.slowest_ms) as f64 / 1e3,
            n(&self.bytes) as f64 / 1e9,
            n(&self.cancels),
            n(&self.calls),
            n(&self.wrong),
            n(&self.hung),
            n(&self.broken)
        )
    }
}

async fn serve(addr: SocketAddr) -> io::Result<()> {
    // One on each core, of the same port.
    let mut listener = TcpListener::bind(addr)?;
    loop {
        let mut stream = listener.accept().await?;
        drop(spawn(async move {
            // Whoever is cut off, or leaves, ends this.
            while let Ok(Some(chunk)) = stream.recv().await {
                if stream.write_all(chunk).await.is_err() {
                    break;
                }
            }
        }));
    }
}

/// How far a connection has come, and when.
#[derive(Debug)]
struct Course(Cell<(&'static str, usize, Instant)>);

impl Course {
    fn begin() -> Rc<Self> {
        Rc::new(Self(Cell::new(("begun", 0, Instant::now()))))
    }

    fn advance(&self, what: &'static str, bytes: usize) {
        self.0.set((what, bytes, Instant::now()));
    }
}

/// A connection to its end, however long it takes. Whether it comes on another task looks at, and only looks:
/// who polled the connection now and then would make good for a wake that was lost.
async fn patiently(
    visit: impl Future<Output = io::Result<()>>,
    course: Rc<Course>,
    tally: &Arc<Tally>,
    hangs: Duration,
) -> io::Result<()> {
    let began = Instant::now();
    let watcher = spawn(watch(course, tally.clone(), hangs));
    let ended = visit.await;
    watcher.cancel();
    tally.slowest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
    ended
}

/// Counts a connection as hung that comes no further for so long, by several looks: a machine that stood
/// still is none of its doing.
async fn watch(course: Rc<Course>, tally: Arc<Tally>, hangs: Duration) {
    const LOOKS: u32 = 5;
    let (mut seen, mut looks) = (course.0.get(), 0);
    while looks < LOOKS {
        sleep(hangs / LOOKS).await;
        let now = course.0.get();
        (looks, seen) = if now == seen { (looks + 1, seen) } else { (0, now) };
    }
    let (what, bytes, since) = seen;
    eprintln!("soak: stuck: {bytes} bytes {what}, and nothing for {:.1?}", since.elapsed());
    Tally::add(&tally.hung, 1);
}

/// One connection: so many bytes there and back, looked at, with calls cancelled on the way; now and then it
/// is left in the middle. `course` says how far it has come.
async fn visit(
    addr: SocketAddr,
    mut rng: Rng,
    tally: Arc<Tally>,
    course: Rc<Course>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    course.advance("connected", 0);
    let (len, base) = (1 + rng.below(200_000) as usize, rng.below(1 << 20) as usize);
    let leave_at = if rng.below(10) == 0 { rng.below(len as u64) as usize } else { usize::MAX };
    let mut at = 0;
    while at < len {
        let n = (1 + rng.below(12_000) as usize).min(len - at);
        stream.write_all(pattern(base + at, n)).await?;
        course.advance("written", n);
        let mut back = 0;
        while back < n {
            // A limit that may be too short: what is cancelled loses nothing.
            let chunk = if rng.below(4) == 0 {
                let limit = Duration::from_micros(rng.below(200));
                match timeout(limit, stream.recv()).await {
                    Ok(chunk) => chunk?,
                    Err(_) => {
                        Tally::add(&tally.cancels, 1);
                        continue;
                    }
                }
            } else {
                stream.recv().await?
            };
            let Some(chunk) = chunk else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let from = base + at + back;
            let wrong =
                chunk.iter().enumerate().filter(|(i, b)| **b != pattern_at(from + i)).count();
            Tally::add(&tally.wrong, wrong as u64);
            back += chunk.len();
            course.advance("come back", at + back);
        }
        at += n;
        Tally::add(&tally.bytes, n as u64);
        if at > leave_at {
            Tally::add(&tally.left, 1);
            return Ok(());
        }
    }
    Tally::add(&tally.whole, 1);
    Ok(())
}

/// Where connections go, and what has become of them.
#[derive(Clone)]
struct Field {
    direct: SocketAddr,
    /// Through a proxy that cuts.
    rough: SocketAddr,
    tally: Arc<Tally>,
    /// Set by the first core that ends, before it does: connections to it break from then on.
    ending: Arc<AtomicBool>,
}

/// Connections, one after the other, some through a proxy that cuts.
async fn visitor(field: Field, mut rng: Rng) {
    let tally = &field.tally;
    loop {
        let through = if rng.below(5) == 0 { field.rough } else { field.direct };
        let course = Course::begin();
        let visit = visit(through, Rng::new(rng.number()), tally.clone(), course.clone());
        // Half of those that nobody cuts are left to themselves: a byte that is lost shows as one that hangs.
        if through == field.direct && rng.below(2) == 0 {
            match patiently(visit, course, tally, HANGS).await {
                Ok(()) => Tally::add(&tally.patient, 1),
                Err(_) if field.ending.load(Ordering::SeqCst) => Tally::add(&tally.cut, 1),
                Err(e) => {
                    eprintln!("soak: a connection that nobody cuts: {e}");
                    Tally::add(&tally.broken, 1);
                }
            }
        } else {
            match race(visit, sleep(Duration::from_millis(1 + rng.below(400)))).await {
                Either::First(Ok(())) => {}
                Either::First(Err(_)) => Tally::add(&tally.cut, 1),
                Either::Second(()) => Tally::add(&tally.left, 1),
            }
        }
        if rng.below(8) == 0 {
            let n = rng.number();
            if spawn_blocking(move || n ^ 1).await.ok() != Some(n ^ 1) {
                Tally::add(&tally.wrong, 1);
            }
            Tally::add(&tally.calls, 1);
        }
    }
}

/// A runtime on all cores, for so long; it is stopped with everything in flight.
fn live(args: &Args, life: Duration, seed: u64, tally: &Arc<Tally>) {
    // Bound and not listening, it keeps the port from others, and takes no connection from ours.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is left");
    held.set_reuse_port(true).expect("Linux has it");
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    let addr = held.local_addr().expect("it is bound").as_socket().expect("it is IPv4");
    let proxy = Proxy::to(addr, Faults::rough(), seed);
    let connections = args.connections;
    let field =
        Field { direct: addr, rough: proxy.addr(), tally: tally.clone(), ending: Arc::default() };
    let settings = match seed % 3 {
        0 => Settings::default().ring_entries(64).cq_entries(128).buffers(4, 1024),
        1 => Settings::default().fixed_files(0),
        _ => Settings::default(),
    };
    let runtime = Runtime::builder().cores(Cores::All).settings(settings).build();
    let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
    let ended = runtime.run(move |core| {
        let field = field.clone();
        async move {
            drop(spawn(async move { serve(addr).await.expect("it listens") }));
            sleep(Duration::from_millis(50)).await;
            let mut rng = Rng::new(seed * 64 + core.index() as u64 + 1);
            let mut visitors = Vec::new();
            for _ in 0..connections {
                let rng = Rng::new(rng.number());
                visitors.push(spawn(visitor(field.clone(), rng)));
            }
            sleep(life).await;
            field.ending.store(true, Ordering::SeqCst);
            for visitor in visitors {
                assert!(!visitor.is_finished(), "a visitor ended: {:?}", visitor.await);
            }
        }
    });
    ended.map(drop).unwrap_or_else(|e| panic!("{e}"));
}

/// Bytes per hour, by least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| samples.iter().map(f).sum::<f64>() / n;
    let (t, m) = (mean(|s| s.0), mean(|s| s.1));
    let over: f64 = samples.iter().map(|s| (s.0 - t) * (s.1 - m)).sum();
    let under: f64 = samples.iter().map(|s| (s.0 - t).powi(2)).sum();
    if under > 0.0 { over / under * 3600.0 } else { 0.0 }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let whole = Duration::from_secs_f64(args.minutes * 60.0);
    let tally = Arc::<Tally>::default();
    let stop = Arc::new(AtomicBool::new(false));
    let fds = fd_count();
    let (mut samples, mut bad, mut last) = (Vec::new(), Vec::new(), Instant::now());
    let mut longest = Duration::ZERO;
    for seed in args.seed.. {
        let left = whole.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        let life = Duration::from_secs_f64(args.life).min(left.max(Duration::from_secs(1)));
        let watchdog = {
            let stop = stop.clone();
            thread::spawn(move || {
                let until = Instant::now() + life + SOON;
                while !stop.load(Ordering::SeqCst) {
                    if Instant::now() > until {
                        eprintln!("soak: the runtime of seed {seed} does not end");
                        std::process::abort();
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            })
        };
        live(&args, life, seed, &tally);
        longest = longest.max(life);
        stop.store(true, Ordering::SeqCst);
        watchdog.join().expect("it does not panic");
        stop.store(false, Ordering::SeqCst);
        let open = fds_settle_at(fds, Duration::from_secs(10));
        if open != fds {
            bad.push(format!("{open} descriptors after seed {seed}, {fds} before"));
        }
        let (at, rss) = (began.elapsed().as_secs_f64(), rss_bytes() as f64);
        // The first tenth fills caches and the allocator's arenas.
        if at > whole.as_secs_f64() / 10.0 {
            samples.push((at, rss));
        }
        if last.elapsed() > Duration::from_secs(30) || whole <= began.elapsed() {
            last = Instant::now();
            println!("{at:6.0} s, {open} descriptors, {:.1} MB: {}", rss / 1e6, tally.line());
        }
    }
    let (slope, hours) = (slope(&samples), began.elapsed().as_secs_f64() / 3600.0);
    if samples.len() < LIVES_MIN {
        println!("soak: too short to say whether memory grows");
    } else if slope * hours > GROWTH_PER_HOUR * hours + GROWTH_SLACK {
        bad.push(format!("resident memory grows by {:.1} MB an hour", slope / 1e6));
    }
    let n = |of: &AtomicU64| of.load(Ordering::Relaxed);
    if n(&tally.wrong) > 0 {
        bad.push(format!("{} wrong bytes or answers", n(&tally.wrong)));
    }
    if n(&tally.hung) > 0 {
        bad.push(format!("{} connections came no further within {HANGS:?}", n(&tally.hung)));
    }
    if n(&tally.broken) > 0 {
        bad.push(format!("{} connections ended with an error that nobody made", n(&tally.broken)));
    }
    if longest < HANGS * 3 / 2 {
        bad.push(format!("no runtime lived longer than {longest:?}: none could be seen to hang"));
    }
    let wanted = [
        (&tally.whole, "whole"),
        (&tally.patient, "waited for"),
        (&tally.cut, "cut"),
        (&tally.cancels, "cancelled"),
    ];
    for (of, what) in wanted {
        if n(of) == 0 {
            bad.push(format!("nothing was {what}: the load was not what it should be"));
        }
    }
    println!(
        "soak: {:.2} h, {} lives, memory {:+.1} MB an hour",
        hours,
        samples.len(),
        slope / 1e6
    );
    bad.iter().for_each(|why| println!("soak: BAD: {why}"));
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// What goes on when it is polled and has nobody wake it: as a connection whose wake was lost.
    #[test]
    fn soak_a_connection_whose_wake_is_lost_is_stuck() {
        let limit = Duration::from_millis(50);
        let tally = Arc::<Tally>::default();
        let told = tally.clone();
        coreloop::run(async move {
            let mut polls = 0;
            let lost = poll_fn(move |_| {
                polls += 1;
                if polls < 3 { Poll::Pending } else { Poll::Ready(Ok(())) }
            });
            let whole = patiently(lost, Course::begin(), &told, limit);
            assert!(timeout(limit * 4, whole).await.is_err(), "it was polled again");
        })
        .unwrap();
        assert_eq!(tally.hung.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn soak_a_connection_that_comes_on_slowly_is_not_stuck() {
        let limit = Duration::from_millis(100);
        let tally = Arc::<Tally>::default();
        let told = tally.clone();
        coreloop::run(async move {
            let course = Course::begin();
            let seen = course.clone();
            let slow = async move {
                for bytes in 0..20 {
                    sleep(limit / 10).await;
                    course.advance("come back", bytes);
                }
                Ok(())
            };
            patiently(slow, seen, &told, limit).await.unwrap();
        })
        .unwrap();
        assert_eq!(tally.hung.load(Ordering::Relaxed), 0);
        assert!(tally.slowest_ms.load(Ordering::Relaxed) >= 200);
    }
}
