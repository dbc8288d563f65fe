//! ringline: its io_uring workers, one a core.
//!
//! A worker is a thread of ringline's own. It isn't pinned by ringline, which counts physical
//! cores; it inherits the core of the thread that launches it.

mod channel;
mod worker;

use std::future::poll_fn;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::task::Poll;

use peers_common::work::{self, Local};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, process};
use ringline::{AsyncEventHandler, ConfigBuilder, ConnCtx, ParseResult, RinglineBuilder};

use crate::channel::channel;

const TIMERS: &str = "Config::timer_slots is at most 65,535";

const PEER: Peer = Peer {
    runtime: "ringline",
    version: "0.6.12",
    variants: &["default"],
    ring: true,
    spins: &[],
    echo,
    workloads: &[
        Workload { name: "spawn-batch", run: spawn_batch },
        Workload { name: "spawn-each", run: spawn_each },
        Workload { name: "yield", run: yields },
        Workload { name: "idle-tasks", run: idle_tasks },
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[
        work::NOT_EAGER,
        ("timers-ordered", TIMERS),
        ("timers-random", TIMERS),
        ("sleeps", TIMERS),
    ],
};

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

/// Receive buffers of the ring: ringline's default, and one for each connection where there are
/// more, so that receives don't run out of them. Not beyond: a large ring runs cold.
const BUFFERS_MIN: usize = 256;
const BUFFERS_MAX: usize = 1024;

/// ringline's default.
const SENDS: u16 = 1024;

/// ringline makes the listener, with the options that it knows; the congestion control is set
/// before the address is told.
fn echo(echo: &Echo) -> Result<(), Failure> {
    let size = u32::try_from(echo.buffer_size.next_power_of_two())?;
    let buffers = echo.connections.clamp(BUFFERS_MIN, BUFFERS_MAX).next_power_of_two();
    let config = ConfigBuilder::new()
        .workers(1)
        .pin_to_core(false)
        .backlog(4096)
        .tcp_nodelay(true)
        // Connections that come at once wait here for the worker; more would be closed.
        .accept_queue_capacity(4096)
        .max_connections(u32::try_from(echo.connections + 64)?)
        .recv_buffer(u16::try_from(buffers)?, size)
        .send_pool(SENDS, size)
        // Threads that an echo server has no work for.
        .resolver_threads(0)
        .spawner_threads(0)
        .blocking_threads(0)
        .no_fs()
        .build()?;
    let (shutdown, workers) = RinglineBuilder::new(config).bind(echo.addr).launch::<Server>()?;
    let addr = shutdown.bound_addr().ok_or("it listens nowhere")?;
    worker::set_congestion(addr)?;
    eprintln!("listening on {addr}");
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }
    Err("the workers ended".into())
}

struct Server;

impl AsyncEventHandler for Server {
    /// The data is sent from where it is, by a copy into the send pool, and nobody waits for the
    /// send: ringline's documented fast path. Only if the pool is full the data is kept, and the
    /// connection reads no further before it has been sent. (`forward_held`, its way without a
    /// copy, is the alternative; at the end of a stream both lose what isn't sent yet.)
    #[expect(clippy::manual_async_fn, reason = "the trait asks for a static future")]
    fn on_accept(&self, conn: ConnCtx) -> impl Future<Output = ()> + 'static {
        async move {
            let mut unsent = Vec::new();
            loop {
                let length = conn.with_data(|data| {
                    if conn.send_nowait(data).is_err() {
                        unsent.extend_from_slice(data);
                    }
                    ParseResult::Consumed(data.len())
                });
                if length.await == 0 {
                    return;
                }
                if !unsent.is_empty() {
                    if worker::send_later(&conn, &unsent).await.is_err() {
                        return;
                    }
                    unsent.clear();
                }
            }
        }
    }

    fn create_for_worker(_: usize) -> Self {
        Self
    }
}

/// ringline has no such function of its own.
async fn yield_now() {
    let mut gave_way = false;
    poll_fn(|cx| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

const YIELD_NOTE: &str = "a future that wakes itself: ringline has no yield";

fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    ringline::spawn(future).expect("the slab has room");
}

fn spawn_batch(work: &Work) -> Result<Figures, Failure> {
    let count = work.count;
    worker::run(move || {
        let spawn = |tally: Local| spawn(async move { work::Tally::add(tally) });
        work::spawn_batch(count, spawn, yield_now)
    })
}

fn spawn_each(work: &Work) -> Result<Figures, Failure> {
    let count = work.count;
    worker::run(move || {
        work::spawn_each(count, |number| {
            ringline::spawn_with_handle(async move { number }).expect("the slab has room")
        })
    })
}

fn yields(work: &Work) -> Result<Figures, Failure> {
    let count = work.count;
    let figures = worker::run(move || {
        let spawn = |turns, tally: Local| {
            spawn(async move {
                for _ in 0..turns {
                    yield_now().await;
                }
                work::Tally::add(tally);
            });
        };
        work::yields(count, spawn, yield_now)
    })?;
    Ok(figures.text("note", YIELD_NOTE))
}

fn idle_tasks(work: &Work) -> Result<Figures, Failure> {
    let count = work.count;
    let figures = worker::run(move || work::idle_tasks(count, spawn, yield_now))?;
    Ok(figures.text("note", "the slots of tasks are allocated when the worker starts, not counted"))
}

/// A channel each way, as an actor and its client have. All four ends wait until both workers
/// have told the channels how to wake them.
fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    let (ask, asked) = channel(CAPACITY);
    let (answer, answered) = channel(CAPACITY);
    let started = Arc::new(Barrier::new(4));
    let wakes_first = [ask.at_send(), answered.at_recv()];
    let wakes_second = [asked.at_recv(), answer.at_send()];
    let begin = started.clone();
    let other = process::on_core(work.second_core, move || {
        worker::run_two(&begin.clone(), wakes_second, move || async move {
            begin.wait();
            while let Some(number) = asked.recv().await {
                answer.send(number + 1).await;
            }
        })
        .map_err(|error| error.to_string())
    });
    let mut trips = work::RoundTrips::new(work.count);
    let begin = started.clone();
    let figures = worker::run_two(&started, wakes_first, move || async move {
        begin.wait();
        while let Some(number) = trips.begin() {
            ask.send(number).await;
            trips.end(answered.recv().await.expect("the other side answers"));
        }
        trips.figures(channel::NAME)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    let (sender, receiver) = channel(CAPACITY);
    let started = Arc::new(Barrier::new(4));
    let (at_send, at_recv) = ([sender.at_send()], [receiver.at_recv()]);
    let (begin, count) = (started.clone(), work.count);
    let other = process::on_core(work.second_core, move || {
        worker::run_two(&begin.clone(), at_send, move || async move {
            begin.wait();
            for number in work::one_way_numbers(count) {
                sender.send(number).await;
            }
        })
        .map_err(|error| error.to_string())
    });
    let mut arrivals = work::Arrivals::new(work.count);
    let begin = started.clone();
    let figures = worker::run_two(&started, at_recv, move || async move {
        begin.wait();
        while let Some(number) = receiver.recv().await {
            arrivals.take(number);
        }
        arrivals.figures(channel::NAME)
    })?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(figures)
}

const CAPACITY: usize = 1024;
