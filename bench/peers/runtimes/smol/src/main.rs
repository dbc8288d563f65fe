//! smol: a local executor in `block_on`, which is how one thread runs it.
//!
//! async-io has a thread of its own beside it, which steps in where nobody polls; it is on the
//! same core. The global executor would be one more thread and synchronized queues.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use peers_common::work::{self, Local, Tally};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};
use smol::future::yield_now;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{Async, LocalExecutor, Task, Timer, channel};

const PEER: Peer = Peer {
    runtime: "smol",
    version: "2.0.2",
    variants: &["default"],
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

const CHANNEL: &str = "smol::channel::bounded(1024)";

const CAPACITY: usize = 1024;

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

thread_local! {
    /// For ever, so that tasks may hold it; one for each thread.
    static EXECUTOR: &'static LocalExecutor<'static> = Box::leak(Box::new(LocalExecutor::new()));
}

fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    EXECUTOR.with(|executor| executor.spawn(future))
}

/// Runs the body as a task: what `run` is given is polled outside of the executor's queue.
fn run<F: Future + 'static>(body: F) -> Result<F::Output, Failure> {
    let executor = EXECUTOR.with(|executor| *executor);
    Ok(smol::block_on(executor.run(executor.spawn(body))))
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(async move {
        let listener = TcpListener::from(Async::new(listener)?);
        loop {
            let (stream, _) = listener.accept().await?;
            spawn(serve(stream, buffer_size)).detach();
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
    let spawn = |tally: Local| crate::spawn(async move { tally.add() }).detach();
    run(work::spawn_batch(work.count, spawn, yield_now))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let spawn = |number| crate::spawn(async move { number });
    run(work::spawn_each(work.count, spawn))
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        crate::spawn(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            tally.add();
        })
        .detach()
    };
    run(work::yields(work.count, spawn, yield_now))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    run(work::timers(work.count, false, Timer::after))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(work::timers(work.count, true, Timer::after))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        crate::spawn(async move {
            Timer::at(sleeper.deadline()).await;
            sleeper.woke();
        })
        .detach()
    };
    run(work::sleeps(work.count, spawn, Timer::after))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let spawn = |idle| crate::spawn(idle).detach();
    run(work::idle_tasks(work.count, spawn, yield_now))
}

/// A bounded channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, asked) = channel::bounded::<u64>(CAPACITY);
    let (answer, answered) = channel::bounded(CAPACITY);
    let other = process::on_core(work.second_core, move || {
        run(async move {
            while let Ok(number) = asked.recv().await {
                answer.send(number + 1).await.expect("the asking side waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(async move {
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
    let (sender, receiver) = channel::bounded(CAPACITY);
    let count = work.count;
    let other = process::on_core(work.second_core, move || {
        run(async move {
            for number in work::one_way_numbers(count) {
                sender.send(number).await.expect("the receiver waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut arrivals = work::Arrivals::new(count);
    let figures = run(async move {
        while let Ok(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}
