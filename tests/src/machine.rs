//! A virtual machine from the inside: what its first process has to do.
//!
//! Owns the calls that bring up file systems and loopback and switch the machine off. Only `kernel_init` makes
//! them, as process 1 of an image that `tests/kernels/run` builds.

use std::ffi::CString;
use std::io;

/// Mounts the file systems that tests read.
///
/// # Errors
/// As `mount(2)`.
pub fn mount_all() -> io::Result<()> {
    let wanted = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")];
    for (kind, place) in wanted {
        std::fs::create_dir_all(place)?;
        let (kind, place) = (CString::new(kind)?, CString::new(place)?);
        let (kind, place) = (kind.as_ptr(), place.as_ptr());
        // SAFETY: live strings; these file systems take no data.
        let rc = unsafe { libc::mount(kind, place, kind, 0, std::ptr::null()) };
        // A kernel that has /dev by itself says so.
        if rc != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Brings loopback up.
///
/// # Errors
/// As `socket(2)` and `netdevice(7)`.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: a live request, as SIOCSIFFLAGS wants it.
    let rc = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets every process open 65,536 descriptors.
///
/// # Errors
/// As `setrlimit(2)`.
pub fn raise_files() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 1 << 16, rlim_max: 1 << 16 };
    // SAFETY: a live rlimit that the call reads.
    let rc = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Switches the machine off; comes back only where that is not allowed.
pub fn power_off() {
    // SAFETY: plain calls; whatever was running may be cut off.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
