//! What is sent, and whether it came back.
//!
//! Owns the bytes: made once per process, sent from where they lie. Every message is the same, so that
//! the stream of answers repeats with the period of one message, and any slice of it can be compared
//! with memory that is in the cache already. Knows no socket and no clock.

/// Most bytes of one write: more than a socket takes at once, less than a cache is sorry for.
const BURST_BYTES_MAX: usize = 4 << 20;

/// At least so many bytes, so that a received chunk is compared in one go.
const BYTES_MIN: usize = 32 << 10;

/// The messages.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    bytes: &'static [u8],
    size: usize,
    burst: u64,
}

/// The stream of answers of one connection, as far as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// Bytes of the message that is not whole yet.
    partial: usize,
}

/// An answer that is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Different;

impl Payload {
    /// Messages of `size` bytes, as many in a row as `depth` asks for. The memory is never given back.
    pub fn leak(size: u64, depth: u64) -> Payload {
        let size = size as usize;
        let burst = (BURST_BYTES_MAX / size).clamp(1, depth as usize);
        // A message more than fits, so that a comparison can begin anywhere in the first.
        let bytes = (burst * size).max(BYTES_MIN).max(size) + size;
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut message = Vec::with_capacity(size);
        message.resize_with(size, || {
            // xorshift: repeats of its own would hide answers in the wrong place.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u8
        });
        let bytes: Vec<u8> = message.iter().copied().cycle().take(bytes).collect();
        Payload { bytes: bytes.leak(), size, burst: burst as u64 }
    }

    /// Messages that one write takes at most.
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// `count` messages, at most [`Payload::burst`].
    pub fn messages(self, count: u64) -> &'static [u8] {
        &self.bytes[..count as usize * self.size]
    }

    fn repeats(self, from: usize, mut chunk: &[u8]) -> bool {
        let mut from = from;
        while chunk.len() > self.bytes.len() - from {
            let (head, rest) = chunk.split_at(self.bytes.len() - from);
            if self.bytes[from..] != *head {
                return false;
            }
            from = (from + head.len()) % self.size;
            chunk = rest;
        }
        self.bytes[from..from + chunk.len()] == *chunk
    }
}

impl Answers {
    /// Takes what was received next; gives the number of messages that it made whole.
    pub fn take(&mut self, payload: Payload, chunk: &[u8]) -> Result<u64, Different> {
        if !payload.repeats(self.partial, chunk) {
            return Err(Different);
        }
        let whole = self.partial + chunk.len();
        self.partial = whole % payload.size;
        Ok((whole / payload.size) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(payload: Payload, bytes: usize) -> Vec<u8> {
        payload.messages(1).iter().copied().cycle().take(bytes).collect()
    }

    #[test]
    fn answers_count_however_they_are_cut() {
        for size in [1u64, 7, 64, 40_000] {
            let payload = Payload::leak(size, 3);
            let sent = stream(payload, 10 * size as usize);
            for cut in [1usize, 3, 64, 1_000, 100_000] {
                let mut answers = Answers::default();
                let pieces = sent.chunks(cut).map(|chunk| answers.take(payload, chunk).unwrap());
                assert_eq!(pieces.sum::<u64>(), 10, "{size} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_found_wherever_it_is() {
        let payload = Payload::leak(64, 1);
        for at in [0usize, 63, 64, 40_000, 99_999] {
            let mut sent = stream(payload, 100_000);
            sent[at] ^= 1;
            assert_eq!(Answers::default().take(payload, &sent), Err(Different), "byte {at}");
        }
        let shifted = &stream(payload, 200)[1..];
        assert_eq!(Answers::default().take(payload, shifted), Err(Different), "a byte is missing");
    }

    #[test]
    fn one_write_is_bounded() {
        assert_eq!(Payload::leak(64, 16).burst(), 16);
        assert_eq!(Payload::leak(1 << 20, 1024).burst(), 4);
        assert_eq!(Payload::leak(16 << 20, 2).burst(), 1);
        assert_eq!(Payload::leak(64, 16).messages(3).len(), 192);
    }
}
