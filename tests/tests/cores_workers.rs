//! Threads beside the loops keep off the loops' CPUs where there is room: the blocking pool's, and the kernel's own
//! workers (`iou-wrk-…`), which carry out what a ring can neither do at once nor wait for. Where these may run is
//! read from `/proc` while they live.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use coreloop::config::WorkerCpus;
use coreloop::op::{Nop, Read, submit};
use coreloop::placement::allowed_cpus;
use coreloop::{Builder, Cores, EventLoop, Runtime, Settings, Spin, spawn_blocking};
use coreloop_tests::{Child, in_child, skip, skipped};

/// Where the threads beside one core may run.
#[derive(Clone, Debug, PartialEq)]
struct Beside {
    blocking: Vec<usize>,
    worker: Vec<usize>,
}

/// A line of the status of one of this process's threads, if that lives.
fn status(thread: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The CPUs that one of this process's threads may run on, if that lives.
fn list(thread: &str) -> Option<Vec<usize>> {
    let text = status(thread, "Cpus_allowed_list")?;
    let Ok(Cores::These(cpus)) = text.parse() else { panic!("a list of CPUs: {text}") };
    Some(cpus)
}

/// The calling thread's number.
fn number() -> String {
    let path = fs::read_link("/proc/thread-self").expect("/proc is mounted");
    path.file_name().and_then(|name| name.to_str()).expect("a number").to_owned()
}

/// The threads of this process whose names begin so.
fn named(prefix: &str) -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").expect("/proc is mounted").flatten();
    let numbers = threads.filter_map(|entry| entry.file_name().into_string().ok());
    numbers.filter(|t| status(t, "Name").is_some_and(|name| name.starts_with(prefix))).collect()
}

/// Where a worker of the ring may run whose submissions thread `owner` makes.
async fn worker_of(owner: &str) -> Vec<usize> {
    // A file of which a read may block, as far as the kernel knows, and which can't be polled. An idle worker
    // ends after seconds, so the first look sees it; a thread that was stopped in between reads once more.
    for _ in 0..20 {
        let file = File::open("/proc/self/status").unwrap();
        submit(Read::new(file, Vec::with_capacity(64))).await.unwrap();
        let workers = named(&format!("iou-wrk-{owner}"));
        let lists: Vec<_> = workers.iter().filter_map(|worker| list(worker)).collect();
        let Some(cpus) = lists.first() else { continue };
        assert!(lists.iter().all(|list| list == cpus), "each where the others may: {lists:?}");
        return cpus.clone();
    }
    panic!("a read of a file in /proc was carried out without a worker");
}

/// What is beside each core.
fn beside(builder: Builder) -> Vec<Beside> {
    let spin_off = Settings::default().spin(Spin::Off);
    let runtime = builder.settings(spin_off).build().unwrap();
    let seen = runtime.run(|_core| async {
        let blocking = spawn_blocking(allowed_cpus).await.unwrap();
        Beside { blocking, worker: worker_of(&number()).await }
    });
    seen.unwrap()
}

fn on(cpus: &[usize]) -> Builder {
    Runtime::builder().cores(Cores::These(cpus.to_vec()))
}

/// Beside a core whose CPUs for others are these, none of them its own.
fn both(cpus: &[usize]) -> Beside {
    Beside { blocking: cpus.to_vec(), worker: cpus.to_vec() }
}

/// Where the loops of `all` take every CPU: the threads run on any of them, and so do the kernel's workers up to
/// Linux 6.1. Later ones narrow what a worker is told to what the thread that it works for is pinned to, if that
/// leaves anything.
fn without_room(seen: &[Beside], all: &[usize]) {
    assert_eq!(seen.len(), all.len());
    for (beside, own) in seen.iter().zip(all) {
        assert_eq!(beside.blocking, all);
        assert!(beside.worker == [*own] || beside.worker == all, "{beside:?} of CPU {own}");
    }
}

#[test]
fn cores_workers_keep_off_the_cpu_of_one_core() {
    let cpus = allowed_cpus();
    let [of_core, free @ ..] = &cpus[..] else { unreachable!("at least one CPU") };
    if free.is_empty() {
        skip!("one CPU alone");
    }
    assert_eq!(beside(on(&[*of_core])), [both(free)]);
    // It need not be the first one.
    let (last, before) = cpus.split_last().unwrap();
    assert_eq!(beside(on(&[*last])), [both(before)]);
}

/// Two loops of one CPU leave the others free, and none is sent to the CPU of another loop.
#[test]
fn cores_workers_keep_off_the_cpus_of_all_cores() {
    let cpus = allowed_cpus();
    let [first, others @ ..] = &cpus[..] else { unreachable!("at least one CPU") };
    if others.is_empty() {
        skip!("one CPU alone");
    }
    assert_eq!(beside(on(&[*first, *first])), [both(others), both(others)]);
    if let [second, free @ ..] = others
        && !free.is_empty()
    {
        assert_eq!(beside(on(&[*first, *second])), [both(free), both(free)]);
    }
}

#[test]
fn cores_workers_run_anywhere_where_there_is_no_room() {
    let cpus = allowed_cpus();
    without_room(&beside(on(&cpus)), &cpus);
    // Loops that are not pinned leave none out.
    assert_eq!(beside(on(&cpus[..1]).unpinned()), [both(&cpus)]);
}

/// A ring whose submissions a thread of the kernel's takes has that thread's workers. It would stay on the core's
/// own CPU, where both would wait for each other, if it were not sent elsewhere.
#[test]
fn cores_workers_of_a_submitting_thread_keep_off_too() {
    let name = "cores_workers_of_a_submitting_thread_keep_off_too";
    let cpus = allowed_cpus();
    let [of_core, free @ ..] = &cpus[..] else { unreachable!("at least one CPU") };
    if !Child::is_one() && free.is_empty() {
        return skipped(name, "one CPU alone");
    }
    let (of_core, free) = (*of_core, free.to_vec());
    // In a process of its own: which thread submits is told by its name alone.
    in_child(name, move || {
        let settings = Settings::default().sqpoll(Some(Duration::from_millis(5)));
        let runtime = on(&[of_core]).settings(settings.spin(Spin::Off)).build().unwrap();
        let seen = runtime.run(|_core| async {
            // It has its name when it has done something.
            submit(Nop).await.unwrap();
            let submitting = named("iou-sqp-");
            assert_eq!(submitting.len(), 1, "one thread submits");
            (list(&submitting[0]).unwrap(), worker_of(&submitting[0]).await)
        });
        let [(submits, worker)] = &seen.unwrap()[..] else { unreachable!("one core") };
        assert_eq!(submits[..], free[..1], "the thread that submits");
        assert_eq!(*worker, free, "a worker");
    });
}

/// Whoever names CPUs for the workers gets them there, the core's own too.
#[test]
fn cores_workers_run_where_the_setting_says() {
    let cpus = allowed_cpus();
    let (own, last) = (cpus[0], cpus[cpus.len() - 1]);
    let seen = |workers: WorkerCpus| {
        let settings = Settings::default().spin(Spin::Off).worker_cpus(workers);
        let runtime = on(&[own]).settings(settings).build().unwrap();
        runtime.run(|_core| async { worker_of(&number()).await }).unwrap()
    };
    for cpu in [own, last] {
        assert_eq!(seen(WorkerCpus::These(vec![cpu])), [[cpu]]);
    }
    let left = seen(WorkerCpus::Kernel);
    assert!(left == [[own]] || left == [cpus], "{left:?} is neither the core's own nor any");
}

#[test]
fn cores_workers_of_a_cpu_that_there_is_not_are_told() {
    let settings = Settings::default().worker_cpus(WorkerCpus::These(vec![8191]));
    let event_loop = EventLoop::with(settings).unwrap();
    let stepped = event_loop.ring_report().stepped[0].to_string();
    let told = "worker_cpus: asked 8191, in force kernel, because refused: Invalid argument";
    assert!(stepped.starts_with(told), "{stepped}");
}

/// The workers are the thread's, and so is where they may run. A later loop of it that leaves them to the kernel does
/// so.
#[test]
fn cores_workers_are_left_to_the_kernel_by_a_later_loop_of_the_thread() {
    let cpus = allowed_cpus();
    let last = cpus[cpus.len() - 1];
    let with = |cpus| EventLoop::with(Settings::default().worker_cpus(cpus)).unwrap();
    drop(with(WorkerCpus::These(vec![last])));
    let kept = EventLoop::new().unwrap().block_on(async { worker_of(&number()).await });
    assert_eq!(kept, [last], "a loop that says nothing");
    let handle = std::thread::spawn(move || {
        drop(with(WorkerCpus::These(vec![last])));
        with(WorkerCpus::Kernel).block_on(async { worker_of(&number()).await })
    });
    assert_eq!(handle.join().unwrap(), cpus);
}

#[test]
fn cores_workers_on_no_cpu_are_refused() {
    let settings = Settings::default().worker_cpus(WorkerCpus::These(Vec::new()));
    let told = EventLoop::with(settings).err().unwrap().to_string();
    assert_eq!(told, "setting worker_cpus: no CPU is named: use auto or kernel");
}

/// A program has the CPUs and the signals of the thread that starts it.
#[test]
fn cores_programs_that_blocking_work_starts_run_beside_the_cores_and_take_signals() {
    fn started() -> (Vec<usize>, String) {
        let shows = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let text = String::from_utf8(shows.stdout).unwrap();
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let Ok(Cores::These(cpus)) = field("Cpus_allowed_list:").parse() else { panic!("{text}") };
        (cpus, field("SigBlk:").to_owned())
    }
    let [first, others @ ..] = &allowed_cpus()[..] else { unreachable!("this runs somewhere") };
    if others.is_empty() {
        skip!("one CPU alone");
    }
    let seen = on(&[*first]).build().unwrap().run(|_core| async {
        let by_blocking_work = spawn_blocking(started).await.unwrap();
        (started(), by_blocking_work)
    });
    let no_signals = "0".repeat(16);
    let by_core = (vec![*first], no_signals.clone());
    assert_eq!(seen.unwrap(), [(by_core, (others.to_vec(), no_signals))]);
}
