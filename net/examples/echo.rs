//! An echo server on every core, ended by SIGINT or SIGTERM.

use coreloop::{Runtime, combine::race, signal, spawn};
use coreloop_net::{TcpListener, TcpStream};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Runtime::builder().build()?.run(|_core| async { race(serve(), signal::terminate()).await })?;
    Ok(())
}

async fn serve() -> std::io::Result<()> {
    let mut listener = TcpListener::bind("127.0.0.1:7000")?; // each core its own, by SO_REUSEPORT
    loop {
        drop(spawn(echo(listener.accept().await?)));
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}
