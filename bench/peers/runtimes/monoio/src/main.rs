//! monoio: its io_uring driver as released, and with the flags that a user can put in.
//!
//! The driver is named: the fusion driver finds out at each operation which one it is. The feature
//! `sync` lets tasks be woken from another thread; without it they can't be. monoio has no channel
//! between threads itself: flume is what it uses inside for that.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::task::JoinHandle;
use monoio::time::{Instant, TimeDriver, sleep, sleep_until};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use peers_common::work::{self, Local, Tally};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};

const PEER: Peer = Peer {
    runtime: "monoio",
    version: "0.2.4",
    variants: &["released", "flags"],
    ring: true,
    spins: &[],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        Workload { name: "timers-ordered", run: timers_ordered },
        Workload { name: "timers-random", run: timers_random },
        Workload { name: "sleeps", run: sleeps },
        Workload { name: "idle-tasks", run: idle_tasks },
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[
        work::NOT_EAGER,
        (
            "yield",
            "there is no yield_now, and a task that wakes itself goes to the front of the queue",
        ),
    ],
};

const CHANNEL: &str = "flume::bounded(1024)";

const CAPACITY: usize = 1024;

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

fn runtime(variant: &str) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut uring = io_uring::IoUring::builder();
    if variant == "flags" {
        // Completions are then worked off by the loop that waits for them, without interrupts.
        uring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new().uring_builder(uring).enable_timer().build()
}

/// Runs the body as a task of a fresh runtime.
fn run<F: Future + 'static>(variant: &str, body: F) -> Result<F::Output, Failure> {
    Ok(runtime(variant)?.block_on(async { monoio::spawn(body).await }))
}

/// Lets what is queued run: an empty task goes to the back of the queue, and its end wakes the
/// caller. (A task that wakes itself would be the next to run.)
fn give_way() -> JoinHandle<()> {
    monoio::spawn(async {})
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(&echo.variant, async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(serve(stream, buffer_size));
        }
    })?
}

/// Ends when the client does, or with an error, which concerns this connection only.
async fn serve(mut stream: TcpStream, buffer_size: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(buffer_size);
    loop {
        // A read fills a vector from its start and sets its length.
        let (length, filled) = stream.read(buffer).await;
        if length? == 0 {
            return Ok(());
        }
        let (written, back) = stream.write_all(filled).await;
        written?;
        buffer = back;
    }
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| drop(monoio::spawn(async move { tally.add() }));
    run(&work.variant, work::spawn_batch(work.count, spawn, give_way))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let spawn = |number| monoio::spawn(async move { number });
    run(&work.variant, work::spawn_each(work.count, spawn))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, work::timers(work.count, false, sleep))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, work::timers(work.count, true, sleep))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        drop(monoio::spawn(async move {
            sleep_until(Instant::from_std(sleeper.deadline())).await;
            sleeper.woke();
        }))
    };
    run(&work.variant, work::sleeps(work.count, spawn, sleep))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    // A task without waker and handle would be freed at once; forgetting one costs no memory.
    let spawn = |idle| std::mem::forget(monoio::spawn(idle));
    run(&work.variant, work::idle_tasks(work.count, spawn, give_way))
}

/// A bounded channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, asked) = flume::bounded::<u64>(CAPACITY);
    let (answer, answered) = flume::bounded(CAPACITY);
    let variant = work.variant.clone();
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            while let Ok(number) = asked.recv_async().await {
                answer.send_async(number + 1).await.expect("the asking side waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(&work.variant, async move {
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
    let variant = work.variant.clone();
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            for number in work::one_way_numbers(count) {
                sender.send_async(number).await.expect("the receiver waits");
            }
        })
        .expect("the runtime starts");
    });
    let mut arrivals = work::Arrivals::new(count);
    let figures = run(&work.variant, async move {
        while let Ok(number) = receiver.recv_async().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")?;
    Ok(figures)
}
