//! The serving side.
//!
//! Owns [`serve`], the main future of a server's core: accepts raced against timers, listeners that are
//! dropped with whatever is on its way to them, conversations that are answered frame by frame, moved to
//! other cores in the middle, or cancelled.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::sim::Call;
use coreloop::time::sleep;
use coreloop::{Core, spawn};
use coreloop_net::{TcpListener, TcpStream};

use super::chores::{self, Place, ask};
use super::client;
use super::ledger::{Hold, Ledger, STREAM, Way};
use super::line::{Cut, Frame, Incoming, Outgoing, Receiver, Sender};
use super::ops;

pub(super) const PORT: u16 = 7000;

/// How often a core drops its listener and binds another one.
const LISTENERS_MAX: u64 = 4;

/// How often an accept is raced against time before it waits for as long as it takes.
const RACES_MAX: u32 = 20;

pub(super) async fn serve(core: Core, ledger: Arc<Ledger>) {
    // What a core leaves behind when it ends, whoever ends it.
    let _parting = ops::Parting(ledger.clone());
    let here = Place { handle: core.handle().clone(), index: core.index() };
    let (listeners, mut races) = (ledger.below(LISTENERS_MAX), 0);
    for _ in 0..listeners {
        let accepts = ledger.below(4);
        listen(&ledger, &here, accepts, &mut races).await;
        if ledger.chance(30) {
            ledger.sleep(ledger.micros(1_000)).await;
        }
    }
    // Some cores end before the others, with everything in flight.
    if here.index > 0 && ledger.chance(15) {
        return;
    }
    loop {
        listen(&ledger, &here, u64::MAX, &mut races).await;
    }
}

/// Binds, and accepts so many connections.
async fn listen(ledger: &Arc<Ledger>, here: &Place, accepts: u64, races: &mut u32) {
    let mut listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(listener) => listener,
        Err(e) => {
            ledger.failed(None, &e, "a listener", &[Call::Socket, Call::Bind, Call::Listen]);
            return ledger.sleep(Duration::from_millis(1)).await;
        }
    };
    let mut accepted = 0;
    while accepted < accepts {
        let stream = if *races < RACES_MAX && ledger.chance(60) {
            *races += 1;
            match race(listener.accept(), sleep(ledger.micros(3_000))).await {
                Either::First(stream) => stream,
                // Armed all the same: what comes now goes to the next one.
                Either::Second(()) if ledger.chance(10) => return,
                Either::Second(()) => continue,
            }
        } else {
            listener.accept().await
        };
        accepted += 1;
        match stream {
            Ok(stream) => begin(ledger, here, stream),
            Err(e) => ledger.failed(None, &e, "an accept", &[Call::Accept]),
        }
    }
}

fn begin(ledger: &Arc<Ledger>, here: &Place, stream: TcpStream) {
    let state = Answering { incoming: Incoming::new(None, Way::Up), held: None };
    let task = spawn(answer(ledger.clone(), here.clone(), stream, state));
    if !ledger.chance(12) {
        return drop(task);
    }
    let own = ledger.clone();
    drop(spawn(async move {
        own.sleep(own.micros(20_000)).await;
        task.cancel();
        if let Err(e) = task.await
            && !e.is_cancelled()
        {
            own.found(format!("a cancelled conversation: {e}"));
        }
    }));
}

/// A conversation without its socket.
struct Answering {
    incoming: Incoming,
    held: Option<Hold>,
}

fn answer(
    ledger: Arc<Ledger>,
    here: Place,
    stream: TcpStream,
    state: Answering,
) -> Pin<Box<dyn Future<Output = ()>>> {
    // Boxed: it goes on in itself, on another core.
    Box::pin(async move {
        let _guard = ledger.guard();
        // How it was cut the ledger knows.
        let _: Result<(), Cut> = answer_all(&ledger, &here, stream, state).await;
    })
}

async fn answer_all(
    ledger: &Arc<Ledger>,
    here: &Place,
    stream: TcpStream,
    state: Answering,
) -> Result<(), Cut> {
    let Answering { incoming, mut held } = state;
    let (read, write) = stream.split();
    // Known already if the conversation comes from another core, else from the first frame.
    let line = incoming.line.unwrap_or_default();
    let mut receiver = Receiver::new(ledger, read, incoming);
    let mut sender = Sender { write, out: Outgoing { line, way: Way::Down } };
    while let Some(frame) = receiver.frame(ledger).await? {
        let line = receiver.incoming.line.expect("a frame names its line");
        held.get_or_insert_with(|| {
            ledger.take(line);
            Hold::new(ledger, line)
        });
        sender.out.line = line;
        work(ledger, here, frame).await?;
        sender.send(ledger, ask::NOTHING, frame.number, frame.len).await?;
        if ledger.chance(20) {
            receiver.let_go(ledger, 2);
        }
        if frame.ask == ask::MOVE {
            receiver.let_go(ledger, usize::MAX);
            if ledger.chance(50) {
                // A receive that stays armed, and may have brought something by the time of the move.
                let limit = ledger.micros(200);
                receiver.receive_for(ledger, limit).await?;
            }
            let Receiver { read, incoming, .. } = receiver;
            let stream = TcpStream::reunite(read, sender.write).map_err(|_| {
                ledger.found("two halves of one stream do not fit".to_owned());
                Cut
            })?;
            return move_on(ledger, here, stream, Answering { incoming, held }).await;
        }
    }
    let Some(mut held) = held else { return Ok(()) };
    receiver.let_go(ledger, usize::MAX);
    sender.shut_down(ledger)?;
    held.end();
    Ok(())
}

async fn work(ledger: &Arc<Ledger>, here: &Place, frame: Frame) -> Result<(), Cut> {
    if frame.ask == ask::CONNECT {
        // A conversation with another core of this host, or of another one.
        Box::pin(client::brief(ledger, ledger.some_server())).await;
        return Ok(());
    }
    chores::chore(ledger, here, frame.ask).await
}

/// Takes the connection to another core, where it is answered from then on.
async fn move_on(
    ledger: &Arc<Ledger>,
    here: &Place,
    stream: TcpStream,
    state: Answering,
) -> Result<(), Cut> {
    let detached = stream.detach().await.map_err(|e| {
        ledger.failed(state.incoming.line, &e, "a detach", STREAM);
        Cut
    })?;
    let there = here.at(here.some(ledger));
    let (own, handle) = (ledger.clone(), here.handle.clone());
    let moved = handle.spawn_on(there.index, move || {
        // Made over there, on that core's loop.
        async move { answer(own, there, detached.attach(), state).await }
    });
    let moved = moved.map_err(|_| Cut)?;
    if ledger.chance(50) {
        moved.await.map_err(|_| Cut)?;
    }
    Ok(())
}
