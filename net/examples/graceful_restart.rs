//! A server that is replaced by its successor without a refused connection.
//!
//! `graceful_restart serve <path> <address>` serves; the same once more, and the second takes the first one's
//! place: it gets the listeners over the socket at `<path>`, and the first ends when it has answered what it
//! had accepted. SIGTERM ends it too. Without arguments it shows a restart by itself, under load.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use coreloop::cancel::Interruptible;
use coreloop::shutdown::{Graceful, Here};
use coreloop::signal::{Signal, Signals};
use coreloop::{Core, Cores, Runtime, spawn};
use coreloop_net::handover::Handover;
use coreloop_net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", path, addr] => serve(path, addr.parse().map_err(io::Error::other)?),
        [] => show(),
        _ => Err(io::Error::other("graceful_restart [serve <path> <address>]")),
    }
}

fn serve(path: &str, addr: SocketAddr) -> io::Result<()> {
    let handover = coreloop::run(Handover::begin(path)).map_err(io::Error::other)??;
    let count = coreloop::placement::allowed_cpus().len().min(2);
    // For each core, which ends when it has drained, and what runs on it.
    let signals: Result<Vec<_>, _> = (0..count).map(|_| Signals::new([Signal::TERM])).collect();
    let signals = std::sync::Mutex::new(signals.map_err(io::Error::other)?);
    let graceful = Graceful::new(Duration::from_secs(30));
    let cores = Cores::Count(count);
    let runtime = Runtime::builder().cores(cores).build().map_err(io::Error::other)?;
    let ended = runtime.run(move |core| {
        let signals = signals.lock().ok().and_then(|mut signals| signals.pop());
        let (handover, graceful) = (handover.clone(), graceful.clone());
        async move {
            let ended = serve_on(core, handover, graceful.clone(), signals, addr).await;
            if ended.is_err() {
                // The others would serve without it.
                graceful.at_once();
            }
            ended
        }
    });
    ended.map_err(io::Error::other)?.into_iter().collect()
}

async fn serve_on(
    core: Core,
    handover: Handover,
    graceful: Graceful,
    signals: Option<Signals>,
    addr: SocketAddr,
) -> io::Result<()> {
    let here = graceful.here();
    if let Some(signals) = signals {
        let graceful = graceful.clone();
        drop(spawn(async move { graceful.on_signals(signals).await }));
    }
    // The predecessor's listeners, shared out among however many cores this process has; or our own.
    let sockets = handover.take_share("http", core.index(), core.count());
    let mut listeners =
        sockets.into_iter().map(TcpListener::from_fd).collect::<Result<Vec<_>, _>>()?;
    if listeners.is_empty() {
        listeners.push(TcpListener::bind(addr)?);
    }
    let mut accepting = Vec::new();
    for mut listener in listeners {
        handover.lend("http", &listener)?;
        let here = here.clone();
        accepting.push(spawn(async move { accept(&here, &mut listener).await }));
    }
    // With the last core's call the predecessor lets go; all that is to be handed on has been lent by then.
    if handover.ready(core.count())? {
        drop(spawn(async move {
            if handover.successor().await.is_ok() {
                graceful.begin();
            }
        }));
    }
    for task in accepting {
        task.await.map_err(io::Error::other)?;
    }
    here.drained().await;
    Ok(())
}

/// Accepts until the end begins; what had been accepted by then is still answered.
async fn accept(here: &Here, listener: &mut TcpListener) {
    while let Ok(stream) = listener.accept().cancel_on(here.stopping()).await {
        drop(here.spawn(answer(stream)));
    }
    for stream in listener.pause().await {
        drop(here.spawn(answer(stream.attach())));
    }
}

async fn answer(mut stream: TcpStream) {
    // A client that is gone wants no answer.
    let _ = stream.write_all(format!("process {}", std::process::id())).await;
}

/// Starts a server, its successor and that one's, while this process connects without a pause.
fn show() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("graceful-restart-{}", std::process::id()));
    let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let start = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(&path).arg(addr.to_string()).spawn()
    };
    let mut server = start()?;
    while StdStream::connect(addr).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    let mut asked = 0;
    for _ in 0..2 {
        let next = start()?;
        asked += ask_until_ended(addr, &mut server)?;
        server = next;
    }
    println!("two restarts, no connection refused or reset");
    eprintln!("{asked} connects were answered meanwhile");
    server.kill()?;
    server.wait()?;
    std::fs::remove_file(&path)
}

/// Connects again and again until this server has ended; how often. The first error ends it.
fn ask_until_ended(addr: SocketAddr, server: &mut Child) -> io::Result<usize> {
    let mut asked = 0;
    while server.try_wait()?.is_none() {
        let mut text = String::new();
        StdStream::connect(addr)?.read_to_string(&mut text)?;
        if !text.starts_with("process ") {
            return Err(io::Error::other("a connection without its answer"));
        }
        asked += 1;
    }
    Ok(asked)
}
