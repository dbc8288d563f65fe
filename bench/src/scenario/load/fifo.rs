//! Requests of one connection that wait for their answers, in order.
//!
//! Owns the stamps. Requests that were sent in one write share an entry, so that a deep pipeline costs
//! as much per write as a shallow one. Knows no clock.

use std::collections::VecDeque;

use crate::stats::Moments;

/// Requests that were sent together.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// See [`Moments::intended_ns`].
    pub intended_ns: u64,
    /// See [`Moments::room_ns`].
    pub room_ns: u64,
    /// See [`Moments::sent_ns`].
    pub sent_ns: u64,
}

/// The line of one connection.
#[derive(Debug, Default)]
pub struct Fifo {
    sent: VecDeque<(Sent, u64)>,
    outstanding: u64,
}

impl Sent {
    /// Without a schedule: as soon as it could be.
    pub fn closed(now_ns: u64) -> Sent {
        Sent { intended_ns: now_ns, room_ns: now_ns, sent_ns: now_ns }
    }

    fn done(self, done_ns: u64) -> Moments {
        let Sent { intended_ns, room_ns, sent_ns } = self;
        Moments { intended_ns, room_ns, sent_ns, done_ns }
    }
}

impl Fifo {
    /// `count` requests go out.
    pub fn push(&mut self, sent: Sent, count: u64) {
        self.sent.push_back((sent, count));
        self.outstanding += count;
    }

    /// Requests without an answer.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// `count` answers came, at most as many as are outstanding; each group goes to `record`.
    pub fn answered(&mut self, count: u64, now_ns: u64, mut record: impl FnMut(Moments, u64)) {
        self.outstanding -= count;
        let mut left = count;
        while left > 0 {
            let (sent, waiting) = self.sent.front_mut().expect("outstanding counts the entries");
            let group = left.min(*waiting);
            record(sent.done(now_ns), group);
            *waiting -= group;
            left -= group;
            if *waiting == 0 {
                self.sent.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_requests_in_order() {
        let mut fifo = Fifo::default();
        fifo.push(Sent::closed(10), 3);
        fifo.push(Sent::closed(20), 1);
        let mut seen = Vec::new();
        fifo.answered(2, 100, |at, count| seen.push((at.sent_ns, at.done_ns, count)));
        fifo.answered(2, 200, |at, count| seen.push((at.sent_ns, at.done_ns, count)));
        assert_eq!(seen, [(10, 100, 2), (10, 200, 1), (20, 200, 1)]);
        assert_eq!(fifo.outstanding(), 0);
    }
}
