//! Settings of the ring that are off by default: each does something, and each is stepped down in words.

use std::time::{Duration, Instant};

use coreloop::combine::gather;
use coreloop::config::Sources;
use coreloop::op::{Nop, submit};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Missing, Settings, Spin, StartError, TaskWork};
use coreloop_tests::{Child, Rng, figure, in_child, net};

const SOON: Duration = Duration::from_secs(5);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn sqpoll(idle: Duration) -> Settings {
    Settings::default().sqpoll(Some(idle)).spin(Spin::Off)
}

/// Echoes, an orderly end, and what the ring's report says.
fn works(settings: Settings) -> coreloop::RingReport {
    let mut event_loop = EventLoop::with(settings).unwrap();
    let report = event_loop.ring_report().clone();
    event_loop.block_on(async { assert_eq!(net::echoes(8, 200).await.unwrap(), 200) });
    assert_eq!(event_loop.stats().counters.stray_completions, 0);
    assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    report
}

#[test]
fn settings_sqpoll_submits_without_calls() {
    in_child("settings_sqpoll_submits_without_calls", || {
        let nops = |settings: Settings| {
            let mut event_loop = EventLoop::with(settings).unwrap();
            event_loop.block_on(async {
                for _ in 0..200 {
                    submit(Nop).await.unwrap();
                }
            });
            event_loop.stats().counters.enters
        };
        // Long spins: the loop sees the completions without a call as well.
        let spin = Spin::Fixed(Duration::from_secs(1));
        let (with, without) = (nops(sqpoll(SOON).spin(spin)), nops(Settings::default().spin(spin)));
        figure!("200 ops one by one: {with} enters with sqpoll, {without} without");
        assert!(with < 20 && without >= 200, "{with} enters with it, {without} without");
    });
}

/// The kernel's thread falls asleep at about the moment when there is something to submit again.
#[test]
fn settings_sqpoll_loses_no_wake_up() {
    in_child("settings_sqpoll_loses_no_wake_up", || {
        let mut event_loop = EventLoop::with(sqpoll(ms(1))).unwrap();
        let handle = event_loop.handle();
        event_loop.block_on(async move {
            let mut rng = Rng::new(7);
            for i in 0..400 {
                let idle = Instant::now() + Duration::from_micros(900 + rng.below(300));
                while Instant::now() < idle {}
                let done = timeout(SOON, submit(Nop)).await;
                assert!(done.is_ok(), "op {i} was never submitted");
            }
            // Asleep for long, then woken from elsewhere.
            for _ in 0..20 {
                let handle = handle.clone();
                let other = std::thread::spawn(move || {
                    std::thread::sleep(ms(4));
                    handle.spawn_on(0, || async { 3 }).unwrap()
                });
                while !other.is_finished() {
                    timeout(SOON, sleep(ms(3))).await.unwrap();
                }
                assert_eq!(timeout(SOON, other.join().unwrap()).await.unwrap(), Ok(3));
            }
        });
    });
}

#[test]
fn settings_sqpoll_takes_more_than_the_queue_holds() {
    in_child("settings_sqpoll_takes_more_than_the_queue_holds", || {
        let mut event_loop = EventLoop::with(sqpoll(ms(1)).ring_entries(8).cq_entries(16)).unwrap();
        event_loop.block_on(async {
            for _ in 0..5 {
                let all = gather((0..400).map(|_| submit(Nop)).collect::<Vec<_>>());
                assert!(timeout(SOON, all).await.unwrap().into_iter().all(|done| done.is_ok()));
            }
        });
        assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    });
}

#[test]
fn settings_sqpoll_does_without_task_work_of_the_loops() {
    in_child("settings_sqpoll_does_without_task_work_of_the_loops", || {
        let report = works(sqpoll(ms(5)));
        assert!(report.in_force.contains(Feature::SqPoll), "{report:?}");
        for feature in [Feature::DeferTaskrun, Feature::CoopTaskrun, Feature::TaskrunFlag] {
            assert!(report.missing.contains(&(feature, Missing::Excluded("sqpoll"))), "{feature}");
        }
        assert!(report.stepped.is_empty(), "what was asked for is in force: {report:?}");
        // With each other feature missing too.
        for feature in Feature::ALL.into_iter().filter(|f| *f != Feature::SqPoll) {
            let report = works(sqpoll(ms(5)).mask(feature));
            assert!(report.in_force.contains(Feature::SqPoll), "without {feature}");
        }
    });
}

#[test]
fn settings_sqpoll_steps_down() {
    in_child("settings_sqpoll_steps_down", || {
        let report = works(sqpoll(ms(5)).sqpoll_cpu(Some(8191)));
        let told: Vec<String> = report.stepped.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let begins = "sqpoll_cpu: asked 8191, in force any CPU, because refused: ";
        assert!(told[0].starts_with(begins), "{told:?}");
        assert!(report.in_force.contains(Feature::SqPoll));

        let report = works(sqpoll(ms(5)).mask(Feature::SqPoll));
        let told: Vec<String> = report.stepped.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["sqpoll: asked 5ms, in force off, because masked by settings"]);
        let plain = works(Settings::default()).in_force;
        assert_eq!(report.in_force, plain, "without it, what it excludes is in force");
    });
}

#[test]
fn settings_sqpoll_excludes_a_demand_for_task_work() {
    let error = EventLoop::with(sqpoll(ms(5)).task_work(TaskWork::Deferred)).map(drop).unwrap_err();
    assert!(matches!(error, StartError::BadSetting { name: "sqpoll", .. }), "{error}");
    let file = "sqpoll = '5ms'\n[core.1]\ntask_work = 'deferred'";
    let sources = Sources::new().toml(file, "server.toml").unwrap();
    let error = sources.resolve().unwrap_err().to_string();
    assert_eq!(
        error,
        "server.toml:1: sqpoll: it does not go with task_work = deferred: Linux refuses a ring with both \
         (EINVAL); use task_work = auto, or sqpoll = off (task_work is from server.toml:3)"
    );
    let error = Sources::new().flag("defer_taskrun=true").unwrap_err().to_string();
    assert!(error.ends_with("did you mean task_work?"), "{error}");
    let error = Sources::new().flag("sq_poll=1ms").unwrap_err().to_string();
    assert!(error.ends_with("did you mean sqpoll?"), "{error}");
    let error = Sources::new().flag("sqpoll=2h").unwrap_err().to_string();
    assert_eq!(error, "sqpoll=2h: sqpoll: \"2h\" is not off, or a time such as 50us");
    let error = Sources::new().flag("sqpoll=61s").unwrap_err().to_string();
    assert_eq!(error, "sqpoll=61s: sqpoll: 61s is not between off and 60s");
}

#[test]
fn settings_task_work_is_what_was_asked_for() {
    in_child("settings_task_work_is_what_was_asked_for", || {
        let report = works(Settings::default().task_work(TaskWork::Cooperative));
        assert!(report.in_force.contains(Feature::CoopTaskrun));
        assert!(!report.in_force.contains(Feature::DeferTaskrun));
        assert!(report.stepped.is_empty());
        let deferred = Settings::default().task_work(TaskWork::Deferred);
        let report = works(deferred.clone().mask(Feature::DeferTaskrun));
        let told = report.stepped[0].to_string();
        let as_asked =
            "task_work: asked deferred, in force cooperative, because masked by settings";
        assert_eq!(told, as_asked);
        assert!(works(deferred).in_force.contains(Feature::DeferTaskrun));
    });
}

#[test]
fn settings_masked_ones_are_stepped_down_in_words() {
    Child::new("settings_masked_ones_are_stepped_down_in_words")
        .env("CORELOOP_MASK", "napi,min_wait,max_workers")
        .run(|| {
            let asked = Settings::default()
                .napi(Some(ms(1)))
                .min_wait(Some(ms(1)))
                .bounded_workers(2)
                .unbounded_workers(3);
            let told: Vec<String> = works(asked).stepped.iter().map(ToString::to_string).collect();
            let because = "because masked by settings";
            assert_eq!(
                told,
                [
                    format!("min_wait: asked 1ms, in force off, {because}"),
                    format!("bounded_workers: asked 2, in force the kernel's own limit, {because}"),
                    format!(
                        "unbounded_workers: asked 3, in force the kernel's own limit, {because}"
                    ),
                    format!("napi: asked 1ms, in force off, {because}"),
                ]
            );
        });
}
