//! Loopback sockets.
//!
//! Owns connected pairs of which one end is on the running loop and the other one is an ordinary blocking
//! socket, and the echo that fault tests run.

use std::io;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

use coreloop_net::{TcpListener, TcpStream};

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
