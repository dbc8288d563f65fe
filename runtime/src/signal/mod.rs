//! Signals as futures.
//!
//! Owns [`terminate`]: SIGINT and SIGTERM end servers in order. Any number of loops may wait; each has a
//! pipe of its own that a handler (by signal-hook) writes to, so that nothing is done in the handler but a
//! write. The process's other threads and its children keep their signal masks.

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

use crate::combine::{Either, race};
use crate::op::{Read, submit};
use crate::time::sleep;

/// Waits for SIGINT or SIGTERM. From the call on, these no longer end the process by themselves.
///
/// # Panics
/// If no descriptors are left for the pipe; see [`try_terminate`].
///
/// ```no_run
/// coreloop::run(async {
///     coreloop::signal::terminate().await;
///     println!("good bye");
/// })
/// .unwrap();
/// ```
pub fn terminate() -> impl Future<Output = ()> + Unpin {
    match try_terminate() {
        Ok(terminated) => terminated,
        Err(e) => panic!("no pipe for signals: {e}"),
    }
}

/// As [`terminate`].
///
/// # Errors
/// If no descriptors are left for the pipe.
pub fn try_terminate() -> io::Result<impl Future<Output = ()> + Unpin> {
    let registered = Registered::new(&[SIGINT, SIGTERM])?;
    Ok(Box::pin(async move { registered.wait().await }))
}

/// Drives `future` until it ends or SIGINT or SIGTERM comes; none if the signal was first, and `future` has
/// been dropped.
///
/// # Panics
/// As [`terminate`].
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> { Ok(()) }
/// coreloop::run(coreloop::signal::until_terminate(serve())).unwrap();
/// ```
pub async fn until_terminate<F: Future>(future: F) -> Option<F::Output> {
    match race(future, terminate()).await {
        Either::First(value) => Some(value),
        Either::Second(()) => None,
    }
}

struct Registered {
    ids: Vec<SigId>,
    pipe: Rc<UnixStream>,
}

impl Registered {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let mut this = Self { ids: Vec::with_capacity(signals.len()), pipe: Rc::new(read) };
        for signal in signals {
            this.ids.push(pipe::register(*signal, write.try_clone()?)?);
        }
        Ok(this)
    }

    async fn wait(&self) {
        loop {
            match submit(Read::new(self.pipe.clone(), Vec::with_capacity(8))).await {
                Ok((n, _)) if n > 0 => return,
                // Neither an end nor an error of our own pipe is a signal. Nothing is lost by a pause.
                _ => sleep(RETRY).await,
            }
        }
    }
}

/// Pause after a read of the pipe that brought nothing.
const RETRY: Duration = Duration::from_millis(50);

impl Drop for Registered {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            unregister(id);
        }
    }
}
