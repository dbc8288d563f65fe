//! What the connections of one load core share, and the three ways of driving one.
//!
//! Owns the hot path of the load. How a closed loop works depends on how much is in flight: little, and
//! one task writes and then reads ([`ping`]); more than the sockets between are sure to take, and a
//! writer and a reader must go on independently, or both ends wait for the other to read ([`paced`]).
//! An open loop always has the two: its writer keeps the schedule, whatever the answers do.
//!
//! One clock reading per received chunk: it ends the requests that were answered, and is the send time
//! of those that follow. Nothing is allocated per request.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use coreloop::buf::Chunk;
use coreloop_net::{ReadHalf, TcpStream};

use crate::recorder::Recorder;
use crate::scenario::load::fifo::{Fifo, Sent};
use crate::scenario::load::payload::{Answers, Payload};
use crate::sys;

pub mod paced;

/// Bytes in flight up to which a connection is driven by one task. A socket's buffers at their smallest
/// defaults take more than this in each direction.
pub const ONE_TASK_BYTES_MAX: u64 = 64 << 10;

/// State of one load core.
#[derive(Debug)]
pub struct Shared {
    /// What is sent.
    pub payload: Payload,
    /// Messages in flight per connection at most.
    pub depth: u64,
    /// None once it was given away.
    pub recorder: RefCell<Option<Recorder>>,
    /// What a closed loop would send, or a schedule want, from this time on is not sent.
    pub stop_ns: Cell<u64>,
    /// Requests without an answer.
    pub in_flight: Cell<u64>,
    /// Connections that still work.
    pub live: Cell<u64>,
    /// The first thing that went wrong.
    pub trouble: RefCell<Option<String>>,
}

/// Why a connection ended before its time.
#[derive(Debug)]
pub enum Trouble {
    /// The server ended it.
    Closed,
    /// The system did.
    Io(io::Error),
    /// An answer was not what had been sent.
    Different,
    /// There were more answers than requests.
    TooMany,
}

/// A closed loop in one task, until its time is over.
pub async fn ping(shared: Rc<Shared>, stream: TcpStream) {
    let mut fifo = Fifo::default();
    let ended = ping_until(&shared, stream, &mut fifo).await;
    shared.ended(ended, &fifo);
}

async fn ping_until(shared: &Shared, stream: TcpStream, fifo: &mut Fifo) -> Result<(), Trouble> {
    let (mut reader, mut writer) = stream.split();
    let mut answers = Answers::default();
    let mut now_ns = sys::monotonic_ns();
    let mut due = shared.depth;
    loop {
        let received = if due > 0 {
            fifo.push(Sent::closed(now_ns), due);
            shared.sent(due);
            // Armed before the write ends: one submission for both, and one turn less per request.
            let early = arm(&mut reader).await;
            writer.write_all(shared.payload.messages(due)).await.map_err(io::Error::from)?;
            match early {
                Some(received) => received,
                None => reader.recv().await,
            }
        } else {
            reader.recv().await
        };
        let chunk = received?.ok_or(Trouble::Closed)?;
        let answered;
        (answered, now_ns) = shared.answered(fifo, &mut answers, &chunk)?;
        drop(chunk);
        due = if now_ns < shared.stop_ns.get() { answered } else { 0 };
        if fifo.outstanding() + due == 0 {
            return Ok(());
        }
    }
}

/// Starts a receive without waiting for it; the next one takes it over. Gives what came at once.
async fn arm(reader: &mut ReadHalf) -> Option<io::Result<Option<Chunk>>> {
    poll_fn(|cx| match pin!(reader.recv()).poll(cx) {
        Poll::Ready(received) => Poll::Ready(Some(received)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Shared {
    /// Counts requests that go out.
    pub fn sent(&self, count: u64) {
        self.in_flight.set(self.in_flight.get() + count);
    }

    /// Takes a chunk of answers in; gives how many they made whole, and the time.
    pub fn answered(
        &self,
        fifo: &mut Fifo,
        answers: &mut Answers,
        chunk: &[u8],
    ) -> Result<(u64, u64), Trouble> {
        let now_ns = sys::monotonic_ns();
        let whole = answers.take(self.payload, chunk).map_err(|_| Trouble::Different)?;
        if whole > fifo.outstanding() {
            return Err(Trouble::TooMany);
        }
        self.in_flight.set(self.in_flight.get() - whole);
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            fifo.answered(whole, now_ns, |at, count| recorder.record(at, count));
        }
        Ok((whole, now_ns))
    }

    /// A connection has ended, with so many requests unanswered.
    pub fn ended(&self, how: Result<(), Trouble>, fifo: &Fifo) {
        self.live.set(self.live.get() - 1);
        let Err(trouble) = how else { return };
        self.in_flight.set(self.in_flight.get() - fifo.outstanding());
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            recorder.error();
        }
        self.trouble.borrow_mut().get_or_insert_with(|| trouble.to_string());
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Closed => f.write_str("the server closed a connection"),
            Trouble::Io(error) => write!(f, "a connection broke: {error}"),
            Trouble::Different => f.write_str("an answer was not what had been sent"),
            Trouble::TooMany => f.write_str("a connection got more answers than it had requests"),
        }
    }
}
