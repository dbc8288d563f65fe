//! kimojio: its runtime on the calling thread.
//!
//! With the feature `setup_single_issuer`, which is true of a runtime that runs where it was made.
//! A runtime ends with its main task, since tasks that wait for ever are left over in one workload.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use kimojio::configuration::{BusyPoll, Configuration, ExitBehavior};
use kimojio::operations::{self, RecvFlags, SendFlags, spawn_task, yield_io};
use kimojio::{Errno, Runtime, make_message_pipe, make_message_pipe_oneway_sync};
use peers_common::work::{self, Local};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, net, process};

const PEER: Peer = Peer {
    runtime: "kimojio",
    version: "0.19.0",
    variants: &["default", "spin"],
    ring: true,
    spins: &["spin"],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        Workload { name: "yield", run: yields },
        Workload { name: "timers-ordered", run: timers_ordered },
        Workload { name: "timers-random", run: timers_random },
        Workload { name: "idle-tasks", run: idle_tasks },
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[
        work::NOT_EAGER,
        ("sleeps", "it panics when one of more than 65,535 tasks ends: a task's index has 16 bits"),
    ],
};

const SPIN: Duration = Duration::from_micros(50);

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

fn run<F: Future + 'static>(variant: &str, body: F) -> Result<F::Output, Failure> {
    let busy = if variant == "spin" { BusyPoll::Until(SPIN) } else { BusyPoll::Never };
    let configuration = Configuration::new()
        .set_busy_poll(busy)
        .set_exit_behavior(ExitBehavior::WhenMainTaskCompletes);
    let ended = Runtime::new(0, configuration).block_on(body);
    Ok(ended.ok_or("the runtime was shut down")?.map_err(|_| "the main task panicked")?)
}

fn echo(echo: &Echo) -> Result<(), Failure> {
    let listener = net::listen(echo.addr)?;
    let buffer_size = echo.buffer_size;
    run(&echo.variant, async move {
        loop {
            let stream = operations::accept(&listener).await?;
            drop(spawn_task(serve(stream, buffer_size)));
        }
    })?
}

/// Ends when the client does, or with an error, which concerns this connection only. Not by
/// kimojio's `OwnedFdStream`: that reads into a buffer of its own and copies.
async fn serve(stream: OwnedFd, buffer_size: usize) -> Result<(), Errno> {
    let mut buffer = vec![0; buffer_size];
    loop {
        let length = operations::recv(&stream, &mut buffer, RecvFlags::empty(), None).await?;
        if length == 0 {
            return Ok(());
        }
        let mut unsent = &buffer[..length];
        while !unsent.is_empty() {
            let sent = operations::send(&stream, unsent, SendFlags::NOSIGNAL, None).await?;
            unsent = &unsent[sent..];
        }
    }
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| drop(spawn_task(async move { work::Tally::add(tally) }));
    run(&work.variant, work::spawn_batch(work.count, spawn, yield_io))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let body = work::spawn_each(work.count, |number| {
        let handle = spawn_task(async move { number });
        async { handle.await.expect("no task panics") }
    });
    run(&work.variant, body)
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        drop(spawn_task(async move {
            for _ in 0..turns {
                yield_io().await;
            }
            work::Tally::add(tally);
        }));
    };
    run(&work.variant, work::yields(work.count, spawn, yield_io))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, work::timers(work.count, false, operations::sleep))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(&work.variant, work::timers(work.count, true, operations::sleep))
}

/// None of them ends, so that there may be more than 65,535.
fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let spawn = |idle| drop(spawn_task(idle));
    run(&work.variant, work::idle_tasks(work.count, spawn, yield_io))
}

/// Its channels stay on a thread; this is what it has between two.
const CHANNEL: &str = "kimojio message pipe (boxes through a socket pair, bounded by its buffer)";

/// One pipe carries both ways.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (here, there) = make_message_pipe::<u64, u64>();
    let variant = work.variant.clone();
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            // The end of the other side shows as an error.
            while let Ok(number) = there.recv_message().await {
                there.send_message(Box::new(*number + 1)).await.expect("the asking side waits");
            }
        })
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(&work.variant, async move {
        while let Some(number) = trips.begin() {
            here.send_message(Box::new(number)).await.expect("the other side runs");
            trips.end(*here.recv_message().await.expect("the other side answers"));
        }
        trips.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (sender, receiver) = make_message_pipe_oneway_sync::<u64>().map_err(io::Error::from)?;
    let (variant, count) = (work.variant.clone(), work.count);
    let other = process::on_core(work.second_core, move || {
        run(&variant, async move {
            for number in work::one_way_numbers(count) {
                sender.send_message(Box::new(number)).await.expect("the receiver waits");
            }
        })
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let figures = run(&work.variant, async move {
        while let Ok(number) = receiver.recv_message().await {
            arrivals.take(*number);
        }
        arrivals.figures(CHANNEL)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}
