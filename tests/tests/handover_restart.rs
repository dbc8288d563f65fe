//! Restarts under load: a server is replaced by its successor again and again while clients connect as fast as
//! they can. None is refused, reset or left without its answer. `CORELOOP_CONNECTS` says how many (20,000).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coreloop::cancel::Interruptible;
use coreloop::placement::allowed_cpus;
use coreloop::shutdown::{Graceful, Here};
use coreloop::{Core, Cores, Runtime, spawn};
use coreloop_net::handover::Handover;
use coreloop_net::spread::Group;
use coreloop_net::{ListenOptions, TcpListener, TcpStream};
use coreloop_tests::net::PATIENCE;
use coreloop_tests::{Child, figure};

/// Makes a server of this binary.
const SERVER: &str = "CORELOOP_TEST_SERVER";

/// Answers 8 bytes with its process id, and ends the connection.
async fn answer(mut stream: TcpStream) {
    let Ok((_, asked)) = stream.read_exact(vec![0; 8]).await else { return };
    let mut says = std::process::id().to_le_bytes().to_vec();
    says.extend(&asked[..4]);
    // A client that has gone is not this one's business.
    let _ = stream.write_all(says).await;
}

fn serve(here: &Here, stream: TcpStream) {
    drop(here.spawn(answer(stream)));
}

/// Accepts until the end begins; what had been accepted by then is served too.
async fn accept(here: &Here, listener: &mut TcpListener) {
    while let Ok(stream) = listener.accept().cancel_on(here.stopping()).await {
        serve(here, stream);
    }
    for stream in listener.pause().await {
        serve(here, stream.attach());
    }
}

/// One core of a server of plain listeners, which share a port.
async fn plain(core: Core, handover: Handover, graceful: Graceful, addr: SocketAddr) {
    let here = graceful.here();
    let sockets = handover.take_share("http", core.index(), core.count());
    let mut listeners: Vec<_> =
        sockets.into_iter().map(|socket| TcpListener::from_fd(socket).unwrap()).collect();
    if listeners.is_empty() {
        listeners.push(TcpListener::bind(addr).unwrap());
    }
    let mut accepting = Vec::new();
    for mut listener in listeners {
        handover.lend("http", &listener).unwrap();
        let here = here.clone();
        accepting.push(spawn(async move { accept(&here, &mut listener).await }));
    }
    ready(&core, &here, &handover, &graceful);
    for task in accepting {
        task.await.unwrap();
    }
    let drained = here.drained().await;
    assert_eq!((drained.cancelled, drained.left), (0, 0), "everything was answered");
}

/// The same with a group that is steered by CPU.
async fn steered(core: Core, handover: Handover, graceful: Graceful, group: Group) {
    let here = graceful.here();
    let mut listener = group.bind(core.cpu()).unwrap();
    if ready(&core, &here, &handover, &graceful) {
        assert!(group.take_left_over().unwrap().is_none(), "as many cores as there were");
    }
    accept(&here, &mut listener).await;
    drop(listener);
    let drained = here.drained().await;
    assert_eq!((drained.cancelled, drained.left), (0, 0), "everything was answered");
}

/// Says that this core is ready; the last one waits for the successor, and begins the end then.
fn ready(core: &Core, here: &Here, handover: &Handover, graceful: &Graceful) -> bool {
    let all = handover.ready(core.count()).unwrap();
    if all {
        println!("ready");
        let (handover, graceful) = (handover.clone(), graceful.clone());
        let stopping = here.stopping().clone();
        drop(spawn(async move {
            if stopping.run(handover.successor()).await.is_ok() {
                graceful.begin();
            }
        }));
    }
    all
}

/// A server process, until its successor has taken over. Not a test: does nothing unless it is asked to.
#[test]
fn handover_server_process() {
    let Ok(text) = std::env::var(SERVER) else { return };
    let [kind, path, addr, cores] = text.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    let addr: SocketAddr = addr.parse().unwrap();
    let handover = coreloop::run(Handover::begin(path)).unwrap().unwrap();
    let graceful = Graceful::new(Duration::from_secs(30));
    let cpus = allowed_cpus();
    let cpus = (0..cores.parse().unwrap()).map(|i: usize| cpus[i % cpus.len()]).collect();
    let runtime = Runtime::builder().cores(Cores::These(cpus)).build().unwrap();
    let ended = if kind == "plain" {
        runtime.run(move |core| plain(core, handover.clone(), graceful.clone(), addr))
    } else {
        let inherited = handover.take_all("http");
        let options = ListenOptions::default();
        let group = if inherited.is_empty() {
            Group::new(addr, options).unwrap()
        } else {
            coreloop::run(async { Group::adopt(inherited, options).unwrap() }).unwrap()
        };
        handover.lend_group("http", &group).unwrap();
        runtime.run(move |core| steered(core, handover.clone(), graceful.clone(), group.clone()))
    };
    ended.unwrap();
}

/// A server process, and the thread that reads what it says last.
struct Server {
    process: Process,
    reader: thread::JoinHandle<()>,
}

impl Server {
    /// Waits for its end. The reader has closed its pipe then: a thread that nobody waits for may still have it
    /// open when this process ends.
    fn wait(mut self) -> ExitStatus {
        let status = self.process.wait().unwrap();
        self.reader.join().unwrap();
        status
    }
}

/// Starts a server and waits until it is ready.
fn start(kind: &str, path: &Path, addr: SocketAddr, cores: usize) -> Server {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handover_server_process", "--nocapture"])
        .env(SERVER, format!("{kind} {} {addr} {cores}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("ready\n") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the server ended before it was ready");
    }
    // The pipe stays open for what it says last.
    let reader = thread::spawn(move || drop(std::io::copy(&mut out, &mut std::io::sink())));
    Server { process, reader }
}

/// One connection: who answered, and how long it took.
fn ask(addr: SocketAddr, number: u32) -> std::io::Result<(u32, Duration)> {
    let began = Instant::now();
    let mut stream = StdStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&(u64::from(number) | 1 << 40).to_le_bytes())?;
    // The end of the stream too: a reset in its place would be an error.
    let mut says = Vec::new();
    stream.read_to_end(&mut says)?;
    match says[..] {
        [a, b, c, d, ref number_back @ ..] if number_back == number.to_le_bytes() => {
            Ok((u32::from_le_bytes([a, b, c, d]), began.elapsed()))
        }
        _ => Err(std::io::Error::other(format!("{} bytes came back", says.len()))),
    }
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    answered: usize,
    by: BTreeSet<u32>,
    errors: Vec<String>,
    longest: Duration,
}

fn restarts_refuse_nobody(kind: &'static str, cores: fn(usize) -> usize) -> String {
    const CLIENTS: usize = 8;
    const RESTARTS: usize = 6;
    let want = std::env::var("CORELOOP_CONNECTS").map_or(20_000, |n| n.parse().unwrap());
    let path = std::env::temp_dir().join(format!("coreloop-{kind}-{}", std::process::id()));
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = start(kind, &path, addr, cores(0));
    let (made, restarts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let client = || {
        let (made, restarts) = (made.clone(), restarts.clone());
        move || {
            let mut seen = Seen::default();
            loop {
                let number = made.fetch_add(1, Ordering::Relaxed);
                if number >= want && restarts.load(Ordering::Relaxed) >= RESTARTS {
                    return seen;
                }
                match ask(addr, number as u32) {
                    Ok((by, took)) => {
                        seen.answered += 1;
                        seen.by.insert(by);
                        seen.longest = seen.longest.max(took);
                    }
                    Err(e) => seen.errors.push(e.to_string()),
                }
            }
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(client())).collect();
    while clients.iter().any(|client| !client.is_finished()) {
        let generation = restarts.load(Ordering::Relaxed) + 1;
        let next = start(kind, &path, addr, cores(generation));
        assert!(server.wait().success(), "the old one ended in good order");
        server = next;
        restarts.fetch_add(1, Ordering::Relaxed);
        // Time to be asked by somebody: a restart every few hundred connects.
        thread::sleep(Duration::from_millis(30));
    }
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join().unwrap();
        all.answered += seen.answered;
        all.by.extend(seen.by);
        all.errors.extend(seen.errors);
        all.longest = all.longest.max(seen.longest);
    }
    server.process.kill().unwrap();
    server.wait();
    let _ = std::fs::remove_file(&path);
    assert!(all.errors.is_empty(), "{} of {}: {:?}", all.errors.len(), all.answered, all.errors);
    assert!(all.answered >= want, "{}", all.answered);
    assert!(all.by.len() >= RESTARTS, "{} servers answered", all.by.len());
    let (restarts, Seen { answered, by, longest, .. }) = (restarts.load(Ordering::Relaxed), all);
    let by = by.len();
    format!("{answered} connects, {restarts} restarts, {by} servers answered, longest {longest:?}")
}

#[test]
fn handover_restarts_under_load_refuse_and_reset_nobody() {
    let name = "handover_restarts_under_load_refuse_and_reset_nobody";
    Child::new(name).limit(Duration::from_secs(300)).run(|| {
        // More cores, fewer cores: the sockets are shared out anew each time.
        let text = restarts_refuse_nobody("plain", |generation| [2, 3, 1][generation % 3]);
        figure!("{text}");
    });
}

#[test]
fn handover_of_listeners_by_cpu_refuses_and_resets_nobody() {
    let name = "handover_of_listeners_by_cpu_refuses_and_resets_nobody";
    Child::new(name).limit(Duration::from_secs(300)).run(|| {
        let text = restarts_refuse_nobody("steered", |_| 2);
        figure!("{text}");
    });
}
