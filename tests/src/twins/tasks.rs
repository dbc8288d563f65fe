//! T1 to T10: tasks, their handles, their cancels.

use std::cell::RefCell;
use std::rc::Rc;

use coreloop::combine::{future, shield};
use coreloop::task::{JoinHandle, current_name};
use coreloop::time::sleep;
use coreloop::{spawn, spawn_named, yield_now};

use super::{Play, Stage, twins, units, yes};

twins! {
    t1_in_sequence_or_at_once,
    t2_computing_holds_all_up,
    t3_a_zero_sleep_first,
    t4_the_end_of_main,
    t5_asking_a_handle,
    t6_cancel,
    t7_a_cancel_travels_inwards,
    t9_an_error_stays_in_its_task,
    t10_names,
}

fn t1_in_sequence_or_at_once(play: &mut Play) {
    play.act("one after the other", async |stage: Stage| {
        sleep(units(1)).await;
        stage.say("the first is over");
        sleep(units(2)).await;
        stage.say("the second is over");
    });
    play.act("as tasks", async |stage: Stage| {
        let (one, two) = (spawn(sleep(units(1))), spawn(sleep(units(2))));
        one.await.unwrap();
        stage.say("the first is over");
        two.await.unwrap();
        stage.say("the second is over");
    });
}

fn t2_computing_holds_all_up(play: &mut Play) {
    play.act("computing before the first await", async |stage: Stage| {
        let (a, b) = (spawn(stage.clone().work("a", 5)), spawn(stage.clone().work("b", 6)));
        stage.compute(2.5);
        stage.say("computed");
        a.await.unwrap();
        b.await.unwrap();
        stage.say("both are over");
    });
    play.act("computing between the awaits", async |stage: Stage| {
        let (a, b) = (spawn(stage.clone().work("a", 5)), spawn(stage.clone().work("b", 6)));
        a.await.unwrap();
        stage.compute(2.5);
        stage.say("computed");
        b.await.unwrap();
        stage.say("both are over");
    });
    play.act("a computing task ahead in the queue", async |stage: Stage| {
        let own = stage.clone();
        let ahead = spawn(async move {
            own.say("computes");
            own.compute(3.0);
        });
        let behind = spawn(stage.work("behind", 2));
        ahead.await.unwrap();
        behind.await.unwrap();
    });
    play.act("awaiting what is ready", async |stage: Stage| {
        let own = stage.clone();
        let task = spawn(async move { own.say("the task runs") });
        stage.say(format_args!("ready: {}", async { 7 }.await));
        stage.say("it did not give way");
        task.await.unwrap();
        stage.say("now it did");
    });
    play.act("neither spawned nor awaited", async |stage: Stage| {
        let nobodys = stage.clone().work("nobody's", 1);
        sleep(units(2)).await;
        stage.say("it did nothing");
        drop(nobodys);
    });
}

fn t3_a_zero_sleep_first(play: &mut Play) {
    play.act("before computing", async |stage: Stage| {
        let (a, b) = (spawn(stage.clone().work("a", 5)), spawn(stage.clone().work("b", 6)));
        sleep(units(0)).await;
        stage.compute(2.5);
        stage.say("computed");
        a.await.unwrap();
        b.await.unwrap();
        stage.say("both are over");
    });
    play.act("exactly one iteration", async |stage: Stage| {
        let in_turn = |name: &'static str| {
            let stage = stage.clone();
            spawn(async move {
                for turn in 0..3 {
                    stage.say(format_args!("{name} {turn}"));
                    yield_now().await;
                }
            })
        };
        let (a, b) = (in_turn("a"), in_turn("b"));
        a.await.unwrap();
        b.await.unwrap();
    });
}

fn t4_the_end_of_main(play: &mut Play) {
    play.act("awaiting the shorter", async |stage: Stage| {
        let (short, _long) =
            (spawn(stage.clone().work("short", 2)), spawn(stage.clone().work("long", 5)));
        short.await.unwrap();
        stage.say("main ends");
    });
    play.act("awaiting the longer", async |stage: Stage| {
        let (_short, long) =
            (spawn(stage.clone().work("short", 2)), spawn(stage.clone().work("long", 5)));
        long.await.unwrap();
        stage.say("main ends");
    });
}

fn t5_asking_a_handle(play: &mut Play) {
    play.act("asked", async |stage: Stage| {
        let mut task = spawn(async {
            sleep(units(2)).await;
            7
        });
        stage.say(format_args!("finished: {}", yes(task.is_finished())));
        sleep(units(1)).await;
        if task.try_take().is_none() {
            stage.say("no result yet");
        }
        sleep(units(2)).await;
        let (finished, cancelled) = (yes(task.is_finished()), yes(task.is_cancelled()));
        stage.say(format_args!("finished: {finished}, cancelled: {cancelled}"));
        stage.say(format_args!("result: {}", task.try_take().unwrap().unwrap()));
    });
    play.act("dropped", async |stage: Stage| {
        let task = spawn(stage.clone().work("nobody's", 2));
        sleep(units(1)).await;
        drop(task);
        sleep(units(2)).await;
        stage.say("main ends");
    });
}

fn t6_cancel(play: &mut Play) {
    play.act("before the first poll", async |stage: Stage| {
        let mut task = spawn(stage.clone().work("never", 1));
        stage.say(format_args!("asked: {}", yes(task.cancel())));
        assert!((&mut task).await.is_err());
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
    play.act("while it waits", async |stage: Stage| {
        let mut task = spawn(stage.clone().guarded("it", 5));
        sleep(units(1)).await;
        task.cancel();
        stage.say(format_args!("not yet: {}", yes(!task.is_finished())));
        assert!((&mut task).await.is_err());
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
    play.act("by itself", async |stage: Stage| {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let (handle, inside) = (own.clone(), stage.clone());
        *own.borrow_mut() = Some(spawn(async move {
            handle.borrow().as_ref().unwrap().cancel();
            inside.compute(1.0);
            inside.say("runs on to its next await");
            sleep(units(1)).await;
            inside.say("and no further");
        }));
        sleep(units(3)).await;
        let task = own.take().unwrap();
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
    play.act("after its end", async |stage: Stage| {
        let task = spawn(async { 7 });
        sleep(units(1)).await;
        stage.say(format_args!("asked: {}", yes(task.cancel())));
        stage.say(format_args!("result: {}", task.await.unwrap()));
    });
}

fn t7_a_cancel_travels_inwards(play: &mut Play) {
    /// A task that awaits another one.
    fn awaits<T: 'static>(inner: JoinHandle<T>) -> JoinHandle<()> {
        spawn(async move { drop(inner.await) })
    }
    /// Cancels it after a unit, and looks at it after another.
    async fn cancels(stage: &Stage, outer: JoinHandle<()>) {
        sleep(units(1)).await;
        outer.cancel();
        sleep(units(1)).await;
        stage.say(format_args!("outer cancelled: {}", yes(outer.is_cancelled())));
    }
    play.act("an awaited task", async |stage: Stage| {
        cancels(&stage, awaits(spawn(stage.clone().guarded("inner", 5)))).await;
    });
    play.act("two deep", async |stage: Stage| {
        cancels(&stage, awaits(awaits(spawn(stage.clone().guarded("inner", 5))))).await;
    });
    play.act("an awaited future", async |stage: Stage| {
        let (completer, awaitable) = future::<String>();
        let outer = spawn(async move { drop(awaitable.await) });
        sleep(units(1)).await;
        outer.cancel();
        sleep(units(1)).await;
        stage.say(format_args!("future cancelled: {}", yes(completer.is_cancelled())));
    });
    play.act("shielded", async |stage: Stage| {
        let inner = spawn(stage.clone().work("inner", 3));
        cancels(&stage, spawn(async move { drop(shield(inner).await) })).await;
        sleep(units(2)).await;
    });
    play.act("merely held", async |stage: Stage| {
        let inner = spawn(stage.clone().work("inner", 3));
        let outer = spawn(async move {
            sleep(units(9)).await;
            drop(inner.await);
        });
        cancels(&stage, outer).await;
        sleep(units(2)).await;
    });
}

fn t9_an_error_stays_in_its_task(play: &mut Play) {
    async fn panics(n: u32) {
        sleep(units(n)).await;
        panic!("boom");
    }
    play.act("awaited", async |stage: Stage| {
        let (a, b) = (spawn(panics(1)), spawn(stage.clone().work("b", 2)));
        let e = a.await.unwrap_err();
        stage.say(format_args!("a failed: {}", e.panic_message().unwrap()));
        b.await.unwrap();
        stage.say("the loop went on");
    });
    play.act("nobody asks", async |stage: Stage| {
        drop(spawn(panics(1)));
        stage.work("main", 2).await;
    });
}

fn t10_names(play: &mut Play) {
    play.act("names", async |stage: Stage| {
        let own = stage.clone();
        let task = spawn_named("worker-7", async move {
            own.say(format_args!("within: {}", current_name().unwrap()));
            sleep(units(1)).await;
            own.say(format_args!("and after an await: {}", current_name().unwrap()));
        });
        stage.say(format_args!("by its handle: {}", task.name().unwrap()));
        task.await.unwrap();
    });
}
