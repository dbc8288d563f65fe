//! How much goes wrong.
//!
//! Owns [`Faults`]: one probability per kind of fault, in ten-thousandths, and the sizes that a world's
//! sockets and links have. [`Faults::default`] is a mix that every seed draws for itself: some seeds are
//! calm, some wild, most have a few faults often and the others never, since a fault that always comes with
//! all others hides what it does alone.

use super::rng::Rng;

/// Probabilities per 10,000 and sizes.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Draw everything below from the seed.
    pub(crate) mixed: bool,

    /// An enter that submits is turned away: EAGAIN, ENOMEM or EBUSY.
    pub(crate) enter_pressed: u32,
    /// For how long the kernel goes on to turn away, at most.
    pub(crate) pressed_for_ns: u64,
    /// An enter that would wait answers EINTR.
    pub(crate) enter_interrupted: u32,
    /// An enter consumes only some of the submissions.
    pub(crate) enter_partial: u32,
    /// A set-up answers ENOMEM.
    pub(crate) setup_no_memory: u32,
    /// A kernel is an older one, or lacks some features.
    pub(crate) features_missing: u32,

    /// A receive brings less than there is.
    pub(crate) short_read: u32,
    /// A send takes less than there is room for.
    pub(crate) short_write: u32,
    /// A multishot op ends although it could go on.
    pub(crate) multishot_ended: u32,
    /// An op that could complete at submission does not.
    pub(crate) punted: u32,
    /// The news that an op can go on come late, by up to `late_ns`.
    pub(crate) late: u32,
    pub(crate) late_ns: u64,
    /// Completions that are ready together come in any order.
    pub(crate) reordered: u32,
    /// A completion goes to the backlog although the queue has room.
    pub(crate) overflowed: u32,
    /// Only so many pieces of pending work run in one enter.
    pub(crate) work_cut: u32,
    /// The flag of pending work comes up after an enter has run that.
    pub(crate) flag_late: u32,
    /// A cancel comes too late (ENOENT) or finds its target running (EALREADY).
    pub(crate) cancel_loses: u32,
    /// A parked core wakes for nothing.
    pub(crate) spurious_wake: u32,

    /// An accept answers an error of the table in `errnos`.
    pub(crate) accept_fails: u32,
    /// A connect does.
    pub(crate) connect_fails: u32,
    /// A receive or send finds its connection reset or timed out.
    pub(crate) stream_fails: u32,
    /// Any other op or call on sockets does.
    pub(crate) call_fails: u32,
    /// A call that a loop makes when it starts does.
    pub(crate) start_fails: u32,
    /// A segment is lost, and sent again 200 ms later.
    pub(crate) segment_lost: u32,

    /// Time from one host to itself and to others.
    pub(crate) loopback_ns: (u64, u64),
    pub(crate) network_ns: (u64, u64),
    /// Bytes of a segment, at most.
    pub(crate) segment_bytes: usize,
    /// Bytes that a socket keeps to be sent, and received.
    pub(crate) send_buffer: usize,
    pub(crate) receive_buffer: usize,
    /// What an enter costs.
    pub(crate) enter_ns: (u64, u64),
}

impl Faults {
    /// Nothing goes wrong, and a loopback takes no time.
    pub(crate) fn none() -> Self {
        Self {
            mixed: false,
            enter_pressed: 0,
            enter_interrupted: 0,
            enter_partial: 0,
            setup_no_memory: 0,
            features_missing: 0,
            short_read: 0,
            short_write: 0,
            multishot_ended: 0,
            punted: 0,
            late: 0,
            late_ns: 0,
            reordered: 0,
            overflowed: 0,
            work_cut: 0,
            flag_late: 0,
            cancel_loses: 0,
            spurious_wake: 0,
            accept_fails: 0,
            connect_fails: 0,
            stream_fails: 0,
            call_fails: 0,
            start_fails: 0,
            segment_lost: 0,
            pressed_for_ns: 0,
            loopback_ns: (0, 0),
            network_ns: (100_000, 100_000),
            segment_bytes: 64 * 1024,
            send_buffer: 256 * 1024,
            receive_buffer: 256 * 1024,
            enter_ns: (200, 200),
        }
    }

    /// What the world of this seed gets.
    pub(super) fn drawn(self, rng: &mut Rng) -> Self {
        if !self.mixed {
            return self;
        }
        let mut f = Self::none();
        // How many in ten of the faults are on, and how often those come.
        let (on, most) = rng.pick(&[(1, 100), (3, 300), (5, 1_000), (7, 3_000), (10, 1_000)]);
        let draw = |rng: &mut Rng, cap: u64| {
            if rng.below(10) < on { rng.between(1, u64::min(most, cap)) as u32 } else { 0 }
        };
        f.enter_pressed = draw(rng, 500);
        f.enter_interrupted = draw(rng, 2_000);
        f.enter_partial = draw(rng, 3_000);
        f.setup_no_memory = draw(rng, 50);
        f.features_missing = draw(rng, 3_000);
        f.short_read = draw(rng, 5_000);
        f.short_write = draw(rng, 5_000);
        f.multishot_ended = draw(rng, 3_000);
        f.punted = draw(rng, 5_000);
        f.late = draw(rng, 3_000);
        f.reordered = draw(rng, 10_000);
        f.overflowed = draw(rng, 1_000);
        f.work_cut = draw(rng, 3_000);
        f.cancel_loses = draw(rng, 5_000);
        f.spurious_wake = draw(rng, 1_000);
        f.accept_fails = draw(rng, 300);
        f.connect_fails = draw(rng, 100);
        f.stream_fails = draw(rng, 20);
        f.segment_lost = draw(rng, 200);
        f.pressed_for_ns = rng.pick(&[0, 0, 100_000, 3_000_000, 200_000_000]);
        f.late_ns = rng.pick(&[1_000, 50_000, 2_000_000, 30_000_000]);
        f.loopback_ns = rng.pick(&[(0, 0), (1_000, 20_000), (0, 500_000)]);
        f.network_ns = rng.pick(&[(50_000, 50_000), (20_000, 400_000), (1_000_000, 60_000_000)]);
        f.segment_bytes = rng.pick(&[1, 7, 100, 536, 1_448, 9_000, 64 * 1024]);
        f.send_buffer = rng.pick(&[2_048, 4_608, 16 * 1024, 64 * 1024, 1 << 20]);
        f.receive_buffer = rng.pick(&[1_152, 2_304, 16 * 1024, 64 * 1024, 1 << 20]);
        f.enter_ns = rng.pick(&[(100, 100), (100, 3_000), (1_000, 40_000)]);
        f.flag_late = draw(rng, 3_000);
        f
    }
}

impl Default for Faults {
    /// A rich mix, drawn by every seed for itself.
    fn default() -> Self {
        Self { mixed: true, ..Self::none() }
    }
}
