//! The kernel's own workers: they keep off the CPUs that cores are pinned to, as far as there are others.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use coreloop::op::{Read, submit};
use coreloop::{Cores, Runtime};
use coreloop_tests::{in_child, skip};

/// CPUs that each of the process's io_uring workers may run on.
fn workers() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| Some(task.ok()?.path()));
    let workers = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("iou-wrk"))
    });
    // One may have ended meanwhile.
    let status = workers.filter_map(|task| fs::read_to_string(task.join("status")).ok());
    let line = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:").map(str::to_owned))
    };
    status.filter_map(line).map(|list| list.trim().to_owned()).collect()
}

/// Where the workers of a loop on the first allowed CPU are.
fn beside(pinned: bool) -> Vec<String> {
    let cpu = Cores::Count(1).resolve().unwrap()[0];
    let builder = Runtime::builder().cores(Cores::These(vec![cpu]));
    let runtime = if pinned { builder } else { builder.unpinned() }.build().unwrap();
    let found = runtime.run(|_core| async {
        // Files of /proc can't be read without waiting, so the kernel hands the read to a worker.
        let file = File::open("/proc/self/status").unwrap();
        let (n, _) = submit(Read::new(file, Vec::with_capacity(64))).await.unwrap();
        assert_eq!(n, 64);
        let until = Instant::now() + Duration::from_secs(5);
        while workers().is_empty() && Instant::now() < until {
            coreloop::yield_now().await;
        }
        workers()
    });
    found.unwrap().remove(0)
}

#[test]
fn settings_pinned_cores_have_the_kernels_workers_beside_them() {
    in_child("settings_pinned_cores_have_the_kernels_workers_beside_them", || {
        let allowed = Cores::Count(1).resolve().unwrap();
        let others: Vec<usize> =
            Cores::All.resolve().unwrap().into_iter().filter(|cpu| *cpu != allowed[0]).collect();
        let [other] = others[..] else {
            skip!("{} CPUs beside the first, and not one", others.len());
        };
        let found = beside(true);
        if found.is_empty() {
            skip!("this kernel reads /proc without a worker");
        }
        assert!(found.iter().all(|list| *list == other.to_string()), "{found:?}");
    });
}

#[test]
fn settings_cores_that_are_not_pinned_leave_the_workers_alone() {
    in_child("settings_cores_that_are_not_pinned_leave_the_workers_alone", || {
        if Cores::All.resolve().unwrap().len() < 2 {
            skip!("one CPU");
        }
        let found = beside(false);
        if found.is_empty() {
            skip!("this kernel reads /proc without a worker");
        }
        assert!(found.iter().all(|list| list.contains(['-', ','])), "{found:?}");
    });
}
