//! glommio: an executor on the calling thread, with its three rings.
//!
//! It isn't placed by glommio, since the thread is pinned already. Its memory for storage is left
//! at the default; the future that `run` is given becomes a task by itself.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::channels::shared_channel;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, spawn_local};
use peers_common::work::{self, Local};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};

const PEER: Peer = Peer {
    runtime: "glommio",
    version: "0.9.0",
    variants: &["default", "spin"],
    ring: true,
    spins: &["spin"],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        // Its `spawn_local` polls the task at once, in both of them.
        Workload { name: "spawn-eager", run: spawn_each },
        Workload { name: "yield", run: yields },
        Workload { name: "timers-ordered", run: timers_ordered },
        Workload { name: "timers-random", run: timers_random },
        Workload { name: "sleeps", run: sleeps },
        Workload { name: "idle-tasks", run: idle_tasks },
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[],
};

const SPIN: Duration = Duration::from_micros(50);

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

fn executor(variant: &str) -> Result<LocalExecutor, Failure> {
    let builder = LocalExecutorBuilder::new(Placement::Unbound);
    let builder = if variant == "spin" { builder.spin_before_park(SPIN) } else { builder };
    builder.make().map_err(|error| error.to_string().into())
}

fn run<F: Future>(variant: &str, body: F) -> Result<F::Output, Failure> {
    Ok(executor(variant)?.run(body))
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(&echo.variant, async move {
        // SAFETY: the descriptor is a listening socket's, and nobody else's any more.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let accepted = listener.accept().await;
            let stream = accepted.map_err(|error| error.to_string())?;
            spawn_local(serve(stream, buffer_size)).detach();
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

/// As `glommio::executor().yield_now()`, which needs the executor at hand.
async fn yield_now() {
    futures_lite::future::yield_now().await;
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| drop(spawn_local(async move { work::Tally::add(tally) }).detach());
    run(&work.variant, work::spawn_batch(work.count, spawn, yield_now))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, work::spawn_each(work.count, |number| spawn_local(async move { number })))
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        spawn_local(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            work::Tally::add(tally);
        })
        .detach();
    };
    run(&work.variant, work::yields(work.count, spawn, yield_now))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    let figures = run(&work.variant, work::timers(work.count, false, Apart::new))?;
    Ok(figures.text("note", APART))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    let figures = run(&work.variant, work::timers(work.count, true, Apart::new))?;
    Ok(figures.text("note", APART))
}

/// A timer that isn't the task's own: glommio counts the wakers of a task in 16 bits, and panics
/// at the 32,768th. None of these timers fires.
struct Apart(Timer);

const APART: &str = "with a waker that does nothing: a glommio task has 32,767 wakers at most";

impl Apart {
    fn new(duration: Duration) -> Self {
        Self(Timer::new(duration))
    }
}

impl Future for Apart {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(&mut Context::from_waker(Waker::noop())).map(drop)
    }
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        spawn_local(async move {
            Timer::new(sleeper.duration()).await;
            sleeper.woke();
        })
        .detach();
    };
    run(&work.variant, work::sleeps(work.count, spawn, Timer::new))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let spawn = |idle| drop(spawn_local(idle).detach());
    run(&work.variant, work::idle_tasks(work.count, spawn, yield_now))
}

const CHANNEL: &str = "glommio::channels::shared_channel::new_bounded(1024)";

const CAPACITY: usize = 1024;

/// A channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, asked) = shared_channel::new_bounded::<u64>(CAPACITY);
    let (answer, answered) = shared_channel::new_bounded(CAPACITY);
    let variant = work.variant.clone();
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            let (asked, answer) = (asked.connect().await, answer.connect().await);
            while let Some(number) = asked.recv().await {
                answer.send(number + 1).await.expect("the asking side waits");
            }
        })
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(&work.variant, async move {
        let (ask, answered) = (ask.connect().await, answered.connect().await);
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
    let (sender, receiver) = shared_channel::new_bounded(CAPACITY);
    let (variant, count) = (work.variant.clone(), work.count);
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            let sender = sender.connect().await;
            for number in work::one_way_numbers(count) {
                sender.send(number).await.expect("the receiver waits");
            }
        })
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let figures = run(&work.variant, async move {
        let receiver = receiver.connect().await;
        while let Some(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}
