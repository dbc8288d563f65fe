//! coreloop: a loop on the calling thread, and the echo through coreloop-net.
//!
//! What has no ring of its own in a workload still runs on the loop as a user has it: no setting
//! differs from the default but the spin that a variant is named after.

mod channel;

use std::process::ExitCode;
use std::time::Duration;

use coreloop::task::JoinHandle;
use coreloop::time::sleep_until;
use coreloop::{EventLoop, Settings, Spin, spawn, spawn_eager, yield_now};
use coreloop_net::{ListenOptions, TcpListener, TcpStream};
use peers_common::work::{self, Local};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, process};

const PEER: Peer = Peer {
    runtime: "coreloop",
    version: "0.1.0",
    variants: &["default", "spin-off", "spin-50us"],
    ring: true,
    // The default spins too, where it has learnt that this pays.
    spins: &["default", "spin-50us"],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        Workload { name: "spawn-eager", run: spawn_eager_each },
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

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

/// A loop for the calling thread, which runs on `core` alone.
///
/// The loop does not dial its spin if the process has a single CPU, since it would spin against
/// those that it waits for. Here others have CPUs of their own: it is built before the pinning, as
/// `coreloop::Runtime` builds its loops.
fn event_loop(variant: &str, core: usize) -> Result<EventLoop, Failure> {
    let spin = match variant {
        "spin-off" => Spin::Off,
        "spin-50us" => Spin::Fixed(Duration::from_micros(50)),
        _ => Spin::Dial,
    };
    process::unpin()?;
    let event_loop = EventLoop::with(Settings::default().spin(spin));
    process::pin(core)?;
    Ok(event_loop?)
}

/// In a task, as with the others: the loop polls what it blocks on apart from its tasks.
fn run<F: Future + 'static>(work: &Work, body: F) -> Result<F::Output, Failure> {
    event_loop(&work.variant, work.core)?.block_on(in_task(body))
}

/// A panic of the body is told by its message, which is printed, and fails the work.
async fn in_task<F: Future + 'static>(body: F) -> Result<F::Output, Failure> {
    Ok(spawn(body).await?)
}

/// The listener is coreloop's own, with the options of everybody's: it takes none from outside.
/// The receive buffers are the loop's (16 KiB by default, shared by all connections).
fn echo(echo: &Echo) -> Result<(), Failure> {
    let addr = echo.addr;
    event_loop(&echo.variant, echo.core)?.block_on(async move {
        let options = ListenOptions::default().backlog(4096).reuse_port(false).congestion("reno");
        let mut listener: TcpListener = options.bind(addr)?;
        eprintln!("listening on {}", listener.local_addr()?);
        loop {
            drop(spawn(serve(listener.accept().await?)));
        }
    })
}

/// Ends when the client does, or with an error, which concerns this connection only.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    // A chunk is one of the loop's buffers; it is sent from there and goes back when it was.
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let spawn = |tally: Local| drop(spawn(async move { work::Tally::add(tally) }));
    run(work, work::spawn_batch(work.count, spawn, yield_now))
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    each(work, |number| spawn(async move { number }))
}

fn spawn_eager_each(work: &Work) -> Result<Figures, Failure> {
    each(work, |number| spawn_eager(async move { number }))
}

fn each(work: &Work, spawn: impl Fn(u64) -> JoinHandle<u64> + 'static) -> Result<Figures, Failure> {
    run(
        work,
        work::spawn_each(work.count, move |number| {
            let handle = spawn(number);
            async { handle.await.expect("no task panics") }
        }),
    )
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let spawn = |turns, tally: Local| {
        drop(spawn(async move {
            for _ in 0..turns {
                yield_now().await;
            }
            work::Tally::add(tally);
        }));
    };
    run(work, work::yields(work.count, spawn, yield_now))
}

fn timers_ordered(work: &Work) -> Result<Figures, Failure> {
    run(work, work::timers(work.count, false, coreloop::time::sleep))
}

fn timers_random(work: &Work) -> Result<Figures, Failure> {
    run(work, work::timers(work.count, true, coreloop::time::sleep))
}

fn sleeps(work: &Work) -> Result<Figures, Failure> {
    let spawn = |sleeper: work::Sleeper| {
        drop(spawn(async move {
            sleep_until(sleeper.deadline().into()).await;
            sleeper.woke();
        }));
    };
    run(work, work::sleeps(work.count, spawn, coreloop::time::sleep))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    run(work, work::idle_tasks(work.count, |idle| drop(spawn(idle)), yield_now))
}

/// A channel each way, as an actor and its client have.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (mut ask, mut asked) = channel::new(CAPACITY);
    let (mut answer, mut answered) = channel::new(CAPACITY);
    let (variant, core) = (work.variant.clone(), work.second_core);
    let other = process::on_core(core, move || -> Result<(), Failure> {
        event_loop(&variant, core)?.block_on(in_task(async move {
            while let Some(number) = asked.recv().await {
                answer.send(number + 1).await?;
            }
            Ok(())
        }))?
    });
    let mut trips = work::RoundTrips::new(work.count);
    let figures = run(work, async move {
        while let Some(number) = trips.begin() {
            ask.send(number).await?;
            trips.end(answered.recv().await.ok_or("the other side ended")?);
        }
        Ok::<_, Failure>(trips.figures(channel::NAME))
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    figures
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (mut sender, mut receiver) = channel::new(CAPACITY);
    let (variant, core) = (work.variant.clone(), work.second_core);
    let count = work.count;
    let other = process::on_core(core, move || -> Result<(), Failure> {
        event_loop(&variant, core)?.block_on(in_task(async move {
            for number in work::one_way_numbers(count) {
                sender.send(number).await?;
            }
            Ok(())
        }))?
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let figures = run(work, async move {
        while let Some(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(channel::NAME)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}

const CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_task_and_not_what_the_loop_blocks_on() {
        use coreloop::task::current_id;

        let core = coreloop::placement::allowed_cpus()[0];
        let work = Work { variant: "spin-off".into(), core, second_core: core, count: 1 };
        let id = run(&work, async { current_id() }).unwrap().unwrap().to_string();
        // Loop, slot and number; the first slot is the main future's.
        assert_ne!(id.split('.').nth(1), Some("0"), "{id}");
    }
}
