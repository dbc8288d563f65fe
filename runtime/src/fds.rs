//! Descriptors from and to other processes, and what they need besides.
//!
//! Owns the public face of three things: descriptors that the process was started with (`sd_listen_fds(3)`),
//! descriptors in messages of Unix sockets, and which of the sockets that share a port takes a connection.
//! The unsafe half lies in `sys/descriptors.rs`. Nothing here waits or submits; wait for a socket with
//! [`PollOnce`](crate::op::PollOnce).

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use crate::sys::descriptors;

/// Descriptors that one [`send`] may carry.
pub const PER_MESSAGE_MAX: usize = descriptors::PER_MESSAGE_MAX;

/// The descriptors that a service manager has started this process with, in their order, each with its name
/// (LISTEN_FDNAMES) or an empty one. None without LISTEN_FDS, if they were meant for another process
/// (LISTEN_PID), and from the second call on: whoever takes them owns them. They are close-on-exec
/// afterwards; the variables stay, and say nothing to a child, whose id is another.
///
/// # Errors
/// `InvalidData` for variables that make no sense; EBADF if one of the descriptors is not open.
///
/// ```
/// // What systemd starts with `ListenStream=7000`, this example is not.
/// assert!(coreloop::fds::inherited().unwrap().is_empty());
/// ```
pub fn inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    let variable = |name| env::var(name).ok();
    let (Some(count), Some(pid)) = (variable("LISTEN_FDS"), variable("LISTEN_PID")) else {
        return Ok(Vec::new());
    };
    let number = |text: &str| {
        let why = || io::Error::new(io::ErrorKind::InvalidData, format!("no number: {text:?}"));
        text.trim().parse::<u32>().map_err(|_| why())
    };
    if number(&pid)? != std::process::id() {
        return Ok(Vec::new());
    }
    let count = RawFd::try_from(number(&count)?).map_err(|_| io::ErrorKind::InvalidData)?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(names.zip(descriptors::take_inherited(count)?).collect())
}

/// Sends one message of at least one byte with so many descriptors, at most [`PER_MESSAGE_MAX`], over a Unix
/// socket. The far end gets duplicates.
///
/// # Errors
/// As `sendmsg(2)`; `WouldBlock` instead of waiting.
///
/// ```
/// use coreloop::fds;
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// let (ours, theirs) = UnixStream::pair().unwrap();
/// fds::send(&ours, b"yours", &[ours.as_fd()]).unwrap();
/// let mut bytes = [0; 16];
/// let (n, came) = fds::recv(&theirs, &mut bytes).unwrap();
/// assert_eq!((&bytes[..n], came.len()), (&b"yours"[..], 1));
/// ```
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    descriptors::send(socket.as_fd(), bytes, fds)
}

/// Receives one message with its descriptors, which are close-on-exec. No bytes are the end.
///
/// # Errors
/// As `recvmsg(2)`; `WouldBlock` instead of waiting; `InvalidData` for a message that does not fit, whose
/// descriptors are closed.
pub fn recv(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    descriptors::recv(socket.as_fd(), bytes)
}

/// The process and the user at the far end of a connected Unix socket, at the time at which it connected.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let (pid, uid) = descriptors::peer(socket.as_fd())?;
    Ok(Peer { pid, uid })
}

/// Who is at the far end. See [`peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

impl Peer {
    /// Whether it acts as the same user as this process, or as root.
    pub fn is_trusted(&self) -> bool {
        self.uid == 0 || self.uid == descriptors::user()
    }
}

/// Has the CPU that a connection arrives on choose, among the listeners that share a port by SO_REUSEPORT,
/// the one that takes it (SO_ATTACH_REUSEPORT_CBPF): `table` says which position in their group a CPU's
/// connections go to. Connections of CPUs that are not in it are spread over the positions that are. The
/// order of `listen` calls makes the positions; when a listener closes, the last one moves into its place.
/// A position that there is not falls back to the kernel's own choice.
///
/// The program belongs to the group: one call, on any of its sockets, replaces that of all.
///
/// # Errors
/// As `setsockopt(2)`; `InvalidInput` for an empty table or one of more than 1,000 CPUs.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// // Not one that shares its port.
/// assert!(coreloop::fds::steer_by_cpu(&listener, &[(0, 0)]).is_err());
/// ```
pub fn steer_by_cpu(socket: impl AsFd, table: &[(usize, u32)]) -> io::Result<()> {
    if table.is_empty() || table.len() > STEERED_CPUS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    descriptors::steer(socket.as_fd(), &mut steering(table))
}

/// Four instructions each, of the 4,096 that a program may have.
const STEERED_CPUS_MAX: usize = 1000;

/// `if cpu == c { return position }` for each entry; others by `cpu % entries`, through the table again.
fn steering(table: &[(usize, u32)]) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let unless_equal = |k| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, k);
    let give = |position| op(libc::BPF_RET | libc::BPF_K, 0, 0, position);
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, cpu)];
    for &(cpu, position) in table {
        program.extend([unless_equal(cpu as u32), give(position)]);
    }
    program.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, table.len() as u32));
    for (i, &(_, position)) in table.iter().enumerate().skip(1) {
        program.extend([unless_equal(i as u32), give(position)]);
    }
    program.push(give(table[0].1));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program gives for a CPU.
    fn run(program: &[libc::sock_filter], cpu: u32) -> u32 {
        let (mut a, mut at) = (cpu, 1);
        loop {
            let i = &program[at];
            at += 1;
            match u32::from(i.code) & 7 {
                c if c == libc::BPF_RET => return i.k,
                c if c == libc::BPF_ALU => a %= i.k,
                _ => at += usize::from(if a == i.k { i.jt } else { i.jf }),
            }
        }
    }

    #[test]
    fn the_program_does_what_its_table_says() {
        // Odd CPUs only, as a cpuset may have it, and positions that were moved.
        let table = [(1, 2), (3, 0), (7, 1)];
        let program = steering(&table);
        for (cpu, position) in table {
            assert_eq!(run(&program, cpu as u32), position);
        }
        let others: Vec<u32> = [0, 2, 4, 5, 6, 8].iter().map(|cpu| run(&program, *cpu)).collect();
        assert_eq!(others, [2, 1, 0, 1, 2, 1]);
        assert!(steering(&[(0, 0); STEERED_CPUS_MAX]).len() <= 4096);
    }
}
