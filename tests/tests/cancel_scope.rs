//! Grace before a hard cancel, and scopes whose closing step awaits.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::{self, Cancelled, Closed, How, Interruptible, Token};
use coreloop::spawn;
use coreloop::time::{Elapsed, sleep, timeout};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::turns;

/// Writes down what happens, and its own end.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn say(&self, what: &'static str) {
        self.0.borrow_mut().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }
}

struct Resource(Log);

impl Drop for Resource {
    fn drop(&mut self) {
        self.0.say("dropped");
    }
}

fn cancel_at(token: &Token, after: Duration) {
    let token = token.clone();
    drop(spawn(async move {
        sleep(after).await;
        token.cancel();
    }));
}

#[test]
fn t8_a_task_cleans_up_with_awaits_within_its_grace() {
    virtually(async || {
        let (token, clock) = (Token::new(), Clock::new());
        let asked = token.child();
        let mut task = spawn(async move {
            let ended = asked.run(sleep(tens(1000))).await;
            sleep(tens(3)).await;
            (ended.is_err(), "bye")
        });
        turns(2).await;
        let ended = task.cancel_by(&token, tens(5)).await;
        assert_eq!(ended.unwrap().unwrap(), (true, "bye"));
        assert_eq!(clock.tens(), 3);
        assert!(!task.is_cancelled(), "it finished in spite of a cooperative cancel");
    });
}

#[test]
fn t8_after_the_grace_the_cancel_is_hard_and_waited_for() {
    virtually(async || {
        let (token, clock, drops) = (Token::new(), Clock::new(), Drops::new());
        let guard = drops.guard();
        let asked = token.clone();
        let mut task = spawn(async move {
            let _guard = guard;
            asked.cancelled().await;
            sleep(tens(1000)).await;
        });
        turns(2).await;
        assert!(task.cancel_by(&token, tens(5)).await.is_err());
        assert_eq!((clock.tens(), drops.count(), task.is_cancelled()), (5, 1, true));
        // A task that ended before, and one that panics when asked.
        let mut ended = spawn(async { 7 });
        turns(2).await;
        assert_eq!(ended.cancel_by(&token, tens(1)).await.unwrap().unwrap(), 7);
        let fresh = Token::new();
        let asked = fresh.clone();
        let mut panics = spawn(async move {
            asked.cancelled().await;
            panic!("on purpose");
        });
        turns(2).await;
        let ended: Result<Result<(), _>, Elapsed> = panics.cancel_by(&fresh, tens(1)).await;
        assert!(ended.unwrap().unwrap_err().is_panic());
        // Nothing is asked until it is awaited; dropped after that, the token stays cancelled.
        let token = Token::new();
        let mut task = spawn(sleep(tens(2)));
        drop(task.cancel_by(&token, tens(1)));
        assert!(!token.is_cancelled());
        assert!(timeout(tens(1), task.cancel_by(&token, tens(5))).await.is_err());
        assert!(token.is_cancelled());
        assert!(task.await.is_ok(), "the handle was only lent");
    });
}

#[test]
fn t8_a_scope_gives_its_body_some_grace() {
    virtually(async || {
        let server = Token::new();
        cancel_at(&server, tens(2));
        let clock = Clock::new();
        let polite = cancel::scope(&server, tens(3), async |token| {
            let ended = token.run(sleep(tens(100))).await;
            sleep(tens(2)).await;
            ended.is_err()
        });
        assert_eq!(polite.await, Ok(true));
        assert_eq!(clock.tens(), 4);
        // Cancelled before: the grace counts from the beginning. Over it the body is gone.
        let (clock, drops) = (Clock::new(), Drops::new());
        let child_drops = drops.clone();
        let deaf = cancel::scope(&server, tens(3), async move |_| {
            let guard = child_drops.guard();
            let awaited = spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            drop(awaited.await);
        });
        assert!(deaf.await.is_err());
        assert_eq!(clock.tens(), 3);
        turns(2).await;
        assert_eq!(drops.count(), 1, "the cancel was passed on to what the body awaited");
        // The body's own token, which does not reach the outer one.
        let outer = Token::new();
        let ended = cancel::scope(&outer, tens(1), async |token| {
            token.cancel();
            std::future::pending::<()>().await;
        });
        assert!(ended.await.is_err() && !outer.is_cancelled());
    });
}

/// Runs a `with` whose steps write into a log; the closing step takes 20 ms of its 50.
async fn logged<T>(
    log: &Log,
    token: &Token,
    body: impl AsyncFnOnce(&mut Resource) -> T,
) -> Closed<T, &'static str> {
    let close = async |resource: Resource, how: How<'_, T>| {
        resource.0.say(match how {
            How::Returned(_) => "closing after return",
            How::Cancelled => "closing after cancel",
            How::Panicked => "closing after panic",
        });
        sleep(tens(2)).await;
        resource.0.say("closed");
        "closed"
    };
    let with = cancel::with(Resource(log.clone()), body, close);
    with.cancel_on(token).closing_within(tens(5)).run().await
}

#[test]
fn p3_the_closing_step_runs_on_return_and_error() {
    virtually(async || {
        let (log, token) = (Log::default(), Token::new());
        let ended = logged(&log, &token, async |r| {
            r.0.say("body");
            sleep(tens(1)).await;
            7
        });
        assert_eq!(ended.await, Closed { body: Ok(7), close: Ok("closed") });
        assert_eq!(log.take(), ["body", "closing after return", "closed", "dropped"]);
        let failed = logged(&log, &token, async |_| Err::<(), _>("an error")).await;
        assert_eq!(failed.body, Ok(Err("an error")));
        assert_eq!(log.take(), ["closing after return", "closed", "dropped"]);
    });
}

#[test]
fn p3_the_closing_step_runs_on_a_cooperative_cancel() {
    virtually(async || {
        let (log, token, clock) = (Log::default(), Token::new(), Clock::new());
        cancel_at(&token, tens(3));
        let ended = logged(&log, &token, async |r| {
            r.0.say("body");
            let _gone = Resource(r.0.clone());
            std::future::pending::<()>().await;
        });
        let ended = ended.await;
        assert!(ended.body.is_err() && ended.close == Ok("closed"));
        assert_eq!(clock.tens(), 5);
        let want = ["body", "dropped", "closing after cancel", "closed", "dropped"];
        assert_eq!(log.take(), want);
        // Cancelled before: the body never runs, the resource is closed all the same.
        let ended = logged(&log, &token, async |r: &mut Resource| r.0.say("body")).await;
        assert!(ended.body.is_err());
        assert_eq!(log.take(), ["closing after cancel", "closed", "dropped"]);
    });
}

#[test]
fn p3_a_closing_step_over_its_deadline_is_dropped_and_the_result_says_so() {
    virtually(async || {
        let (log, clock) = (Log::default(), Clock::new());
        let close = async |resource: Resource, _: How<'_, i32>| {
            sleep(tens(9)).await;
            resource.0.say("never");
        };
        let with = cancel::with(Resource(log.clone()), async |_| 7, close);
        let ended = with.closing_within(tens(4)).run().await;
        assert_eq!(ended.body, Ok(7));
        assert!(ended.close.is_err());
        assert_eq!((clock.tens(), log.take()), (4, vec!["dropped"]));
        // Without any time it does what needs no waiting.
        let with = cancel::with((), async |()| 7, async |(), _: How<'_, i32>| "at once");
        assert_eq!(with.closing_within(Duration::ZERO).run().await.close, Ok("at once"));
    });
}

#[test]
fn p3_a_panic_goes_on_after_the_closing_step() {
    let log = Log::default();
    let seen = log.clone();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        coreloop::run(async move {
            logged(&seen, &Token::new(), async |r| {
                r.0.say("body");
                turns(1).await;
                panic!("of the body");
            })
            .await
        })
        .unwrap()
    }))
    .map(|ended: Closed<(), _>| ended.close)
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"of the body"));
    assert_eq!(log.take(), ["body", "closing after panic", "closed", "dropped"]);
    // Both panic: the body's goes on.
    let payload = catch_unwind(|| {
        let both = cancel::with(
            (),
            async |()| panic!("first"),
            async |(), _: How<'_, ()>| panic!("second"),
        );
        coreloop::run(both.run()).unwrap().close
    })
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"first"));
    let payload = catch_unwind(|| {
        let closing =
            cancel::with((), async |()| 1, async |(), _: How<'_, i32>| -> () { panic!("second") });
        coreloop::run(closing.run()).unwrap().close
    })
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"second"));
}

#[test]
fn p3_a_hard_cancel_runs_the_destructor_and_nothing_else() {
    virtually(async || {
        let (log, token) = (Log::default(), Token::new());
        for in_closing in [false, true] {
            let (seen, listening) = (log.clone(), token.clone());
            let task = spawn(async move {
                logged(&seen, &listening, async |r| {
                    r.0.say("body");
                    sleep(tens(if in_closing { 1 } else { 100 })).await;
                })
                .await
            });
            sleep(tens(2)).await;
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled());
            let want: &[_] = match in_closing {
                false => &["body", "dropped"],
                true => &["body", "closing after return", "dropped"],
            };
            assert_eq!(log.take(), want);
        }
    });
}

#[test]
fn p3_a_cancel_during_the_closing_step_does_not_cut_it_short() {
    virtually(async || {
        let (log, token) = (Log::default(), Token::new());
        cancel_at(&token, tens(1));
        let ended = logged(&log, &token, async |_| 7).await;
        assert_eq!(ended, Closed { body: Ok(7), close: Ok("closed") });
        assert!(token.is_cancelled());
    });
}

#[test]
fn p3_into_result_gives_the_first_error() {
    type Io = io::Result<u8>;
    let ok = |n: u8| -> Io { Ok(n) };
    let failed = || -> Io { Err(io::ErrorKind::BrokenPipe.into()) };
    let closed = |body, close| Closed { body: Ok(body), close: Ok(close) }.into_result();
    assert_eq!(closed(ok(1), ok(2)).unwrap(), 1);
    assert_eq!(closed(failed(), ok(2)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(closed(ok(1), failed()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    virtually(async || {
        let token = Token::new();
        token.cancel();
        let with = cancel::with((), async |()| Io::Ok(1), async |(), _: How<'_, Io>| Io::Ok(2));
        let e = with.cancel_on(&token).run().await.into_result().unwrap_err();
        assert!(Cancelled::is(&e), "{e:?}");
    });
}

#[test]
fn p3_sessions_say_goodbye_to_their_peers_within_a_deadline() {
    coreloop::run(async {
        const SESSIONS: usize = 20;
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Token::new();
        let said = Rc::new(Cell::new(0));
        let (asked, count) = (server.clone(), said.clone());
        let mut serving = spawn(async move {
            let mut sessions = Vec::new();
            while let Ok(stream) = listener.accept().cancel_on(&asked).await {
                let (token, count) = (asked.child(), count.clone());
                sessions.push(spawn(async move {
                    let body = async |stream: &mut TcpStream| {
                        while let Some(chunk) = stream.recv().await? {
                            stream.write_all(chunk).await?;
                        }
                        io::Result::Ok(())
                    };
                    let close = async |mut stream: TcpStream, how: How<'_, io::Result<()>>| {
                        assert!(matches!(how, How::Cancelled));
                        stream.write_all("goodbye").await?;
                        count.set(count.get() + 1);
                        io::Result::Ok(())
                    };
                    cancel::with(stream, body, close).cancel_on(&token).run().await.close
                }));
            }
            for session in sessions {
                session.await.unwrap().unwrap().unwrap();
            }
        });
        let mut clients = Vec::new();
        for i in 0..SESSIONS {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(vec![i as u8]).await.unwrap();
            assert_eq!(client.read_exact(vec![0]).await.unwrap().1, [i as u8]);
            clients.push(client);
        }
        serving.cancel_by(&server, Duration::from_secs(10)).await.unwrap().unwrap();
        assert_eq!(said.get(), SESSIONS);
        for mut client in clients {
            assert_eq!(client.read_exact(vec![0; 7]).await.unwrap().1, b"goodbye");
            assert!(client.recv().await.unwrap().is_none(), "then the end of the stream");
        }
    })
    .unwrap();
}
