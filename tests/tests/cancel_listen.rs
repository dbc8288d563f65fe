//! Operations that listen to a token or a deadline: they resolve, and no byte, buffer or descriptor is lost.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::Duration;

use coreloop::cancel::{Cancelled, Interrupted, Interruptible, Token};
use coreloop::op::{Nop, PollOnce, submit};
use coreloop::time::{Instant, sleep};
use coreloop::{spawn, yield_now};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::pattern;
use coreloop_tests::process::fd_count;
use coreloop_tests::{figure, in_child, net, poll_once, settled, turns};

const SOON: Duration = Duration::from_secs(10);

/// Cancels `token` after so many turns.
fn cancel_after(n: usize, token: &Token) {
    let token = token.clone();
    drop(spawn(async move {
        turns(n).await;
        token.cancel();
    }));
}

fn past() -> Instant {
    Instant::now() - Duration::from_secs(1)
}

fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

#[test]
fn t8_a_listening_recv_ends_and_the_next_one_gets_what_comes() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        for round in 0..100u8 {
            let token = Token::new();
            cancel_after(3, &token);
            let e = ours.recv().cancel_on(&token).await.unwrap_err();
            assert!(Cancelled::is(&e), "{e:?}");
            assert_eq!((e.kind(), e.raw_os_error()), (io::ErrorKind::Other, None));
            theirs.write_all(&[round; 3]).unwrap();
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend_from_slice(&ours.recv().until(in_ms(5000)).await.unwrap().unwrap());
            }
            assert_eq!(got, [round; 3]);
        }
    })
    .unwrap();
}

#[test]
fn t8_a_listening_read_gives_its_buffer_back() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        let buf = Vec::with_capacity(64);
        let address = buf.as_ptr();
        let token = Token::new();
        cancel_after(3, &token);
        let e = ours.read(buf).cancel_on(&token).await.unwrap_err();
        assert_eq!(e.transferred(), 0);
        let (e, buf) = e.into_parts();
        assert!(Cancelled::is(&e), "{e:?}");
        assert_eq!((buf.as_ptr(), buf.capacity()), (address, 64), "the same buffer");
        let e = ours.read(buf).until(in_ms(2)).await.unwrap_err();
        assert_eq!(e.error().kind(), io::ErrorKind::TimedOut);
        assert_eq!(Interrupted::of(e.error()), Some(Interrupted::TimedOut));
        theirs.write_all(b"data").unwrap();
        let (n, buf) = ours.read(e.into_buf()).until(in_ms(5000)).await.unwrap();
        assert_eq!((n, &*buf, buf.as_ptr()), (4, &b"data"[..], address));
    })
    .unwrap();
}

#[test]
fn t8_data_of_the_same_turn_beats_the_token() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        let mut won = 0;
        for round in 0..50u8 {
            let token = Token::new();
            let read = ours.read(Vec::with_capacity(8)).cancel_on(&token);
            let mut read = std::pin::pin!(read);
            assert!(poll_once(read.as_mut()).await.is_pending());
            turns(2).await;
            theirs.write_all(&[round]).unwrap();
            std::thread::sleep(Duration::from_micros(300));
            // The completion is reaped by these turns, and nobody has asked yet.
            turns(3).await;
            token.cancel();
            let got = read.await.expect("the byte was there");
            assert_eq!(got, (1, vec![round]));
            won += 1;
        }
        assert_eq!(won, 50);
    })
    .unwrap();
}

#[test]
fn t8_a_token_cancelled_before_begins_nothing_and_a_past_deadline_does() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        theirs.write_all(b"there already").unwrap();
        let token = Token::new();
        // Kept by the socket: ready at the first poll.
        let (_, one) = ours.read(Vec::with_capacity(1)).await.unwrap();
        assert_eq!(one, b"t");
        {
            let mut pending = std::pin::pin!(ours.recv());
            let _ = poll_once(pending.as_mut()).await;
            turns(3).await;
        }
        token.cancel();
        assert!(Cancelled::is(&ours.recv().cancel_on(&token).await.unwrap_err()));
        let e = ours.write_all("never sent").cancel_on(&token).await.unwrap_err();
        assert_eq!((e.transferred(), e.into_buf()), (0, "never sent"));
        let nothing = submit(Nop).cancel_on(&token).await.unwrap_err();
        assert!(Cancelled::is(&nothing));
        let got = ours.recv().until(past()).await.unwrap().unwrap();
        assert_eq!(&*got, b"here already");
        let e = ours.recv().until(past()).await.unwrap_err();
        assert_eq!(Interrupted::of(&e), Some(Interrupted::TimedOut));
        ours.shutdown(Shutdown::Write).unwrap();
        let mut end = Vec::new();
        theirs.read_to_end(&mut end).unwrap();
        assert_eq!(end, b"");
    })
    .unwrap();
}

#[test]
fn t8_the_first_reason_is_the_one_reported_in_any_order_of_wrapping() {
    coreloop::run(async {
        let (mut ours, _theirs) = net::pair();
        let (token, never) = (Token::new(), Token::new());
        let limit = in_ms(2);
        let e = ours.recv().cancel_on(&never).until(limit).await.unwrap_err();
        assert_eq!(Interrupted::of(&e), Some(Interrupted::TimedOut));
        let e = ours.recv().until(in_ms(2)).cancel_on(&never).await.unwrap_err();
        assert_eq!(Interrupted::of(&e), Some(Interrupted::TimedOut));
        cancel_after(2, &token);
        let e = ours.recv().cancel_on(&never).cancel_on(&token).until(Instant::NEVER).await;
        assert!(Cancelled::is(&e.unwrap_err()));
        let closed = io::Error::from_raw_os_error(libc::ECANCELED);
        assert_eq!(Interrupted::of(&closed), None, "a loop that was closed");
        let peer = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        assert_eq!(Interrupted::of(&peer), None, "a peer that does not answer");
        let (plain, poll) = std::os::unix::net::UnixStream::pair().unwrap();
        let token = Token::new();
        cancel_after(3, &token);
        let e = submit(PollOnce::new(plain, libc::POLLIN as u32)).cancel_on(&token).await;
        assert!(Cancelled::is(&e.unwrap_err()));
        drop(poll);
    })
    .unwrap();
}

#[test]
fn t8_a_listening_read_exact_gives_what_it_got() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        let token = Token::new();
        theirs.write_all(b"abc").unwrap();
        let asked = token.clone();
        drop(spawn(async move {
            sleep(Duration::from_millis(20)).await;
            asked.cancel();
        }));
        let e = ours.read_exact(vec![0; 5]).cancel_on(&token).await.unwrap_err();
        assert!(Cancelled::is(e.error()));
        assert_eq!((e.transferred(), e.into_buf()), (3, b"abc".to_vec()));
        theirs.write_all(b"defghij").unwrap();
        let (_, rest) = ours.read_exact(vec![0; 5]).until(in_ms(5000)).await.unwrap();
        assert_eq!(rest, b"defgh");
        assert_eq!(ours.read_exact(vec![0; 2]).await.unwrap().1, b"ij");
    })
    .unwrap();
}

#[test]
fn t8_a_listening_write_says_how_much_it_sent_and_the_next_goes_on_there() {
    coreloop::run(async {
        const LEN: usize = 8 << 20;
        let (mut ours, mut theirs) = net::pair();
        ours.socket().set_send_buffer_size(16 << 10).unwrap();
        socket2::SockRef::from(&theirs).set_recv_buffer_size(16 << 10).unwrap();
        let token = Token::new();
        cancel_after(20, &token);
        let e = ours.write_all(pattern(0, LEN)).cancel_on(&token).await.unwrap_err();
        assert!(Cancelled::is(e.error()));
        let sent = e.transferred();
        assert!(sent > 0 && sent < LEN, "{sent}");
        assert_eq!(ours.take_torn_write(), None, "it is not torn");
        let mut rest = e.into_buf();
        assert_eq!(rest.len(), LEN, "the whole buffer");
        rest.drain(..sent);
        // Full: of several buffers nothing goes out.
        let parts = vec![b"one".to_vec(), b"two".to_vec()];
        let e = ours.write_many(parts.clone()).until(in_ms(2)).await.unwrap_err();
        assert_eq!((e.transferred(), e.into_buf()), (0, parts));
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            got
        });
        ours.write_all(rest).until(Instant::now() + SOON).await.unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        assert!(settled(SOON, || reader.is_finished()).await);
        assert!(reader.join().unwrap() == pattern(0, LEN), "every byte once");
        figure!("{sent} of {LEN} bytes were sent when it was called off");
    })
    .unwrap();
}

#[test]
fn t8_a_listening_accept_leaves_connections_to_the_next() {
    coreloop::run(async {
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let token = Token::new();
        cancel_after(3, &token);
        assert!(Cancelled::is(&listener.accept().cancel_on(&token).await.unwrap_err()));
        let client = std::net::TcpStream::connect(addr).unwrap();
        turns(5).await;
        assert!(Cancelled::is(&listener.accept().cancel_on(&token).await.unwrap_err()));
        let stream = listener.accept().until(Instant::now() + SOON).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
    })
    .unwrap();
}

#[test]
fn t8_a_listening_connect_closes_its_socket() {
    in_child("t8_a_listening_connect_closes_its_socket", || {
        coreloop::run(async {
            // A backlog that is full: further connects wait.
            let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let full = full.unwrap();
            let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            full.bind(&any.into()).unwrap();
            full.listen(0).unwrap();
            let addr = full.local_addr().unwrap().as_socket().unwrap();
            let _first = TcpStream::connect(addr).await.unwrap();
            let mut fillers = Vec::new();
            let stuck = loop {
                match TcpStream::connect(addr).until(in_ms(50)).await {
                    Ok(stream) if fillers.len() < 64 => fillers.push(stream),
                    Ok(_) => break false,
                    Err(e) => {
                        assert_eq!(Interrupted::of(&e), Some(Interrupted::TimedOut), "{e:?}");
                        break true;
                    }
                }
            };
            if !stuck {
                println!("SKIPPED: this system's loopback never lets a connect wait");
                return;
            }
            turns(20).await;
            let before = fd_count();
            for n in [0, 1, 2, 5] {
                turns(20).await;
                let token = Token::new();
                cancel_after(n, &token);
                let e = TcpStream::connect(addr).cancel_on(&token).await.unwrap_err();
                assert!(Cancelled::is(&e), "{e:?}");
                assert_eq!(fd_count(), before, "at the moment at which it resolves");
            }
            let ended = TcpStream::connect("no address").cancel_on(&Token::new()).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        })
        .unwrap();
    });
}

#[test]
fn t8_a_listening_operation_dropped_while_it_ends_loses_nothing() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        for round in 0..50u8 {
            let token = Token::new();
            {
                let read = ours.read(Vec::with_capacity(8)).cancel_on(&token);
                let mut read = std::pin::pin!(read);
                assert!(poll_once(read.as_mut()).await.is_pending());
                yield_now().await;
                token.cancel();
                let _ = poll_once(read.as_mut()).await;
            }
            theirs.write_all(&[round]).unwrap();
            let got = ours.recv().until(Instant::now() + SOON).await.unwrap().unwrap();
            assert_eq!(&*got, [round]);
        }
        // A forgotten one keeps its buffer for good, and that is all.
        let token = Token::new();
        let mut read = Box::pin(ours.read(Vec::with_capacity(8)).cancel_on(&token));
        assert!(poll_once(read.as_mut()).await.is_pending());
        std::mem::forget(read);
        token.cancel();
        turns(3).await;
    })
    .unwrap();
}
