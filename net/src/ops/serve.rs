//! Connections of the ops listener.
//!
//! Owns how long each step may take, and how many connections there may be. Above [`CONNECTIONS_MAX`] the one
//! that has been idle for longest is closed for the new one. Where all are busy the new one waits, and
//! meanwhile each is closed as soon as it has answered a request, however many more its peer has sent: that
//! takes a bounded time, which of a list of tasks is for each of its pages. Knows none of the pages.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use coreloop::cancel::Interruptible;
use coreloop::spawn_named;
use coreloop::sync::Event;
use coreloop::task::JoinHandle;
use coreloop::time::{Instant, timeout};

use super::http::{self, Answer, Length, Parsed, Request, Status};
use super::pages::{Pages, Reply};
use super::tasks::TaskPages;
use crate::{TcpListener, TcpStream};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// How long one that has just come is not yet idle: what it asks for is on its way, and whoever comes next
/// would close it unheard.
const GREETING: Duration = Duration::from_millis(100);
/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(120);
/// How long a request's head may take from its first byte.
const HEAD: Duration = Duration::from_secs(5);
/// How long an answer may take to be taken.
const WRITE: Duration = Duration::from_secs(20);
/// What a peer may go on sending after an answer that is the last, and for how long: to close over unread
/// bytes would take the answer away from it.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 64 * 1024);

/// Serves `pages` until accepting fails for good, and says why it did.
pub(super) async fn serve(mut listener: TcpListener, pages: Rc<Pages>) -> io::Error {
    let mut open = Open::default();
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(e) => return e,
        };
        open.make_room().await;
        open.take(stream, &pages);
    }
}

/// The connections. Dropping it ends them.
#[derive(Default)]
struct Open {
    connections: Vec<Connection>,
    room: Rc<Room>,
}

struct Connection {
    task: JoinHandle<()>,
    idle_since: Rc<Cell<Option<Instant>>>,
}

/// What the connections hear of whoever waits for one of them to go, and what that one hears of them.
#[derive(Default)]
struct Room {
    /// Somebody waits, and all were busy.
    wanted: Cell<bool>,
    /// One has ended or become idle.
    changed: Event,
}

impl Open {
    async fn make_room(&mut self) {
        loop {
            self.room.changed.clear();
            self.connections.retain(|c| !c.task.is_finished());
            if self.connections.len() < CONNECTIONS_MAX {
                self.room.wanted.set(false);
                return;
            }
            let idle = self.connections.iter().filter(|c| c.idle_since.get().is_some());
            match idle.min_by_key(|c| c.idle_since.get()) {
                Some(idlest) => _ = idlest.task.cancel(),
                None => self.room.wanted.set(true),
            }
            self.room.changed.wait().await;
        }
    }

    fn take(&mut self, stream: TcpStream, pages: &Rc<Pages>) {
        let idle_since = Rc::new(Cell::new(None));
        let place = Place { room: self.room.clone(), idle_since: idle_since.clone() };
        let pages = pages.clone();
        let task = spawn_named("ops connection", async move {
            // How a scraper goes is its own affair.
            let _ = converse(stream, &pages, &place).await;
        });
        self.connections.push(Connection { task, idle_since });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.task.cancel();
        }
    }
}

/// A connection's place among the others, as it sees it. Its drop says that the connection has ended, however
/// it did.
struct Place {
    room: Rc<Room>,
    idle_since: Rc<Cell<Option<Instant>>>,
}

impl Place {
    fn is_wanted(&self) -> bool {
        self.room.wanted.get()
    }

    fn becomes_idle(&self) {
        self.idle_since.set(Some(Instant::now()));
        self.room.changed.set();
    }

    fn becomes_busy(&self) {
        self.idle_since.set(None);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.changed.set();
    }
}

async fn converse(mut stream: TcpStream, pages: &Pages, place: &Place) -> io::Result<()> {
    let mut bytes = Vec::new();
    if let Ok(first) = timeout(GREETING, stream.recv()).await {
        let Some(chunk) = first? else { return Ok(()) };
        bytes.extend_from_slice(&chunk);
    }
    loop {
        if bytes.is_empty() {
            place.becomes_idle();
        }
        let mut request = match next(&mut stream, &mut bytes, place).await? {
            Next::Request(request) => request,
            Next::Refused(status) => {
                write(&mut stream, Answer::of(status), false, false).await?;
                return linger(stream).await;
            }
            Next::End => return Ok(()),
        };
        let reply = pages.answer(&request).await;
        request.keep_alive &= !place.is_wanted();
        let keep_alive = match reply {
            Reply::Whole(answer) => {
                write(&mut stream, answer, request.head_only, request.keep_alive).await?;
                request.keep_alive
            }
            Reply::Tasks(pages) => write_pieces(&mut stream, pages, &request).await?,
        };
        // It may be wanted only since the answer's head went out.
        if !keep_alive || place.is_wanted() {
            return linger(stream).await;
        }
    }
}

enum Next {
    Request(Request),
    Refused(Status),
    End,
}

async fn next(stream: &mut TcpStream, bytes: &mut Vec<u8>, place: &Place) -> io::Result<Next> {
    let mut limit = Instant::now() + if bytes.is_empty() { IDLE } else { HEAD };
    loop {
        if !bytes.is_empty() {
            place.becomes_busy();
            match http::parse(bytes) {
                Parsed::Whole(request, len) => {
                    bytes.drain(..len);
                    return Ok(Next::Request(request));
                }
                Parsed::Refused(status) => return Ok(Next::Refused(status)),
                Parsed::Partial => {}
            }
        }
        let Some(chunk) = stream.recv().until(limit).await? else { return Ok(Next::End) };
        if bytes.is_empty() {
            limit = Instant::now() + HEAD;
        }
        bytes.extend_from_slice(&chunk);
    }
}

async fn write(
    stream: &mut TcpStream,
    answer: Answer,
    head_only: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let head = answer.head(keep_alive, SystemTime::now()).into_bytes();
    let body = if head_only { Vec::new() } else { answer.body.into_bytes() };
    stream.write_many(vec![head, body]).until(Instant::now() + WRITE).await?;
    Ok(())
}

/// Each piece is made when the one before has been taken: of a page of any length no more than one of them is
/// in memory. Whether the connection may serve another request.
async fn write_pieces(
    stream: &mut TcpStream,
    mut pages: Box<TaskPages>,
    request: &Request,
) -> io::Result<bool> {
    let keep_alive = request.keep_alive && request.chunks;
    let length = if request.chunks { Length::Chunks } else { Length::Connection };
    let head = http::head(Status::Ok, pages.content_type(), length, keep_alive, SystemTime::now());
    // For all pieces together; what they take to be made is not the peer's fault.
    let mut patience = WRITE;
    take(stream, vec![head.into_bytes()], &mut patience).await?;
    if request.head_only {
        return Ok(keep_alive);
    }
    // Whoever gets no end knows that something is missing.
    while let Some(piece) = pages.next().await {
        let piece = piece.into_bytes();
        let parts = if request.chunks {
            let head = format!("{:x}\r\n", piece.len());
            vec![head.into_bytes(), piece, b"\r\n".to_vec()]
        } else {
            vec![piece]
        };
        take(stream, parts, &mut patience).await?;
    }
    if request.chunks {
        take(stream, vec![b"0\r\n\r\n".to_vec()], &mut patience).await?;
    }
    Ok(keep_alive)
}

/// Writes `parts`, and takes the time off `patience`.
async fn take(
    stream: &mut TcpStream,
    parts: Vec<Vec<u8>>,
    patience: &mut Duration,
) -> io::Result<()> {
    let began = Instant::now();
    stream.write_many(parts).until(began + *patience).await?;
    *patience = patience.saturating_sub(began.elapsed());
    Ok(())
}

async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let (limit, mut left) = (Instant::now() + LINGER.0, LINGER.1);
    while let Some(chunk) = stream.recv().until(limit).await? {
        left = match left.checked_sub(chunk.len()) {
            Some(left) => left,
            None => return Ok(()),
        };
    }
    Ok(())
}
