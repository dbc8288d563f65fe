//! Between two cores: the runtime's own loops send and receive, these keep count.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Figures;
use crate::measure::Sorted;

/// `cross-round-trip`, on the side that asks: for each number that [`RoundTrips::begin`] gives it
/// sends the number, waits for the answer, one more, and calls [`RoundTrips::end`]. The other side
/// answers until its channel ends. Either waits in its runtime while there is nothing. Where a
/// sleeping CPU is slow to wake the trips are fewer: those of [`AT_MOST`].
pub struct RoundTrips {
    next: u64,
    warm: u64,
    count: u64,
    at_most: Duration,
    /// When the warm-up began, or what is measured.
    began: Instant,
    start: Instant,
    trips_ns: Vec<u64>,
}

/// How long trips are measured, and a tenth of it to warm up.
const AT_MOST: Duration = Duration::from_secs(2);

impl RoundTrips {
    /// Room for so many, and a tenth of it to warm up.
    pub fn new(count: u64) -> Self {
        Self::within(count, AT_MOST)
    }

    fn within(count: u64, at_most: Duration) -> Self {
        let warm = warm_up(count);
        let trips_ns = Vec::with_capacity(count as usize);
        let now = Instant::now();
        Self { next: 0, warm, count, at_most, began: now, start: now, trips_ns }
    }

    /// The next number to send, unless all are done.
    #[inline]
    pub fn begin(&mut self) -> Option<u64> {
        self.start = Instant::now();
        if self.next == 0 {
            self.began = self.start;
        }
        (self.next < self.warm + self.count).then_some(self.next)
    }

    /// The answer is here.
    #[inline]
    pub fn end(&mut self, answer: u64) {
        let now = Instant::now();
        let trip = now - self.start;
        assert_eq!(answer, self.next + 1, "the answer belongs to the question");
        let measured = self.next >= self.warm;
        self.next += 1;
        if measured {
            self.trips_ns.push(trip.as_nanos() as u64);
            if now - self.began >= self.at_most {
                self.count = self.next - self.warm;
            }
        } else {
            if now - self.began >= self.at_most / 10 {
                self.warm = self.next;
            }
            if self.next == self.warm {
                self.began = now;
            }
        }
    }

    /// The result, with the name of the channel.
    pub fn figures(self, channel: &str) -> Figures {
        let count = self.trips_ns.len() as f64;
        let trips = Sorted::new(self.trips_ns);
        Figures::new()
            .number("trips", count)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes trips until there are no more; how many were measured of how many.
    fn made(mut trips: RoundTrips, each: Duration) -> (usize, u64) {
        while let Some(number) = trips.begin() {
            std::thread::sleep(each);
            trips.end(number + 1);
        }
        (trips.trips_ns.len(), trips.next)
    }

    #[test]
    fn trips_are_as_many_as_asked_for_or_what_there_is_time_for() {
        let quick = RoundTrips::within(100, Duration::from_secs(3600));
        assert_eq!(made(quick, Duration::ZERO), (100, 110));
        let slow = RoundTrips::within(10_000, Duration::from_millis(20));
        let (measured, all) = made(slow, Duration::from_millis(1));
        assert!((1..=20).contains(&measured), "{measured}");
        assert!(all - (measured as u64) <= 2 + 1, "{all}, {measured} of them measured");
        let none = RoundTrips::within(10_000, Duration::ZERO);
        assert_eq!(made(none, Duration::ZERO), (1, 2), "one at least");
    }
}
