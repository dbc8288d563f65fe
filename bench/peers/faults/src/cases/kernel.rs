//! A kernel that says no.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::catch_unwind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{Seen, say};
use crate::peer::{Counts, Peer};
use crate::system::{cpu, forbid_rings, limit_fds};

const CLIENTS: usize = 10;

/// A server on a thread of its own; its end before it has an address is an error.
fn server<P: Peer>() -> Result<(SocketAddr, Arc<Counts>), String> {
    let counts = Arc::new(Counts::default());
    let (tell, told) = mpsc::channel::<Result<SocketAddr, String>>();
    let (serving, failed) = (counts.clone(), tell.clone());
    thread::spawn(move || {
        let ended = P::serve(serving, move |addr| drop(tell.send(Ok(addr))));
        _ = failed.send(Err(format!("the server ended: {ended:?}")));
    });
    let addr = told.recv_timeout(Duration::from_secs(5)).map_err(say)??;
    Ok((addr, counts))
}

/// A socket that isn't connected yet, so that connecting takes no descriptor.
fn socket() -> Result<OwnedFd, String> {
    // SAFETY: no memory is passed; the descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            Err(say(std::io::Error::last_os_error()))
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

fn connect(socket: OwnedFd, port: u16) -> Result<TcpStream, String> {
    let addr = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address lives over the call, which reads as many bytes as it has.
    let failed = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const addr).cast(), size_of_val(&addr) as u32) != 0
    };
    if failed { Err(say(std::io::Error::last_os_error())) } else { Ok(TcpStream::from(socket)) }
}

pub fn emfile<P: Peer>() -> Result<Seen, String> {
    const TIME: Duration = Duration::from_secs(2);
    // The kernel notes an accept's limit when it is armed: it is this one all the time.
    limit_fds(Some(256)).map_err(say)?;
    let (addr, counts) = server::<P>()?;
    // One client first, so that everything that is opened once is open.
    echo(&mut TcpStream::connect(addr).map_err(say)?, 1)?;
    thread::sleep(Duration::from_millis(100));
    // Again: one of them raises it when it starts.
    limit_fds(Some(256)).map_err(say)?;
    let sockets: Vec<_> = (0..CLIENTS).map(|_| socket()).collect::<Result<_, _>>()?;
    let served = counts.accepted.load(Ordering::SeqCst);
    let errors = counts.errors.load(Ordering::SeqCst);
    let (begin, burnt) = (Instant::now(), cpu());
    let mut fill = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fill.push(file);
    }
    let mut clients = Vec::new();
    for socket in sockets {
        clients.push(connect(socket, addr.port())?);
    }
    thread::sleep(TIME.saturating_sub(begin.elapsed()));
    let errors = counts.errors.load(Ordering::SeqCst) - errors;
    let at_once = counts.accepted.load(Ordering::SeqCst) - served == CLIENTS as u64;
    drop(fill);
    let burnt = cpu().saturating_sub(burnt).as_millis();
    if at_once {
        return Ok(Seen::new(true, "served all the same: its connections are in the ring's table"));
    }
    let freed = Instant::now();
    while counts.accepted.load(Ordering::SeqCst) - served < CLIENTS as u64 {
        if freed.elapsed() > Duration::from_secs(5) {
            let there = counts.accepted.load(Ordering::SeqCst) - served;
            let text =
                format!("{errors} errors, {burnt} ms of CPU; then serves {there} of {CLIENTS}");
            return Ok(Seen::new(false, text));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let took = freed.elapsed().as_millis();
    let holds = errors <= 200 && burnt < 100 && took <= 100;
    Ok(Seen::new(holds, format!("{errors} errors, {burnt} ms of CPU, back after {took} ms")))
}

fn echo(client: &mut TcpStream, number: u64) -> Result<(), String> {
    client.set_read_timeout(Some(Duration::from_secs(5))).map_err(say)?;
    let sent = number.to_le_bytes();
    client.write_all(&sent).map_err(say)?;
    let mut back = [0; 8];
    client.read_exact(&mut back).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => format!("echo {number} is not answered within 5 s"),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            format!("the server closes at echo {number}")
        }
        _ => format!("echo {number}: {e}"),
    })?;
    if back == sent { Ok(()) } else { Err(format!("echo {number}: other bytes")) }
}

/// The faults are put in from outside, by strace.
pub fn echoes<P: Peer>() -> Result<Seen, String> {
    let (addr, _) = server::<P>()?;
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| TcpStream::connect(addr)).collect::<Result<_, _>>().map_err(say)?;
    for number in 0..1_000 {
        let client = number as usize % CLIENTS;
        if let Err(error) = echo(&mut clients[client], number) {
            return Ok(Seen::new(false, error));
        }
    }
    Ok(Seen::new(true, "goes on"))
}

pub fn forbidden<P: Peer>() -> Result<Seen, String> {
    forbid_rings().map_err(say)?;
    let outcome = catch_unwind(|| {
        P::run(|| async {
            P::sleep(Duration::from_millis(2)).await;
        })
    });
    Ok(match outcome {
        Ok(Ok(())) => Seen::new(false, "works without"),
        Ok(Err(error)) => {
            Seen::new(error.to_lowercase().contains("seccomp"), format!("error: {error}"))
        }
        Err(_) => Seen::new(false, "panics inside"),
    })
}
