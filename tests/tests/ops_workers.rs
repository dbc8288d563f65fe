//! What the ops pages say of the kernel's workers: a core has some as soon as its ring has handed them an op.

use std::fs::File;
use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coreloop::op::{Read, submit};
use coreloop::time::sleep;
use coreloop::{Cores, Runtime, spawn};
use coreloop_net::ops::Ops;
use coreloop_tests::{in_child, skip};

const MS: Duration = Duration::from_millis(1);

fn metrics(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn workers(metrics: &str, core: &str) -> Option<u64> {
    let sample = format!("\ncoreloop_ring_workers{{core=\"{core}\"}} ");
    let value = metrics.split_once(&sample)?.1;
    Some(value.lines().next().unwrap().parse().unwrap())
}

#[test]
fn ops_workers_of_the_ring_are_those_of_the_core_that_needs_them() {
    in_child("ops_workers_of_the_ring_are_those_of_the_core_that_needs_them", || {
        let cpu = Cores::Count(1).resolve().unwrap()[0];
        let runtime = Runtime::builder().cores(Cores::These(vec![cpu, cpu])).unpinned();
        let runtime = runtime.build().unwrap();
        let (tell, told) = mpsc::channel();
        let read = Arc::new(AtomicBool::new(false));
        let wanted = read.clone();
        let cores = thread::spawn(move || {
            runtime.run(move |core| {
                let (tell, wanted) = (tell.clone(), wanted.clone());
                async move {
                    if core.index() == 0 {
                        let ops = Ops::new().listen(([127, 0, 0, 1], 0)).bind().unwrap();
                        tell.send((ops.local_addr().unwrap(), core.handle().clone())).unwrap();
                        drop(spawn(ops.serve()));
                    }
                    loop {
                        if core.index() == 1 && wanted.load(Ordering::Relaxed) {
                            // One whose reads may block, as far as the kernel knows, and can't be polled.
                            let file = File::open("/proc/self/status").unwrap();
                            submit(Read::new(file, Vec::with_capacity(64))).await.unwrap();
                        }
                        sleep(5 * MS).await;
                    }
                }
            })
        });
        let (addr, handle): (SocketAddr, coreloop::Handle) = told.recv().unwrap();
        let before = metrics(addr);
        assert_eq!((workers(&before, "0"), workers(&before, "1")), (Some(0), Some(0)), "{before}");
        read.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let seen = loop {
            let seen = metrics(addr);
            if workers(&seen, "1").is_some_and(|n| n > 0) || workers(&seen, "none").is_some() {
                break seen;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{seen}");
        };
        handle.stop();
        drop(cores.join().unwrap());
        if workers(&seen, "none").is_some() {
            skip!("threads of the kernel's have other numbers here");
        }
        assert_eq!(workers(&seen, "0"), Some(0), "{seen}");
    });
}
