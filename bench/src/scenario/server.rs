//! The echo server: connections for each core, as `accept_spread` says, a task per connection.
//!
//! Owns the server's threads from start to end. All cores listen on one address (SO_REUSEPORT), which is
//! taken before the first of them starts, so that port 0 means the same port for all, and that a server
//! which runs there already is told instead of sharing its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use coreloop::combine::{Either, race};
use coreloop::config::{AcceptSpread, Resolved};
use coreloop::op::Submitter;
use coreloop::shutdown::Graceful;
use coreloop::signal::{Signal, Signals};
use coreloop::systemd::{self, State};
use coreloop::{Core, Cores, Handle, RemoteJoinHandle, RunError, Runtime};
use coreloop_net::ops::Ops;
use coreloop_net::spread::{Acceptor, Acceptors};
use coreloop_net::{ListenOptions, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cli::plan::ServePlan;
use crate::doctor::RingFacts;
use crate::recorder::Window;
use crate::report::core::Role;
use crate::scenario::event::Event;
use crate::scenario::load::clock::LoopClock;
use crate::scenario::meter::{CoreMeter, Metered, received};

/// When a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When [`Server::stop`] is called.
    Stopped,
    /// At SIGINT or SIGTERM.
    Signal,
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where its ops listener is, if it has one.
    pub ops: Option<SocketAddr>,
    /// Its rings: where cores differ in what they do without, that of each.
    pub ring: RingFacts,
    cores: Vec<Core>,
    handle: Handle,
    news: Receiver<News>,
    thread: JoinHandle<Result<Vec<Option<Metered>>, RunError>>,
}

/// How long the threads may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

enum News {
    Listening(Core, RingFacts, Option<SocketAddr>),
    Failed(String),
}

/// What every core needs to know.
struct Job {
    addr: SocketAddr,
    acceptors: Acceptors,
    until: Until,
    news: Mutex<Sender<News>>,
    ops: Option<SocketAddr>,
    settings: Resolved,
    graceful: Graceful,
}

impl Server {
    /// Starts all cores; they listen when this returns.
    pub fn start(plan: &ServePlan, until: Until) -> Result<Server, String> {
        let (taken, addr) = take_address(plan.addr)?;
        let mut options = ListenOptions::default();
        if let Some(name) = &plan.congestion {
            options = options.congestion(name);
        }
        let runtime = Runtime::builder()
            .configured(&plan.settings)
            .cores(Cores::These(plan.cores.clone()))
            .build()
            .map_err(|error| error.to_string())?;
        let way = AcceptSpread::of(plan.settings.settings());
        let acceptors = Acceptors::new(addr, options, way, plan.cores.len())
            .map_err(|error| bind_failed("--addr", addr, &error))?;
        let (tell, news) = channel();
        let job = Arc::new(Job {
            addr,
            acceptors: acceptors.clone(),
            until,
            news: Mutex::new(tell),
            ops: plan.ops,
            settings: plan.settings.clone(),
            // What is open when the time is over has no end of its own to wait for.
            graceful: Graceful::new(Duration::ZERO).lame_duck(plan.lame_duck),
        });
        let thread = thread::Builder::new()
            .name("server".into())
            .spawn(move || runtime.run(move |core| serve(core, job.clone())))
            .map_err(|error| format!("no thread for the server: {error}"))?;
        let mut cores: Vec<Core> = Vec::new();
        let (mut rings, mut ops) = (Vec::new(), None);
        let deadline = Instant::now() + PATIENCE;
        while cores.len() < plan.cores.len() {
            match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Listening(core, facts, its_ops)) => {
                    rings.push((core.index(), facts));
                    ops = ops.or(its_ops);
                    cores.push(core);
                }
                Ok(News::Failed(words)) => return Err(words),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the server did not start within {PATIENCE:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(why_it_ended(thread, &news)),
            }
        }
        drop(taken);
        if let Some(why) = acceptors.stepped_down() {
            eprintln!("{why}");
        }
        let handle = cores[0].handle().clone();
        let ring = RingFacts::of_cores(rings)
            .expect("there is at least one core, and each comes with its ring");
        if until == Until::Signal {
            // Whether there is a service manager, and whether it hears us, changes nothing here.
            let _ = systemd::notify(&[State::Ready, State::Status(&format!("serving on {addr}"))]);
        }
        Ok(Server { addr, ops, ring, cores, handle, news, thread })
    }

    /// Meters each core over `window`, or until it is cut short.
    pub fn watch(&self, window: Window, cut: &Arc<Event<u64>>) -> Vec<RemoteJoinHandle<Metered>> {
        let cores = self.cores.iter().cloned();
        let asked = cores.map(|core| {
            let cut = cut.clone();
            let handle = core.handle().clone();
            handle.spawn_on(core.index(), move || meter(core, window, cut))
        });
        // A core that can't take it has ended; its row is missing then.
        asked.filter_map(Result::ok).collect()
    }

    /// Ends it, in order.
    pub fn stop(self) -> Result<(), String> {
        self.handle.stop();
        let deadline = Instant::now() + PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                return Err(format!("the server did not end within {PATIENCE:?}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        match self.thread.join() {
            Ok(Ok(_) | Err(RunError::Stopped)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the server's thread panicked".into()),
        }
    }

    /// Waits for its end by signal, and gives what each core did.
    pub fn wait(self) -> Result<Vec<Metered>, String> {
        match self.thread.join() {
            Ok(Ok(cores)) => Ok(cores.into_iter().flatten().collect()),
            Ok(Err(error)) => Err(failure_told(&self.news).unwrap_or_else(|| error.to_string())),
            Err(_) => Err("the server's thread panicked".into()),
        }
    }
}

async fn serve(core: Core, job: Arc<Job>) -> Option<Metered> {
    let tell = |news| {
        let sender = job.news.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever started the server may have given up on it.
        let _ = sender.send(news);
    };
    let fail = |words: String| {
        tell(News::Failed(words));
        core.handle().stop();
        None
    };
    let acceptor = match job.acceptors.join(&core) {
        Ok(acceptor) => acceptor,
        Err(error) => return fail(bind_failed("--addr", job.addr, &error)),
    };
    let first = core.index() == 0;
    // Before it is said that we listen: from then on a signal must find its handler.
    let here = match job.until {
        Until::Stopped => None,
        Until::Signal => {
            if first && let Err(error) = heed_signals(&job.graceful) {
                return fail(format!("no handler for SIGINT and SIGTERM: {error}"));
            }
            Some(job.graceful.here())
        }
    };
    let ops = match job.ops.filter(|_| first).map(|addr| serve_ops(addr, &job)).transpose() {
        Ok(ops) => ops,
        Err(words) => return fail(words),
    };
    let meter = CoreMeter::start(&core, Role::Server).await;
    let ring = RingFacts::from(Submitter::current().report());
    tell(News::Listening(core.clone(), ring, ops));
    let ended = match &here {
        Some(here) => race(here.stopping().cancelled(), accept(acceptor)).await,
        None => Either::Second(accept(acceptor).await),
    };
    match ended {
        Either::First(()) => Some(meter.stop(&core).await),
        // The core that accepts for all may hear of the end first.
        Either::Second(e) if e.kind() == io::ErrorKind::BrokenPipe && !job.graceful.is_ready() => {
            Some(meter.stop(&core).await)
        }
        Either::Second(error) => fail(format!("accepting on {}: {error}", job.addr)),
    }
}

/// The first signal begins the end, the second is its end; the service manager is told.
fn heed_signals(graceful: &Graceful) -> Result<(), coreloop::signal::SignalError> {
    let signals = Signals::new([Signal::INT, Signal::TERM])?;
    let begun = graceful.clone();
    drop(coreloop::spawn_named("service manager", async move {
        race(begun.begun(), systemd::watchdog()).await;
        begun.begun().await;
        let _ = systemd::notify(&[State::Stopping]);
    }));
    let graceful = graceful.clone();
    drop(coreloop::spawn_named("signals", async move { graceful.on_signals(signals).await }));
    Ok(())
}

fn serve_ops(addr: SocketAddr, job: &Job) -> Result<SocketAddr, String> {
    let ops = Ops::new().listen(addr).config(&job.settings).graceful(&job.graceful);
    let bound = ops.bind().and_then(|ops| Ok((ops.local_addr()?, ops)));
    let (addr, ops) = bound.map_err(|error| bind_failed("--ops (or ops_addr)", addr, &error))?;
    drop(coreloop::spawn_named("ops", async move {
        let error = ops.serve().await;
        eprintln!("the ops listener on {addr} has ended: {error}");
    }));
    Ok(addr)
}

async fn accept(mut acceptor: Acceptor) -> io::Error {
    // Who else asks for it has an idle connection pay for its place in the count.
    let counts = acceptor.acceptors().way() == AcceptSpread::LeastConnections;
    loop {
        match acceptor.accept().await {
            // A connection's end, also one by an error, is its client's affair.
            Ok(accepted) => {
                let (stream, counted) = accepted.into_parts();
                if counts {
                    drop(coreloop::spawn(async move {
                        let _counted = counted;
                        echo(stream).await
                    }));
                } else {
                    drop(coreloop::spawn(echo(stream)));
                }
            }
            Err(error) => return error,
        }
    }
}

/// Everything the server does for a client. Small on purpose: an idle connection costs this future.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        received(chunk.len());
        stream.write_all(chunk).await?;
    }
    Ok(())
}

async fn meter(core: Core, window: Window, cut: Arc<Event<u64>>) -> Metered {
    let clock = LoopClock::new();
    let _ = race(coreloop::time::sleep_until(clock.at(window.start_ns)), cut.wait()).await;
    let meter = CoreMeter::start(&core, Role::Server).await;
    let _ = race(coreloop::time::sleep_until(clock.at(window.end_ns)), cut.wait()).await;
    meter.stop(&core).await
}

/// Binds `addr`, without listening there, as long as the socket lives; gives the address with its port.
fn take_address(addr: SocketAddr) -> Result<(Socket, SocketAddr), String> {
    let bound = |shared: bool| -> io::Result<Socket> {
        let kind = Type::STREAM.cloexec();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let take = || {
        if addr.port() != 0 {
            // Without SO_REUSEPORT: fails if anybody listens there, also a server like this one.
            drop(bound(false)?);
        }
        let socket = bound(true)?;
        let addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok((socket, addr))
    };
    take().map_err(|error| bind_failed("--addr", addr, &error))
}

fn bind_failed(flag: &str, addr: SocketAddr, error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            format!(": another server listens there; stop it, or pass another {flag}")
        }
        Some(libc::EADDRNOTAVAIL) => ": no interface of this machine has that address".into(),
        Some(libc::EACCES) => ": ports below net.ipv4.ip_unprivileged_port_start need root".into(),
        _ => String::new(),
    };
    format!("can't listen on {addr}: {error}{advice}")
}

fn failure_told(news: &Receiver<News>) -> Option<String> {
    news.try_iter().find_map(|news| match news {
        News::Failed(words) => Some(words),
        News::Listening(..) => None,
    })
}

fn why_it_ended(
    thread: JoinHandle<Result<Vec<Option<Metered>>, RunError>>,
    news: &Receiver<News>,
) -> String {
    match (failure_told(news), thread.join()) {
        (Some(words), _) => words,
        (None, Ok(Err(error))) => format!("the server did not start: {error}"),
        (None, _) => "the server ended before it listened".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_and_a_free_port_is_found() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = other.local_addr().unwrap();
        let error = take_address(addr).unwrap_err();
        assert!(error.contains("another server listens there"), "{error}");
        let (_socket, addr) = take_address(([127, 0, 0, 1], 0).into()).unwrap();
        assert_ne!(addr.port(), 0);
    }

    #[test]
    fn an_echo_task_stays_small() {
        fn size_of_output<A, F: Future>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size_of_output(echo);
        assert!(bytes <= 320, "{bytes} bytes per connection");
    }
}
