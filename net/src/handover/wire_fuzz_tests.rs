//! Whatever a trusted process says at a hand-over is understood or refused, and no socket is kept
//! of what is refused. A line of an input is a message: how many sockets go with it, `|`, its text
//! with `\n` for a line's end. The corpus lies in `tests/corpus`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use coreloop::fds;
use coreloop_tests::fuzz::{fuzz, message_signature, signature};
use coreloop_tests::{fd_count, in_child};
use socket2::{Domain, Socket, Type};

use super::wire::{NAME_MAX, Talk};

const WORDS: [&str; 9] = [
    "coreloop handover 1 ",
    "1|",
    "2|",
    "65|",
    "\n",
    "\\n",
    "ready",
    "late",
    "coreloop handover 2 ",
];

/// Descriptors that go with one message here.
const PER_LINE_MAX: usize = 70;

/// What the other process would send.
fn say_all(input: &[u8], far: &OwnedFd) {
    let lent = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    for line in input.split(|byte| *byte == b'\n').take(20) {
        let at = line.iter().position(|byte| *byte == b'|').unwrap_or(0);
        let count = std::str::from_utf8(&line[..at]).ok().and_then(|n| n.parse().ok());
        let sockets = vec![lent.as_fd(); count.unwrap_or(0).min(PER_LINE_MAX)];
        let text = String::from_utf8_lossy(&line[at..]).replace("\\n", "\n");
        let text = text.strip_prefix('|').unwrap_or(&text);
        // Too long for a message, or more than are waiting: it is not said then.
        let _unsaid = fds::send(far, text.as_bytes(), &sockets);
    }
}

#[test]
fn fuzz_handover_messages() {
    // Alone in its process, so that nobody else opens or closes a descriptor meanwhile.
    in_child("handover::wire_fuzz_tests::fuzz_handover_messages", fuzz_messages);
}

fn fuzz_messages() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/handover");
    let mut event_loop = coreloop::EventLoop::new().unwrap();
    let before = fd_count();
    let fuzzed = fuzz(&corpus, &WORDS, |input| {
        let (near, far) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let far = OwnedFd::from(far);
        say_all(input, &far);
        drop(far);
        let talk = Talk::over(near.into());
        let seen = match event_loop.block_on(talk.take_over()) {
            Ok(Some(taken)) => {
                assert!(
                    taken
                        .sockets
                        .iter()
                        .all(|(name, _)| !name.is_empty() && name.len() <= NAME_MAX)
                );
                let ready = taken.talk.say_ready().map_err(|e| e.kind());
                signature((taken.sockets.len().min(4), ready))
            }
            Ok(None) => 1,
            Err(e) => message_signature(&e.to_string()),
        };
        assert_eq!(fd_count(), before, "descriptors are left");
        seen
    });
    println!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 6, "{fuzzed:?}");
}
