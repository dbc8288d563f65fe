//! Sessions that say goodbye to their peers when the server is told to end, within a deadline.

use std::io;
use std::time::Duration;

use coreloop::cancel::{self, Cancelled, How, Interruptible, Token};
use coreloop::spawn;
use coreloop::time::sleep;
use coreloop_net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    coreloop::run(async {
        let mut listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let server = Token::new();
        let asked = server.clone();
        let mut serving = spawn(async move { serve(&mut listener, &asked).await });

        let mut client = TcpStream::connect(addr).await?;
        client.write_all("hello").await?;
        let (_, echo) = client.read_exact(vec![0; 5]).await?;
        println!("echoed: {}", String::from_utf8_lossy(&echo));

        // Asked by the token; after five seconds it would be cancelled hard.
        let ended = serving.cancel_by(&server, Duration::from_secs(5)).await;
        let sessions = ended.map_err(io::Error::from)?.map_err(io::Error::other)??;
        let last = client.recv().await?.expect("the server says goodbye");
        println!("{sessions} session ended, its last words: {}", String::from_utf8_lossy(&last));
        Ok(())
    })
    .map_err(io::Error::other)?
}

/// Accepts until the token is cancelled, then waits for the sessions; gives how many there were.
async fn serve(listener: &mut TcpListener, token: &Token) -> io::Result<usize> {
    let mut sessions = Vec::new();
    loop {
        match listener.accept().cancel_on(token).await {
            Ok(stream) => sessions.push(spawn(session(stream, token.child()))),
            Err(e) if Cancelled::is(&e) => break,
            Err(e) => return Err(e),
        }
    }
    let count = sessions.len();
    for session in sessions {
        session.await.map_err(io::Error::other)??;
    }
    Ok(count)
}

async fn session(stream: TcpStream, token: Token) -> io::Result<()> {
    let echo = async |stream: &mut TcpStream| -> io::Result<()> {
        loop {
            match stream.recv().cancel_on(&token).await {
                Ok(Some(chunk)) => drop(stream.write_all(chunk).await?),
                Ok(None) => return Ok(()),
                Err(e) if Cancelled::is(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    };
    // However the echo ended, also by an error: the goodbye is tried, for a second at most.
    let goodbye = async |mut stream: TcpStream, how: How<'_, io::Result<()>>| -> io::Result<()> {
        if let How::Returned(Ok(())) = how {
            sleep(Duration::from_millis(1)).await; // An await, as a flush or a handshake would be.
            stream.write_all("goodbye").await?;
        }
        Ok(())
    };
    let closed = cancel::with(stream, echo, goodbye).closing_within(Duration::from_secs(1));
    closed.run().await.into_result()
}
