//! Loopback sockets.
//!
//! Owns connected pairs of which one end is on the running loop and the other one is an ordinary blocking
//! socket, the echo that fault tests run, and which of several listeners has a connection.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Settings, spawn_blocking};
use coreloop_net::{TcpListener, TcpStream};

use crate::drive::{poll_once, turns};
use crate::process::run_on;

/// Longest wait of a blocking socket in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Two connected blocking sockets with a read limit of [`PATIENCE`].
///
/// # Panics
/// Without loopback.
pub fn std_pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback is there");
    let one = StdStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (two, _) = listener.accept().expect("a connection waits");
    for s in [&one, &two] {
        s.set_read_timeout(Some(PATIENCE)).expect("a valid limit");
        s.set_write_timeout(Some(PATIENCE)).expect("a valid limit");
        s.set_nodelay(true).expect("it is TCP");
    }
    (one, two)
}

/// A stream of the running loop and its blocking peer.
pub fn pair() -> (TcpStream, StdStream) {
    let (ours, theirs) = std_pair();
    ours.set_read_timeout(None).expect("a valid limit");
    ours.set_write_timeout(None).expect("a valid limit");
    (TcpStream::from_std(ours), theirs)
}

/// Both ends of a connection, on the running loop.
///
/// # Panics
/// Without loopback.
pub async fn streams() -> (TcpStream, TcpStream) {
    let mut listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let addr = listener.local_addr().expect("it is bound");
    let near = TcpStream::connect(addr).await.expect("it listens");
    (near, listener.accept().await.expect("a connection waits"))
}

/// Connects from a thread that runs on `cpu`.
///
/// # Panics
/// If it may not run there, or is refused.
pub async fn connect_on(cpu: usize, addr: SocketAddr) -> StdStream {
    let connect = move || {
        run_on(cpu).expect("a CPU that it may use");
        StdStream::connect(addr).expect("somebody listens")
    };
    spawn_blocking(connect).await.expect("it does not panic")
}

/// Which of the listeners has the next connection. All of them accept from then on.
///
/// # Panics
/// If none has one within [`PATIENCE`].
pub async fn accepted_by<L: DerefMut<Target = TcpListener>>(listeners: &mut [L]) -> usize {
    let mut accepts: Vec<_> = listeners.iter_mut().map(|l| l.accept()).collect();
    let any = poll_fn(|cx| {
        for (i, accept) in accepts.iter_mut().enumerate() {
            if let Poll::Ready(accepted) = Pin::new(accept).poll(cx) {
                return Poll::Ready((i, accepted.expect("it listens")));
            }
        }
        Poll::Pending
    });
    timeout(PATIENCE, any).await.expect("some listener has the connection").0
}

/// Where the connections of the CPU come to, by the listener's place in the list.
///
/// # Panics
/// As [`accepted_by`].
pub async fn comes_to<L: DerefMut<Target = TcpListener>>(listeners: &mut [L], cpu: usize) -> usize {
    let addr = listeners[0].local_addr().expect("it listens");
    let client = connect_on(cpu, addr).await;
    let at = accepted_by(listeners).await;
    drop(client);
    at
}

/// Why a test is skipped for which [`receiving_many`] has no loop.
pub const NO_MULTISHOT: &str = "this kernel has no multishot receive";

/// A loop whose ring receives many with one submission; none where the kernel does not.
///
/// # Panics
/// Without io_uring.
pub fn receiving_many(settings: Settings) -> Option<EventLoop> {
    let event_loop = EventLoop::with(settings).expect("io_uring is there");
    let able = event_loop.ring_report().in_force.contains(Feature::MultishotRecv);
    able.then_some(event_loop)
}

/// Messages that are waited for, until the next receive is for many.
///
/// # Panics
/// If one of them does not come back as it was sent.
pub async fn almost_busy(ours: &mut TcpStream, theirs: &mut StdStream) {
    for round in 0..12u8 {
        let mut asked = pin!(ours.recv());
        assert!(poll_once(asked.as_mut()).await.is_pending(), "nothing was sent yet");
        turns(2).await;
        theirs.write_all(&[round]).expect("the connection is open");
        let chunk = asked.await.expect("the connection is open").expect("it has not ended");
        assert_eq!(&*chunk, &[round]);
    }
}

/// Runs `echoes` requests of growing size over `connections` connections on the running loop, and gives
/// how many came back right.
///
/// # Errors
/// The first error of any socket.
pub async fn echoes(connections: usize, echoes: usize) -> io::Result<usize> {
    let mut listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = coreloop::spawn(async move {
        loop {
            let mut stream = listener.accept().await?;
            drop(coreloop::spawn(async move {
                while let Some(chunk) = stream.recv().await? {
                    stream.write_all(chunk).await?;
                }
                Ok::<_, io::Error>(())
            }));
        }
        #[allow(unreachable_code, reason = "names the type")]
        Ok::<(), io::Error>(())
    });
    let clients: Vec<_> = (0..connections)
        .map(|c| {
            let share = echoes / connections + usize::from(c < echoes % connections);
            coreloop::spawn(async move {
                let mut stream = TcpStream::connect(addr).await?;
                let mut right = 0;
                for i in 0..share {
                    let sent = crate::drive::pattern(c * 7919 + i, 1 + (i * 37) % 3000);
                    let (_, sent) = stream.write_all(sent).await?;
                    let (_, back) = stream.read_exact(vec![0; sent.len()]).await?;
                    right += usize::from(sent == back);
                }
                Ok::<_, io::Error>(right)
            })
        })
        .collect();
    let mut right = 0;
    for client in clients {
        right += client.await.map_err(|e| io::Error::other(e.to_string()))??;
    }
    server.cancel();
    drop(server.await);
    Ok(right)
}
