//! Between two cores: the runtime's own loops send and receive, these keep count.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Figures;
use crate::measure::Sorted;

/// `cross-round-trip`, on the side that asks: for each number that [`RoundTrips::begin`] gives it
/// sends the number, waits for the answer, one more, and calls [`RoundTrips::end`]. The other side
/// answers until its channel ends. Either waits in its runtime while there is nothing.
pub struct RoundTrips {
    next: u64,
    warm: u64,
    count: u64,
    start: Instant,
    trips_ns: Vec<u64>,
}

impl RoundTrips {
    /// Room for so many, and a tenth of it to warm up.
    pub fn new(count: u64) -> Self {
        let warm = warm_up(count);
        let trips_ns = Vec::with_capacity(count as usize);
        Self { next: 0, warm, count, start: Instant::now(), trips_ns }
    }

    /// The next number to send, unless all are done.
    #[inline]
    pub fn begin(&mut self) -> Option<u64> {
        self.start = Instant::now();
        (self.next < self.warm + self.count).then_some(self.next)
    }

    /// The answer is here.
    #[inline]
    pub fn end(&mut self, answer: u64) {
        let trip = self.start.elapsed();
        assert_eq!(answer, self.next + 1, "the answer belongs to the question");
        if self.next >= self.warm {
            self.trips_ns.push(trip.as_nanos() as u64);
        }
        self.next += 1;
    }

    /// The result, with the name of the channel.
    pub fn figures(self, channel: &str) -> Figures {
        let trips = Sorted::new(self.trips_ns);
        Figures::new()
            .number("p50_ns", trips.percentile(50.0) as f64)
            .number("p99_ns", trips.percentile(99.0) as f64)
            .number("mean_ns", trips.mean())
            .text("channel", channel)
    }
}

/// `cross-one-way`, on the side that sends: what to send, one by one. The channel is closed then.
pub fn one_way_numbers(count: u64) -> Range<u64> {
    0..warm_up(count) + count
}

/// `cross-one-way`, on the side that receives: each number until the channel ends is passed to
/// [`Arrivals::take`].
pub struct Arrivals {
    next: u64,
    warm: u64,
    count: u64,
    start: Instant,
    took: Duration,
}

impl Arrivals {
    /// None has arrived yet.
    pub fn new(count: u64) -> Self {
        let took = Duration::ZERO;
        Self { next: 0, warm: warm_up(count), count, start: Instant::now(), took }
    }

    /// The next number.
    #[inline]
    pub fn take(&mut self, number: u64) {
        assert_eq!(number, self.next, "in order and once");
        self.next += 1;
        if self.next == self.warm {
            self.start = Instant::now();
        }
        if self.next == self.warm + self.count {
            self.took = self.start.elapsed();
        }
    }

    /// The result, with the name of the channel.
    pub fn figures(self, channel: &str) -> Figures {
        assert_eq!(self.next, self.warm + self.count, "all have arrived");
        let m_per_s = self.count as f64 / self.took.as_secs_f64() / 1e6;
        Figures::new().number("m_per_s", m_per_s).text("channel", channel)
    }
}

fn warm_up(count: u64) -> u64 {
    (count / 10).max(1)
}
