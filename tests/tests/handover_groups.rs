//! Groups by CPU that are handed over: a successor gets what listens when it comes; one that dies, whatever it has
//! done to the port, leaves its predecessor the positions and the program that there were.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use coreloop::placement::allowed_cpus;
use coreloop::time::timeout;
use coreloop::{spawn, spawn_blocking};
use coreloop_net::ListenOptions;
use coreloop_net::handover::Handover;
use coreloop_net::spread::{Group, SteeredListener};
use coreloop_tests::net::{comes_to, connect_on};
use coreloop_tests::own_path::OwnPath;
use coreloop_tests::settled;

const LIMIT: Duration = Duration::from_secs(20);

/// CPUs that no machine has here: listeners that get nothing unless the table is wrong.
const NOWHERE: usize = 90_000;

/// Makes a successor of this binary that comes to nothing: the path at which it begins.
const UNREADY: &str = "CORELOOP_TEST_UNREADY";

async fn begin(path: &Path) -> Handover {
    timeout(LIMIT, Handover::begin(path)).await.expect("in time").unwrap()
}

fn cpu() -> usize {
    allowed_cpus()[0]
}

/// A group that is lent, with a listener for each of these CPUs.
fn lent(handover: &Handover, cpus: &[usize]) -> (Group, Vec<SteeredListener>) {
    let group = Group::new("127.0.0.1:0", ListenOptions::default()).unwrap();
    // Before it has any, as a process does it that begins, and again.
    handover.lend_group("http", &group).unwrap();
    let listeners = cpus.iter().map(|cpu| group.bind(*cpu).unwrap()).collect();
    handover.lend_group("http", &group).unwrap();
    (group, listeners)
}

/// The group that came from the predecessor, lent on.
fn adopted(handover: &Handover) -> Group {
    let group = Group::adopt(handover.take_all("http"), ListenOptions::default()).unwrap();
    handover.lend_group("http", &group).unwrap();
    group
}

#[coreloop::test]
async fn handover_groups_go_over_without_the_listener_that_has_ended() {
    let path = OwnPath::new("handover-group");
    let old = begin(&path).await;
    let (theirs, mut listeners) = lent(&old, &[NOWHERE, NOWHERE + 1, cpu()]);
    // Its core stops: the last one moves into its place.
    drop(listeners.remove(0));
    let waits = spawn(async move { old.successor().await });
    let new = begin(&path).await;
    let ours = adopted(&new);
    let mut own = vec![ours.bind(cpu()).unwrap(), ours.bind(NOWHERE).unwrap()];
    assert!(ours.take_left_over().unwrap().is_none(), "as many as there are");
    assert!(new.ready(1).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    let given_away = theirs.bind(cpu()).unwrap_err();
    assert_eq!(given_away.kind(), std::io::ErrorKind::InvalidInput);
    // The old listeners end, and no socket does.
    listeners.clear();
    assert_eq!(comes_to(&mut own, cpu()).await, 0);
    // They are the new process's own: where one ends, the other has the connections.
    drop(own.remove(0));
    assert_eq!(ours.cpus(), [Some(NOWHERE)]);
    assert_eq!(comes_to(&mut own, cpu()).await, 0);
}

#[coreloop::test]
async fn handover_groups_are_steered_as_before_when_a_successor_has_died() {
    let path = OwnPath::new("handover-group");
    let old = begin(&path).await;
    let (_theirs, mut listeners) = lent(&old, &[NOWHERE, cpu()]);
    let waits = spawn(async move { old.successor().await });
    for _ in 0..3 {
        // One of another make, which steers at once.
        let dies = begin(&path).await;
        let sockets = dies.take_all("http");
        coreloop::fds::steer_by_cpu(&sockets[0], &[(NOWHERE, 0)]).unwrap();
        assert_eq!(comes_to(&mut listeners, cpu()).await, 0);
        drop((dies, sockets));
        // The next one is heard when that one has been passed over.
        drop(begin(&path).await);
        assert_eq!(comes_to(&mut listeners, cpu()).await, 1);
    }
    assert!(!waits.is_finished());
}

#[coreloop::test]
async fn handover_groups_keep_the_socket_of_a_listener_that_ends_while_a_successor_starts() {
    let path = OwnPath::new("handover-group");
    let old = begin(&path).await;
    let (theirs, mut listeners) = lent(&old, &[NOWHERE, NOWHERE + 1, cpu()]);
    let waits = spawn(async move { old.successor().await });
    let dies = begin(&path).await;
    drop(listeners.remove(0));
    assert_eq!(theirs.cpus(), [None, Some(NOWHERE + 1), Some(cpu())]);
    // Each of them listens, and could be taken up.
    let sockets = dies.take_all("http");
    assert_eq!(sockets.len(), 3);
    drop(Group::adopt(sockets, ListenOptions::default()).unwrap());
    // A core that comes again gets the same one, and nobody a new one.
    let again = theirs.bind(NOWHERE).unwrap();
    assert_eq!(again.position(), 0);
    let refused = theirs.bind(NOWHERE + 2).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    drop((again, dies));
    // It came to nothing: who ended meanwhile leaves, and the last one moves into its place.
    assert!(settled(LIMIT, || theirs.cpus().len() == 2).await);
    assert_eq!(theirs.cpus(), [Some(cpu()), Some(NOWHERE + 1)]);
    assert_eq!(comes_to(&mut listeners, cpu()).await, 1);
    // The next one goes on. What comes to the one that ends while it starts, it finds there.
    let new = begin(&path).await;
    let mut ends = listeners.remove(1);
    assert!(ends.pause().await.is_empty());
    drop(ends);
    let ours = adopted(&new);
    let mut own = [ours.bind(cpu()).unwrap(), ours.bind(NOWHERE).unwrap()];
    let client = connect_on(cpu(), ours.addr()).await;
    assert!(new.ready(1).unwrap());
    timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
    listeners.clear();
    let served = timeout(LIMIT, own[0].accept()).await.unwrap().unwrap();
    assert_eq!(served.peer_addr().unwrap(), client.local_addr().unwrap());
}

/// As where a process ends by itself while its successor starts.
#[coreloop::test]
async fn handover_groups_are_left_to_a_successor_by_a_process_that_ends() {
    let path = OwnPath::new("handover-group");
    let old = begin(&path).await;
    let (theirs, listeners) = lent(&old, &[NOWHERE, cpu()]);
    let waits = spawn(async move { old.successor().await });
    let new = begin(&path).await;
    waits.cancel();
    assert!(waits.await.unwrap_err().is_cancelled());
    drop((listeners, theirs));
    let ours = adopted(&new);
    let mut own = [ours.bind(cpu()).unwrap(), ours.bind(NOWHERE).unwrap()];
    let client = connect_on(cpu(), ours.addr()).await;
    assert!(new.ready(1).unwrap());
    // Where the program of before had it.
    let served = timeout(LIMIT, own[1].accept()).await.unwrap().unwrap();
    assert_eq!(served.peer_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(comes_to(&mut own, cpu()).await, 0);
}

/// Of which one core has bound, and no other one does. Not a test: does nothing unless it is asked to.
#[test]
fn handover_groups_unready_process() {
    let Ok(path) = std::env::var(UNREADY) else { return };
    coreloop::run(async move {
        let this = begin(Path::new(&path)).await;
        let _first = adopted(&this).bind(NOWHERE + 2).unwrap();
        println!("bound");
        std::future::pending::<()>().await;
    })
    .unwrap();
}

/// Such a process; killed when it is dropped.
struct Unready(Process);

impl Unready {
    /// Starts it and waits until one of its cores has bound.
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "handover_groups_unready_process", "--nocapture"])
            .env(UNREADY, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let this = Self(process);
        let mut line = String::new();
        while !line.ends_with("bound\n") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended before it had bound");
        }
        this
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[coreloop::test]
async fn handover_groups_a_successor_that_is_killed_leaves_the_program_as_it_was() {
    let path = OwnPath::new("handover-group");
    let old = begin(&path).await;
    let (theirs, mut listeners) = lent(&old, &[NOWHERE, cpu()]);
    let waits = spawn(async move { old.successor().await });
    let own = path.to_path_buf();
    let unready = spawn_blocking(move || Unready::start(&own)).await.unwrap();
    assert_eq!(comes_to(&mut listeners, cpu()).await, 1, "while it starts");
    spawn_blocking(move || drop(unready)).await.unwrap();
    assert_eq!(comes_to(&mut listeners, cpu()).await, 1, "when it is gone");
    // As it is once it has been passed over, which the next one is heard after.
    drop(begin(&path).await);
    assert_eq!(comes_to(&mut listeners, cpu()).await, 1);
    assert_eq!(theirs.cpus(), [Some(NOWHERE), Some(cpu())]);
    assert!(!waits.is_finished());
}
