//! Panics of tasks in a simulation: one that nobody took fails it, one that somebody took does not.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreloop::combine::TaskGroup;
use coreloop::sim::{Failure, Sim};
use coreloop::time::sleep;
use coreloop::{Settings, spawn};

const MS: Duration = Duration::from_millis(1);

/// The reports that a simulation with this client fails for; none if it passes.
fn reports<F: Future<Output = ()> + 'static>(
    fails: bool,
    main: impl FnOnce() -> F + 'static,
) -> Vec<String> {
    let sim = Sim::builder().fail_on_panic(fails).build();
    sim.host("server", 1, |_core| sleep(Duration::MAX));
    sim.client("client", main);
    match sim.run() {
        Ok(_) => Vec::new(),
        Err(failed) => match failed.failure() {
            Failure::TaskPanicked { reports } => reports.clone(),
            _ => panic!("{failed}"),
        },
    }
}

#[test]
fn sim_panics_that_nobody_took_fail_it_with_name_and_place() {
    let line = line!() + 2;
    let lost = async || {
        drop(coreloop::spawn_named("collector", async { panic!("out of sorts") }));
        sleep(MS).await;
    };
    let said = reports(true, lost);
    assert_eq!(said.len(), 1, "{said:?}");
    for text in ["\"collector\"", "sim_panics.rs", &format!(":{line}:"), "out of sorts"] {
        assert!(said[0].contains(text), "{text}: {said:?}");
    }
    assert_eq!(reports(false, lost), [""; 0]);
}

#[test]
fn sim_panics_at_the_very_end_count_too() {
    // Its handle goes with the main future, which ends well.
    let said = reports(true, async || {
        let task = spawn(async { panic!("the last") });
        sleep(MS).await;
        drop(task);
    });
    assert!(said[0].contains("the last"), "{said:?}");
}

#[test]
fn sim_panics_that_somebody_took_are_theirs() {
    let said = reports(true, async || {
        let ended = spawn(async { panic!("taken") }).await;
        assert!(ended.unwrap_err().is_panic());
    });
    assert_eq!(said, [""; 0]);
}

#[test]
fn sim_panics_are_told_to_a_hook_of_the_settings_too() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    let hook = Settings::default().on_report(move |r| log.lock().unwrap().push(r.to_string()));
    let sim = Sim::builder().settings(hook).build();
    sim.client("client", async || {
        drop(spawn(async { panic!("heard") }));
        sleep(MS).await;
    });
    let failed = sim.run().unwrap_err();
    assert!(matches!(failed.failure(), Failure::TaskPanicked { .. }), "{failed}");
    assert!(heard.lock().unwrap()[0].ends_with("heard"));
}

#[test]
fn sim_panics_in_a_group_that_is_dropped_count_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("of a child");
        }
    }
    let said = reports(true, async || {
        let handle = spawn(coreloop::combine::group(async |group: &TaskGroup<()>| {
            drop(group.spawn(async {
                let _bomb = Bomb;
                std::future::pending::<Result<(), ()>>().await
            }));
            std::future::pending::<Result<(), ()>>().await
        }));
        sleep(MS).await;
        handle.cancel();
        assert!(handle.await.is_err());
        sleep(MS).await;
    });
    assert!(said.len() == 1 && said[0].contains("of a child"), "{said:?}");
}
