//! G1 to G8: several at once.

use coreloop::combine::{
    Either, TaskFailure, TaskGroup, WaitError, Waited, When, as_completed, gather, group, race,
    try_gather, try_wait, wait,
};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::sleep;

use super::{Play, Stage, fails, twins, units, yes};

twins! {
    g1_gather_in_order,
    g2_gather_with_failures,
    g3_gather_collecting,
    g4_gather_cancelled,
    g5_as_completed,
    g6_the_three_waits,
    g7_cancel_on_first_failure,
    g8_the_first_of_a_few,
}

type Answer<T> = Result<T, &'static str>;

/// One of several inputs; all must have the same type.
type Input = std::pin::Pin<Box<dyn Future<Output = Answer<u32>>>>;

fn ok(stage: &Stage, name: &'static str, n: u32) -> Input {
    let stage = stage.clone();
    Box::pin(async move { Ok(stage.work(name, n).await) })
}

fn g1_gather_in_order(play: &mut Play) {
    play.act("gather", async |stage: Stage| {
        let all = [("a", 3), ("b", 1), ("c", 2)].map(|(name, n)| stage.clone().work(name, n));
        let all: Vec<_> = gather(all).await.into_iter().map(|r| r.unwrap().to_string()).collect();
        stage.say(format_args!("results: {}", all.join(" ")));
    });
}

fn g2_gather_with_failures(play: &mut Play) {
    play.act("the failing form", async |stage: Stage| {
        let (refused, unheard) = (Box::pin(fails(2, "refused")), Box::pin(fails(3, "unheard")));
        let all: [Input; 4] = [ok(&stage, "a", 1), refused, ok(&stage, "c", 4), unheard];
        if let Err(e) = try_gather(all).await {
            stage.say(format_args!("error: {}", e.reason()));
        }
        sleep(units(3)).await;
        stage.say("main ends");
    });
}

fn g3_gather_collecting(play: &mut Play) {
    play.act("the collecting form", async |stage: Stage| {
        let refused = Box::pin(fails(2, "refused"));
        let all: [Input; 3] = [ok(&stage, "a", 1), refused, ok(&stage, "c", 4)];
        for result in gather(all).await {
            match result.unwrap() {
                Ok(value) => stage.say(format_args!("value {value}")),
                Err(e) => stage.say(format_args!("error {e}")),
            }
        }
    });
}

fn g4_gather_cancelled(play: &mut Play) {
    play.act("cancelled", async |stage: Stage| {
        let (a, b) = (stage.clone().guarded("a", 5), stage.clone().guarded("b", 5));
        let of = |f| -> Input { Box::pin(async { Ok(std::pin::Pin::from(f).await) }) };
        let all = [of(Box::new(a)), of(Box::new(b)), ok(&stage, "c", 1)];
        let outer = spawn(gather(all));
        sleep(units(2)).await;
        outer.cancel();
        sleep(units(1)).await;
        stage.say(format_args!("outer cancelled: {}", yes(outer.is_cancelled())));
    });
    play.act("empty", async |stage: Stage| {
        let nothing: [std::future::Ready<()>; 0] = [];
        stage.say(format_args!("{} results", gather(nothing).await.len()));
    });
}

fn g5_as_completed(play: &mut Play) {
    /// Tasks that give their names after so many units.
    fn named(ns: [u32; 3]) -> impl Iterator<Item = JoinHandle<&'static str>> {
        std::iter::zip(["a", "b", "c"], ns).map(|(name, n)| {
            spawn(async move {
                sleep(units(n)).await;
                name
            })
        })
    }
    play.act("in the order of their ends", async |stage: Stage| {
        let mut ended = as_completed(named([3, 1, 2]));
        while let Some((_, name)) = ended.next().await {
            stage.say(name.unwrap());
        }
    });
    play.act("over the limit", async |stage: Stage| {
        let all = [("a", 4), ("b", 1), ("c", 5)].map(|(s, n)| spawn(stage.clone().work(s, n)));
        let mut ended = as_completed(all).within(units(2.5));
        while let Some((_, result)) = ended.next().await {
            match result {
                Ok(value) => stage.say(format_args!("value {value}")),
                Err(WaitError::Elapsed) => stage.say("late"),
                Err(WaitError::Join(e)) => panic!("{e}"),
            }
        }
        sleep(units(2.5)).await;
        stage.say("they ran on");
    });
    play.act("what had ended comes first", async |stage: Stage| {
        let mut ended = as_completed(named([8, 1, 2])).within(units(3));
        while let Some((_, result)) = ended.next().await {
            stage.say(result.unwrap_or("late"));
            sleep(units(3)).await;
        }
    });
}

fn g6_the_three_waits(play: &mut Play) {
    fn begin<const N: usize>(ns: [u32; N]) -> [JoinHandle<()>; N] {
        ns.map(|n| spawn(sleep(units(n))))
    }
    fn told(stage: &Stage, waited: &Waited) {
        stage.say(format_args!("done {:?}, pending {:?}", waited.done, waited.pending));
    }
    play.act("all completed", async |stage: Stage| {
        told(&stage, &wait(&mut begin([1, 3, 2]), When::AllCompleted, None).await);
    });
    play.act("first completed", async |stage: Stage| {
        let mut tasks = begin([2, 1, 3]);
        told(&stage, &wait(&mut tasks, When::FirstCompleted, None).await);
        told(&stage, &wait(&mut tasks, When::AllCompleted, None).await);
    });
    play.act("first exception", async |stage: Stage| {
        let ok = |n| -> Input {
            Box::pin(async move {
                sleep(units(n)).await;
                Ok(n)
            })
        };
        let mut tasks = [ok(1), Box::pin(fails(2, "boom")), ok(4)].map(spawn);
        told(&stage, &try_wait(&mut tasks, When::FirstError, None).await);
    });
    play.act("first exception, and there is none", async |stage: Stage| {
        told(&stage, &wait(&mut begin([1, 2]), When::FirstError, None).await);
    });
    play.act("with a limit", async |stage: Stage| {
        let mut tasks = begin([4, 1, 3]);
        told(&stage, &wait(&mut tasks, When::AllCompleted, Some(units(2))).await);
        let any = tasks.iter().any(JoinHandle::is_cancelled);
        stage.say(format_args!("cancelled: {}", yes(any)));
        tasks[0].cancel();
        told(&stage, &wait(&mut tasks, When::AllCompleted, None).await);
        stage.say(format_args!("the first cancelled: {}", yes(tasks[0].is_cancelled())));
    });
}

fn g7_cancel_on_first_failure(play: &mut Play) {
    async fn request(stage: Stage, name: &'static str, n: u32, answer: u32) -> Result<(), String> {
        let called_off = stage.at_drop("one is called off");
        sleep(units(n)).await;
        called_off.defuse();
        stage.say(format_args!("{name}: {answer}"));
        if answer == 200 { Ok(()) } else { Err(answer.to_string()) }
    }
    /// Runs requests of (name, units, answer) and a body in a group.
    async fn requests<const N: usize>(
        stage: Stage,
        requests: [(&'static str, u32, u32); N],
        body: impl AsyncFnOnce(&Stage) -> Result<(), String>,
    ) {
        let ended = group(async |g| {
            for (name, n, answer) in requests {
                drop(g.spawn(request(stage.clone(), name, n, answer)));
            }
            body(&stage).await
        });
        let Err(e) = ended.await else {
            return stage.say("all have ended");
        };
        let failed = e.failures().iter().map(|f| match &f.reason {
            TaskFailure::Error(e) => e.as_str(),
            TaskFailure::Join(e) => panic!("{e}"),
        });
        stage.say(format_args!("failed: {}", failed.collect::<Vec<_>>().join(" ")));
    }
    play.act("the first failure", async |stage: Stage| {
        let all = [("a", 1, 200), ("b", 5, 200), ("c", 2, 429), ("d", 6, 200)];
        requests(stage, all, async |_| Ok(())).await;
    });
    play.act("while the body runs", async |stage: Stage| {
        let body = async |stage: &Stage| {
            sleep(units(3)).await;
            stage.say("not reached");
            Ok(())
        };
        requests(stage, [("a", 1, 429)], body).await;
    });
    play.act("the body fails", async |stage: Stage| {
        let body = async |_: &Stage| {
            sleep(units(2)).await;
            Err("the body".to_owned())
        };
        requests(stage, [("a", 3, 200), ("b", 1, 200)], body).await;
    });
    play.act("all well", async |stage: Stage| {
        let body = async |stage: &Stage| {
            stage.say("the body is over");
            Ok(())
        };
        requests(stage, [("a", 3, 200), ("b", 1, 200)], body).await;
    });
    play.act("children add children", async |stage: Stage| {
        let ended = group(async |g: &TaskGroup<String>| {
            let (own, stage) = (g.clone(), stage.clone());
            drop(g.spawn(async move {
                sleep(units(1)).await;
                drop(own.spawn(request(stage.clone(), "child", 2, 200)));
                stage.say("parent is over");
                Ok(())
            }));
            Ok(())
        });
        ended.await.unwrap();
        stage.say("all have ended");
    });
}

fn g8_the_first_of_a_few(play: &mut Play) {
    play.act("a race", async |stage: Stage| {
        let seven = async {
            sleep(units(1)).await;
            7
        };
        match race(stage.clone().guarded("a", 3), seven).await {
            Either::First(value) => stage.say(format_args!("a won: {value}")),
            Either::Second(value) => stage.say(format_args!("b won: {value}")),
        }
    });
}
