//! One loop on a simulated kernel: the plainest workload, over many seeds.
//!
//! Owns a small echo over the ops themselves (no socket type is known here) and what must hold at its end:
//! every byte came back in order or an error said why not, nothing is left open, and the kernel saw no
//! mistake.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::faults::Faults;
use super::world::World;
use crate::buf::Chunk;
use crate::config::Settings;
use crate::event_loop::EventLoop;
use crate::executor::dial::Spin;
use crate::metrics::Kind;
use crate::op::{
    AcceptMany, AcceptQueue, Connect, LateSend, Membership, Nop, Receiver, Submitter, submit,
};
use crate::sys::abi::{BufStatus, register};
use crate::time::{Instant, sleep};

fn settings() -> Settings {
    Settings::default().spin(Spin::Off).buffers(16, 2048).ring_entries(32).cq_entries(64)
}

/// A world of one core.
struct Alone {
    world: Rc<World>,
    event_loop: EventLoop,
}

impl Alone {
    fn new(seed: u64, faults: Faults) -> Self {
        let world = World::new(seed, faults);
        let host = world.add_host(vec![IpAddr::from([10, 0, 0, 1])]);
        let kernel = world.kernel(host);
        kernel.sleep_by_advancing(true);
        let event_loop = EventLoop::on_kernel(kernel, &settings()).unwrap();
        Self { world, event_loop }
    }

    /// Closes the loop; the hash of all that happened.
    fn end(self) -> u64 {
        let report = self.event_loop.close(Duration::from_secs(5));
        self.world.sweep();
        let told = || {
            let lines: Vec<_> = self.world.trace().iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        let violations = self.world.violations();
        assert!(violations.is_empty(), "{violations:?}\n{}", told());
        assert_eq!(report.ops_leaked, 0, "{}", told());
        let open = self.world.open_files();
        assert!(open.is_empty(), "{open:?}\n{}", told());
        self.world.trace_hash()
    }
}

#[derive(Clone)]
struct Held(Rc<OwnedFd>);

impl Receiver for Held {}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LateSend for Held {
    fn send_ended(&self, _: usize) {}
    fn late_send(&self, _: io::Result<usize>, _: usize) {}
}

struct Stream {
    fd: Held,
    membership: Membership,
    submitter: Submitter,
}

impl Stream {
    fn new(fd: OwnedFd) -> Self {
        let submitter = Submitter::current();
        Self { fd: Held(Rc::new(fd)), membership: submitter.join_buffers(), submitter }
    }

    async fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = Submitter::current().stream_socket(&to)?;
        Ok(Self::new(submit(Connect::new(socket, to)).await?))
    }

    async fn recv(&self) -> io::Result<Option<Chunk>> {
        loop {
            let started = self.submitter.recv_chunk(self.fd.clone(), &self.membership);
            let result = match started {
                Ok(mut flying) => poll_fn(|cx| flying.poll(cx)).await,
                Err(result) => result,
            };
            match result {
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    let mut turn = self.submitter.wait_for_buffer();
                    poll_fn(|cx| turn.poll(cx)).await;
                }
                other => return other,
            }
        }
    }

    async fn send_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        let (mut bytes, mut sent) = (bytes, 0);
        while sent < bytes.len() {
            let op = crate::op::Send::new(self.fd.clone(), bytes, sent, libc::MSG_WAITALL);
            let (n, same) = submit(op).await?;
            (bytes, sent) = (same, sent + n);
        }
        Ok(())
    }
}

async fn serve(queue: Rc<AcceptQueue>, listener: Held) {
    let submitter = Submitter::current();
    let mut armed = None::<crate::op::Armed>;
    loop {
        let next = poll_fn(|cx| {
            if let Some(next) = queue.pop() {
                return Poll::Ready(next);
            }
            queue.wake_on_arrival(cx);
            if !armed.as_ref().is_some_and(|armed| armed.is_armed()) {
                let op = AcceptMany::new(listener.clone(), queue.clone(), 64);
                armed = Some(submitter.arm(op).map_err(|(_, e)| e).unwrap());
            }
            Poll::Pending
        });
        let Ok(fd) = next.await else { continue };
        drop(crate::spawn(async move {
            let stream = Stream::new(fd);
            while let Ok(Some(chunk)) = stream.recv().await {
                if stream.send_all(chunk.to_vec()).await.is_err() {
                    break;
                }
            }
        }));
    }
}

fn listen(addr: SocketAddr) -> (Held, SocketAddr) {
    let submitter = Submitter::current();
    let socket = submitter.stream_socket(&addr).unwrap();
    submitter.bind(&socket, &addr).unwrap();
    submitter.listen(&socket, 16).unwrap();
    let addr = submitter.local_addr(&socket).unwrap();
    (Held(Rc::new(socket)), addr)
}

/// Sends `len` bytes in pieces and reads what comes back: how much that was, and whether all was well.
async fn talk(to: SocketAddr, salt: u8, len: usize, piece: usize) -> (usize, io::Result<()>) {
    let stream = match Stream::connect(to).await {
        Ok(stream) => Rc::new(stream),
        Err(e) => return (0, Err(e)),
    };
    let pattern = move |at: usize| (at % 251) as u8 ^ salt ^ (at / 251) as u8;
    let out = stream.clone();
    let sender = crate::spawn(async move {
        let mut at = 0;
        while at < len {
            let n = piece.min(len - at);
            let sent = out.send_all((at..at + n).map(pattern).collect()).await;
            if sent.is_err() {
                // Some errors leave the connection as it was: who receives would wait for ever.
                let _ = out.submitter.shutdown(&out.fd, std::net::Shutdown::Both);
                return sent;
            }
            at += n;
        }
        out.submitter.shutdown(&out.fd, std::net::Shutdown::Write)
    });
    let mut got = 0;
    let result = loop {
        match stream.recv().await {
            Ok(Some(chunk)) => {
                for (i, byte) in chunk.iter().enumerate() {
                    assert_eq!(*byte, pattern(got + i), "byte {} of {len}", got + i);
                }
                got += chunk.len();
            }
            Ok(None) if got == len => break Ok(()),
            Ok(None) => break Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Err(e) => break Err(e),
        }
    };
    drop(stream);
    if result.is_err() {
        // Some errors leave the connection as it was: who sends would go on for ever.
        sender.cancel();
    }
    drop(sender.await);
    (got, result)
}

/// Four clients talk to one server: the hash of it, and how many got everything back.
fn echo(seed: u64, faults: Faults) -> (u64, usize) {
    println!("seed {seed}");
    let errs = faults.accept_fails + faults.connect_fails + faults.stream_fails > 0;
    let must_work = !faults.mixed && !errs;
    let mut alone = Alone::new(seed, faults);
    let good = echo_on(&mut alone, must_work);
    (alone.end(), good)
}

fn echo_on(alone: &mut Alone, must_work: bool) -> usize {
    let world = alone.world.clone();
    let good = Rc::new(Cell::new(0));
    let counted = good.clone();
    alone.event_loop.block_on(async move {
        let (listener, addr) = listen(([10, 0, 0, 1], 0).into());
        drop(crate::spawn(serve(AcceptQueue::new(&Submitter::current()), listener)));
        let clients: Vec<_> = (0..4u8)
            .map(|salt| {
                let len = world.rng(|rng| rng.below(20_000)) as usize;
                let piece = world.rng(|rng| rng.between(1_000, 9_000)) as usize;
                crate::spawn(async move { (talk(addr, salt, len, piece).await, len) })
            })
            .collect();
        for client in clients {
            let ((got, result), len) = client.await.unwrap();
            assert!(got <= len);
            match result {
                Ok(()) => counted.set(counted.get() + 1),
                Err(e) if must_work => panic!("{e}"),
                Err(_) => {}
            }
        }
    });
    good.get()
}

#[test]
fn sim_a_loop_runs_on_it() {
    let mut alone = Alone::new(1, Faults::none());
    alone.event_loop.block_on(async {
        for _ in 0..100 {
            submit(Nop).await.unwrap();
        }
        let tasks: Vec<_> = (0..500).map(|_| crate::spawn(submit(Nop))).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    alone.end();
}

/// What a release does not know is refused: then the step down is taken.
#[test]
fn sim_an_older_kernel_knows_no_newer_call() {
    let faults = Faults { features_missing: 10_000, ..Faults::none() };
    let mut seen = BTreeMap::new();
    for seed in 0..60 {
        let mut alone = Alone::new(seed, faults.clone());
        let release = alone.event_loop.ring_report().kernel.clone();
        let core = alone.event_loop.core().clone();
        let says_what_is_left = core.driver.with_ring(|ring| {
            let mut status = BufStatus::default();
            let arg = std::ptr::from_mut(&mut status).cast();
            // SAFETY: one live buf_status, which the call fills in.
            unsafe { ring.register(register::PBUF_STATUS, arg, 1).is_ok() }
        });
        alone.event_loop.block_on(async {
            let (_listener, addr) = listen(([10, 0, 0, 1], 0).into());
            let near = Stream::connect(addr).await.unwrap();
            let many = near.submitter.recv_many(near.fd.clone(), &near.membership, 64);
            let mut many = many.unwrap();
            sleep(Duration::from_millis(1)).await;
            // Nothing has come; if it has ended, it was refused.
            poll_fn(|cx| Poll::Ready(many.poll_next(cx).is_ready())).await;
        });
        let has_limit = core.driver.pool().ways().receive_limit() > 0;
        drop(core);
        alone.end();
        if release != "6.18.0-sim" {
            let before = seen.insert(release.clone(), (says_what_is_left, has_limit));
            assert!(before.is_none_or(|before| before == seen[&release]), "{release}");
        }
    }
    let known = [("6.1.0", (false, false)), ("6.12.0", (true, false)), ("6.6.0", (false, false))];
    assert_eq!(seen, known.map(|(release, calls)| (format!("{release}-sim"), calls)).into());
}

#[test]
fn sim_an_hour_passes_at_once() {
    let mut alone = Alone::new(1, Faults::none());
    let (began, real) = (alone.world.now_ns(), std::time::Instant::now());
    alone.event_loop.block_on(async {
        let virtually = Instant::now();
        for _ in 0..3_600 {
            sleep(Duration::from_secs(1)).await;
        }
        assert!(virtually.elapsed() >= Duration::from_secs(3_600));
    });
    let passed = alone.world.now_ns() - began;
    assert!((3_600_000_000_000..3_610_000_000_000).contains(&passed), "{passed}");
    alone.end();
    assert!(real.elapsed() < Duration::from_secs(20));
}

#[test]
fn sim_echo_without_faults() {
    let (_, good) = echo(1, Faults::none());
    assert_eq!(good, 4);
}

#[test]
fn sim_echo_over_many_seeds() {
    // A fifth of a second for a seed where nothing is optimised.
    let seeds = if cfg!(debug_assertions) { 50 } else { 200 };
    let good: usize = (0..seeds).map(|seed| echo(seed as u64, Faults::default()).1).sum();
    assert!(good > 2 * seeds, "{good} of {} went through", 4 * seeds);
}

/// Sets one fault.
type Turn = fn(&mut Faults);

#[test]
fn sim_each_fault_comes_and_does_no_harm() {
    let hidden: [(&str, Turn); 17] = [
        ("pressed", |f| f.enter_pressed = 2_000),
        ("interrupted", |f| f.enter_interrupted = 5_000),
        ("partial", |f| f.enter_partial = 5_000),
        ("no memory", |f| f.setup_no_memory = 5_000),
        ("features", |f| f.features_missing = 10_000),
        ("short read", |f| f.short_read = 5_000),
        ("short write", |f| f.short_write = 5_000),
        ("multishot", |f| f.multishot_ended = 5_000),
        ("punted", |f| f.punted = 5_000),
        ("late", |f| (f.late, f.late_ns) = (5_000, 3_000_000)),
        ("reordered", |f| (f.reordered, f.late, f.late_ns) = (10_000, 3_000, 100)),
        ("overflowed", |f| f.overflowed = 3_000),
        ("work cut", |f| f.work_cut = 5_000),
        ("flag late", |f| f.flag_late = 5_000),
        ("cancel", |f| f.cancel_loses = 5_000),
        ("small buffers", |f| (f.send_buffer, f.receive_buffer) = (2_048, 1_152)),
        ("slow", |f| (f.loopback_ns, f.segment_bytes) = ((0, 900_000), 100)),
    ];
    // Time passes, so that there are sleeps.
    let base = || Faults { loopback_ns: (1_000, 20_000), ..Faults::none() };
    for (name, turn) in hidden {
        let mut faults = base();
        turn(&mut faults);
        let mut differ = 0;
        for seed in 0..5 {
            let (hash, good) = echo(seed, faults.clone());
            assert_eq!(good, 4, "{name}, seed {seed}");
            differ += usize::from(hash != echo(seed, base()).0);
        }
        // A set-up is tried once a world, so that not every seed shows it.
        assert!(differ > 0, "{name} makes no difference");
    }
    let open: [(&str, Turn); 3] = [
        ("accept", |f| f.accept_fails = 5_000),
        ("connect", |f| f.connect_fails = 5_000),
        ("stream", |f| f.stream_fails = 1_000),
    ];
    for (name, turn) in open {
        let mut faults = base();
        turn(&mut faults);
        let good: usize = (0..10).map(|seed| echo(seed, faults.clone()).1).sum();
        assert!(name == "accept" || good < 40, "{name} makes no difference");
        assert!(good > 0, "{name}");
    }
}

#[test]
fn sim_the_same_seed_is_the_same_trace() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let hash = echo(seed, Faults::default()).0;
        // Descriptors that others hold make all numbers differ.
        let _in_the_way = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(hash, echo(seed, Faults::default()).0, "seed {seed}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 20, "different seeds, different traces");
}

#[test]
fn sim_a_kernel_without_memory_is_not_asked_all_the_time() {
    // Completions are pending all the while, which only an enter brings: one that submits nothing.
    let (mut pressed, mut passed) = (0, 0);
    for seed in 0..20 {
        let faults = Faults {
            loopback_ns: (1_000, 20_000),
            enter_pressed: 300,
            pressed_for_ns: 5_000_000,
            // Or seem to be.
            flag_late: if seed % 2 == 0 { 10_000 } else { 0 },
            ..Faults::none()
        };
        let mut alone = Alone::new(seed, faults);
        let (world, began) = (alone.world.clone(), alone.world.now_ns());
        assert_eq!(echo_on(&mut alone, true), 4);
        pressed += world.drawn().values().sum::<u64>();
        passed += (world.now_ns() - began) / 1_000;
        alone.end();
    }
    assert!(pressed > 100, "{pressed}");
    // A pause of 500 us between one refusal and the next, but for those within one turn.
    assert!(pressed < passed / 50, "{pressed} refusals in {passed} us");
    println!("{pressed} refusals in {passed} us");
}

/// It stays up then until there is work again, which may be never.
#[test]
fn sim_a_flag_that_comes_up_late_keeps_no_core_awake() {
    let faults = Faults { flag_late: 10_000, loopback_ns: (1_000, 20_000), ..Faults::none() };
    for seed in 0..5 {
        let mut alone = Alone::new(seed, faults.clone());
        let core = alone.event_loop.core().clone();
        assert_eq!(echo_on(&mut alone, true), 4);
        let enters = core.metrics.get(Kind::Enters);
        alone.event_loop.block_on(async { sleep(Duration::from_millis(1)).await });
        let enters = core.metrics.get(Kind::Enters) - enters;
        assert!(enters < 10, "{enters} enters, seed {seed}");
        drop(core);
        alone.end();
    }
}
