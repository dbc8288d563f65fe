//! Virtual time at its ends.

use std::time::{Duration, Instant as StdInstant};

use coreloop::sim::{Failure, Faults, Sim};
use coreloop::time::{Instant, sleep};

/// Virtual time that passes when a client computes for `d`, twice, while a host sleeps; none if that is beyond
/// the limit.
fn computed(d: Duration, time_max: Duration) -> Option<Duration> {
    let sim = Sim::builder().faults(Faults::none()).time_max(time_max).build();
    sim.host("sleeper", 1, |_core| sleep(Duration::MAX));
    let own = sim.clone();
    sim.client("busy", async move || {
        own.compute(d);
        own.compute(d);
        sleep(Duration::from_millis(1)).await;
    });
    let ended = sim.run();
    if let Err(failed) = &ended {
        assert!(matches!(failed.failure(), Failure::Time { .. }), "{failed}");
    }
    ended.ok().map(|report| report.elapsed)
}

/// Whatever wakes for nothing is drawn: so many cores come to their hour in some steps each.
#[test]
fn sim_time_of_many_cores_that_sleep_passes_in_few_steps() {
    for seed in 0..20 {
        let sim = Sim::builder().seed(seed).faults(Faults::hidden()).steps_max(100_000).build();
        for i in 0..100 {
            sim.client(&format!("sleeper{i}"), || sleep(Duration::from_secs(3_600)));
        }
        let report = sim.run().unwrap_or_else(|e| panic!("{e}"));
        assert!(report.elapsed >= Duration::from_secs(3_600));
    }
}

#[test]
fn sim_time_a_computation_without_end_reaches_the_limit() {
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(24 * 3_600));
    assert_eq!(computed(Duration::MAX, hour), None);
    assert_eq!(computed(hour, hour), None);
    let elapsed = computed(hour, day).unwrap();
    assert!(elapsed >= 2 * hour && elapsed < 3 * hour, "{elapsed:?}");
}

/// A simulated clock runs ahead of that of std by hours: what counts is how far a point is from now.
#[test]
fn sim_time_keeps_the_distance_of_a_point_of_std() {
    let sim = Sim::builder().faults(Faults::none()).build();
    sim.client("late", || async {
        sleep(Duration::from_secs(3_600)).await;
        let (at, now) = (StdInstant::now() + Duration::from_secs(600), Instant::now());
        let ahead = Instant::from(at) - now;
        assert!(ahead > Duration::from_secs(300) && ahead <= Duration::from_secs(600), "{ahead:?}");
    });
    sim.run().unwrap_or_else(|e| panic!("{e}"));
}

/// The last that a clock of 64 bits can show: about 584 years.
#[test]
fn sim_time_stands_still_at_the_end_of_the_clock() {
    let sim = Sim::builder().faults(Faults::none()).time_max(Duration::MAX).build();
    let own = sim.clone();
    sim.client("busy", async move || {
        own.compute(Duration::MAX);
        own.compute(Duration::MAX);
    });
    let elapsed = sim.run().unwrap().elapsed;
    assert!(elapsed > Duration::from_secs(500 * 365 * 24 * 3_600), "{elapsed:?}");
}
