//! The echo server of the README under a client on the same thread, which takes turns with the loop.
//!
//! One thread and no waiting: what arrives, and in which turn, does not depend on the machine.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::time::Duration;

use coreloop::{EventLoop, Settings, StatsLevel, spawn};
use coreloop_net::{TcpListener, TcpStream};

const SIZE: usize = 64;

/// `count` requests of 64 bytes over so many connections, `depth` at a time on each.
pub fn requests(count: u64, connections: usize, depth: usize, stats: StatsLevel) {
    let mut event_loop = EventLoop::with(Settings::default().stats(stats)).expect("a loop");
    let echoed = Rc::new(Cell::new(0));
    let addr = event_loop.block_on(listen(echoed.clone()));
    let mut clients: Vec<StdStream> = (0..connections)
        .map(|_| {
            let client = StdStream::connect(addr).expect("connected");
            client.set_nodelay(true).expect("no delay");
            event_loop.turn(Some(Duration::ZERO));
            client
        })
        .collect();
    let request = vec![7; SIZE * depth];
    let rounds = count / (connections * depth) as u64;
    let mut expected = 0;
    for _ in 0..rounds {
        left_out_of_counts_write(&mut clients, &request);
        expected += connections * request.len();
        while echoed.get() < expected {
            event_loop.turn(None);
        }
        left_out_of_counts_read(&mut clients, request.len());
    }
}

#[inline(never)]
fn left_out_of_counts_write(clients: &mut [StdStream], request: &[u8]) {
    for client in clients {
        client.write_all(request).expect("written");
    }
}

#[inline(never)]
fn left_out_of_counts_read(clients: &mut [StdStream], len: usize) {
    let mut answer = vec![0; len];
    for client in clients {
        client.read_exact(&mut answer).expect("read");
        assert!(answer.iter().all(|byte| *byte == 7));
    }
}

async fn listen(echoed: Rc<Cell<usize>>) -> std::net::SocketAddr {
    let mut listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address");
    drop(spawn(async move {
        while let Ok(stream) = listener.accept().await {
            drop(spawn(echo(stream, echoed.clone())));
        }
    }));
    addr
}

async fn echo(mut stream: TcpStream, echoed: Rc<Cell<usize>>) -> std::io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        let len = chunk.len();
        stream.write_all(chunk).await?;
        echoed.set(echoed.get() + len);
    }
    Ok(())
}
