//! The calling side, and the one that breaks things.
//!
//! Owns [`converse`], the main future of a client: conversations in step, in bulk, broken off, cancelled,
//! left to themselves; and [`chaos`], which resets, parts and crashes. A conversation that nobody breaks off has
//! no limit: if it hangs, the simulation says so.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coreloop::sim::{Call, Sim};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::timeout;
use coreloop_net::TcpStream;

use super::chores::ask;
use super::ledger::{Hold, Ledger, Way};
use super::line::{Cut, Incoming, Outgoing, Receiver, Sender};
use super::ops;
use super::server::PORT;

/// Conversations of a client at a time.
const AT_ONCE_MAX: usize = 3;

/// Attempts to connect, a millisecond apart: servers come late, or anew.
const CONNECTS_MAX: u32 = 100;

/// How long a conversation may take where connections may be gone without a word.
const CHAOS_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn converse(ledger: Arc<Ledger>, conversations: u64) -> Result<(), String> {
    let _parting = ops::Parting(ledger.clone());
    let mut pending = VecDeque::new();
    for _ in 0..conversations {
        let task = conversation(&ledger);
        match ledger.below(20) {
            0 => drop(task),
            1..=3 => {
                ledger.sleep(ledger.micros(8_000)).await;
                task.cancel();
                ended(&ledger, task, true).await;
            }
            4 => {
                // The limit drops the handle that was awaited, which cancels the task.
                let _ = timeout(ledger.micros(8_000), task).await;
            }
            _ => pending.push_back(task),
        }
        if pending.len() >= AT_ONCE_MAX
            && let Some(first) = pending.pop_front()
        {
            ended(&ledger, first, false).await;
        }
    }
    for task in pending {
        ended(&ledger, task, false).await;
    }
    // Here the last events still stand below a finding.
    let findings = ledger.findings();
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

async fn ended(ledger: &Arc<Ledger>, task: JoinHandle<()>, cancelled: bool) {
    if let Err(e) = task.await
        && !(cancelled && e.is_cancelled())
    {
        ledger.found(format!("a conversation: {e}"));
    }
}

fn conversation(ledger: &Arc<Ledger>) -> JoinHandle<()> {
    let own = ledger.clone();
    spawn(async move {
        let _guard = own.guard();
        let server = own.some_server();
        let (bulk, chatter, rounds) = (own.chance(30), own.chance(25), 1 + own.below(6));
        let talk = async {
            let Some(line) = Line::open(&own, server).await else { return };
            // How it was cut the ledger knows.
            let _: Result<(), Cut> = match bulk {
                true => line.bulk(&own).await,
                false if chatter => line.chatter(&own).await,
                false => line.in_step(&own, rounds, ask::ALL).await,
            };
        };
        if own.chaos {
            let _ = timeout(CHAOS_LIMIT, talk).await;
        } else {
            talk.await;
        }
    })
}

/// A short conversation, for servers among themselves.
pub(super) async fn brief(ledger: &Arc<Ledger>, server: IpAddr) {
    let talk = async {
        let Some(line) = Line::open(ledger, server).await else { return };
        let _: Result<(), Cut> = line.in_step(ledger, 2, u64::from(ask::REMOTE)).await;
    };
    if ledger.chaos || ledger.chance(30) {
        let _ = timeout(ledger.micros(20_000), talk).await;
    } else {
        talk.await;
    }
}

struct Line {
    receiver: Receiver,
    sender: Sender,
    held: Hold,
}

impl Line {
    async fn open(ledger: &Arc<Ledger>, server: IpAddr) -> Option<Self> {
        let stream = connect(ledger, server).await?;
        let number = ledger.line();
        let (read, write) = stream.split();
        let incoming = Incoming::new(Some(number), Way::Down);
        Some(Self {
            receiver: Receiver::new(ledger, read, incoming),
            sender: Sender { write, out: Outgoing { line: number, way: Way::Up } },
            held: Hold::new(ledger, number),
        })
    }

    /// One frame, one answer.
    async fn in_step(mut self, ledger: &Arc<Ledger>, rounds: u64, asks: u64) -> Result<(), Cut> {
        for _ in 0..rounds {
            let (ask, len) = (ledger.below(asks) as u8, ledger.below(400) as u16);
            let number = self.sender.send(ledger, ask, 0, len).await?;
            self.answered(ledger, number).await?;
            if ledger.chance(20) {
                ledger.sleep(ledger.micros(2_000)).await;
            }
            if ledger.chance(4) {
                // Gone, with whatever is under way.
                let limit = ledger.micros(300);
                self.receiver.receive_for(ledger, limit).await?;
                return Err(Cut);
            }
        }
        self.sender.shut_down(ledger)?;
        self.read_to_the_end(ledger).await
    }

    /// Many small frames, some of them several at a time, before their answers are looked at.
    async fn chatter(mut self, ledger: &Arc<Ledger>) -> Result<(), Cut> {
        for _ in 0..20 + ledger.below(40) {
            let mut number = 0;
            for _ in 0..=if ledger.chance(10) { ledger.below(8) } else { 0 } {
                number = self.sender.send(ledger, 0, 0, ledger.below(40) as u16).await?;
            }
            if ledger.chance(10) {
                ledger.sleep(ledger.micros(2_000)).await;
            }
            self.answered(ledger, number).await?;
        }
        self.sender.shut_down(ledger)?;
        self.read_to_the_end(ledger).await
    }

    async fn answered(&mut self, ledger: &Arc<Ledger>, number: u32) -> Result<(), Cut> {
        loop {
            match self.receiver.frame(ledger).await? {
                Some(answer) if answer.re >= number => return Ok(()),
                Some(_) => {}
                None => {
                    let line = self.sender.out.line;
                    if !ledger.may_fail(line) {
                        ledger.found(format!("line {line}: no answer to frame {number}"));
                    }
                    return Err(Cut);
                }
            }
        }
    }

    async fn read_to_the_end(mut self, ledger: &Arc<Ledger>) -> Result<(), Cut> {
        while self.receiver.frame(ledger).await?.is_some() {}
        self.receiver.let_go(ledger, usize::MAX);
        self.held.end();
        Ok(())
    }

    /// A task sends more than all buffers hold while the answers are read.
    async fn bulk(self, ledger: &Arc<Ledger>) -> Result<(), Cut> {
        let Self { receiver, mut sender, held } = self;
        let (own, line) = (ledger.clone(), sender.out.line);
        let writer = spawn(async move {
            let _guard = own.guard();
            for _ in 0..2 + own.below(6) {
                let ask = if own.chance(80) { ask::NOTHING } else { own.below(ask::ALL) as u8 };
                let sent = sender.send(&own, ask, 0, own.below(1_500) as u16).await;
                if let Err(cut) = sent {
                    // Some errors leave the connection as it was: who reads would wait for ever.
                    sender.give_up();
                    return Err(cut);
                }
            }
            sender.shut_down(&own)?;
            Ok::<_, Cut>(sender)
        });
        if ledger.chance(15) {
            ledger.sleep(ledger.micros(3_000)).await;
            ledger.break_off(line);
            writer.cancel();
            if let Err(e) = writer.await
                && !e.is_cancelled()
            {
                ledger.found(format!("a writer: {e}"));
            }
            return Err(Cut);
        }
        let mut receiver = receiver;
        loop {
            match receiver.frame(ledger).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(cut) => {
                    // Nobody reads any more, and who writes would wait for that.
                    writer.cancel();
                    return Err(cut);
                }
            }
        }
        receiver.let_go(ledger, usize::MAX);
        match writer.await {
            Ok(Ok(sender)) => Line { receiver, sender, held }.read_to_the_end(ledger).await,
            Ok(Err(Cut)) => Err(Cut),
            Err(e) => {
                ledger.found(format!("a writer: {e}"));
                Err(Cut)
            }
        }
    }
}

async fn connect(ledger: &Arc<Ledger>, server: IpAddr) -> Option<TcpStream> {
    for _ in 0..CONNECTS_MAX {
        let made = match ledger.below(3) {
            0 => {
                let limit = ledger.micros(3_000);
                ledger.limit(limit, TcpStream::connect((server, PORT))).await
            }
            1 => {
                let made = TcpStream::connect_timeout((server, PORT), ledger.micros(200_000)).await;
                match made {
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => None,
                    made => Some(made),
                }
            }
            _ => Some(TcpStream::connect((server, PORT)).await),
        };
        match made {
            Some(Ok(stream)) => {
                check_addresses(ledger, &stream, server);
                return Some(stream);
            }
            Some(Err(e)) if may_refuse(&e) => {}
            Some(Err(e)) => ledger.failed(None, &e, "a connect", &[Call::Socket, Call::Connect]),
            None => {}
        }
        ledger.sleep(Duration::from_millis(1)).await;
    }
    None
}

/// A connection knows its ends, unless it has broken already.
fn check_addresses(ledger: &Ledger, stream: &TcpStream, server: IpAddr) {
    match stream.peer_addr() {
        Ok(peer) if peer == (server, PORT).into() => {}
        Ok(peer) => ledger.found(format!("a connection to {server} has {peer} for a peer")),
        Err(e) => ledger.failed(None, &e, "a peer's address", &[Call::PeerAddr]),
    }
    if let Err(e) = stream.local_addr() {
        ledger.failed(None, &e, "an own address", &[Call::LocalAddr]);
    }
}

fn may_refuse(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ECONNREFUSED | libc::EADDRNOTAVAIL))
}

/// Breaks what can be broken, and mends it.
pub(super) async fn chaos(ledger: Arc<Ledger>, control: Sim) {
    for _ in 0..1 + ledger.below(4) {
        ledger.sleep(ledger.micros(20_000)).await;
        match ledger.below(4) {
            0 => control.reset("client0", "server0"),
            1 => {
                control.partition("client0", "server0");
                ledger.sleep(ledger.micros(500_000)).await;
                control.heal("client0", "server0");
            }
            2 => control.latency("client0", "server0", Duration::ZERO, Duration::from_millis(5)),
            _ => control.restart("server0"),
        }
    }
}
