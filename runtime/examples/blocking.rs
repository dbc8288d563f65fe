//! Thirty fetches, three ways: by a blocking client within tasks, by the same client on the blocking pool, and
//! asynchronously on connections that are kept open.
//!
//! Beside each, another task of the loop ticks; its longest gap shows whom a blocking call stalls.
//!
//! ```text
//! cargo run --release -p coreloop --example blocking
//! ```

use std::cell::Cell;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::gather;
use coreloop::op::{Read, submit};
use coreloop::sync::Queue;
use coreloop::time::{Instant, sleep};
use coreloop::{spawn, spawn_blocking};

const FETCHES: usize = 30;

/// What the server takes for an answer.
const ANSWER_AFTER: Duration = Duration::from_millis(20);

fn main() -> io::Result<()> {
    let server = start_server()?;
    coreloop::run(async {
        println!("{FETCHES} fetches of {} each", shown(ANSWER_AFTER));
        println!("{:<32}{:>10}{:>16}", "", "took", "longest stall");
        report("blocking calls in tasks", in_tasks(server)).await?;
        report("the same on the blocking pool", on_the_pool(server)).await?;
        report("asynchronous, connections kept", on_connections(server)).await
    })
    .map_err(io::Error::other)?
}

/// Each fetch blocks the thread of the loop: one after the other, and nobody else runs.
async fn in_tasks(server: SocketAddr) -> io::Result<()> {
    let fetches = (0..FETCHES).map(|_| async move { fetch(server) });
    all(gather(fetches).await.into_iter().map(|ended| ended.map_err(io::Error::other)?))
}

/// Sixteen threads block, and the loop does not.
async fn on_the_pool(server: SocketAddr) -> io::Result<()> {
    let fetches: Vec<_> = (0..FETCHES).map(|_| spawn_blocking(move || fetch(server))).collect();
    for fetch in fetches {
        fetch.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Nobody blocks: a fetch that waits is an operation in the kernel.
async fn on_connections(server: SocketAddr) -> io::Result<()> {
    let connections = Rc::new(Queue::unbounded());
    for _ in 0..FETCHES {
        let connection = Rc::new(TcpStream::connect(server)?);
        connections.try_put(connection).expect("an unbounded queue has room");
    }
    let fetches = (0..FETCHES).map(|_| {
        let connections = connections.clone();
        async move {
            let connection = connections.get().await.map_err(io::Error::other)?;
            // So few bytes fit into the socket's buffer: this does not block.
            (&*connection).write_all(b"?")?;
            let read = Read::new(connection.clone(), Vec::with_capacity(64));
            let (bytes, _) = submit(read).await.map_err(io::Error::other)?;
            connections.try_put(connection).expect("an unbounded queue has room");
            if bytes == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
        }
    });
    all(gather(fetches).await.into_iter().map(|ended| ended.map_err(io::Error::other)?))
}

/// What a blocking client does: connects, asks, waits.
fn fetch(server: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(server)?;
    connection.write_all(b"?")?;
    let mut answer = [0; 64];
    match connection.read(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn all(mut results: impl Iterator<Item = io::Result<()>>) -> io::Result<()> {
    results.try_for_each(|result| result)
}

/// Runs one of the ways beside a task that ticks, and prints a line of the table.
async fn report(way: &str, fetches: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let longest = Rc::new(Cell::new(Duration::ZERO));
    let gap = longest.clone();
    let ticker = spawn(async move {
        let mut last = Instant::now();
        loop {
            sleep(Duration::from_millis(1)).await;
            gap.set(gap.get().max(last.elapsed()));
            last = Instant::now();
        }
    });
    // So that it has begun.
    coreloop::yield_now().await;
    let began = Instant::now();
    fetches.await?;
    let took = began.elapsed();
    sleep(Duration::from_millis(2)).await;
    ticker.cancel();
    println!("{way:<32}{:>10}{:>16}", shown(took), shown(longest.get()));
    Ok(())
}

fn shown(d: Duration) -> String {
    format!("{:.0} ms", d.as_secs_f64() * 1e3)
}

/// A server in threads: it answers every byte, each after a while.
fn start_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut asked = [0];
                while connection.read_exact(&mut asked).is_ok() {
                    std::thread::sleep(ANSWER_AFTER);
                    if connection.write_all(b"an answer\n").is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(addr)
}
