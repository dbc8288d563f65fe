//! The ops listener with all its connections busy: who comes then is served as soon as one of them has been
//! answered, whatever their peers go on to ask, and nobody else is closed for that. In virtual time: what is
//! busy by a head that is not whole yet stays so for as long as the test takes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use coreloop::cancel::{Interrupted, Interruptible};
use coreloop::sim::{Faults, Sim};
use coreloop::time::{Instant, sleep};
use coreloop_net::TcpStream;
use coreloop_net::ops::Ops;

const PORT: u16 = 9464;
/// As `net/src/ops/serve.rs` has it.
const CONNECTIONS_MAX: usize = 32;
const SECOND: Duration = Duration::from_secs(1);

/// A request up to its last line.
const BEGUN: &str = "GET /livez HTTP/1.1\r\n";
const END: &str = "\r\n";
const PROBE: &str = "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Has `client` speak to a listener that answers `/livez` and nothing goes wrong but what it does.
fn with_ops<F: Future<Output = ()> + 'static>(client: impl FnOnce(IpAddr) -> F + 'static) {
    let sim = Sim::builder().seed(1).faults(Faults::none()).build();
    let server = sim.host("server", 1, |_core| async {
        let ops = Ops::new().listen((Ipv4Addr::UNSPECIFIED, PORT)).bind().unwrap();
        panic!("it has ended: {}", ops.serve().await);
    });
    sim.client("client", async move || {
        sleep(SECOND).await;
        client(server).await;
    });
    if let Err(e) = sim.run() {
        panic!("{e}");
    }
}

/// Connects, and says `bytes`.
async fn say(server: IpAddr, bytes: &'static str) -> TcpStream {
    let mut stream = TcpStream::connect((server, PORT)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// As many as there may be, each of which has said `bytes`.
async fn all_say(server: IpAddr, bytes: &'static str) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        all.push(say(server, bytes).await);
    }
    all
}

/// The answer that comes within a second, if one does.
async fn heard(stream: &mut TcpStream) -> Option<String> {
    let limit = Instant::now() + SECOND;
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\nok\n") {
        match stream.recv().until(limit).await {
            Ok(Some(chunk)) => answer += std::str::from_utf8(&chunk).unwrap(),
            Ok(None) => return None,
            Err(e) if Interrupted::of(&e).is_some() => return None,
            Err(e) => panic!("{e} after {answer:?}"),
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Some(answer)
}

fn stays(answer: &str) -> bool {
    answer.contains("\r\nConnection: keep-alive\r\n")
}

#[test]
fn ops_room_is_made_by_the_first_that_has_been_answered_and_by_no_other() {
    with_ops(async |server| {
        let mut busy = all_say(server, BEGUN).await;
        let mut probe = say(server, PROBE).await;
        assert_eq!(heard(&mut probe).await, None, "all are busy");
        busy[0].write_all(END).await.unwrap();
        assert!(heard(&mut probe).await.is_some());
        let last = heard(&mut busy[0]).await.unwrap();
        assert!(!stays(&last), "{last}");
        assert_eq!(busy[0].recv().await.unwrap().map(|_| ()), None, "it is closed");
        // Nobody waits any more.
        for stream in &mut busy[1..] {
            for bytes in [END, "GET /livez HTTP/1.1\r\n\r\n"] {
                stream.write_all(bytes).await.unwrap();
                let answer = heard(stream).await.unwrap();
                assert!(stays(&answer), "{answer}");
            }
        }
    });
}

#[test]
fn ops_room_is_made_by_peers_that_never_stop_asking() {
    with_ops(async |server| {
        // The next request has begun when one is answered: nobody is ever idle.
        let mut busy = all_say(server, "GET /livez HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\n").await;
        for stream in &mut busy {
            assert!(stays(&heard(stream).await.unwrap()));
        }
        let mut probe = say(server, PROBE).await;
        assert_eq!(heard(&mut probe).await, None, "all are busy");
        for stream in &mut busy {
            stream.write_all("\r\nGET /livez HTTP/1.1\r\n").await.unwrap();
        }
        assert!(heard(&mut probe).await.is_some());
    });
}

#[test]
fn ops_room_is_made_for_each_of_several_that_wait() {
    with_ops(async |server| {
        let mut busy = all_say(server, BEGUN).await;
        let mut probes = [say(server, PROBE).await, say(server, PROBE).await];
        for probe in &mut probes {
            assert_eq!(heard(probe).await, None, "all are busy");
        }
        busy[0].write_all(END).await.unwrap();
        // The second comes in the place of the first, which has been answered by then and not closed unheard.
        for probe in &mut probes {
            assert!(heard(probe).await.is_some());
        }
    });
}

#[test]
fn ops_room_is_made_by_who_has_come_and_does_not_ask() {
    with_ops(async |server| {
        let mut silent = all_say(server, "").await;
        let mut probe = say(server, PROBE).await;
        assert!(heard(&mut probe).await.is_some());
        assert_eq!(silent[0].recv().await.unwrap().map(|_| ()), None, "it was idle for longest");
        silent[1].write_all(PROBE).await.unwrap();
        assert!(heard(&mut silent[1]).await.is_some(), "one place was enough");
    });
}
