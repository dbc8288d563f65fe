//! A core's memory is first touched by the core: by its own thread, when that is pinned already. So it lies on the
//! node of the core's CPU, as the kernel places pages where they are first touched. This is told by the page
//! faults of each thread, which one node shows as well as two.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use coreloop::op::{PollOnce, submit};
use coreloop::placement::allowed_cpus;
use coreloop::time::sleep;
use coreloop::{Cores, Gauges, Handle, Runtime, Settings, Spin, StatsLevel, spawn, yield_now};
use coreloop_tests::process::{no_huge_pages, page_bytes, strace_works, thread_faults};
use coreloop_tests::two_cores::two_cpus;
use coreloop_tests::{Child, figure, in_child, skipped};

const CORES: usize = 6;
const TASKS: usize = 4_000;
/// Bytes that each core receives and keeps; its buffers hold twice as much.
const KEPT: usize = 8 << 20;

/// Pages that one core's thread touched.
#[derive(Debug)]
struct Touched {
    /// From the thread's first step to that of its main future, and the pages of its histograms, which were
    /// there by then.
    at_start: u64,
    of_histograms: u64,
    tables: Grown,
    buffers: Grown,
}

/// The pages that were used anew, and those that the core's thread touched while they were.
#[derive(Debug)]
struct Grown {
    pages: u64,
    touched: u64,
}

async fn gauges(handle: &Handle, core: usize) -> Gauges {
    handle.stats(core).await.unwrap().gauges
}

/// Tasks, timers and ops, and their memory.
async fn fill_tables(handle: &Handle, core: usize) -> Grown {
    let (silent, _other_end) = UnixStream::pair().unwrap();
    let silent = Arc::new(silent);
    let (before, faults) = (gauges(handle, core).await.bytes_tables(), thread_faults());
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let silent = silent.clone();
            spawn(async move {
                let op = submit(PollOnce::new(silent, libc::POLLIN as u32));
                let timer = spawn(sleep(Duration::from_secs(3600)));
                let _ = (op.await, timer.await);
            })
        })
        .collect();
    for _ in 0..4 {
        yield_now().await;
    }
    let touched = thread_faults() - faults;
    let full = gauges(handle, core).await;
    assert!(full.tasks >= 2 * TASKS as u64 && full.timers >= TASKS as u64, "{full:?}");
    assert!(full.ops >= TASKS as u64, "{full:?}");
    drop(tasks);
    Grown { pages: (full.bytes_tables() - before) / page_bytes(), touched }
}

/// Bytes in receive buffers.
async fn fill_buffers() -> Grown {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        let part = vec![7_u8; 64 << 10];
        for _ in 0..KEPT / part.len() {
            stream.write_all(&part).unwrap();
        }
    });
    let (stream, _) = listener.accept().unwrap();
    let mut stream = coreloop_net::TcpStream::from_std(stream);
    let faults = thread_faults();
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while bytes < KEPT {
        let chunk = stream.recv().await.unwrap().expect("no end before all have come");
        bytes += chunk.len();
        kept.push(chunk);
    }
    let touched = thread_faults() - faults;
    sender.join().unwrap();
    Grown { pages: bytes as u64 / page_bytes(), touched }
}

fn settings() -> Settings {
    let stats = Settings::default().stats(StatsLevel::Histograms).spin(Spin::Off);
    stats.buffers(1024, 16 << 10).chunk_quota(32_768)
}

/// The launcher's faults for so many cores, and those of their threads.
fn launch(cores: usize) -> (u64, Vec<Touched>) {
    let cpu = allowed_cpus()[0];
    let runtime = Runtime::builder()
        .cores(Cores::These(vec![cpu; cores]))
        .settings(settings())
        .build()
        .unwrap();
    let before = thread_faults();
    let touched = runtime.run(|core| async move {
        let at_start = thread_faults();
        let (handle, index) = (core.handle().clone(), core.index());
        let of_histograms = gauges(&handle, index).await.bytes_stats / page_bytes();
        let tables = fill_tables(&handle, index).await;
        let buffers = fill_buffers().await;
        Touched { at_start, of_histograms, tables, buffers }
    });
    (thread_faults() - before, touched.unwrap())
}

#[test]
fn cores_memory_is_first_touched_by_the_cores_own_thread() {
    let name = "cores_memory_is_first_touched_by_the_cores_own_thread";
    if cfg!(any(asan, tsan)) {
        return skipped(name, "a sanitizer's own memory is touched beside ours");
    }
    in_child(name, || {
        if no_huge_pages().is_err() {
            return skipped(name, "pages may be huge here");
        }
        // What a launcher touches once, however many it launches.
        launch(1);
        let (of_launcher, cores) = launch(CORES);
        figure!("the launcher of {CORES} cores touched {of_launcher} pages, they {cores:?}");
        // A new thread's stack and what the launcher keeps of it: 1 or 2 pages for each core.
        assert!(
            of_launcher < 8 * CORES as u64,
            "the launcher touched {of_launcher} pages: {cores:?}"
        );
        // One of them may be given memory that the thread of the launch before had touched.
        let fresh = CORES as u64 - 1;
        let all = |pages: fn(&Touched) -> u64| cores.iter().map(pages).sum::<u64>();
        let of_histograms = cores[0].of_histograms * fresh;
        assert!(of_histograms > 8 * CORES as u64, "too few to be told apart: {cores:?}");
        assert!(all(|core| core.at_start) >= of_histograms, "not they: {cores:?}");
        // Some of the tables' room is not used yet.
        let of_tables = cores[0].tables.pages * fresh * 2 / 3;
        assert!(all(|core| core.tables.touched) >= of_tables, "not they: {cores:?}");
        let of_buffers = cores[0].buffers.pages * fresh;
        assert!(all(|core| core.buffers.touched) >= of_buffers, "not they: {cores:?}");
    });
}

/// The kernel makes a ring's queues, and the loop its tables, in the order of these calls.
#[test]
fn cores_memory_is_asked_for_when_the_core_is_pinned() {
    let name = "cores_memory_is_asked_for_when_the_core_is_pinned";
    if !Child::is_one() && !strace_works() {
        return skipped(name, "strace is not here, or may not trace");
    }
    let trace = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let path = trace.to_string_lossy().into_owned();
    let what = "trace=sched_setaffinity,io_uring_setup,io_uring_register";
    Child::new(name).under(&["strace", "-f", "-qq", "-o", &path, "-e", what]).run(|| {
        let runtime = Runtime::builder().cores(two_cpus()).settings(settings()).build().unwrap();
        runtime.run(|_core| async {}).unwrap();
    });
    if Child::is_one() {
        return;
    }
    let text = std::fs::read_to_string(&trace).unwrap();
    std::fs::remove_file(&trace).unwrap();
    let mut first_calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((call, _)) = call.trim_start().split_once('(') else { continue };
        let calls = first_calls.entry(thread).or_default();
        // What goes on after another thread's call was written is told a second time.
        if !call.starts_with('<') && !calls.contains(&call) {
            calls.push(call);
        }
    }
    let with_ring: Vec<_> =
        first_calls.values().filter(|calls| calls.contains(&"io_uring_setup")).collect();
    let order = ["sched_setaffinity", "io_uring_setup", "io_uring_register"];
    assert_eq!(with_ring, [&order, &order], "{text}");
}
