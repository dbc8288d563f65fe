//! compio: its io_uring driver with the flags that its builder offers.
//!
//! The loop is the only one that submits to the ring, so all three flags may be set. compio has no
//! channel between threads itself: flume is what its dispatcher uses.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{RuntimeBuilder, spawn};
use compio::time::{sleep, sleep_until};
use peers_common::work::{self, Local, Tally, WakeSelf};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};

const PEER: Peer = Peer {
    runtime: "compio",
    version: "0.19.2",
    variants: &["flags"],
    ring: true,
    spins: &[],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        Workload { name: "yield", run: yields },
        Workload { name: "timers-ordered", run: timers_ordered },
        Workload { name: "timers-random", run: timers_random },
        Workload { name: "sleeps", run: sleeps },
        Workload { name: "idle-tasks", run: idle_tasks },
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[work::NOT_EAGER],
};

const CHANNEL: &str = "flume::bounded(1024)";

const CAPACITY: usize = 1024;

/// What `yield` was measured with.
const NOTE: &str = "no yield_now: a future that wakes its own task";

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

/// Runs the body on a fresh runtime, where `compio::main` has it too. In a spawned task it would be
/// dearer: each wait for another task takes two turns of the loop there, which enter the kernel.
fn run<F: Future>(body: F) -> Result<F::Output, Failure> {
    let mut proactor = ProactorBuilder::new();
    proactor.single_issuer(true).coop_taskrun(true).defer_taskrun(true);
    let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
    Ok(runtime.block_on(body))
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            spawn(serve(stream, buffer_size)).detach();
        }
    })?
}

/// Ends when the client does, or with an error, which concerns this connection only.
async fn serve(mut stream: TcpStream, buffer_size: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(buffer_size);
    loop {
        // A read fills a vector from its start but never shortens it.
        buffer.clear();
        let BufResult(length, filled) = stream.read(buffer).await;
        if length? == 0 {
            return Ok(());
        }
        let BufResult(written, back) = stream.write_all(filled).await;
        written?;
        buffer = back;
    }
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| compio::runtime::spawn(async move { tally.add() }).detach();
    run(work::spawn_batch(work.count, spawn, WakeSelf::default))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let spawn = |number| {
        let handle = compio::runtime::spawn(async move { number });
        async { handle.await.expect("no task panics") }
    };
    run(work::spawn_each(work.count, spawn))
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        compio::runtime::spawn(async move {
            for _ in 0..turns {
                WakeSelf::default().await;
            }
            tally.add();
        })
        .detach()
    };
    let figures = run(work::yields(work.count, spawn, WakeSelf::default))?;
    Ok(figures.text("note", NOTE))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    run(work::timers(work.count, false, sleep))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(work::timers(work.count, true, sleep))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        compio::runtime::spawn(async move {
            sleep_until(sleeper.deadline()).await;
            sleeper.woke();
        })
        .detach()
    };
    run(work::sleeps(work.count, spawn, sleep))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let spawn = |idle| compio::runtime::spawn(idle).detach();
    run(work::idle_tasks(work.count, spawn, WakeSelf::default))
}

/// A bounded channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, asked) = flume::bounded::<u64>(CAPACITY);
    let (answer, answered) = flume::bounded(CAPACITY);
    let other = process::on_core(work.second_core, move || {
        run(async move {
            while let Ok(number) = asked.recv_async().await {
                answer.send_async(number + 1).await.expect("the asking side waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(async move {
        while let Some(number) = trips.begin() {
            ask.send_async(number).await.expect("the other side runs");
            trips.end(answered.recv_async().await.expect("the other side answers"));
        }
        trips.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (sender, receiver) = flume::bounded(CAPACITY);
    let count = work.count;
    let other = process::on_core(work.second_core, move || {
        run(async move {
            for number in work::one_way_numbers(count) {
                sender.send_async(number).await.expect("the receiver waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut arrivals = work::Arrivals::new(count);
    let figures = run(async move {
        while let Ok(number) = receiver.recv_async().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}
