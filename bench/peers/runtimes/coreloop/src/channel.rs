//! The channel between two loops: the one place that names it.
//!
//! Its wakers may be called from anywhere, so that a user of coreloop may take a channel that knows
//! no runtime; tokio's is the one that most have. The face is that of a channel with one sender.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

/// What the results call it.
pub const NAME: &str = "tokio::sync::mpsc::channel(1024) between two loops";

pub struct Sender(mpsc::Sender<u64>);

pub struct Receiver(mpsc::Receiver<u64>);

/// Its two ends, for numbers.
pub fn new(capacity: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender(sender), Receiver(receiver))
}

impl Sender {
    /// Waits for room.
    pub fn send(&mut self, number: u64) -> impl Future<Output = Result<(), SendError<u64>>> {
        self.0.send(number)
    }
}

impl Receiver {
    /// The next, or nothing when the sender is gone.
    pub fn recv(&mut self) -> impl Future<Output = Option<u64>> {
        self.0.recv()
    }
}
