//! What settings do, in counts: `cargo run --release -p coreloop-tests --bin knobs [NAME]`.
//!
//! Each setting has a small fixed piece of work that is done with several of its values; what is told are
//! the core's own counters, which don't depend on the machine's speed, or hardly. The figures of the
//! settings' pages are from here. Settings whose effect is in time alone are not among them: `bench/knobs`
//! compares those in pairs.

use std::thread;
use std::time::{Duration, Instant};

use coreloop::{EventLoop, Settings, Snapshot, spawn, spawn_blocking, time::sleep, yield_now};
use coreloop_net::{TcpListener, TcpStream};

/// A setting with the values that are tried, the work, and what of it is told.
struct Knob {
    name: &'static str,
    values: &'static [&'static str],
    /// Set beside the value.
    beside: &'static [(&'static str, &'static str)],
    work: &'static str,
    tells: &'static str,
    run: fn(Settings) -> u64,
}

const KNOBS: &[Knob] = &[
    Knob {
        name: "ring_entries",
        values: &["8", "64", "1024"],
        beside: &[],
        work: "256 connections are written to in one turn",
        tells: "enters in the middle of a turn",
        run: |settings| round(settings, 256, 64).counters.early_flushes,
    },
    Knob {
        name: "cq_entries",
        values: &["16", "4096"],
        beside: &[("ring_entries", "8")],
        work: "256 connections are written to in one turn and answered in one",
        tells: "enters that found the queue overflowed",
        run: |settings| round(settings, 256, 64).counters.cq_overflows,
    },
    Knob {
        name: "buffers",
        values: &["16", "1024"],
        beside: &[],
        work: "128 connections receive at the same time, and keep what they got",
        tells: "receives that were copied or had to wait",
        run: |settings| {
            let counters = held(settings, 128, 1).counters;
            counters.chunks_copied + counters.buffers_out
        },
    },
    Knob {
        name: "buffer_size",
        values: &["4096", "16384", "65536"],
        beside: &[],
        work: "a message of 256 KiB",
        tells: "receives that it takes",
        run: |settings| received(settings, 256 * 1024),
    },
    Knob {
        name: "chunk_quota",
        values: &["0", "8", "64"],
        beside: &[],
        work: "one connection keeps 64 chunks",
        tells: "chunks copied",
        run: |settings| held(settings, 1, 64).counters.chunks_copied,
    },
    Knob {
        name: "timer_resolution",
        values: &["10us", "1ms", "10ms"],
        beside: &[],
        work: "1,000 sleeps whose ends are 50 us apart",
        tells: "sleeps of the core",
        run: |settings| {
            let naps = async || {
                let naps: Vec<_> =
                    (1..=1_000).map(|n| spawn(sleep(Duration::from_micros(50 * n)))).collect();
                for nap in naps {
                    nap.await.expect("no panic");
                }
            };
            on(settings, naps).counters.parks
        },
    },
    Knob {
        name: "tick_quota",
        values: &["125us", "500us", "5ms"],
        beside: &[],
        work: "1,000 tasks that compute for 20 us each are ready at a time",
        tells: "turns, after each of which I/O has a look",
        run: |settings| {
            let before = |all: &Snapshot| all.counters.ticks;
            let busy = async || {
                let tasks: Vec<_> = (0..1_000)
                    .map(|_| {
                        spawn(async {
                            let until = Instant::now() + Duration::from_micros(20);
                            while Instant::now() < until {}
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            };
            before(&on(settings, busy))
        },
    },
    Knob {
        name: "spin",
        values: &["off", "dial", "2ms"],
        beside: &[],
        work: "a thread sends 500 messages, one each 200 us, which are answered",
        tells: "sleeps of the core",
        run: |settings| paced(settings, 500, Duration::from_micros(200)).counters.parks,
    },
    Knob {
        name: "zero_copy_threshold",
        values: &["off", "1M", "16k"],
        beside: &[],
        work: "100 writes of 64 KiB",
        tells: "sends without copy",
        run: |settings| written(settings, 100, 64 * 1024).counters.zero_copies,
    },
    Knob {
        name: "direct_sends",
        values: &["0", "4"],
        beside: &[("spin", "off")],
        work: "a thread sends 500 messages, one each 200 us, which are answered",
        tells: "turns of the loop",
        run: |settings| paced(settings, 500, Duration::from_micros(200)).counters.ticks,
    },
    Knob {
        name: "stats",
        values: &["off", "counters", "histograms"],
        beside: &[],
        work: "none",
        tells: "bytes of the core's book",
        run: |settings| on(settings, async || ()).gauges.bytes_stats,
    },
    Knob {
        name: "blocking_threads",
        values: &["1", "4", "16"],
        beside: &[],
        work: "64 closures that sleep 20 ms each",
        tells: "threads that run them",
        run: |settings| blocked(settings).blocking_threads,
    },
    Knob {
        name: "blocking_queue",
        values: &["4", "1024"],
        beside: &[("blocking_threads", "1")],
        work: "64 closures that sleep 20 ms each, for one thread",
        tells: "closures in the queue; further ones wait as tasks",
        run: |settings| blocked(settings).blocking_queued,
    },
];

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    for knob in KNOBS.iter().filter(|knob| knob.name.contains(&only)) {
        println!("{}: {}: {}", knob.name, knob.work, knob.tells);
        for value in knob.values {
            let mut settings = Settings::default();
            for (name, value) in knob.beside.iter().chain([&(knob.name, *value)]) {
                let field = coreloop::config::Field::named(name).expect("a setting");
                field.set(&mut settings, value).expect("a value of it");
            }
            println!("  {value:>10}  {:>8}", (knob.run)(settings));
        }
    }
}

/// Does this on a loop, and gives what the core counted and has.
fn on(settings: Settings, work: impl AsyncFnOnce()) -> Snapshot {
    let mut event_loop = EventLoop::with(settings).expect("a loop");
    event_loop.block_on(work());
    event_loop.stats()
}

/// Connections of this loop to itself.
async fn pairs(count: usize) -> Vec<(TcpStream, TcpStream)> {
    let mut listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let near = TcpStream::connect(addr).await.expect("room for one more");
        pairs.push((near, listener.accept().await.expect("it was connected")));
    }
    pairs
}

/// All are written to in one turn, and each is answered.
fn round(settings: Settings, connections: usize, bytes: usize) -> Snapshot {
    on(settings, async || {
        let mut tasks = Vec::new();
        for (mut near, mut far) in pairs(connections).await {
            tasks.push(spawn(async move {
                let chunk = far.recv().await.expect("open").expect("no end yet");
                far.write_all(chunk).await.expect("open");
            }));
            tasks.push(spawn(async move {
                near.write_all(vec![7; bytes]).await.expect("open");
                drop(near.recv().await.expect("open"));
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    })
}

/// Each connection receives so many chunks and keeps them until all have them.
fn held(settings: Settings, connections: usize, chunks: usize) -> Snapshot {
    on(settings, async || {
        let mut kept = Vec::new();
        let mut pairs = pairs(connections).await;
        for _ in 0..chunks {
            for (near, _) in &mut pairs {
                near.write_all(vec![7; 64]).await.expect("open");
            }
            for (_, far) in &mut pairs {
                kept.push(far.recv().await.expect("open").expect("no end yet"));
            }
        }
    })
}

/// Receives until a message is there.
fn received(settings: Settings, bytes: usize) -> u64 {
    let mut receives = 0;
    on(settings, async || {
        let (mut near, mut far) = pairs(1).await.remove(0);
        let sent = spawn(async move {
            near.write_all(vec![7; bytes]).await.expect("open");
            near
        });
        let near = sent.await.expect("no panic");
        let mut left = bytes;
        while left > 0 {
            left -= far.recv().await.expect("open").expect("no end yet").len();
            receives += 1;
        }
        drop(near);
    });
    receives
}

/// Writes of so many bytes to a peer that reads.
fn written(settings: Settings, writes: usize, bytes: usize) -> Snapshot {
    on(settings, async || {
        let (mut near, mut far) = pairs(1).await.remove(0);
        let reading = spawn(async move {
            let mut left = writes * bytes;
            while left > 0 {
                left -= far.recv().await.expect("open").expect("no end yet").len();
            }
        });
        for _ in 0..writes {
            near.write_all(vec![7; bytes]).await.expect("open");
        }
        reading.await.expect("no panic");
    })
}

/// Another thread sends a message now and then, and waits for each answer.
fn paced(settings: Settings, messages: u32, apart: Duration) -> Snapshot {
    on(settings, async || {
        let mut listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let sender = thread::spawn(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(addr).expect("it listens");
            for _ in 0..messages {
                stream.write_all(&[7]).expect("open");
                stream.read_exact(&mut [0]).expect("answered");
                thread::sleep(apart);
            }
        });
        let mut stream = listener.accept().await.expect("it connects");
        while let Some(chunk) = stream.recv().await.expect("open") {
            stream.write_all(chunk).await.expect("open");
        }
        sender.join().expect("no panic");
    })
}

/// What the pool has while 64 closures wait for it.
fn blocked(settings: Settings) -> coreloop::Gauges {
    let mut event_loop = EventLoop::with(settings).expect("a loop");
    event_loop.block_on(async {
        let nap = || spawn_blocking(|| thread::sleep(Duration::from_millis(20)));
        let naps: Vec<_> = (0..64).map(|_| nap()).collect();
        for _ in 0..3 {
            yield_now().await;
        }
        let seen = coreloop::Handle::current().stats(0).await.expect("it is here").gauges;
        for nap in naps {
            nap.await.expect("no panic");
        }
        seen
    })
}
