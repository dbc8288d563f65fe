//! Every feature of the kernel has a step down that works.

use std::time::Duration;

use coreloop::time::sleep;
use coreloop::{EventLoop, Feature, FeatureSet, Missing, Settings, StartError};
use coreloop_tests::{Child, fd_count, fds_settle_at, net, turns};

const SOON: Duration = Duration::from_secs(5);

/// 200 echoes, a timer, a wake from another thread and an orderly end, with these features masked.
fn works_without(masked: &[Feature], settings: Settings) {
    let before = fd_count();
    let mut event_loop = EventLoop::with(settings).unwrap();
    let report = event_loop.ring_report().clone();
    for feature in masked {
        assert!(!report.in_force.contains(*feature), "{feature} is masked and in force");
        assert!(report.missing.contains(&(*feature, Missing::Masked)), "{feature}: {report:?}");
    }
    let handle = event_loop.handle();
    event_loop.block_on(async move {
        assert_eq!(net::echoes(8, 200).await.unwrap(), 200, "without {masked:?}");
        sleep(Duration::from_millis(2)).await;
        let other = std::thread::spawn(move || handle.spawn_on(0, || async { 3 }).unwrap());
        while !other.is_finished() {
            turns(1).await;
        }
        assert_eq!(other.join().unwrap().await, Ok(3));
    });
    let counters = event_loop.stats().counters;
    assert_eq!(counters.stray_completions, 0);
    let report = event_loop.close(SOON);
    assert_eq!(report.ops_leaked, 0, "without {masked:?}");
    assert_eq!(fds_settle_at(before, SOON), before);
}

#[test]
fn fault_mask_each_feature_alone() {
    Child::new("fault_mask_each_feature_alone").run(|| {
        for feature in Feature::ALL {
            works_without(&[feature], Settings::default().mask(feature));
        }
    });
}

#[test]
fn fault_mask_each_pair_of_features() {
    Child::new("fault_mask_each_pair_of_features").run(|| {
        for (i, one) in Feature::ALL.into_iter().enumerate() {
            for two in &Feature::ALL[..i] {
                works_without(&[one, *two], Settings::default().mask(one).mask(*two));
            }
        }
    });
}

#[test]
fn fault_mask_all_features() {
    Child::new("fault_mask_all_features").run(|| {
        let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
        works_without(&Feature::ALL, bare.clone());
        works_without(&Feature::ALL, bare.ring_entries(8).cq_entries(16));
    });
}

#[test]
fn fault_mask_by_environment_one() {
    let env = Child::new("fault_mask_by_environment_one")
        .env("CORELOOP_MASK", " buffer_ring,,abs_timer ");
    env.run(|| {
        works_without(&[Feature::BufferRing, Feature::AbsTimer], Settings::default());
        // Builder and environment add up.
        let more = Settings::default().mask(Feature::NoSqarray);
        works_without(&[Feature::BufferRing, Feature::AbsTimer, Feature::NoSqarray], more);
    });
}

#[test]
fn fault_mask_by_environment_all() {
    let all = Feature::ALL.map(Feature::name).join(",");
    let env = Child::new("fault_mask_by_environment_all").env("CORELOOP_MASK", &all);
    env.run(|| works_without(&Feature::ALL, Settings::default()));
}

#[test]
fn fault_mask_unknown_name_is_refused() {
    Child::new("fault_mask_unknown_name_is_refused").env("CORELOOP_MASK", "bufer_ring").run(|| {
        let before = fd_count();
        let e = EventLoop::new().map(drop).expect_err("a slip must not pass unseen");
        assert!(matches!(e, StartError::BadMask(_)), "{e:?}");
        let text = e.to_string();
        assert!(text.contains("bufer_ring") && text.contains("buffer_ring"), "{text}");
        assert_eq!(fd_count(), before);
    });
}

#[test]
fn fault_mask_empty_is_nothing() {
    Child::new("fault_mask_empty_is_nothing").env("CORELOOP_MASK", " , ").run(|| {
        let event_loop = EventLoop::new().unwrap();
        let missing = &event_loop.ring_report().missing;
        assert!(missing.iter().all(|(_, why)| *why != Missing::Masked), "{missing:?}");
        assert_ne!(event_loop.ring_report().in_force, FeatureSet::none());
    });
}
