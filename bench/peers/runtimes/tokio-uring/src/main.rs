//! tokio-uring: tokio's current-thread runtime with a ring that it polls through epoll.
//!
//! Tasks, timers and channels are tokio's own, in the `LocalSet` that tokio-uring runs everything
//! in; the sockets are tokio-uring's.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use peers_common::work::{self, Local};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};
use tokio_uring::{Runtime, spawn};

const PEER: Peer = Peer {
    runtime: "tokio-uring",
    version: "0.5.0",
    variants: &["default"],
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

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

/// Runs the body as a task: the one that `block_on` polls is woken by way of another.
fn run<F: Future + 'static>(body: F) -> Result<F::Output, Failure> {
    let runtime = Runtime::new(&tokio_uring::builder())?;
    Ok(runtime.block_on(async { spawn(body).await })?)
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(async move {
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            spawn(serve(stream, buffer_size));
        }
    })?
}

/// Ends when the client does, or with an error, which concerns this connection only.
async fn serve(stream: TcpStream, buffer_size: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer_size];
    loop {
        let (length, read) = stream.read(buffer).await;
        let length = length?;
        if length == 0 {
            return Ok(());
        }
        let (written, sent) = stream.write_all(read.slice(..length)).await;
        written?;
        buffer = sent.into_inner();
    }
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| drop(spawn(async move { work::Tally::add(tally) }));
    run(work::spawn_batch(work.count, spawn, yield_now))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    run(work::spawn_each(work.count, |number| {
        let handle = spawn(async move { number });
        async { handle.await.expect("no task panics") }
    }))
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        spawn(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            work::Tally::add(tally);
        });
    };
    run(work::yields(work.count, spawn, yield_now))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    // Without its budget a task could register a hundred timers a poll only.
    run(unconstrained(work::timers(work.count, false, sleep)))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(unconstrained(work::timers(work.count, true, sleep)))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        spawn(async move {
            sleep_until(Instant::from_std(sleeper.deadline())).await;
            sleeper.woke();
        });
    };
    run(work::sleeps(work.count, spawn, sleep))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    run(work::idle_tasks(work.count, |idle| drop(spawn(idle)), yield_now))
}

const CHANNEL: &str = "tokio::sync::mpsc::channel(1024)";

const CAPACITY: usize = 1024;

/// A bounded channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, mut asked) = mpsc::channel::<u64>(CAPACITY);
    let (answer, mut answered) = mpsc::channel(CAPACITY);
    let other = process::on_core(work.second_core, move || {
        run(async move {
            while let Some(number) = asked.recv().await {
                answer.send(number + 1).await.expect("the asking side waits");
            }
        })
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(async move {
        while let Some(number) = trips.begin() {
            ask.send(number).await.expect("the other side runs");
            trips.end(answered.recv().await.expect("the other side answers"));
        }
        trips.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (sender, mut receiver) = mpsc::channel(CAPACITY);
    let count = work.count;
    let other = process::on_core(work.second_core, move || {
        run(async move {
            for number in work::one_way_numbers(count) {
                sender.send(number).await.expect("the receiver waits");
            }
        })
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let figures = run(async move {
        while let Some(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}
