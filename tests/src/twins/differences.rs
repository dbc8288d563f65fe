//! Where the two sides are to differ; `tests/twins/DIFFERENCES.md` says why.

use std::cell::RefCell;
use std::rc::Rc;

use coreloop::combine::{When, as_completed, future, group, wait};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::{Instant, sleep, timeout, timeout_at};

use super::{Play, Stage, twins, units, yes};

twins! {
    d_t4_never_given_way,
    d_t6_a_cancelled_task_is_awaited,
    d_t7_a_cancel_is_caught,
    d_t7_from_the_inside_out,
    d_t7_goodbyes_with_awaits,
    d_w1_a_free_limit_does_not_wait,
    d_w3_a_zero_limit_on_what_is_ready,
    d_w3_two_limits_at_the_same_moment,
    d_f1_nobody_will_complete_it,
    d_g5_what_was_due_in_time,
    d_g6_nothing_to_wait_for,
    d_g7_a_clean_up_fails_in_a_cancelled_group,
}

fn d_t4_never_given_way(play: &mut Play) {
    play.act("never given way", async |stage: Stage| {
        let tasks = [spawn(stage.clone().work("a", 1)), spawn(stage.clone().guarded("b", 1))];
        stage.compute(2.0);
        stage.say(format_args!("main ends, having spawned {}", tasks.len()));
    });
}

fn d_t6_a_cancelled_task_is_awaited(play: &mut Play) {
    play.act("a cancelled task is awaited", async |stage: Stage| {
        let (inner, own) = (Rc::new(RefCell::new(spawn(sleep(units(5))))), stage.clone());
        let awaited = inner.clone();
        let outer = spawn(async move {
            let ended =
                std::future::poll_fn(|cx| std::pin::Pin::new(&mut *awaited.borrow_mut()).poll(cx));
            assert!(ended.await.is_err_and(|e| e.is_cancelled()));
            own.say("outer goes on");
        });
        sleep(units(1)).await;
        inner.borrow().cancel();
        sleep(units(1)).await;
        stage.say(format_args!("outer cancelled: {}", yes(outer.is_cancelled())));
    });
}

fn d_t7_a_cancel_is_caught(play: &mut Play) {
    play.act("caught", async |stage: Stage| {
        let own = stage.clone();
        let mut task = spawn(async move {
            {
                let _told = own.at_drop("told of the cancel");
                sleep(units(5)).await;
            }
            sleep(units(2)).await;
            own.say("it went on");
        });
        sleep(units(1)).await;
        task.cancel();
        assert!((&mut task).await.is_err());
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
}

fn d_t7_from_the_inside_out(play: &mut Play) {
    play.act("two that end", async |stage: Stage| {
        let inner = spawn(stage.clone().guarded("inner", 5));
        let gone = stage.at_drop("outer is gone");
        let task = spawn(async move {
            let _gone = gone;
            drop(inner.await);
        });
        sleep(units(1)).await;
        task.cancel();
        sleep(units(1)).await;
        stage.say(format_args!("outer cancelled: {}", yes(task.is_cancelled())));
    });
}

fn d_t7_goodbyes_with_awaits(play: &mut Play) {
    play.act("goodbyes", async |stage: Stage| {
        let own = stage.clone();
        let mut task = spawn(async move {
            let cleans_up = own.at_drop("cleans up");
            sleep(units(5)).await;
            drop(cleans_up);
            sleep(units(2)).await;
            own.say("said goodbye");
        });
        sleep(units(1)).await;
        task.cancel();
        assert!((&mut task).await.is_err());
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
    });
}

fn d_w1_a_free_limit_does_not_wait(play: &mut Play) {
    play.act("a free limit", async |stage: Stage| {
        let task = spawn(stage.clone().guarded("the task", 5));
        if timeout(units(2), task).await.is_err() {
            stage.say("too late");
        }
        sleep(units(1)).await;
    });
}

fn d_w3_a_zero_limit_on_what_is_ready(play: &mut Play) {
    play.act("a limit of zero", async |stage: Stage| {
        let past = Instant::now() - units(1);
        for limit in [Instant::now(), past] {
            let ready = async {
                stage.say("it runs");
                7
            };
            match timeout_at(limit, ready).await {
                Ok(value) => stage.say(format_args!("value: {value}")),
                Err(_) => stage.say("too late"),
            }
        }
    });
}

fn d_w3_two_limits_at_the_same_moment(play: &mut Play) {
    play.act("the same moment", async |stage: Stage| {
        let at = stage.after(2.0);
        let within = timeout_at(at, async {
            if timeout_at(at, sleep(units(9))).await.is_err() {
                stage.say("the inner one is over");
            }
        });
        if within.await.is_err() {
            stage.say("the outer one is over");
        }
    });
}

fn d_f1_nobody_will_complete_it(play: &mut Play) {
    play.act("abandoned", async |stage: Stage| {
        let (completer, awaitable) = future::<u32>();
        drop(spawn(async move {
            sleep(units(1)).await;
            completer.is_done()
        }));
        match timeout(units(4), awaitable).await {
            Ok(Ok(value)) => stage.say(format_args!("value: {value}")),
            Ok(Err(e)) => stage.say(e),
            Err(_) => stage.say("still nothing"),
        }
    });
}

fn d_g5_what_was_due_in_time(play: &mut Play) {
    play.act("busy until after the limit", async |stage: Stage| {
        let tasks = [("a", 1), ("b", 2), ("c", 8)].map(|(name, n)| {
            spawn(async move {
                sleep(units(n)).await;
                name
            })
        });
        let mut ended = as_completed(tasks).within(units(3));
        while let Some((_, result)) = ended.next().await {
            stage.say(result.unwrap_or("late"));
            stage.compute(3.0);
        }
    });
}

fn d_g6_nothing_to_wait_for(play: &mut Play) {
    play.act("nothing", async |stage: Stage| {
        let mut none: [JoinHandle<()>; 0] = [];
        let waited = wait(&mut none, When::AllCompleted, None).await;
        let (done, pending) = (waited.done.len(), waited.pending.len());
        stage.say(format_args!("done {done}, pending {pending}"));
    });
}

fn d_g7_a_clean_up_fails_in_a_cancelled_group(play: &mut Play) {
    struct Fails;
    impl Drop for Fails {
        fn drop(&mut self) {
            panic!("in the clean-up");
        }
    }
    play.act("a clean-up that fails", async |stage: Stage| {
        let mut task = spawn(group(async |g| {
            drop(g.spawn(async {
                let _fails = Fails;
                sleep(units(5)).await;
                Ok::<_, ()>(())
            }));
            Ok(())
        }));
        sleep(units(1)).await;
        task.cancel();
        let ended = (&mut task).await;
        stage.say(format_args!("cancelled: {}", yes(task.is_cancelled())));
        if let Ok(Err(e)) = ended {
            stage.say(format_args!("error: {} failed", e.failures().len()));
        }
    });
}
