//! Data raced against tokens and deadlines: every byte comes once and in order, whoever wins.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use coreloop::cancel::{Interrupted, Interruptible, Token};
use coreloop::sim::Sim;
use coreloop::spawn;
use coreloop::time::{Instant, sleep};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::{Rng, pattern, pattern_at};
use coreloop_tests::{figure, in_child, net, turns};

/// Cancels `token` after so many turns.
fn cancel_after(n: usize, token: &Token) {
    let token = token.clone();
    drop(spawn(async move {
        turns(n).await;
        token.cancel();
    }));
}

/// Receives everything that comes, each time with a token that is cancelled after a few turns or a deadline
/// that is near; gives how many receives there were and how many of them were called off.
async fn race(ours: &mut TcpStream, seed: u64, races: usize, len: usize) -> (usize, usize) {
    let mut rng = Rng::new(seed);
    let (mut at, mut done, mut off) = (0, 0, 0);
    let mut buf = Vec::with_capacity(512);
    while at < len {
        done += 1;
        let token = Token::new();
        match rng.below(3) {
            _ if done > races => {}
            0 => cancel_after(rng.below(4) as usize, &token),
            1 => token.cancel(),
            _ => {}
        }
        let near = Instant::now() + Duration::from_micros(rng.below(1500));
        let deadline = if done <= races && rng.below(2) == 0 { near } else { Instant::NEVER };
        let before = at;
        let error = match rng.below(3) {
            0 => match ours.recv().cancel_on(&token).until(deadline).await {
                Ok(chunk) => {
                    let chunk = chunk.expect("all has not come yet");
                    assert!(chunk.iter().enumerate().all(|(i, b)| *b == pattern_at(at + i)));
                    at += chunk.len();
                    None
                }
                Err(e) => Some(e),
            },
            1 => match ours.read(buf).until(deadline).cancel_on(&token).await {
                Ok((n, back)) => {
                    assert_eq!(n, back.len());
                    assert!(back == pattern(at, n), "byte {at}");
                    at += n;
                    buf = back;
                    None
                }
                Err(e) => {
                    let (e, back) = e.into_parts();
                    buf = back;
                    Some(e)
                }
            },
            _ => {
                let want = (1 + rng.below(300) as usize).min(len - at);
                match ours.read_exact(vec![0; want]).cancel_on(&token).until(deadline).await {
                    Ok((_, back)) => {
                        assert!(back == pattern(at, want), "byte {at}");
                        at += want;
                        None
                    }
                    Err(e) => {
                        let (e, back) = e.into_parts();
                        assert!(back == pattern(at, back.len()), "byte {at}");
                        at += back.len();
                        Some(e)
                    }
                }
            }
        };
        assert!(buf.capacity() >= 512, "the buffer came back");
        if let Some(e) = error {
            assert!(Interrupted::of(&e).is_some(), "{e:?}");
            off += 1;
        } else {
            assert!(at > before);
        }
    }
    (done, off)
}

#[test]
fn t8_data_raced_against_tokens_and_deadlines_on_the_kernel() {
    in_child("t8_data_raced_against_tokens_and_deadlines_on_the_kernel", || {
        const RACES: usize = 10_000;
        const LEN: usize = 1 << 20;
        coreloop::run(async {
            let (mut ours, mut theirs) = net::pair();
            let peer = std::thread::spawn(move || {
                let (mut rng, mut sent) = (Rng::new(5), 0);
                while sent < LEN {
                    let n = (1 + rng.below(150) as usize).min(LEN - sent);
                    theirs.write_all(&pattern(sent, n)).unwrap();
                    sent += n;
                    if rng.below(4) == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
                theirs
            });
            let (done, off) = race(&mut ours, 11, RACES, LEN).await;
            figure!("{done} receives, {off} called off, {LEN} bytes in order");
            assert!(off > 500, "only {off} of {done}: the race was none");
            drop(peer.join().unwrap());
        })
        .unwrap();
    });
}

#[coreloop::test(sim, seeds = 30)]
async fn t8_data_raced_against_tokens_and_deadlines_simulated(sim: Sim) {
    const LEN: usize = 40_000;
    let seed = sim.random();
    let server = sim.host("server", 1, move |_| async move {
        let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000))?;
        let mut stream = listener.accept().await?;
        let (mut rng, mut sent) = (Rng::new(seed), 0);
        while sent < LEN {
            // Called off now and then, and gone on with where it was.
            let n = (1 + rng.below(3000) as usize).min(LEN - sent);
            let near = Instant::now() + Duration::from_micros(rng.below(900));
            match stream.write_all(pattern(sent, n)).until(near).await {
                Ok((n, _)) => sent += n,
                Err(e) => {
                    assert!(Interrupted::of(e.error()).is_some(), "{:?}", e.error());
                    sent += e.transferred();
                }
            }
            if rng.below(3) == 0 {
                sleep(Duration::from_micros(rng.below(2000))).await;
            }
        }
        stream.recv().await.map(drop)
    });
    sleep(Duration::from_millis(50)).await;
    let mut ours = TcpStream::connect((server, 7000)).await.unwrap();
    let (done, off) = race(&mut ours, seed, 400, LEN).await;
    assert!(off > 20, "only {off} of {done}");
}
