//! Hand-overs that go wrong in the middle: successors that die, are slow, or come two at a time; a predecessor
//! that has left its path behind or goes away; many sockets, which come in their order.

use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_net::TcpListener;
use coreloop_net::handover::Handover;
use coreloop_tests::own_path::OwnPath;
use coreloop_tests::process::set_file_limit;
use coreloop_tests::{fd_count, in_child};

const LIMIT: Duration = Duration::from_secs(20);

async fn begin(path: &OwnPath) -> Handover {
    timeout(LIMIT, Handover::begin(path)).await.expect("in time").unwrap()
}

fn system_listener() -> (StdListener, SocketAddr) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn port_of(socket: OwnedFd) -> u16 {
    StdListener::from(socket).local_addr().unwrap().port()
}

#[coreloop::test]
async fn handover_many_sockets_come_by_name_and_in_order() {
    let path = OwnPath::new("handover");
    let old = begin(&path).await;
    assert!(!old.is_successor() && old.take("http").is_none());
    let (mut ports, mut others) = (Vec::new(), Vec::new());
    for i in 0..150 {
        let (listener, addr) = system_listener();
        let name = if i % 3 == 0 { "admin" } else { "http" };
        old.lend(name, &listener).unwrap();
        if i % 3 == 0 { &mut others } else { &mut ports }.push(addr.port());
    }
    let waits = old.clone();
    let waits = spawn(async move { waits.successor().await });
    let new = begin(&path).await;
    assert!(new.is_successor());
    let admin: Vec<u16> = new.take_all("admin").into_iter().map(port_of).collect();
    assert_eq!(admin, others);
    // Shared out among three cores that ask in any order, and no core's twice.
    let mut shares: Vec<Vec<u16>> = vec![Vec::new(); 3];
    for core in [2, 0, 1] {
        shares[core] = new.take_share("http", core, 3).into_iter().map(port_of).collect();
        assert!(new.take_share("http", core, 3).is_empty());
    }
    for (core, share) in shares.iter().enumerate() {
        let want: Vec<u16> = ports.iter().copied().skip(core).step_by(3).collect();
        assert_eq!(*share, want);
    }
    assert!(!waits.is_finished(), "it is not ready");
    assert!(!new.ready(2).unwrap());
    assert!(new.ready(2).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    let again = old.successor().await.unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::NotConnected);
}

#[coreloop::test]
async fn handover_a_successor_that_dies_is_forgotten() {
    let path = OwnPath::new("handover");
    let (listener, addr) = system_listener();
    let old = begin(&path).await;
    old.lend("http", &listener).unwrap();
    drop(listener);
    let waits = spawn(async move { old.successor().await });
    for _ in 0..5 {
        // It has the sockets, and is gone before it is ready.
        let dies = begin(&path).await;
        assert_eq!(port_of(dies.take("http").unwrap()), addr.port());
        drop(dies);
        assert!(!waits.is_finished());
        // What was lent listens on.
        drop(StdStream::connect(addr).unwrap());
    }
    let lives = begin(&path).await;
    let mut listener = TcpListener::from_fd(lives.take("http").unwrap()).unwrap();
    assert!(lives.ready(1).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    // The five that nobody accepted were in the backlog, which is this one's now.
    for _ in 0..5 {
        timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    }
}

#[coreloop::test]
async fn handover_a_successor_that_is_late_is_told_so() {
    let path = OwnPath::new("handover");
    let old = begin(&path).await;
    old.starting_within(Duration::from_millis(30));
    let waits = spawn(async move { old.successor().await });
    let slow = begin(&path).await;
    sleep(Duration::from_millis(100)).await;
    let e = slow.ready(1).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::TimedOut, "{e}");
    drop(slow);
    let quick = begin(&path).await;
    assert!(quick.ready(1).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
}

/// Whoever waits for a successor may stop waiting and begin again, in the middle of its start.
#[coreloop::test]
async fn handover_a_wait_for_a_successor_can_be_taken_up_again() {
    let path = OwnPath::new("handover");
    let old = begin(&path).await;
    let waits = {
        let old = old.clone();
        spawn(async move {
            let mut times = 0;
            while timeout(Duration::from_millis(5), old.successor()).await.is_err() {
                times += 1;
            }
            times
        })
    };
    let new = begin(&path).await;
    sleep(Duration::from_millis(60)).await;
    assert!(!waits.is_finished(), "it is not ready");
    assert!(new.ready(1).unwrap());
    let times = timeout(LIMIT, waits).await.expect("it hears of it").unwrap();
    assert!(times > 1, "the wait ended in the middle: {times}");
}

#[test]
fn handover_more_sockets_than_a_successor_may_have_is_an_error_that_says_so() {
    let name = "handover_more_sockets_than_a_successor_may_have_is_an_error_that_says_so";
    in_child(name, || {
        coreloop::run(async {
            let path = OwnPath::new("handover");
            let old = begin(&path).await;
            let (listener, _) = system_listener();
            for _ in 0..40 {
                old.lend("http", &listener).unwrap();
            }
            let waits = spawn(async move { old.successor().await });
            // Room for the connection, and not for what comes over it.
            set_file_limit(fd_count() as u64 + 20);
            let e = Handover::begin(&path).await.unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::EMFILE), "{e}");
            set_file_limit(512);
            let new = begin(&path).await;
            assert_eq!(new.take_all("http").len(), 40);
            assert!(new.ready(1).unwrap());
            timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
        })
        .unwrap();
    });
}

#[coreloop::test]
async fn handover_two_that_come_at_once_take_over_one_after_the_other() {
    let path = OwnPath::new("handover");
    let (listener, addr) = system_listener();
    let old = begin(&path).await;
    old.lend("http", &listener).unwrap();
    drop(listener);
    let waits = spawn(async move { old.successor().await });
    let life = |own: PathBuf| async move {
        let this = timeout(LIMIT, Handover::begin(own)).await.unwrap().unwrap();
        let socket = this.take("http").expect("from whoever was before");
        this.lend("http", &socket).unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(this.ready(1).unwrap());
        let waits = timeout(Duration::from_millis(500), this.successor()).await;
        (port_of(socket), waits.is_ok())
    };
    let (a, b) = (spawn(life(path.to_path_buf())), spawn(life(path.to_path_buf())));
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert_eq!((a.0, b.0), (addr.port(), addr.port()));
    assert!(a.1 != b.1, "one of them had a successor, which was the other: {a:?} {b:?}");
}

#[coreloop::test]
async fn handover_a_path_that_was_left_behind_is_taken_anew() {
    let path = OwnPath::new("handover");
    for _ in 0..3 {
        let first = begin(&path).await;
        assert!(!first.is_successor());
        assert!(path.exists());
    }
    // A file that is none of ours stays.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "important").unwrap();
    let e = Handover::begin(&path).await.unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists, "{e}");
    assert_eq!(std::fs::read(&path).unwrap(), b"important");
}

#[coreloop::test]
async fn handover_a_predecessor_that_goes_away_leaves_the_place() {
    let path = OwnPath::new("handover");
    let old = begin(&path).await;
    // It waits for nobody: whoever comes is not heard.
    let own = path.to_path_buf();
    let comes = spawn(async move { Handover::begin(own).await });
    sleep(Duration::from_millis(30)).await;
    assert!(!comes.is_finished());
    drop(old);
    let new = timeout(LIMIT, comes).await.unwrap().unwrap().unwrap();
    assert!(!new.is_successor());
}

#[test]
fn handover_names_and_paths_that_will_not_do_are_refused() {
    coreloop::run(async {
        let path = OwnPath::new("handover");
        let this = begin(&path).await;
        let (listener, _) = system_listener();
        for name in ["", "two\nlines", "http\r", "\r", "a\rb", "tab\t", "\0", &"x".repeat(201)] {
            let e = this.lend(name, &listener).unwrap_err();
            assert_eq!(e.kind(), std::io::ErrorKind::InvalidInput);
        }
        this.lend(&"x".repeat(200), &listener).unwrap();
        assert!(Handover::begin("/nowhere/at/all").await.is_err());
        assert!(Handover::begin("/tmp/".to_owned() + &"x".repeat(200)).await.is_err());
        // Not listening: nothing to accept from.
        let stream = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(TcpListener::from_fd(stream).is_err());
    })
    .unwrap();
}

/// A name that ends in any character is refused, or comes as it was lent.
#[coreloop::test]
async fn handover_a_name_that_is_lent_comes_as_it_was() {
    let path = OwnPath::new("handover");
    let old = begin(&path).await;
    let (listener, _) = system_listener();
    let odd = ['\u{2028}', '\u{feff}', 'é', '界'];
    let names = ('\0'..='\u{a0}').chain(odd).map(|c| format!("http{c}"));
    let (lent, refused): (Vec<_>, Vec<_>) =
        names.partition(|name| old.lend(name, &listener).is_ok());
    assert_eq!(refused.len(), 32 + 33, "control characters, and nothing else: {refused:?}");
    assert!(refused.iter().all(|name| name.contains(char::is_control)), "{refused:?}");
    let waits = spawn(async move { old.successor().await });
    let new = begin(&path).await;
    for name in &lent {
        assert_eq!(new.take_all(name).len(), 1, "{name:?}");
    }
    assert!(new.ready(1).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
}

#[test]
fn handover_leaves_no_descriptor_behind() {
    in_child("handover_leaves_no_descriptor_behind", || {
        coreloop::run(async {
            let path = OwnPath::new("handover");
            let before = fd_count();
            let old = begin(&path).await;
            let (listener, _) = system_listener();
            for _ in 0..70 {
                old.lend("http", &listener).unwrap();
            }
            let waits = spawn(async move { old.successor().await });
            let new = begin(&path).await;
            drop(new.take("http"));
            assert!(new.ready(1).unwrap());
            waits.await.unwrap().unwrap();
            let permissions = std::fs::metadata(&path).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o007 & 0o002, 0, "not for everybody to write");
            drop((listener, new));
            sleep(Duration::from_millis(20)).await;
            assert_eq!(fd_count(), before);
        })
        .unwrap();
    });
}
