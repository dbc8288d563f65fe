//! What a running server says of itself, over HTTP: feature `ops`.
//!
//! Owns [`Ops`], the listener for those who run the server: metrics for Prometheus, lists of tasks,
//! settings in force, and answers for probes. It is a task of one core; what other cores did is read
//! without stopping them. Invariants: it changes nothing, every request, answer and wait is bounded, and it
//! listens on the loopback interface unless told otherwise, since it asks nobody who they are.
//!
//! | path | gives |
//! |---|---|
//! | `/metrics` | counters, gauges, histograms of each core: Prometheus text, or OpenMetrics for who asks |
//! | `/tasks` | every task: name, age, where and by whom it was spawned, what it waits for; text or JSON |
//! | `/config` | every setting, its value and origin, and what the cores do without; text or JSON |
//! | `/cores` | each core's [`Snapshot`](coreloop::Snapshot), JSON ([`doc::Cores`]) |
//! | `/livez` | 200 while every core answers that does not end |
//! | `/readyz` | 200 while new work is wanted: 503 as soon as a [`Graceful`] end begins |
//!
//! ```
//! use coreloop::{Runtime, shutdown::Graceful, spawn_named};
//! use coreloop_net::{TcpStream, ops::Ops};
//! use std::time::Duration;
//!
//! let graceful = Graceful::new(Duration::from_secs(30));
//! let answers = Runtime::builder().build().unwrap().run(move |core| {
//!     let graceful = graceful.clone();
//!     async move {
//!         if core.index() != 0 {
//!             return String::new();
//!         }
//!         let ops = Ops::new().listen(([127, 0, 0, 1], 0)).graceful(&graceful).bind().unwrap();
//!         let addr = ops.local_addr().unwrap();
//!         let serving = spawn_named("ops", ops.serve());
//!
//!         let mut client = TcpStream::connect(addr).await.unwrap();
//!         client.write_all("GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
//!         let mut answer = String::new();
//!         while let Some(chunk) = client.recv().await.unwrap() {
//!             answer += std::str::from_utf8(&chunk).unwrap();
//!         }
//!         serving.cancel();
//!         answer
//!     }
//! });
//! assert!(answers.unwrap()[0].ends_with("\r\n\r\nready\n"));
//! ```

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coreloop::Handle;
use coreloop::config::Resolved;
use coreloop::shutdown::Graceful;

use crate::{ListenOptions, TcpListener};

pub mod doc;
mod http;
mod metrics;
mod openmetrics;
mod pages;
mod process;
mod serve;
mod tasks;
mod workers;

/// The port that [`Ops`] listens on unless told otherwise.
pub const PORT: u16 = 9464;

/// How long a core may take to answer, unless [`Ops::answer_within`] says otherwise.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The ops listener, before it listens. See [the module](self).
#[must_use = "nobody listens before `bind` and `serve`"]
pub struct Ops {
    addr: SocketAddr,
    config: Option<Resolved>,
    graceful: Option<Graceful>,
    ready_if: Vec<Box<dyn Fn() -> bool>>,
    limit: Duration,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            addr: ([127, 0, 0, 1], PORT).into(),
            config: None,
            graceful: None,
            ready_if: Vec::new(),
            limit: ANSWER_LIMIT,
        }
    }
}

impl Ops {
    /// One that will listen on port 9464 of the loopback interface.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that listens where the setting `ops_addr` says, and shows these settings on `/config`; none if
    /// that is `off`, as it is unless said. A port alone is one of the loopback interface.
    ///
    /// ```
    /// use coreloop::config::Sources;
    /// use coreloop_net::ops::Ops;
    ///
    /// // In a program: `.file("server.toml")?.environment(std::env::vars_os())?`
    /// let config = Sources::new().flag("ops_addr=0")?.resolve()?;
    /// coreloop::run(async {
    ///     if let Some(ops) = Ops::configured(&config) {
    ///         let listener = ops.bind().unwrap();
    ///         assert!(listener.local_addr().unwrap().ip().is_loopback());
    ///         drop(coreloop::spawn_named("ops", listener.serve()));
    ///     }
    /// })
    /// .unwrap();
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    pub fn configured(config: &Resolved) -> Option<Self> {
        config.ops_addr().map(|addr| Self::new().listen(addr).config(config))
    }

    /// Where to listen. Whoever can reach that address can read everything: outside the loopback interface
    /// put a firewall, a network policy or a proxy before it.
    pub fn listen(mut self, addr: impl Into<SocketAddr>) -> Self {
        self.addr = addr.into();
        self
    }

    /// The settings that the runtime was made with, for `/config`.
    pub fn config(mut self, config: &Resolved) -> Self {
        self.config = Some(config.clone());
        self
    }

    /// The process's end: `/readyz` says no as soon as it begins.
    pub fn graceful(mut self, graceful: &Graceful) -> Self {
        self.graceful = Some(graceful.clone());
        self
    }

    /// A further condition for `/readyz`; all of them must hold. It is called for each request, and must be
    /// short.
    pub fn ready_if(mut self, condition: impl Fn() -> bool + 'static) -> Self {
        self.ready_if.push(Box::new(condition));
        self
    }

    /// How long (1 s) a core may take to answer before `/livez` says no, and other pages go without it.
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Binds and listens, on the running core. It makes its system calls at once, and does not wait.
    ///
    /// # Errors
    /// As [`ListenOptions::bind`]: the port is taken, or the address is none of this machine's.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn bind(self) -> io::Result<OpsListener> {
        // Two processes on one port would each answer some of the requests.
        let listener = ListenOptions::default().reuse_port(false).backlog(64).bind(self.addr)?;
        let pages = pages::Pages {
            handle: Handle::current(),
            config: self.config,
            graceful: self.graceful,
            ready_if: self.ready_if,
            limit: self.limit,
            asked: Cell::new(None),
            asked_before: Cell::new(None),
        };
        Ok(OpsListener { listener, pages: Rc::new(pages) })
    }
}

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ops").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// The ops listener. [`serve`](Self::serve) is to be spawned on the core that made it.
#[must_use = "nobody is answered before `serve`"]
pub struct OpsListener {
    listener: TcpListener,
    pages: Rc<pages::Pages>,
}

impl OpsListener {
    /// Where it listens; with its port, if 0 was asked for.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until accepting fails for good, which is what it gives then. At most 32 connections
    /// at a time; a request's head may have 8 KiB and take 5 s, an answer 20 s to be taken.
    ///
    /// # Cancel safety
    /// Dropping it ends its connections and closes the listener.
    pub async fn serve(self) -> io::Error {
        serve::serve(self.listener, self.pages).await
    }
}

impl fmt::Debug for OpsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpsListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod http_fuzz_tests;
#[cfg(test)]
mod machine_fuzz_tests;
