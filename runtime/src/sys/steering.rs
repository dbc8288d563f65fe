//! Which of the sockets that share a port takes a connection: the program that has the CPU choose.
//!
//! Owns the program (classic BPF, as `socket(7)` has it for SO_ATTACH_REUSEPORT_CBPF) and its attaching.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Four instructions each, of the 4,096 that a program may have.
const STEERED_CPUS_MAX: usize = 1000;

/// Attaches the program of this table; an empty one takes away what is attached.
pub(crate) fn attach(socket: BorrowedFd<'_>, table: &[(usize, u32)]) -> io::Result<()> {
    if table.is_empty() {
        return detach(socket);
    }
    if table.len() > STEERED_CPUS_MAX {
        let why = format!("{} CPUs: a program names {STEERED_CPUS_MAX} at most", table.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    steer(socket, &mut steering(table))
}

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

/// SO_ATTACH_REUSEPORT_CBPF: has `program` choose among the sockets that share `socket`'s port.
fn steer(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a program; it is live, and as long as it says. The kernel copies it.
    unsafe { set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// SO_DETACH_REUSEPORT_BPF: has the kernel's hash choose again. Linux 5.3.
fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: this option takes an integer, and does nothing with it.
    match unsafe { set_option(socket, libc::SO_DETACH_REUSEPORT_BPF, &unused) } {
        // There was none.
        Err(refused) if refused.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// # Safety
/// `value` is of the type that the option takes, and what it points at is valid during the call.
unsafe fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let (from, len) = (ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: `value` is live and of that length; else as the caller promises.
    let rc = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, from, len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
