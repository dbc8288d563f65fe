//! What happens to the process: one CPU, a fork, a build that aborts on panics.

use std::io::{Read as _, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coreloop::op::{Read, submit};
use coreloop::time::{sleep, timeout};
use coreloop::{Cores, EventLoop, Feature, Settings, spawn, spawn_blocking};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::forked::{Ended, exit_with_handlers, fault, fork};
use coreloop_tests::process::take_number;
use coreloop_tests::{
    Child, fd_count, fds_settle_at, figure, in_child, net, skip, turns, two_cores,
};

const SOON: Duration = Duration::from_secs(20);

/// Cores, blocking threads and a peer share one CPU: nobody spins the others out of it.
#[test]
fn fault_one_cpu_carries_cores_blocking_threads_and_echoes() {
    const NAME: &str = "fault_one_cpu_carries_cores_blocking_threads_and_echoes";
    if !Child::is_one() && Command::new("taskset").arg("-V").output().is_err() {
        skip!("taskset is not here");
    }
    let cpu = Cores::All.resolve().unwrap()[0].to_string();
    Child::new(NAME).under(&["taskset", "-c", &cpu]).run(|| {
        const CALLS: u64 = 2_000;
        assert_eq!(Cores::All.resolve().unwrap().len(), 1);
        let before = fd_count();
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.block_on(async {
            assert_eq!(net::echoes(8, 1000).await.unwrap(), 1000);
            let blocking = (0..100u64).map(|i| spawn_blocking(move || i));
            let mut sum = 0;
            for answer in blocking.collect::<Vec<_>>() {
                sum += answer.await.unwrap();
            }
            assert_eq!(sum, 4950);
        });
        drop(event_loop);
        let (tx, rx) = std::sync::mpsc::channel();
        let (done_tx, done_rx) = coreloop::cross::channel::<()>(1);
        let began = std::time::Instant::now();
        let (answers, ()) = two_cores(
            Settings::default(),
            move || async move {
                // What each call costs is two switches of the one CPU.
                let other: coreloop::Handle = rx.recv_timeout(SOON).unwrap();
                let mut right = 0;
                for i in 0..CALLS {
                    let answer = other.spawn_on(1, move || async move { i * 2 }).unwrap();
                    right += u64::from(timeout(SOON, answer).await.expect("it hangs") == Ok(i * 2));
                }
                drop(done_tx);
                right
            },
            move || async move {
                tx.send(coreloop::Handle::current()).unwrap();
                let mut done_rx = done_rx;
                assert!(done_rx.recv().await.is_none());
            },
        );
        figure!("{CALLS} calls between two cores on one CPU in {:?}", began.elapsed());
        assert_eq!(answers, CALLS);
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

/// For a forked child that ends by `exit`: what its parent's other threads held, AddressSanitizer takes for leaked.
const NO_LEAK_CHECK: &str = "detect_leaks=0";

/// A loop with a receive, a read and a timer in flight whose process forks again and again.
fn forks(settings: Settings) {
    let before = fd_count();
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        let armed = spawn(async move { ours.read_exact(vec![0; 6]).await.map(|(_, buf)| buf) });
        let (reader, mut writer) = std::io::pipe().unwrap();
        let read = spawn(submit(Read::new(OwnedFd::from(reader), Vec::with_capacity(8))));
        let timer = spawn(sleep(Duration::from_millis(200)));
        turns(3).await;
        // Ends at once; runs handlers and destructors of thread-locals; closes everything, ring included.
        let ends: [fn() -> i32; 3] = [
            || 7,
            || exit_with_handlers(7),
            || {
                drop(std::fs::read_dir("/"));
                (3..64).for_each(coreloop_tests::process::close_number);
                7
            },
        ];
        for end in ends {
            let mut child = fork(end);
            assert_eq!(net::echoes(2, 50).await.unwrap(), 50);
            assert_eq!(child.wait(), Ended::Exit(7));
            assert_eq!(net::echoes(2, 50).await.unwrap(), 50);
        }
        let mut spawned = Command::new(std::env::current_exe().unwrap());
        let status = spawned.arg("--list").stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "and one that is spawned");
        theirs.write_all(b"after.").unwrap();
        writer.write_all(b"too").unwrap();
        assert_eq!(timeout(SOON, armed).await.unwrap().unwrap().unwrap(), b"after.");
        let (n, buf) = timeout(SOON, read).await.unwrap().unwrap().unwrap();
        assert_eq!((n, &buf[..]), (3, &b"too"[..]));
        timeout(SOON, timer).await.expect("the timer fires").unwrap();
    });
    assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    assert_eq!(fds_settle_at(before, SOON), before);
}

#[test]
fn fault_fork_leaves_the_parents_loop_unharmed() {
    let child = Child::new("fault_fork_leaves_the_parents_loop_unharmed").asan(NO_LEAK_CHECK);
    child.run(|| forks(Settings::default()));
}

#[test]
fn fault_fork_leaves_the_parents_loop_unharmed_without_features() {
    const NAME: &str = "fault_fork_leaves_the_parents_loop_unharmed_without_features";
    Child::new(NAME).asan(NO_LEAK_CHECK).run(|| {
        forks(Feature::ALL.into_iter().fold(Settings::default(), Settings::mask));
    });
}

/// A child that goes on with its parent's loop has none of the ring's memory: it is told so and ends, and the
/// parent does not notice. Without features, so that the kernel itself would let the child in.
#[test]
fn fault_fork_child_that_uses_the_loop_harms_itself_alone() {
    in_child("fault_fork_child_that_uses_the_loop_harms_itself_alone", || {
        let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
        let mut event_loop = EventLoop::with(bare).unwrap();
        event_loop.turn(Some(Duration::ZERO));
        let (mut said, stderr) = std::io::pipe().unwrap();
        let mut child = fork(|| {
            take_number(stderr.as_raw_fd(), 2);
            for _ in 0..3 {
                event_loop.turn(Some(Duration::from_millis(1)));
            }
            drop(event_loop.spawn(sleep(Duration::from_millis(1))));
            event_loop.block_on(sleep(Duration::from_millis(2)));
            0
        });
        drop(stderr);
        assert_eq!(child.wait(), Ended::Signal(libc::SIGABRT));
        let mut words = String::new();
        said.read_to_string(&mut words).unwrap();
        assert!(words.contains("a forked child used an event loop of its parent"), "{words:?}");
        assert_eq!(event_loop.block_on(net::echoes(4, 200)).unwrap(), 200);
        assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    });
}

/// Nor does one that drops a connection, which uses no memory of the ring: it takes nothing out of the table of
/// files. Also where the kernel would let the child do that.
#[test]
fn fault_fork_child_that_drops_a_connection_leaves_the_parents_table_alone() {
    const NAME: &str = "fault_fork_child_that_drops_a_connection_leaves_the_parents_table_alone";
    in_child(NAME, || {
        for mask in [None, Some(Feature::SingleIssuer)] {
            let settings = mask.into_iter().fold(Settings::default(), Settings::mask);
            let mut event_loop = EventLoop::with(settings).unwrap();
            event_loop.block_on(async {
                let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let mut far = listener.accept().await.unwrap();
                // The child takes it out of its own copy.
                let mut near = Some(near);
                for _ in 0..40 {
                    near.as_mut().unwrap().write_all("x").await.unwrap();
                    far.recv().await.unwrap().unwrap();
                }
                let mut child = fork(|| {
                    drop(near.take());
                    7
                });
                assert_eq!(child.wait(), Ended::Exit(7));
                near.as_mut().unwrap().write_all("x").await.unwrap();
                assert_eq!(&*timeout(SOON, far.recv()).await.unwrap().unwrap().unwrap(), b"x");
            });
        }
    });
}

/// A fault of the child's own is what it was before: in one that has a loop, and in one of its children.
#[test]
fn fault_fork_child_with_a_fault_of_its_own_ends_by_it() {
    // AddressSanitizer would end it by words of its own.
    let child =
        Child::new("fault_fork_child_with_a_fault_of_its_own_ends_by_it").asan("handle_segv=0");
    child.run(|| {
        let sent = || {
            coreloop_tests::process::kill(std::process::id() as i32, libc::SIGSEGV);
            0
        };
        let without_loops = (fork(fault).wait(), fork(sent).wait());
        assert_eq!(without_loops.0, Ended::Signal(libc::SIGSEGV));
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.turn(Some(Duration::ZERO));
        assert_eq!((fork(fault).wait(), fork(sent).wait()), without_loops);
        let grandchild = || i32::from(fork(fault).wait() != Ended::Signal(libc::SIGSEGV));
        assert_eq!(fork(grandchild).wait(), Ended::Exit(0));
        // One that makes a loop of its own has one.
        let own = || i32::from(EventLoop::new().unwrap().block_on(async { 7 }) != 7);
        assert_eq!(fork(own).wait(), Ended::Exit(0));
        assert_eq!(event_loop.block_on(net::echoes(2, 50)).unwrap(), 50);
    });
}

/// The newest libraries of this name beside the test.
fn libraries(name: &str) -> Vec<PathBuf> {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let start = format!("lib{name}-");
    let files = std::fs::read_dir(deps).unwrap().map(|e| e.unwrap().path());
    let mut ours: Vec<_> = files
        .filter(|path| {
            let file = path.file_name().unwrap().to_string_lossy();
            file.starts_with(&start) && file.ends_with(".rlib")
        })
        .collect();
    ours.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    ours.truncate(4);
    ours
}

const ABORTS: &str = r#"
use std::time::Duration;

fn main() {
    coreloop::run(async {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let read = coreloop::op::Read::new(std::os::fd::OwnedFd::from(reader), Vec::with_capacity(8));
        let read = coreloop::spawn(coreloop::op::submit(read));
        coreloop::time::sleep(Duration::from_millis(2)).await;
        std::io::Write::write_all(&mut writer, b"works").unwrap();
        let (_, buf) = read.await.unwrap().unwrap();
        println!("{}", String::from_utf8(buf).unwrap());
        let late = coreloop::time::timeout(Duration::from_millis(2), std::future::pending::<()>());
        assert!(late.await.is_err());
        if std::env::args().nth(1).is_some() {
            let _ = coreloop::spawn(async { panic!("the end") }).await;
            println!("went on");
        }
    })
    .unwrap();
    println!("ended");
}
"#;

/// Built with `panic = "abort"` a program works as ever; what would be one task's error ends the process.
#[test]
fn fault_panic_abort_build_works_and_ends_at_the_first_panic() {
    let dir = std::env::temp_dir().join(format!("coreloop-abort-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let program = dir.join("aborts");
    let source = dir.join("aborts.rs");
    std::fs::write(&source, ABORTS).unwrap();
    // Of several the newest that this compiler takes.
    let built = libraries("coreloop").iter().any(|library| build(&source, &program, library));
    let run = |arg: Option<&str>| Command::new(&program).args(arg).output().unwrap();
    let ended = built.then(|| (run(None), run(Some("panic"))));
    std::fs::remove_dir_all(&dir).unwrap();
    let Some((well, aborted)) = ended else {
        skip!("no library for this compiler beside the tests")
    };
    let text = |o: &std::process::Output| String::from_utf8_lossy(&o.stdout).into_owned();
    assert_eq!(text(&well), "works\nended\n", "{well:?}");
    assert!(well.status.success());
    assert_eq!(text(&aborted), "works\n", "{aborted:?}");
    assert_eq!(aborted.status.signal(), Some(libc::SIGABRT), "{aborted:?}");
    assert!(String::from_utf8_lossy(&aborted.stderr).contains("the end"), "the panic is told");
}

fn build(source: &Path, program: &Path, library: &Path) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "-C", "panic=abort", "-o"])
        .arg(program)
        .arg(source)
        .arg("--extern")
        .arg(format!("coreloop={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .output();
    let output = output.expect("there is a compiler, since this was built");
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}
