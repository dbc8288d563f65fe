//! The ops listener within a runtime: what its pages say, of cores that answer and of one that does not, and
//! that nobody who speaks to it takes more than is allowed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use coreloop::config::Sources;
use coreloop::shutdown::Graceful;
use coreloop::time::sleep;
use coreloop::{Cores, Handle, Runtime, StatsLevel, spawn, spawn_named};
use coreloop_net::ops::{Ops, doc};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Two cores with a listener on the first; `outside` gets its address, and may make core 1 sleep in a task.
fn with_ops(
    ops: impl Fn(Ops) -> Ops + Send + Sync + 'static,
    graceful: &Graceful,
    outside: impl FnOnce(SocketAddr, &Handle),
) {
    let (tell, told) = mpsc::channel();
    let cpu = Cores::Count(1).resolve().unwrap()[0];
    let sources = Sources::new().flag("stats=histograms").unwrap();
    let sources = sources.flag("mask=msg_ring,min_wait,no_iowait").unwrap();
    // One that is called like its feature, and one that is not.
    let sources = sources.flag("min_wait=50us").unwrap().flag("worker_cpus=8191").unwrap();
    let settings = sources.resolve().unwrap();
    let runtime = Runtime::builder()
        .configured(&settings)
        .cores(Cores::These(vec![cpu, cpu]))
        .unpinned()
        .build()
        .unwrap();
    assert_eq!(StatsLevel::default(), StatsLevel::Counters);
    let graceful = graceful.clone();
    let cores = thread::spawn(move || {
        runtime.run(move |core| {
            let ops =
                ops(Ops::new().listen(([127, 0, 0, 1], 0)).config(&settings).graceful(&graceful));
            let tell = tell.clone();
            async move {
                drop(spawn_named("sleeper", async { drop(spawn(sleep(HOUR)).await) }));
                if core.index() == 0 {
                    let ops = ops.bind().unwrap();
                    tell.send((ops.local_addr().unwrap(), core.handle().clone())).unwrap();
                    panic!("it has ended: {}", ops.serve().await);
                }
                sleep(HOUR).await;
            }
        })
    });
    let (addr, handle) = told.recv().unwrap();
    outside(addr, &handle);
    handle.stop();
    drop(cores.join().unwrap());
}

fn never() -> Graceful {
    Graceful::new(Duration::ZERO)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes as an answer to these bytes, until the other side has done.
fn say(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(addr: SocketAddr, path: &str) -> String {
    say(addr, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
}

fn json<T: serde::de::DeserializeOwned>(addr: SocketAddr, path: &str) -> T {
    let answer = get(addr, path);
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn ops_pages_tell_of_every_core() {
    with_ops(
        |ops| ops,
        &never(),
        |addr, _| {
            let cores: doc::Cores = json(addr, "/cores");
            assert_eq!((cores.cores.len(), cores.ready), (2, true));
            assert_eq!(cores.process.pid, std::process::id());
            let until = Instant::now() + PATIENCE;
            let tasks = loop {
                let tasks: doc::Tasks = json(addr, "/tasks?format=json");
                if tasks.cores[1]
                    .tasks
                    .iter()
                    .any(|t| t.waits_for.iter().any(|w| w.left_ns.is_some()))
                {
                    break tasks;
                }
                assert!(Instant::now() < until, "{tasks:?}");
            };
            for core in &tasks.cores {
                let main = core.tasks[0].id.as_str();
                let sleeper =
                    core.tasks.iter().find(|t| t.name.as_deref() == Some("sleeper")).unwrap();
                assert_eq!(sleeper.parent.as_deref(), Some(main));
                // It was polled once, and waits since.
                assert_eq!(sleeper.polls, Some(1), "{sleeper:?}");
                assert!(core.tasks[0].polls.is_some());
                assert!(sleeper.spawned_at.as_ref().unwrap().contains("ops_listener.rs:"));
                let child =
                    core.tasks.iter().find(|t| t.parent.as_ref() == Some(&sleeper.id)).unwrap();
                assert_eq!(sleeper.waits_for[0].task.as_ref(), Some(&child.id), "{core:?}");
                let left = child.waits_for[0].left_ns.unwrap();
                assert!(left > 3_500_000_000_000, "{child:?}");
            }
            let some: doc::Tasks = json(addr, "/tasks?format=json&core=1&max=1");
            assert_eq!(
                (some.cores.len(), some.cores[0].core, some.cores[0].tasks.len()),
                (1, 1, 1)
            );
            assert_eq!(some.cores[0].left_out, 2);
            let text = get(addr, "/tasks");
            assert!(text.contains("core 1: 3 tasks\n") && text.contains("a timer in"), "{text}");
            assert!(text.contains("  1 poll  "), "{text}");
            assert!(get(addr, "/tasks?core=2").starts_with("HTTP/1.1 404"), "there are two");
            assert!(get(addr, "/tasks?max=many").contains("\"many\" is not a whole number"));

            let config: doc::Config = json(addr, "/config?format=json");
            let stats = config.settings.iter().find(|s| s.name == "stats").unwrap();
            assert_eq!(
                (stats.value.as_str(), stats.origin.as_str()),
                ("histograms", "stats=histograms")
            );
            let masked = config.step_downs.iter().filter(|step| step.what == "msg_ring");
            assert_eq!(masked.map(|step| step.core).collect::<Vec<_>>(), [0, 1]);
            let metrics = get(addr, "/metrics");
            for core in 0..2 {
                let said = config.step_downs.iter().filter(|step| step.core == core);
                let said: Vec<_> = said.map(|s| (&s.what[..], &s.why[..])).collect();
                let workers = said.iter().find(|(what, _)| *what == "worker_cpus").unwrap().1;
                let told = "asked 8191, in force kernel, because refused: Invalid argument";
                assert!(workers.starts_with(told), "{workers}");
                let waits = said.iter().filter(|(what, _)| *what == "min_wait");
                let told = "asked 50µs, in force off, because masked by settings";
                assert_eq!(waits.map(|(_, why)| *why).collect::<Vec<_>>(), [told], "once");
                assert!(said.contains(&("no_iowait", "masked by settings")), "{said:?}");
                for what in ["worker_cpus", "min_wait", "no_iowait"] {
                    let step =
                        format!("\ncoreloop_step_down{{core=\"{core}\",what=\"{what}\"}} 1\n");
                    assert_eq!(metrics.matches(&step).count(), 1, "{metrics}");
                }
                let step = format!("coreloop_step_down{{core=\"{core}\",what=\"msg_ring\"}} 1\n");
                assert!(metrics.contains(&step), "{metrics}");
                let polls = format!("\ncoreloop_poll_duration_seconds_count{{core=\"{core}\"}} ");
                assert!(metrics.contains(&polls), "{metrics}");
            }
            // Who asks for no format, as curl, gets what promtool reads.
            assert!(metrics.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{metrics}");
            assert!(metrics.contains("\n# TYPE coreloop_polls_total counter\n"), "{metrics}");
            assert!(!metrics.contains("# EOF"), "{metrics}");
            let asking = "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n";
            let open = say(addr, asking.as_bytes());
            assert!(open.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0"));
            assert!(open.contains("\n# TYPE coreloop_polls counter\n"), "{open}");
            assert!(open.ends_with("\n# EOF\n"), "{open}");
            assert!(
                get(addr, "/").contains("/readyz")
                    && get(addr, "/nothing").contains("404 Not Found")
            );
        },
    );
}

#[test]
fn ops_readiness_is_that_of_the_shutdown_and_of_the_program() {
    let (graceful, warm) = (never().lame_duck(HOUR), Arc::new(AtomicBool::new(false)));
    let is_warm = warm.clone();
    let ops = move |ops: Ops| {
        let warm = is_warm.clone();
        ops.ready_if(move || warm.load(Ordering::Relaxed))
    };
    with_ops(ops, &graceful.clone(), |addr, _| {
        assert!(get(addr, "/readyz").ends_with("not ready\n"));
        warm.store(true, Ordering::Relaxed);
        assert!(get(addr, "/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
        graceful.begin();
        let answer = get(addr, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
        assert!(get(addr, "/livez").ends_with("\r\n\r\nok\n"));
    });
}

#[test]
fn ops_go_on_without_a_core_that_is_kept_busy() {
    let limit = Duration::from_millis(300);
    with_ops(
        move |ops| ops.answer_within(limit),
        &never(),
        |addr, handle| {
            assert!(get(addr, "/livez").starts_with("HTTP/1.1 200 "));
            let release = Arc::new(AtomicBool::new(false));
            let held = release.clone();
            let (tell, told) = mpsc::channel();
            let busy = move || {
                tell.send(()).unwrap();
                while !held.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            };
            handle.call_soon_threadsafe(1, busy).unwrap();
            told.recv().unwrap();
            let answer = get(addr, "/livez");
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(
                answer.contains("core 1 does not answer") && !answer.contains("core 0"),
                "{answer}"
            );
            // Nobody asks it again for a while: that would take the limit each time.
            let began = Instant::now();
            for _ in 0..100 {
                assert!(get(addr, "/metrics").contains("coreloop_polls_total{core=\"1\"}"));
            }
            assert!(began.elapsed() < 100 * limit, "{:?}", began.elapsed());
            let tasks: doc::Tasks = json(addr, "/tasks?format=json");
            assert!(tasks.cores[0].missing.is_none() && !tasks.cores[0].tasks.is_empty());
            assert!(
                tasks.cores[1].missing.as_ref().unwrap().contains("has not answered"),
                "{tasks:?}"
            );
            release.store(true, Ordering::Relaxed);
            let until = Instant::now() + PATIENCE;
            while !get(addr, "/livez").starts_with("HTTP/1.1 200 ") {
                assert!(Instant::now() < until);
            }
        },
    );
}

#[test]
fn ops_speak_as_much_http_as_is_needed() {
    with_ops(
        |ops| ops,
        &never(),
        |addr, _| {
            // Two requests at once, on a connection that stays open, then one that closes it.
            let both =
                "GET /livez HTTP/1.1\r\n\r\nHEAD /readyz HTTP/1.1\r\nConnection: close\r\n\r\n";
            let answers = say(addr, both.as_bytes());
            assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
            assert!(answers.contains("Connection: keep-alive\r\n\r\nok\nHTTP/1.1"), "{answers}");
            assert!(
                answers.contains("Content-Length: 6\r\n"),
                "that of the body left out: {answers}"
            );
            assert!(answers.ends_with("Connection: close\r\n\r\n"), "{answers}");
            for (bytes, status) in [
                (&b"POST /livez HTTP/1.1\r\n\r\n"[..], "405 Method Not Allowed"),
                (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "413 Content Too Large"),
                (b"\x16\x03\x01\x00\x00\r\n\r\n", "400 Bad Request"),
                (&[b'x'; 20_000], "431 Request Header Fields Too Large"),
            ] {
                let answer = say(addr, bytes);
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                    "{status}: {answer}"
                );
            }
        },
    );
}

#[test]
fn ops_connections_are_bounded_and_the_idlest_goes_first() {
    with_ops(
        |ops| ops,
        &never(),
        |addr, handle| {
            let mut idle: Vec<TcpStream> = (0..100).map(|_| connect(addr)).collect();
            assert!(
                get(addr, "/livez").starts_with("HTTP/1.1 200 "),
                "there is room for a new one"
            );
            let accepts = handle.snapshot(0).unwrap().counters.accepts;
            assert_eq!(accepts, 101);
            // The first were closed, the last is there yet.
            assert_eq!(idle[0].read(&mut [0; 10]).unwrap(), 0);
            let last = idle.last_mut().unwrap();
            last.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            last.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("ok\n"), "{answer}");
            let tasks: doc::Tasks = json(addr, "/tasks?format=json&core=0");
            let open =
                tasks.cores[0].tasks.iter().filter(|t| t.name.as_deref() == Some("ops connection"));
            assert!(open.count() <= 32);
        },
    );
}

#[test]
fn ops_listen_on_the_loopback_interface_by_themselves() {
    coreloop::run(async {
        let shown = format!("{:?}", Ops::new());
        assert!(shown.contains("127.0.0.1:9464"), "{shown}");
        let first = Ops::new().listen(([127, 0, 0, 1], 0)).bind().unwrap();
        let addr = first.local_addr().unwrap();
        let second = Ops::new().listen(addr).bind().unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse, "two would share the requests");
    })
    .unwrap();
}
