//! Which tasks had the longest polls of late, and what task queues did: in snapshots, and on the pages of the
//! ops listener.

use std::thread;
use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::time::sleep;
use coreloop::{
    EventLoop, Handle, LongPoll, Settings, Snapshot, StatsLevel, spawn, spawn_named, yield_now,
};
use coreloop_net::TcpStream;
use coreloop_net::ops::{Ops, doc};

const BLOCKED: Duration = Duration::from_millis(30);

fn here(settings: Settings, main: impl AsyncFnOnce() -> Snapshot) -> Snapshot {
    EventLoop::with(settings).unwrap().block_on(main())
}

async fn snapshot() -> Snapshot {
    Handle::current().stats(0).await.unwrap()
}

/// Blocks its core, as nothing should.
fn block() {
    thread::sleep(BLOCKED);
}

fn of<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a LongPoll> {
    snapshot.long_polls.iter().find(|poll| poll.name.as_deref() == Some(name))
}

#[test]
fn report_the_task_with_the_longest_poll_is_named() {
    let mut id = String::new();
    let seen = here(Settings::default().stats(StatsLevel::Histograms), async || {
        let idle = spawn_named("idle", sleep(Duration::from_secs(3600)));
        let slow = spawn_named("slow", async {
            yield_now().await;
            block();
            sleep(Duration::from_secs(3600)).await;
        });
        // More tasks than are all timed would leave it to chance.
        for _ in 0..5 {
            yield_now().await;
        }
        let seen = snapshot().await;
        id = slow.id().to_string();
        drop((idle, slow));
        seen
    });
    let slow = of(&seen, "slow").unwrap_or_else(|| panic!("{:?}", seen.long_polls));
    assert_eq!(slow.task, id, "as the task's own id is printed");
    assert!(slow.took >= BLOCKED, "{slow:?}");
    assert!(slow.spawned_at.as_ref().unwrap().contains("report_long_polls.rs:"), "{slow:?}");
    assert_eq!(seen.long_polls[0].took, seen.long_polls.iter().map(|p| p.took).max().unwrap());
    assert!(of(&seen, "idle").is_none_or(|idle| idle.took < slow.took), "{:?}", seen.long_polls);
    assert!(seen.long_polls.len() <= 16);
}

#[test]
fn report_a_task_that_ended_in_its_long_poll_and_the_main_future_are_listed() {
    let seen = here(Settings::default().stats(StatsLevel::Histograms), async || {
        spawn(async { block() }).await.unwrap();
        yield_now().await;
        block();
        yield_now().await;
        snapshot().await
    });
    let long: Vec<_> = seen.long_polls.iter().filter(|poll| poll.took >= BLOCKED).collect();
    assert_eq!(long.len(), 2, "{:?}", seen.long_polls);
    assert_eq!(long.iter().filter(|poll| poll.spawned_at.is_none()).count(), 1, "the main future");
}

#[test]
fn report_no_poll_is_timed_below_the_level_of_histograms() {
    for level in [StatsLevel::Off, StatsLevel::Counters] {
        let seen = here(Settings::default().stats(level), async || {
            spawn(async { block() }).await.unwrap();
            snapshot().await
        });
        assert_eq!((seen.level, seen.long_polls), (level, vec![]));
    }
}

#[test]
fn report_task_queues_are_on_the_pages() {
    EventLoop::new().unwrap().block_on(async {
        let batch = TaskQueue::builder("batch \"a\"").shares(10).build().unwrap();
        // Another of the same name: they are one series, or a scrape would be refused.
        let twin = TaskQueue::builder("batch \"a\"").shares(20).build().unwrap();
        let naps =
            [&batch, &batch, &twin].map(|queue| queue.spawn(sleep(Duration::from_secs(3600))));
        let ops = Ops::new().listen(([127, 0, 0, 1], 0)).bind().unwrap();
        let addr = ops.local_addr().unwrap();
        let serving = spawn(ops.serve());
        let metrics = get(addr, "/metrics").await;
        for line in [
            "# TYPE coreloop_queue_polls_total counter",
            "coreloop_queue_shares{core=\"0\",queue=\"batch \\\"a\\\"\"} 30\n",
            "coreloop_queue_tasks{core=\"0\",queue=\"batch \\\"a\\\"\"} 3\n",
            "coreloop_queue_polls_total{core=\"0\",queue=\"batch \\\"a\\\"\"} 3\n",
            "coreloop_queue_cpu_seconds_total{core=\"0\",queue=\"default\"} ",
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        let text = get(addr, "/tasks").await;
        assert_eq!(text.matches("  queue batch \"a\"  ").count(), 3, "{text}");
        let json = get(addr, "/tasks?format=json").await;
        let tasks: doc::Tasks = serde_json::from_str(&json).unwrap();
        let of_batch = |task: &&doc::Task| task.queue.as_deref() == Some("batch \"a\"");
        assert_eq!(tasks.cores[0].tasks.iter().filter(of_batch).count(), 3, "{json}");
        let cores: doc::Cores = serde_json::from_str(&get(addr, "/cores").await).unwrap();
        let shares: Vec<u32> = cores.cores[0].queues.iter().map(|queue| queue.shares).collect();
        assert_eq!(shares, [1000, 10, 20]);
        drop(naps);
        serving.cancel();
    });
}

async fn get(addr: std::net::SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(format!("GET {path} HTTP/1.0\r\n\r\n")).await.unwrap();
    let mut answer = String::new();
    while let Some(chunk) = client.recv().await.unwrap() {
        answer += std::str::from_utf8(&chunk).unwrap();
    }
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
