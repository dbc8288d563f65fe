//! W1 to W4: time limits and shields.

use std::pin::pin;
use std::time::Duration;

use coreloop::combine::{race, shield};
use coreloop::spawn;
use coreloop::time::{Instant, sleep, timeout};

use super::{Play, Stage, twins, units, yes};

twins! { w1_over_the_limit, w2_shielded, w3_nested_and_moved, w4_an_enormous_limit }

fn w1_over_the_limit(play: &mut Play) {
    play.act("over it", async |stage: Stage| {
        let mut task = spawn(stage.clone().guarded("the task", 5));
        if task.timeout(units(2)).await.is_err() {
            stage.say("too late");
        }
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
    play.act("in time", async |stage: Stage| {
        let mut task = spawn(stage.clone().guarded("the task", 1));
        let value = task.timeout(units(2)).await.unwrap().unwrap();
        stage.say(format_args!("value: {value}"));
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
    play.act("around what is no task", async |stage: Stage| {
        if timeout(units(2), stage.clone().guarded("the future", 5)).await.is_err() {
            stage.say("too late");
        }
    });
}

fn w2_shielded(play: &mut Play) {
    play.act("the limit", async |stage: Stage| {
        let mut task = spawn(stage.clone().work("inner", 4));
        if timeout(units(2), shield(&mut task)).await.is_err() {
            stage.say("too late");
        }
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
        stage.say(format_args!("value: {}", task.await.unwrap()));
    });
    play.act("the canceller", async |stage: Stage| {
        let inner = spawn(stage.clone().work("inner", 4));
        let mut outer = spawn(async move { shield(inner).await.is_ok() });
        sleep(units(1)).await;
        outer.cancel();
        assert!((&mut outer).await.is_err());
        stage.say(format_args!("outer cancelled: {}", yes(outer.is_cancelled())));
        sleep(units(4)).await;
    });
}

fn w3_nested_and_moved(play: &mut Play) {
    play.act("the inner one first", async |stage: Stage| {
        let within = timeout(units(6), async {
            if timeout(units(2), sleep(units(9))).await.is_err() {
                stage.say("the inner one is over");
            }
            sleep(units(2)).await;
            stage.say("the rest had time");
        });
        within.await.unwrap();
    });
    play.act("the outer one first", async |stage: Stage| {
        let within = timeout(units(2), async {
            if timeout(units(6), sleep(units(9))).await.is_err() {
                stage.say("the inner one is over");
            }
        });
        if within.await.is_err() {
            stage.say("the outer one is over");
        }
    });
    play.act("moved", async |stage: Stage| {
        let mut limited = pin!(timeout(units(2), sleep(units(10))));
        let _ = race(limited.as_mut(), sleep(units(1))).await;
        limited.as_mut().reset(stage.after(3.0));
        if limited.await.is_err() {
            stage.say("over");
        }
    });
    play.act("lifted", async |stage: Stage| {
        let mut limited = pin!(timeout(units(2), sleep(units(4))));
        let _ = race(limited.as_mut(), sleep(units(1))).await;
        limited.as_mut().reset(Instant::NEVER);
        limited.await.unwrap();
        stage.say("it had time");
    });
}

fn w4_an_enormous_limit(play: &mut Play) {
    play.act("an enormous limit", async |stage: Stage| {
        let seven = async {
            sleep(units(2)).await;
            7
        };
        stage.say(format_args!("value: {}", timeout(Duration::MAX, seven).await.unwrap()));
        timeout(Duration::from_secs(u64::MAX / 2), sleep(units(1))).await.unwrap();
        stage.say("no overflow");
    });
}
