//! A counter on two machines, and a simulation that finds the bug in it.
//!
//! Clients count on the primary, which passes every step on to its backup. When the primary is gone, they
//! read from the backup. What must hold: whatever was answered is counted on the backup too. The bug is to
//! answer first and to look at the backup's answer never.
//!
//! `cargo run -p coreloop-tests --example replicated_counter` shows the first seed that finds it. The guide
//! is docs/guide/simulation.md.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::sim::{Sim, SimError};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_net::{TcpListener, TcpStream};

const PORT: u16 = 7000;

/// When the primary answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// As soon as the backup has been told. The planted bug.
    TooSoon,
    /// When the backup has answered.
    InTime,
}

/// A machine that counts: to the highest number that it was sent. An answer is what it has counted to.
pub async fn serve(backup: Option<SocketAddr>, answers: Answers) -> io::Result<()> {
    let count = Rc::new(Cell::new(0));
    let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        let stream = listener.accept().await?;
        drop(spawn(answer(stream, count.clone(), backup, answers)));
    }
}

async fn answer(
    mut stream: TcpStream,
    count: Rc<Cell<u64>>,
    backup: Option<SocketAddr>,
    answers: Answers,
) -> io::Result<()> {
    let mut backup = match backup {
        Some(addr) => Some(TcpStream::connect(addr).await?),
        None => None,
    };
    while let Some(number) = receive(&mut stream).await? {
        if let Some(backup) = &mut backup {
            send(backup, number).await?;
            if answers == Answers::InTime {
                receive(backup).await?;
            }
        }
        count.set(count.get().max(number));
        send(&mut stream, count.get()).await?;
    }
    Ok(())
}

/// Counts on the primary as long as it answers, then reads from the backup.
async fn count(primary: SocketAddr, backup: SocketAddr) -> Result<(), String> {
    let mut counted = 0;
    if let Ok(mut stream) = TcpStream::connect(primary).await {
        while let Ok(Ok(number)) = timeout(PATIENCE, ask(&mut stream, counted + 1)).await {
            counted = number;
            sleep(Duration::from_millis(10)).await;
        }
    }
    let mut stream = TcpStream::connect(backup).await.map_err(|e| e.to_string())?;
    let read = ask(&mut stream, 0).await.map_err(|e| e.to_string())?;
    if read < counted {
        return Err(format!("{counted} was answered, but the backup has {read}"));
    }
    Ok(())
}

/// How long a client waits for an answer before it takes the primary for dead.
const PATIENCE: Duration = Duration::from_secs(1);

async fn ask(stream: &mut TcpStream, number: u64) -> io::Result<u64> {
    send(stream, number).await?;
    receive(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn send(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    stream.write_all(number.to_le_bytes().to_vec()).await?;
    Ok(())
}

/// The next number; none at the end of the stream.
async fn receive(stream: &mut TcpStream) -> io::Result<Option<u64>> {
    match stream.read_exact(vec![0; 8]).await {
        Ok((_, bytes)) => Ok(bytes.try_into().ok().map(u64::from_le_bytes)),
        Err(e) if e.error().kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e.into_parts().0),
    }
}

/// Two machines and a client, and a primary that loses its power at some time.
pub fn machines(sim: &Sim, answers: Answers) {
    let backup = SocketAddr::new(sim.host("backup", 1, move |_| serve(None, answers)), PORT);
    let primary = sim.host("primary", 1, move |_| serve(Some(backup), answers));
    let primary = SocketAddr::new(primary, PORT);
    let own = sim.clone();
    sim.client("client", async move || {
        // Until the two listen.
        sleep(Duration::from_millis(10)).await;
        let crash = sleep(Duration::from_micros(own.random() % 500_000));
        drop(spawn(async move {
            crash.await;
            own.crash("primary");
        }));
        count(primary, backup).await
    });
}

/// The first of so many seeds with which the two machines lose a count.
pub fn find(answers: Answers, seeds: u64) -> Option<SimError> {
    Sim::builder().first_failure(seeds, |sim| machines(sim, answers))
}

#[allow(dead_code, reason = "a test uses the rest of this file as a module")]
fn main() {
    for answers in [Answers::TooSoon, Answers::InTime] {
        match find(answers, 1_000) {
            Some(error) => println!("{answers:?}: {error}\n"),
            None => println!("{answers:?}: 1,000 seeds passed"),
        }
    }
}
