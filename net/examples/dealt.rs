//! Work handed from an accepting core: one core accepts and deals connections to whoever has the fewest, the
//! others serve.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::{Mutex, mpsc};
use std::thread;

use coreloop::cancel::Token;
use coreloop::{Cores, Runtime, spawn};
use coreloop_net::TcpListener;
use coreloop_net::spread::{Deal, Dealer, Loads, Seat, dealer};

const CLIENTS: usize = 90;

fn main() -> io::Result<()> {
    // Three cores, also where there are fewer CPUs.
    let cpus = coreloop::placement::allowed_cpus();
    let cpus = (0..3).map(|i| cpus[i % cpus.len()]).collect();
    let runtime = Runtime::builder().cores(Cores::These(cpus)).build().map_err(io::Error::other)?;
    let (dealer, seats) = dealer(&Loads::new(3), Deal::LeastConnections, 64);
    let tally = dealer.tally();
    let ends = Mutex::new((Some(dealer), seats.into_iter().map(Some).collect::<Vec<_>>()));
    let (tell, told) = mpsc::channel();
    let clients = thread::spawn(move || told.recv().map_or(Ok(0), ask));
    let served = runtime.run(move |core| {
        let mut ends = ends.lock().expect("nobody panics with it");
        let dealer = if core.index() == 0 { ends.0.take() } else { None };
        let seat = ends.1[core.index()].take();
        let tell = tell.clone();
        async move {
            match (dealer, seat) {
                // Without a seat it is dealt nothing.
                (Some(dealer), seat) => {
                    drop(seat);
                    accept(dealer, &tell).await.map(|()| 0)
                }
                (None, Some(seat)) => serve(seat).await,
                (None, None) => Ok(0),
            }
        }
    });
    let served = served.map_err(io::Error::other)?.into_iter().collect::<io::Result<Vec<_>>>()?;
    let answered = clients.join().expect("it does not panic")?;
    println!("answered: {answered}; by core 0: {}; lost: {}", served[0], tally.closed());
    eprintln!("served by each core: {served:?}");
    Ok(())
}

async fn accept(mut dealer: Dealer, tell: &mpsc::Sender<SocketAddr>) -> io::Result<()> {
    let mut listener = TcpListener::bind("127.0.0.1:0")?;
    tell.send(listener.local_addr()?).map_err(io::Error::other)?;
    // A server would deal for ever: `dealer.run(&mut listener)`, under a token that ends it.
    let enough = Token::new();
    let (tally, done) = (dealer.tally(), enough.clone());
    drop(spawn(async move {
        while tally.dealt() < CLIENTS as u64 {
            coreloop::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        done.cancel();
    }));
    match enough.run(dealer.run(&mut listener)).await {
        Ok(Err(e)) => Err(io::Error::other(e)),
        _ => Ok(()),
    }
}

/// Serves until the dealer is gone and everything that it dealt to this core is done.
async fn serve(mut seat: Seat) -> io::Result<usize> {
    let mut serving = Vec::new();
    while let Some(mut stream) = seat.accept().await {
        serving.push(spawn(async move {
            let (_, question) = stream.read_exact(vec![0; 5]).await?;
            stream.write_all(question).await?;
            Ok::<_, io::Error>(())
        }));
    }
    let served = serving.len();
    for one in serving {
        one.await.map_err(io::Error::other)??;
    }
    Ok(served)
}

fn ask(addr: SocketAddr) -> io::Result<usize> {
    let mut answered = 0;
    for _ in 0..CLIENTS {
        let mut stream = StdStream::connect(addr)?;
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        answered += usize::from(&answer == b"hello");
    }
    Ok(answered)
}
