//! Futures that are let go of half way.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::time::Duration;

use super::{Seen, poll_once, say, warm_up};
use crate::memory;
use crate::peer::{Peer, any};
use crate::system::{fds, fds_above};

const ROUNDS: usize = 100;

/// Long enough for the runtime to have given the kernel what was polled.
const TURN: Duration = Duration::from_millis(2);

/// Long enough for what is there already.
const SOON: Duration = Duration::from_millis(50);

/// A connection of the runtime's and the other end of it.
async fn pair<P: Peer>() -> Result<(P::Stream, TcpStream), String> {
    let listener = TcpListener::bind(any()).map_err(say)?;
    let stream = P::connect(listener.local_addr().map_err(say)?).await.map_err(say)?;
    let (peer, _) = listener.accept().map_err(say)?;
    Ok((stream, peer))
}

fn lost(count: usize) -> Seen {
    Seen::new(count == 0, format!("{count} lost"))
}

pub fn recv_dropped<P: Peer>() -> Result<Seen, String> {
    P::run(|| async {
        let mut lost_count = 0;
        for _ in 0..ROUNDS {
            let (mut stream, mut peer) = pair::<P>().await?;
            {
                let mut receive = pin!(P::recv(&mut stream, 64));
                if poll_once(receive.as_mut()).await.is_some() {
                    return Err("a receive was ready with nothing there".to_owned());
                }
                P::sleep(TURN).await;
                peer.write_all(b"12345678").map_err(say)?;
            }
            let again = P::limit(SOON, P::recv(&mut stream, 64)).await;
            lost_count += usize::from(!matches!(again, Some(Ok(bytes)) if bytes == b"12345678"));
        }
        Ok(lost(lost_count))
    })?
}

pub fn recv_limit<P: Peer>() -> Result<Seen, String> {
    P::run(|| async {
        let mut lost_count = 0;
        for _ in 0..ROUNDS {
            let (mut stream, mut peer) = pair::<P>().await?;
            if P::limit(TURN, P::recv(&mut stream, 64)).await.is_some() {
                return Err("a receive was ready with nothing there".to_owned());
            }
            P::sleep(TURN).await;
            peer.write_all(b"12345678").map_err(say)?;
            P::sleep(TURN).await;
            let again = P::limit(SOON, P::recv(&mut stream, 64)).await;
            lost_count += usize::from(!matches!(again, Some(Ok(bytes)) if bytes == b"12345678"));
        }
        Ok(lost(lost_count))
    })?
}

pub fn accept_dropped<P: Peer>() -> Result<Seen, String> {
    warm_up::<P>()?;
    P::run(|| async {
        let before = fds();
        let mut unserved = 0;
        {
            let (mut listener, addr) = P::listen(any()).map_err(say)?;
            for _ in 0..ROUNDS {
                let client;
                {
                    let mut accept = pin!(P::accept(&mut listener));
                    if poll_once(accept.as_mut()).await.is_some() {
                        return Err("an accept was ready with nobody there".to_owned());
                    }
                    P::sleep(TURN).await;
                    client = TcpStream::connect(addr).map_err(say)?;
                }
                P::sleep(TURN).await;
                match P::limit(SOON, P::accept(&mut listener)).await {
                    Some(Ok(stream)) => drop(stream),
                    _ => unserved += 1,
                }
                drop(client);
            }
        }
        // What a runtime closes later, it has time for.
        P::sleep(Duration::from_millis(300)).await;
        let left = fds_above(before);
        Ok(Seen::new(
            left == 0 && unserved == 0,
            format!("{left} fds left, {unserved} clients lost"),
        ))
    })?
}

pub fn open_dropped<P: Peer>() -> Result<Seen, String> {
    P::run(|| async {
        // What the first open sets up is not counted.
        drop(P::open("/proc/self/status").await?);
        P::sleep(TURN).await;
        let before = fds();
        for _ in 0..ROUNDS {
            let mut open = Box::pin(P::open("/proc/self/status"));
            drop(poll_once(open.as_mut()).await);
            P::sleep(TURN).await;
            drop(open);
        }
        P::sleep(Duration::from_millis(300)).await;
        let left = fds_above(before);
        Ok(Seen::new(left == 0, format!("{left} fds left")))
    })?
}

const READS: usize = 3_000;

pub fn reads_dropped<P: Peer>() -> Result<Seen, String> {
    P::run(|| async {
        let mut streams = Vec::new();
        for _ in 0..READS {
            streams.push(pair::<P>().await?);
        }
        P::sleep(TURN).await;
        let mut receives: Vec<_> = streams
            .iter_mut()
            .map(|(stream, _)| Box::pin(P::recv(stream, memory::MARKED)))
            .collect();
        for receive in &mut receives {
            if poll_once(receive.as_mut()).await.is_some() {
                return Err("a receive was ready with nothing there".to_owned());
            }
        }
        P::sleep(Duration::from_millis(50)).await;
        if memory::live() < READS {
            return Err("the receives have no buffers".to_owned());
        }
        drop(receives);
        P::sleep(Duration::from_millis(500)).await;
        let held = memory::live();
        Ok(Seen::new(held == 0, format!("{held} held")))
    })?
}
