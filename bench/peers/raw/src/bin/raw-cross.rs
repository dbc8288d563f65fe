//! `raw-cross`: what two cores can tell each other without a runtime, as a yardstick.
//!
//! Variant `msg-ring`: a hand-written ring a thread, messages by IORING_OP_MSG_RING, both sides
//! parked in the kernel while they wait. Variant `shared`: shared memory, both sides spinning; a
//! bare ring of 1,024 numbers one way, a cache line each way for the round trip.
//!
//! The command line and the counting are those of the runtimes' binaries.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use peers_common::work::{Arrivals, RoundTrips, one_way_numbers};
use peers_common::{Echo, Failure, Figures, Peer, Work, Workload, process};

const NOT_CROSS: &str = "raw-cross is for what goes between cores";

const PEER: Peer = Peer {
    runtime: "raw",
    version: env!("CARGO_PKG_VERSION"),
    variants: &["msg-ring", "shared"],
    ring: true,
    spins: &["shared"],
    echo,
    workloads: &[
        Workload { name: "cross-round-trip", run: cross_round_trip },
        Workload { name: "cross-one-way", run: cross_one_way },
    ],
    unsupported: &[
        ("echo", "raw-echo and epoll-echo do that"),
        ("spawn-batch", NOT_CROSS),
        ("spawn-each", NOT_CROSS),
        ("spawn-eager", NOT_CROSS),
        ("yield", NOT_CROSS),
        ("timers-ordered", NOT_CROSS),
        ("timers-random", NOT_CROSS),
        ("sleeps", NOT_CROSS),
        ("idle-tasks", NOT_CROSS),
    ],
};

fn main() -> ExitCode {
    peers_common::main(&PEER)
}

fn echo(_: &Echo) -> Result<(), Failure> {
    Err(PEER.unsupported[0].1.into())
}

fn cross_round_trip(work: &Work) -> Result<Figures, Failure> {
    match work.variant.as_str() {
        "shared" => line_round_trip(work),
        _ => ring_round_trip(work),
    }
}

fn cross_one_way(work: &Work) -> Result<Figures, Failure> {
    match work.variant.as_str() {
        "shared" => memory_one_way(work),
        _ => ring_one_way(work),
    }
}

/// Says that nothing more comes; no number is as large.
const END: u64 = u64::MAX;

/// Numbers on their way at most.
const CAPACITY: usize = 1024;

/// The receiver tells how many it has taken so often.
const CREDIT: u64 = 512;

/// Numbers that are submitted together.
const BATCH: usize = 64;

const MSG_RING: &str = "IORING_OP_MSG_RING, parked";
const BARE_RING: &str = "bare ring of 1,024 in shared memory, spinning";
const LINES: &str = "a cache line each way, spinning";

/// A ring and the other side's.
struct Ends {
    ring: IoUring,
    other: RawFd,
}

/// Where the two sides learn each other's ring.
struct Meeting {
    rings: [AtomicI32; 2],
    all: Barrier,
}

impl Meeting {
    fn new() -> Arc<Self> {
        Arc::new(Self { rings: Default::default(), all: Barrier::new(2) })
    }
}

impl Ends {
    /// On the thread that uses it: the ring takes submissions of no other.
    fn meet(meeting: &Meeting, side: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(4 * CAPACITY as u32)
            .build(2 * BATCH as u32);
        // A side that failed still comes, or the other would wait for ever.
        let own = ring.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        meeting.rings[side].store(own, Ordering::Relaxed);
        meeting.all.wait();
        let ring = ring?;
        let other = meeting.rings[1 - side].load(Ordering::Relaxed);
        if other < 0 {
            return Err(io::Error::other("the other side has no ring"));
        }
        Ok(Self { ring, other })
    }

    /// To be submitted by the next [`Ends::take`] or [`Ends::submit`]; there has to be room.
    fn send(&mut self, number: u64) {
        let entry = opcode::MsgRingData::new(types::Fd(self.other), 0, number, None).build();
        // Only a failure completes here too.
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(FAILED);
        // SAFETY: the submission names no memory.
        unsafe { self.ring.submission().push(&entry) }.expect("there is room");
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// Submits, waits for a message at least, and gives all that are there.
    fn take(&mut self, mut each: impl FnMut(u64)) -> io::Result<()> {
        if self.ring.completion().is_empty() || !self.ring.submission().is_empty() {
            self.ring.submit_and_wait(1)?;
        }
        for entry in self.ring.completion() {
            if entry.user_data() == FAILED {
                return Err(io::Error::from_raw_os_error(-entry.result()));
            }
            each(entry.user_data());
        }
        Ok(())
    }
}

const FAILED: u64 = u64::MAX - 1;

fn ring_round_trip(work: &Work) -> Result<Figures, Failure> {
    let meeting = Meeting::new();
    let met = meeting.clone();
    let other = process::on_core(work.second_core, move || -> io::Result<()> {
        let mut ends = Ends::meet(&met, 1)?;
        loop {
            let mut asked = END;
            ends.take(|number| asked = number)?;
            if asked == END {
                return Ok(());
            }
            ends.send(asked + 1);
        }
    });
    let mut ends = Ends::meet(&meeting, 0)?;
    let mut trips = RoundTrips::new(work.count);
    while let Some(number) = trips.begin() {
        ends.send(number);
        let mut answer = 0;
        ends.take(|number| answer = number)?;
        trips.end(answer);
    }
    ends.send(END);
    ends.submit()?;
    other.join().map_err(|_| "the other side panicked")??;
    Ok(trips.figures(MSG_RING))
}

fn ring_one_way(work: &Work) -> Result<Figures, Failure> {
    let meeting = Meeting::new();
    let (met, count) = (meeting.clone(), work.count);
    // The ring goes with the result: there may be news for it until the receiver has ended.
    let other = process::on_core(work.second_core, move || -> io::Result<Ends> {
        let mut ends = Ends::meet(&met, 1)?;
        let (mut sent, mut taken) = (0, 0);
        for number in one_way_numbers(count) {
            while sent - taken == CAPACITY as u64 {
                ends.take(|credit| taken = taken.max(credit))?;
            }
            ends.send(number);
            sent += 1;
            if sent % BATCH as u64 == 0 {
                ends.submit()?;
            }
        }
        ends.send(END);
        ends.submit()?;
        Ok(ends)
    });
    let mut ends = Ends::meet(&meeting, 0)?;
    let mut arrivals = Arrivals::new(work.count);
    let (mut taken, mut told, mut ended) = (0, 0, false);
    while !ended {
        ends.take(|number| {
            if number == END {
                ended = true;
            } else {
                arrivals.take(number);
                taken += 1;
            }
        })?;
        if !ended && taken - told >= CREDIT {
            ends.send(taken);
            ends.submit()?;
            told = taken;
        }
    }
    other.join().map_err(|_| "the other side panicked")??;
    Ok(arrivals.figures(MSG_RING))
}

/// A number alone in its cache line, and in the neighbour that is fetched with it.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

fn line_round_trip(work: &Work) -> Result<Figures, Failure> {
    let lines = Arc::new([Line::default(), Line::default()]);
    let shared = lines.clone();
    // Zero says that nothing was sent: numbers go as their successors.
    let other = process::on_core(work.second_core, move || {
        let [ask, answer] = &*shared;
        let mut last = 0;
        while last != END {
            let asked = ask.0.load(Ordering::Acquire);
            if asked == last {
                std::hint::spin_loop();
                continue;
            }
            last = asked;
            answer.0.store(asked, Ordering::Release);
        }
    });
    let [ask, answer] = &*lines;
    let mut trips = RoundTrips::new(work.count);
    while let Some(number) = trips.begin() {
        ask.0.store(number + 1, Ordering::Release);
        while answer.0.load(Ordering::Acquire) != number + 1 {
            std::hint::spin_loop();
        }
        trips.end(number + 1);
    }
    ask.0.store(END, Ordering::Release);
    other.join().map_err(|_| "the other side panicked")?;
    Ok(trips.figures(LINES))
}

/// One writes the numbers and `sent`, the other `taken`; each looks at the other's count only when
/// what it last saw is used up.
struct Shared {
    numbers: [AtomicU64; CAPACITY],
    sent: Line,
    taken: Line,
}

fn memory_one_way(work: &Work) -> Result<Figures, Failure> {
    let ring = Arc::new(Shared {
        numbers: [const { AtomicU64::new(0) }; CAPACITY],
        sent: Line::default(),
        taken: Line::default(),
    });
    let (shared, count) = (ring.clone(), work.count);
    let other = process::on_core(work.second_core, move || {
        let (mut sent, mut taken) = (0_u64, 0);
        for number in one_way_numbers(count) {
            while sent - taken == CAPACITY as u64 {
                taken = shared.taken.0.load(Ordering::Acquire);
                std::hint::spin_loop();
            }
            shared.numbers[sent as usize % CAPACITY].store(number, Ordering::Relaxed);
            sent += 1;
            shared.sent.0.store(sent, Ordering::Release);
        }
    });
    let mut arrivals = Arrivals::new(work.count);
    let (mut sent, mut taken) = (0, 0);
    let total = one_way_numbers(work.count).end;
    while taken < total {
        if sent == taken {
            sent = ring.sent.0.load(Ordering::Acquire);
            std::hint::spin_loop();
            continue;
        }
        arrivals.take(ring.numbers[taken as usize % CAPACITY].load(Ordering::Relaxed));
        taken += 1;
        ring.taken.0.store(taken, Ordering::Release);
    }
    other.join().map_err(|_| "the other side panicked")?;
    Ok(arrivals.figures(BARE_RING))
}
