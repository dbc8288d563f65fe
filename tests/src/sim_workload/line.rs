//! Conversations in numbered frames.
//!
//! Owns the two ends of a line: [`Receiver`], which takes bytes by every call that there is and holds each
//! one against what must come, and [`Sender`], which drops some of its writes half way and goes on where the
//! peer is. A frame is a head of 16 bytes and a body that follows from line, direction and number, so a byte
//! lost, doubled or out of place cannot pass. What moves to another core is [`Incoming`] and [`Outgoing`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coreloop::buf::Chunk;
use coreloop::sim::Call;
use coreloop_net::tcp::{ReadHalf, WriteHalf};

use super::ledger::{Ledger, STREAM, Way};
use super::tracked::Tracked;

/// The conversation cannot go on; the ledger knows why.
#[derive(Debug)]
pub(super) struct Cut;

/// A frame that was received whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) number: u32,
    /// The frame that it answers.
    pub(super) re: u32,
    pub(super) len: u16,
    /// What the peer is to do for it.
    pub(super) ask: u8,
}

const HEAD: usize = 16;

fn body(line: u32, way: Way, number: u32, at: usize) -> u8 {
    let key = u64::from(line) << 33 | u64::from(number) << 1 | way as u64;
    let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed.rotate_left(at as u32 % 64) >> 24) as u8 ^ (at as u8).wrapping_mul(151)
}

fn bytes_of(line: u32, way: Way, frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + usize::from(frame.len));
    bytes.extend(line.to_le_bytes());
    bytes.extend(frame.number.to_le_bytes());
    bytes.extend(frame.re.to_le_bytes());
    bytes.extend(frame.len.to_le_bytes());
    bytes.extend([frame.ask, way as u8]);
    bytes.extend((0..usize::from(frame.len)).map(|at| body(line, way, frame.number, at)));
    bytes
}

/// What has been received, without the socket.
pub(super) struct Incoming {
    /// Known from the first frame on a server.
    pub(super) line: Option<u32>,
    way: Way,
    next: u32,
    head: Vec<u8>,
    frame: Option<(Frame, usize)>,
    frames: VecDeque<Frame>,
    spoilt: bool,
}

impl Incoming {
    pub(super) fn new(line: Option<u32>, way: Way) -> Self {
        let (head, frames) = (Vec::new(), VecDeque::new());
        Self { line, way, next: 0, head, frame: None, frames, spoilt: false }
    }

    /// Bytes until the end of the head or the body that is under way.
    fn wanted(&self) -> usize {
        match self.frame {
            Some((frame, got)) => usize::from(frame.len) - got,
            None => HEAD - self.head.len(),
        }
    }

    fn take(&mut self, ledger: &Ledger, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.spoilt {
            let n = self.wanted().min(bytes.len());
            let (these, rest) = bytes.split_at(n);
            bytes = rest;
            match &mut self.frame {
                None => {
                    self.head.extend(these);
                    if self.head.len() == HEAD {
                        self.take_head(ledger);
                    }
                }
                Some((frame, got)) => {
                    let line = self.line.unwrap_or_default();
                    let wrong =
                        (0..n).find(|&i| these[i] != body(line, self.way, frame.number, *got + i));
                    *got += n;
                    if let Some(at) = wrong {
                        let (number, at) = (frame.number, *got - n + at);
                        self.spoil(ledger, format!("byte {at} of frame {number} is another one"));
                    }
                }
            }
            self.end_frame(ledger);
        }
    }

    fn take_head(&mut self, ledger: &Ledger) {
        let head = std::mem::take(&mut self.head);
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (line, number, re) = (word(0), word(4), word(8));
        let (len, ask, way) = (u16::from_le_bytes([head[12], head[13]]), head[14], head[15]);
        let known = ledger.knows_line(line) && *self.line.get_or_insert(line) == line;
        if !known || way != self.way as u8 {
            return self.spoil(ledger, format!("where frame {} begins are {head:?}", self.next));
        }
        if number < self.next || !ledger.may_skip(line, self.way, self.next, number) {
            return self.spoil(ledger, format!("frame {number} came instead of {}", self.next));
        }
        self.next = number + 1;
        self.frame = Some((Frame { number, re, len, ask }, 0));
    }

    fn end_frame(&mut self, ledger: &Ledger) {
        if let Some((frame, got)) = self.frame
            && got == usize::from(frame.len)
        {
            self.frame = None;
            self.frames.push_back(frame);
            ledger.frame_came();
        }
    }

    /// The end of the stream.
    fn end(&mut self, ledger: &Ledger) {
        let Some(line) = self.line else { return };
        let halfway = self.frame.is_some() || !self.head.is_empty();
        if !ledger.may_end(line, self.way, self.next) || halfway && !ledger.may_fail(line) {
            let next = self.next;
            self.spoil(ledger, format!("it ended before frame {next} (half way: {halfway})"));
        }
    }

    fn spoil(&mut self, ledger: &Ledger, what: String) {
        self.spoilt = true;
        ledger.found(format!("line {:?} {:?}: {what}", self.line, self.way));
        // The peer is not to blame for what follows.
        self.line.filter(|line| ledger.knows_line(*line)).inspect(|line| ledger.break_off(*line));
    }
}

/// A receiving end.
pub(super) struct Receiver {
    pub(super) read: ReadHalf,
    pub(super) incoming: Incoming,
    /// Chunks that are held on to, with what they held when they came.
    held: VecDeque<(Chunk, Vec<u8>)>,
    held_max: usize,
    /// It takes chunks, and hardly ever anything else: such a connection may be received for unasked.
    plain: bool,
}

impl Receiver {
    pub(super) fn new(ledger: &Ledger, read: ReadHalf, incoming: Incoming) -> Self {
        let held_max = [0, 0, 1, 5][ledger.below(4) as usize];
        Self { read, incoming, held: VecDeque::new(), held_max, plain: ledger.chance(60) }
    }

    /// The next frame, or none at the end of the stream.
    pub(super) async fn frame(&mut self, ledger: &Arc<Ledger>) -> Result<Option<Frame>, Cut> {
        loop {
            if let Some(frame) = self.incoming.frames.pop_front() {
                return Ok(Some(frame));
            }
            if self.incoming.spoilt {
                return Err(Cut);
            }
            match self.more(ledger).await {
                Ok(true) => {}
                Ok(false) => {
                    self.incoming.end(ledger);
                    return if self.incoming.spoilt { Err(Cut) } else { Ok(None) };
                }
                Err(e) => {
                    ledger.failed(self.incoming.line, &e, "a receive", STREAM);
                    return Err(Cut);
                }
            }
        }
    }

    /// Receives by a call that is dropped after `limit`, and keeps what it brings if it is in time.
    pub(super) async fn receive_for(
        &mut self,
        ledger: &Ledger,
        limit: Duration,
    ) -> Result<(), Cut> {
        let got = ledger.limit(limit, self.read.recv()).await;
        match got.map(|chunk| self.took_chunk(ledger, chunk)) {
            Some(Err(e)) => {
                ledger.failed(self.incoming.line, &e, "a receive", STREAM);
                Err(Cut)
            }
            _ => Ok(()),
        }
    }

    /// Receives something by one call or the other; false at the end of the stream.
    async fn more(&mut self, ledger: &Arc<Ledger>) -> io::Result<bool> {
        let plain = self.plain && !ledger.chance(2);
        let manner = if plain { ledger.below(4) } else { ledger.below(10) };
        for _ in 0..ledger.below(4) {
            let limit = ledger.micros(2_000);
            let got = match manner {
                0..=3 => {
                    ledger.limit(limit, self.read.recv()).await.map(|c| self.took_chunk(ledger, c))
                }
                4..=6 => {
                    let room = 1 + ledger.below(300) as usize;
                    let buf = Tracked::new(ledger, Vec::with_capacity(room));
                    let read = ledger.limit(limit, self.read.read(buf)).await;
                    read.map(|read| self.took_buffer(ledger, read))
                }
                _ => None,
            };
            if let Some(got) = got {
                return got;
            }
        }
        match if plain { 0 } else { ledger.below(3) } {
            0 => {
                let chunk = self.read.recv().await;
                self.took_chunk(ledger, chunk)
            }
            1 => {
                let room = 1 + ledger.below(700) as usize;
                let read = self.read.read(Tracked::new(ledger, Vec::with_capacity(room))).await;
                self.took_buffer(ledger, read)
            }
            _ => self.exactly(ledger).await,
        }
    }

    async fn exactly(&mut self, ledger: &Arc<Ledger>) -> io::Result<bool> {
        let wanted = self.incoming.wanted();
        match self.read.read_exact(vec![0; wanted]).await {
            Ok((_, buf)) => {
                self.incoming.take(ledger, &buf);
                Ok(true)
            }
            Err(e) => {
                let ended = e.error().kind() == io::ErrorKind::UnexpectedEof;
                let (e, buf) = e.into_parts();
                self.incoming.take(ledger, &buf);
                if ended { Ok(false) } else { Err(e) }
            }
        }
    }

    fn took_chunk(&mut self, ledger: &Ledger, got: io::Result<Option<Chunk>>) -> io::Result<bool> {
        let Some(chunk) = got? else { return Ok(false) };
        if chunk.is_empty() {
            ledger.found("a chunk without bytes".to_owned());
        }
        self.incoming.take(ledger, &chunk);
        if self.held_max > 0 {
            let copy = chunk.to_vec();
            self.held.push_back((chunk, copy));
            if self.held.len() > self.held_max {
                self.let_go(ledger, 1);
            }
        }
        Ok(true)
    }

    fn took_buffer(
        &mut self,
        ledger: &Ledger,
        read: coreloop::buf::BufResult<usize, Tracked>,
    ) -> io::Result<bool> {
        let (n, buf) = read.map_err(|e| e.into_parts().0)?;
        if n != buf.bytes.len() {
            ledger.found(format!("a read of {n} bytes left {} in its buffer", buf.bytes.len()));
        }
        self.incoming.take(ledger, &buf.bytes);
        Ok(n > 0)
    }

    /// Gives held chunks back; they must hold what they did.
    pub(super) fn let_go(&mut self, ledger: &Ledger, most: usize) {
        for _ in 0..most.min(self.held.len()) {
            let Some((chunk, copy)) = self.held.pop_front() else { return };
            if *chunk != *copy {
                ledger.found(format!("a chunk of {} bytes changed while it was held", copy.len()));
            }
        }
    }
}

/// What is being sent, without the socket.
#[derive(Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) line: u32,
    pub(super) way: Way,
}

/// A sending end.
pub(super) struct Sender {
    pub(super) write: WriteHalf,
    pub(super) out: Outgoing,
}

impl Sender {
    /// Sends a frame, or another one in its place if that was dropped; gives the number of the one that
    /// is on its way for sure.
    pub(super) async fn send(
        &mut self,
        ledger: &Arc<Ledger>,
        ask: u8,
        re: u32,
        len: u16,
    ) -> Result<u32, Cut> {
        let first = self.next(ledger, ask, re, len);
        let bytes = bytes_of(self.out.line, self.out.way, first);
        if self.write(ledger, bytes.clone(), ledger.chance(40)).await? {
            return Ok(first.number);
        }
        self.doubt(ledger, first);
        if ledger.chance(6) {
            // Given up: what was sent of the frame is what comes of it, and then the end.
            ledger.break_off(self.out.line);
            self.shut_down(ledger)?;
            ledger.sleep(ledger.micros(3_000)).await;
            return Err(Cut);
        }
        if ledger.chance(30) {
            ledger.sleep(ledger.micros(300)).await;
        }
        // An empty write waits for the end of the one that was dropped, as any other does.
        let probe = ledger.chance(50).then(|| self.next(ledger, ask, re, len));
        let probed = probe.map(|frame| bytes_of(self.out.line, self.out.way, frame));
        let probed = Tracked::new(ledger, probed.unwrap_or_default());
        match (self.write.write_all(probed).await, probe) {
            (Ok(_), Some(frame)) => Ok(frame.number),
            (Ok(_), None) => {
                let frame = self.next(ledger, ask, re, len);
                self.write(ledger, bytes_of(self.out.line, self.out.way, frame), false).await?;
                Ok(frame.number)
            }
            (Err(e), probe) => {
                probe.inspect(|frame| self.doubt(ledger, *frame));
                self.mend(ledger, first, &bytes, e.error()).await
            }
        }
    }

    fn next(&self, ledger: &Ledger, ask: u8, re: u32, len: u16) -> Frame {
        let number = ledger.begin_frame(self.out.line, self.out.way);
        Frame { number, re, len, ask }
    }

    fn doubt(&self, ledger: &Ledger, frame: Frame) {
        ledger.doubt(self.out.line, self.out.way, frame.number);
    }

    /// A write was dropped half way: the rest of it follows.
    async fn mend(
        &mut self,
        ledger: &Arc<Ledger>,
        frame: Frame,
        bytes: &[u8],
        e: &io::Error,
    ) -> Result<u32, Cut> {
        let Some(torn) = self.write.take_torn_write() else {
            ledger.failed(Some(self.out.line), e, "a write after one that was dropped", STREAM);
            return Err(Cut);
        };
        if torn.len != bytes.len() || torn.sent == 0 || torn.sent >= torn.len {
            ledger.found(format!("a dropped write of {} bytes says {torn:?}", bytes.len()));
            return Err(Cut);
        }
        ledger.settle(self.out.line, self.out.way, frame.number);
        self.write(ledger, bytes[torn.sent..].to_vec(), false).await?;
        Ok(frame.number)
    }

    /// Writes by one call or the other; false if it was dropped before its end.
    async fn write(
        &mut self,
        ledger: &Arc<Ledger>,
        bytes: Vec<u8>,
        hasty: bool,
    ) -> Result<bool, Cut> {
        let limit = if hasty { ledger.micros(1_500) } else { Duration::MAX };
        let wanted = bytes.len();
        let written = match ledger.below(4) {
            0 => {
                let pieces = pieces(ledger, bytes);
                let write = self.write.write_many(pieces);
                let written =
                    if hasty { ledger.limit(limit, write).await } else { Some(write.await) };
                written.map(|w| w.map(|(n, _)| n).map_err(|e| e.into_parts().0))
            }
            1 if !hasty => Some(self.in_steps(ledger, bytes).await),
            _ => {
                let write = self.write.write_all(Tracked::new(ledger, bytes));
                let written =
                    if hasty { ledger.limit(limit, write).await } else { Some(write.await) };
                written.map(|w| w.map(|(n, _)| n).map_err(|e| e.into_parts().0))
            }
        };
        match written {
            None => Ok(false),
            Some(Ok(n)) => {
                if n != wanted {
                    ledger.found(format!("a write of {wanted} bytes gave {n}"));
                }
                Ok(true)
            }
            Some(Err(e)) => {
                ledger.failed(Some(self.out.line), &e, "a write", STREAM);
                Err(Cut)
            }
        }
    }

    async fn in_steps(&mut self, ledger: &Arc<Ledger>, bytes: Vec<u8>) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = Tracked::new(ledger, bytes[sent..].to_vec());
            let (n, _) = self.write.write(rest).await.map_err(|e| e.into_parts().0)?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            sent += n;
        }
        Ok(sent)
    }

    /// No more comes, after an error: whether the connection still is or not.
    pub(super) fn give_up(&self) {
        // One that is gone says so, and needs no end.
        let _ = self.write.shutdown();
    }

    /// No more comes.
    pub(super) fn shut_down(&self, ledger: &Ledger) -> Result<(), Cut> {
        self.write.shutdown().map_err(|e| {
            ledger.failed(Some(self.out.line), &e, "a shutdown", &[Call::Shutdown]);
            Cut
        })
    }
}

fn pieces(ledger: &Arc<Ledger>, bytes: Vec<u8>) -> Vec<Tracked> {
    let mut rest = &bytes[..];
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let n = (ledger.below(200) as usize).min(rest.len());
        let (piece, after) = rest.split_at(n);
        pieces.push(Tracked::new(ledger, piece.to_vec()));
        rest = after;
    }
    pieces
}
