//! tokio: its epoll loop, as a current-thread runtime and as a multi-thread one.
//!
//! The multi-thread runtime is built on a thread that is pinned already and so chooses one worker
//! by itself. The work runs in spawned tasks with both: `block_on` polls its own future outside
//! of the workers.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use peers_common::work::{self, Shared};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

const PEER: Peer = Peer {
    runtime: "tokio",
    version: "1.54.1",
    variants: &["current-thread", "multi-thread"],
    ring: false,
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

fn runtime(variant: &str) -> io::Result<Runtime> {
    let mut builder = match variant {
        "multi-thread" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

/// Runs the body as a task of a fresh runtime.
fn run<F>(variant: &str, body: F) -> Result<F::Output, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    let runtime = runtime(variant)?;
    Ok(runtime.block_on(async { tokio::spawn(body).await })?)
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    listener.set_nonblocking(true)?;
    let buffer_size = echo.buffer_size;
    run(&echo.variant, async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream, buffer_size));
        }
    })?
}

/// Ends when the client does, or with an error, which concerns this connection only.
async fn serve(mut stream: TcpStream, buffer_size: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer_size];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Shared| drop(tokio::spawn(async move { work::Tally::add(tally) }));
    run(&work.variant, work::spawn_batch(work.count, spawn, yield_now))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let count = work.count;
    run(&work.variant, async move {
        work::spawn_each(count, |number| {
            let handle = tokio::spawn(async move { number });
            async { handle.await.expect("no task panics") }
        })
        .await
    })
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Shared| {
        tokio::spawn(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            work::Tally::add(tally);
        });
    };
    run(&work.variant, work::yields(work.count, spawn, yield_now))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    // Without its budget a task could register a hundred timers a poll only.
    run(&work.variant, unconstrained(work::timers(work.count, false, sleep)))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, unconstrained(work::timers(work.count, true, sleep)))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        tokio::spawn(async move {
            sleep_until(Instant::from_std(sleeper.deadline())).await;
            sleeper.woke();
        });
    };
    run(&work.variant, work::sleeps(work.count, spawn, sleep))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let spawn = |idle| drop(tokio::spawn(idle));
    run(&work.variant, work::idle_tasks(work.count, spawn, yield_now))
}

const CHANNEL: &str = "tokio::sync::mpsc::channel(1024)";

const CAPACITY: usize = 1024;

/// A bounded channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, mut asked) = mpsc::channel::<u64>(CAPACITY);
    let (answer, mut answered) = mpsc::channel(CAPACITY);
    let variant = work.variant.clone();
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            while let Some(number) = asked.recv().await {
                answer.send(number + 1).await.expect("the asking side waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(&work.variant, async move {
        while let Some(number) = trips.begin() {
            ask.send(number).await.expect("the other side runs");
            trips.end(answered.recv().await.expect("the other side answers"));
        }
        trips.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (sender, mut receiver) = mpsc::channel(CAPACITY);
    let (variant, count) = (work.variant.clone(), work.count);
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            for number in work::one_way_numbers(count) {
                sender.send(number).await.expect("the receiver waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let figures = run(&work.variant, async move {
        while let Some(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}
