//! The ops listener of a core with very many tasks: it lists them in bounded pieces between which the core does
//! its work, and lists them right while others come and go.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coreloop::time::sleep;
use coreloop::{spawn_named, yield_now};
use coreloop_net::ops::{Ops, doc};
use coreloop_tests::drive::ticker;

/// ThreadSanitizer makes each step some ten times as long, and a core that has not answered within a
/// second is listed as missing.
const TASKS: usize = if cfg!(tsan) { 10_000 } else { 200_000 };
/// Tasks that a chunk may have, as `net/src/ops/tasks.rs` bounds a poll.
const CHUNK_TASKS_MAX: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);

/// The body of an answer in chunks, and how many tasks its fullest chunk has.
fn get(addr: SocketAddr, path: &str) -> (String, usize) {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (&stream).write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let line = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!(line(&mut stream), "HTTP/1.1 200 OK");
    let mut chunked = false;
    loop {
        match line(&mut stream).as_str() {
            "" => break,
            field => chunked |= field == "Transfer-Encoding: chunked",
        }
    }
    assert!(chunked);
    let (mut body, mut most) = (String::new(), 0);
    loop {
        let len = usize::from_str_radix(&line(&mut stream), 16).unwrap();
        let mut chunk = vec![0; len];
        stream.read_exact(&mut chunk).unwrap();
        assert_eq!(line(&mut stream), "");
        if len == 0 {
            return (body, most);
        }
        let chunk = String::from_utf8(chunk).unwrap();
        most = most.max(chunk.matches("\"age_ns\":").count());
        body += &chunk;
    }
}

/// Asks once without and once with a bound, from another thread.
fn ask(addr: SocketAddr) -> (doc::Tasks, doc::Tasks) {
    let (few, most) = get(addr, "/tasks?format=json&max=1000");
    assert!(most <= CHUNK_TASKS_MAX, "{most}");
    let (all, most) = get(addr, "/tasks?format=json&max=1000000");
    assert!(most <= CHUNK_TASKS_MAX, "{most}");
    (serde_json::from_str(&few).unwrap(), serde_json::from_str(&all).unwrap())
}

#[test]
fn ops_200_000_tasks_are_listed_in_bounded_pieces_while_others_come_and_go() {
    coreloop::run(async {
        let ops = Ops::new().listen(([127, 0, 0, 1], 0)).bind().unwrap();
        let addr = ops.local_addr().unwrap();
        drop(spawn_named("ops", ops.serve()));
        let stay: Vec<_> = (0..TASKS).map(|_| spawn_named("stays", sleep(HOUR))).collect();
        let mut others: Vec<_> = (0..1000).map(|_| spawn_named("goes", sleep(HOUR))).collect();
        yield_now().await;

        let (tell, told) = mpsc::channel();
        let asking = thread::spawn(move || tell.send(ask(addr)).unwrap());
        let (ticker, turns) = ticker();
        let (few, all) = loop {
            // Some of those that may go do, and as many come.
            others.drain(..10).for_each(|task| _ = task.cancel());
            yield_now().await;
            others.extend((0..10).map(|_| spawn_named("goes", sleep(HOUR))));
            match told.try_recv() {
                Ok(lists) => break lists,
                Err(mpsc::TryRecvError::Empty) => yield_now().await,
                Err(gone) => panic!("{gone}: the other thread has failed"),
            }
        };
        ticker.cancel();
        asking.join().unwrap();

        let few = &few.cores[0];
        assert_eq!(few.tasks.len(), 1000);
        // At any time 10 of those that go and come are not there.
        assert!(few.left_out >= TASKS - 10, "{}", few.left_out);
        let all = &all.cores[0];
        assert_eq!((all.left_out, all.missing.as_deref()), (0, None));
        let listed: HashSet<&str> = all.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(listed.len(), all.tasks.len(), "no task twice");
        for task in &stay {
            assert!(listed.contains(task.id().to_string().as_str()), "{} is missing", task.id());
        }
        for task in all.tasks.iter().filter(|task| task.name.as_deref() == Some("stays")) {
            let timers = task.waits_for.iter().filter(|wait| wait.left_ns.is_some());
            assert_eq!((timers.count(), task.waits_for.len()), (1, 1), "{task:?}");
        }
        // To list a task in words takes a poll for each 64 of them, to look at it a turn for each 256.
        let least = TASKS / CHUNK_TASKS_MAX + TASKS / 256;
        assert!(turns.get() >= least, "{} turns for {TASKS} tasks", turns.get());
    })
    .unwrap();
}
