//! A connection with a writer and a reader that go on independently.
//!
//! Owns what the two share: the line of requests, the schedule, and who waits for room in flight.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use coreloop::time::sleep_until;
use coreloop_net::{ReadHalf, TcpStream, WriteHalf};

use super::{Shared, Trouble};
use crate::scenario::load::clock::LoopClock;
use crate::scenario::load::fifo::{Fifo, Sent};
use crate::scenario::load::payload::Answers;
use crate::scenario::load::schedule::Schedule;
use crate::sys;

/// What writer and reader share.
#[derive(Debug)]
pub struct Link {
    shared: Rc<Shared>,
    fifo: RefCell<Fifo>,
    /// None in a closed loop.
    schedule: Cell<Option<Schedule>>,
    /// When the line was last full and had room again.
    freed_ns: Cell<u64>,
    /// The writer, if it waits for room.
    waiting: RefCell<Option<Waker>>,
    /// The reader has ended, and told what was unanswered: nothing more is sent.
    over: Cell<bool>,
}

/// Starts both tasks of a connection; without a schedule it is a closed loop.
pub fn start(
    shared: Rc<Shared>,
    stream: TcpStream,
    schedule: Option<Schedule>,
    clock: LoopClock,
) -> Rc<Link> {
    let (reader, writer) = stream.split();
    let link = Rc::new(Link {
        shared,
        fifo: RefCell::default(),
        schedule: Cell::new(schedule),
        freed_ns: Cell::new(0),
        waiting: RefCell::default(),
        over: Cell::new(false),
    });
    drop(coreloop::spawn(read(link.clone(), reader)));
    match schedule {
        Some(schedule) => drop(coreloop::spawn(keep(link.clone(), writer, schedule, clock))),
        None => drop(coreloop::spawn(refill(link.clone(), writer))),
    }
    link
}

/// Sends as much as there is room for. A broken connection is told by the reader, which sees it too.
async fn refill(link: Rc<Link>, mut writer: WriteHalf) -> io::Result<()> {
    loop {
        let Some(room) = link.room().await else { return Ok(()) };
        let room = room.min(link.shared.payload.burst());
        let now_ns = sys::monotonic_ns();
        if now_ns >= link.shared.stop_ns.get() {
            return Ok(());
        }
        link.push(Sent::closed(now_ns), room);
        writer.write_all(link.shared.payload.messages(room)).await?;
    }
}

/// Sends what the schedule wants, when it wants it, as long as there is room.
async fn keep(
    link: Rc<Link>,
    mut writer: WriteHalf,
    mut schedule: Schedule,
    clock: LoopClock,
) -> io::Result<()> {
    let shared = &link.shared;
    loop {
        if schedule.next_ns() >= shared.stop_ns.get() {
            return Ok(());
        }
        sleep_until(clock.at(schedule.next_ns())).await;
        loop {
            let Some(room) = link.room().await else { return Ok(()) };
            let most = room.min(shared.payload.burst());
            let now_ns = sys::monotonic_ns();
            // What the schedule wanted within the time is sent, however late.
            let until_ns = now_ns.min(shared.stop_ns.get() - 1);
            let mut due = 0;
            while due < most && schedule.next_ns() <= until_ns {
                let intended_ns = schedule.next_ns();
                let sent = Sent { intended_ns, room_ns: link.freed_ns.get(), sent_ns: now_ns };
                link.push(sent, 1);
                schedule.advance();
                due += 1;
            }
            link.schedule.set(Some(schedule));
            if due > 0 {
                writer.write_all(shared.payload.messages(due)).await?;
            }
            if schedule.next_ns() > until_ns {
                break;
            }
        }
    }
}

async fn read(link: Rc<Link>, mut reader: ReadHalf) {
    let ended = read_until(&link, &mut reader).await;
    link.shared.ended(ended, &link.fifo.borrow());
    link.over.set(true);
    link.wake_writer();
}

async fn read_until(link: &Link, reader: &mut ReadHalf) -> Result<(), Trouble> {
    let shared = &link.shared;
    let mut answers = Answers::default();
    loop {
        let chunk = reader.recv().await?.ok_or(Trouble::Closed)?;
        let mut fifo = link.fifo.borrow_mut();
        let full = fifo.outstanding() >= shared.depth;
        let (answered, now_ns) = shared.answered(&mut fifo, &mut answers, &chunk)?;
        drop((fifo, chunk));
        if answered > 0 {
            if full {
                link.freed_ns.set(now_ns);
            }
            link.wake_writer();
        }
    }
}

impl Link {
    /// Requests that the schedule wanted before `end_ns` and that were not sent.
    pub fn unsent(&self, end_ns: u64) -> u64 {
        self.schedule.get().map_or(0, |schedule| schedule.due_before(end_ns))
    }

    fn push(&self, sent: Sent, count: u64) {
        self.fifo.borrow_mut().push(sent, count);
        self.shared.sent(count);
    }

    /// Waits for room in flight, at least for one; gives how much there is, or none once the connection is over.
    async fn room(&self) -> Option<u64> {
        poll_fn(|cx| match self.shared.depth - self.fifo.borrow().outstanding() {
            _ if self.over.get() => Poll::Ready(None),
            0 => {
                *self.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Some(room)),
        })
        .await
    }

    fn wake_writer(&self) {
        let writer = self.waiting.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}
