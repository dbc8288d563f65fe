//! An echo server on every core, ended by SIGINT or SIGTERM.

use coreloop::{Runtime, signal, spawn};
use coreloop_net::{TcpListener, TcpStream};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ended = Runtime::builder().build()?.run(|_core| signal::until_terminate(serve()))?;
    Ok(ended.into_iter().flatten().collect::<std::io::Result<()>>()?)
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
