//! What waits, on coreloop.
//!
//! Owns the future of each expression. Nothing is done before its first poll, as the model has it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use coreloop::combine::{self, Either, FutureError, TaskFailure, TaskGroup, WaitError, When};
use coreloop::sync::broadcast;
use coreloop::task::JoinError;
use coreloop::time::{Instant, sleep_until, timeout_at};

use super::places::{Awaits, InPlace, LentEnd, LetGo};
use super::world::Kept;
use super::{Env, body};
use crate::model::program::{Body, Expr, Id, Out, Start, Until};

pub(super) fn joined(result: Result<Result<u32, u32>, JoinError>) -> Out {
    match result {
        Ok(end) => Out::of(end),
        Err(e) if e.is_cancelled() => Out::Cancelled,
        Err(_) => Out::Panicked,
    }
}

fn failed(reason: &TaskFailure<u32>) -> Out {
    match reason {
        TaskFailure::Error(e) => Out::Failed(*e),
        TaskFailure::Join(e) if e.is_cancelled() => Out::Cancelled,
        TaskFailure::Join(_) => Out::Panicked,
    }
}

fn future_end(end: Result<u32, FutureError>) -> Out {
    match end {
        Ok(value) => Out::Value(value),
        Err(FutureError::Cancelled) => Out::Cancelled,
        Err(_) => Out::Abandoned,
    }
}

async fn started(env: &Env, start: Start, parts: Vec<Rc<Body>>) -> Out {
    let run = |part: &Rc<Body>| body(Env { task: part.id, ..env.clone() }, part.clone());
    let values = |values: Vec<u32>| Out::List(values.into_iter().map(Out::Value).collect());
    let first =
        |e: combine::TryGatherError<u32>| Out::At(e.index() as u32, Box::new(failed(e.reason())));
    match start {
        Start::Gather => {
            let all = combine::gather(parts.iter().map(run)).await;
            Out::List(all.into_iter().map(joined).collect())
        }
        Start::TryGather => {
            combine::try_gather(parts.iter().map(run)).await.map_or_else(first, values)
        }
        Start::Pair => {
            let (a, b) = combine::gather_tuple((run(&parts[0]), run(&parts[1]))).await;
            Out::List(vec![joined(a), joined(b)])
        }
        Start::TryPair => {
            let both = combine::try_gather_tuple((run(&parts[0]), run(&parts[1]))).await;
            both.map(|(a, b)| vec![a, b]).map_or_else(first, values)
        }
    }
}

/// What a step awaits; nothing is done before the first poll.
pub(super) fn eval(env: Env, id: Id, expr: Expr) -> Pin<Box<dyn Future<Output = Out>>> {
    Box::pin(async move { awaited(&env, id, expr).await.unwrap_or(Out::Absent) })
}

/// None if there is nothing to await.
async fn awaited(env: &Env, id: Id, expr: Expr) -> Option<Out> {
    let world = &*env.world;
    let run = |part: Rc<Body>| body(env.clone(), part);
    Some(match expr {
        Expr::Timeout(ms, inner) => {
            let inner = eval(env.clone(), id, *inner);
            timeout_at(world.after(ms), inner).await.unwrap_or(Out::Elapsed)
        }
        Expr::Race(a, b) => {
            let [a, b] = [a, b].map(|part| eval(env.clone(), id, *part));
            match combine::race(a, b).await {
                Either::First(out) => Out::First(Box::new(out)),
                Either::Second(out) => Out::Second(Box::new(out)),
            }
        }
        Expr::LetGo(ms, inner) => {
            let inner = Some(eval(env.clone(), id, *inner));
            LetGo { inner, limit: sleep_until(world.after(ms)) }.await
        }
        Expr::Started(start, parts) => started(env, start, parts).await,
        Expr::Block(part) => Out::of(run(part).await),
        Expr::Group(part) => {
            let grouped = combine::group(async |group: &TaskGroup<u32>| {
                let env = Env { group: Some(group.clone()), ..env.clone() };
                body(env, part).await
            });
            match grouped.await {
                Ok(value) => Out::Value(value),
                Err(e) => Out::List(
                    e.failures()
                        .iter()
                        .map(|failure| {
                            let number = failure.child.map_or(u32::MAX, |n| n as u32);
                            Out::At(number, Box::new(failed(&failure.reason)))
                        })
                        .collect(),
                ),
            }
        }
        Expr::Sleep(ms) => {
            sleep_until(world.after(ms)).await;
            Out::Unit
        }
        Expr::Yield => {
            coreloop::yield_now().await;
            Out::Unit
        }
        Expr::Join(task) | Expr::JoinRef(task) | Expr::Shield(task) | Expr::ShieldRef(task) => {
            let slot = env.own(task)?;
            let shielded = matches!(expr, Expr::Shield(_) | Expr::ShieldRef(_));
            let by_value = matches!(expr, Expr::Shield(_) | Expr::Join(_));
            if shielded && matches!(*slot.handle.borrow(), Some(Kept::Child(_))) {
                return None;
            }
            slot.busy.set(true);
            Awaits { slot, by_value, shielded }.await
        }
        Expr::JoinTimeout(task, ms) => {
            let mut lent = env.lend(&[task])?;
            let deadline = world.after(ms);
            let ended = lent.handles[0].timeout_at(deadline).await;
            if ended.is_ok() {
                lent.handles.clear();
            }
            ended.map_or(Out::Elapsed, joined)
        }
        Expr::Gather(tasks) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            let all = combine::gather_handles(handles).await;
            Out::List(all.into_iter().map(joined).collect())
        }
        Expr::TryGather(tasks) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            match combine::try_gather_handles(handles).await {
                Ok(values) => Out::List(values.into_iter().map(Out::Value).collect()),
                Err(e) => Out::At(e.index() as u32, Box::new(failed(e.reason()))),
            }
        }
        Expr::AsCompleted(tasks, ms, take) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            let mut ended = combine::as_completed(handles);
            if let Some(ms) = ms {
                ended = ended.until(world.after(ms));
            }
            for _ in 0..take {
                let Some((at, result)) = ended.next().await else { break };
                let out = match result {
                    Ok(end) => Out::of(end),
                    Err(WaitError::Elapsed) => Out::Elapsed,
                    Err(WaitError::Join(e)) => joined(Err(e)),
                };
                world.note(id, Out::At(at as u32, Box::new(out)));
            }
            Out::Unit
        }
        Expr::Wait(tasks, until, ms, fallible) => {
            let mut lent = env.lend(&tasks)?;
            let when = match until {
                Until::All => When::AllCompleted,
                Until::First => When::FirstCompleted,
                Until::Error => When::FirstError,
            };
            let limit = ms.map(|ms| world.after(ms).duration_since(Instant::now()));
            let waited = match fallible {
                true => combine::try_wait(&mut lent.handles, when, limit).await,
                false => combine::wait(&mut lent.handles, when, limit).await,
            };
            let [done, pending] = [waited.done, waited.pending]
                .map(|places| places.into_iter().map(|place| place as u32).collect());
            Out::Sets(done, pending)
        }
        Expr::Acquire(permits, part) => match world.semaphore.acquire_many(permits).await {
            Ok(_held) => Out::of(run(part).await),
            Err(_) => Out::Closed,
        },
        Expr::Lock(part) => {
            let mut value = world.mutex.lock().await;
            *value += 1;
            world.note(part.id, Out::Value(*value));
            Out::of(run(part).await)
        }
        Expr::Read(part) => {
            let _held = world.rw_lock.read().await;
            Out::of(run(part).await)
        }
        Expr::Write(part) => {
            let _held = world.rw_lock.write().await;
            Out::of(run(part).await)
        }
        Expr::Notified(want, part) => {
            let value = world.mutex.lock().await;
            let value = match want {
                None => world.condition.wait(value).await,
                Some(least) => world.condition.wait_for(value, |value| *value >= least).await,
            };
            world.note(part.id, Out::Value(*value));
            Out::of(run(part).await)
        }
        Expr::Event(at) => {
            world.flags[at].wait().await;
            Out::Unit
        }
        Expr::Put(queue) => {
            let item = world.item(id);
            let put = match queue {
                0 => world.fifo.put(item).await,
                1 => world.lifo.put(item).await,
                _ => world.priority.put(item).await,
            };
            if put.is_ok() {
                world.put_done(queue);
            }
            put.map_or(Out::Closed, |()| Out::Unit)
        }
        Expr::Get(queue) => {
            let got = match queue {
                0 => world.fifo.get().await,
                1 => world.lifo.get().await,
                _ => world.priority.get().await,
            };
            got.map_or(Out::Closed, |item| Out::Value(item.0))
        }
        Expr::Finished(queue) => {
            match queue {
                0 => world.fifo.join().await,
                1 => world.lifo.join().await,
                _ => world.priority.join().await,
            }
            Out::Unit
        }
        Expr::Barrier => match world.barrier.wait().await {
            Ok(place) => Out::Value(place.index() as u32),
            Err(_) => Out::Broken,
        },
        Expr::Once(part) => {
            let value = world.once.get_or_try_init(async || run(part).await).await;
            Out::of(value.copied())
        }
        Expr::Send => {
            let sender = world.sender.borrow().clone()?;
            let sent = sender.send(world.item(id)).await;
            sent.map_or(Out::Closed, |()| Out::Unit)
        }
        Expr::Reserve(part) => {
            let sender = world.sender.borrow().clone()?;
            match sender.reserve().await {
                Ok(room) => {
                    let end = run(part).await;
                    if end.is_ok() {
                        room.send(world.item(id));
                    }
                    Out::of(end)
                }
                Err(_) => Out::Closed,
            }
        }
        Expr::Recv => {
            let mut end = LentEnd::take(&world.receiver)?;
            let got = end.get().recv().await;
            got.map_or(Out::Closed, |item| Out::Value(item.0))
        }
        Expr::Hear(at) => {
            let mut end = LentEnd::take(&world.hearers[at])?;
            match end.get().recv().await {
                Ok(item) => Out::Value(item.0),
                Err(broadcast::RecvError::Lagged(lost)) => Out::Lagged(lost),
                Err(broadcast::RecvError::Closed) => Out::Closed,
            }
        }
        Expr::Changed => {
            let mut end = LentEnd::take(&world.watcher)?;
            match end.get().changed().await {
                Ok(()) => Out::Value(*end.get().borrow()),
                Err(_) => Out::Closed,
            }
        }
        Expr::Watched(least) => {
            let mut end = LentEnd::take(&world.watcher)?;
            let value = end.get().wait_for(|value| *value >= least).await;
            value.map_or(Out::Closed, |value| Out::Value(*value))
        }
        Expr::Oneshot(at) => {
            let busy = &world.busy[1][at];
            if busy.replace(true) {
                return None;
            }
            let poll = |cx: &mut Context<'_>| {
                let mut answer = world.answers[at].borrow_mut();
                let answer = answer.as_mut().expect("it stays in its place");
                let got = Pin::new(answer).poll(cx);
                got.map(|got| got.map_or(Out::Closed, |item| Out::Value(item.0)))
            };
            InPlace { busy, poll }.await
        }
        Expr::OneshotClosed(at) => {
            let busy = &world.busy[0][at];
            if world.oneshots[at].borrow().is_none() || busy.replace(true) {
                return None;
            }
            let poll = |cx: &mut Context<'_>| {
                let mut sender = world.oneshots[at].borrow_mut();
                let closed = sender.as_mut().expect("it is busy").closed();
                std::pin::pin!(closed).poll(cx).map(|()| Out::Unit)
            };
            InPlace { busy, poll }.await
        }
        Expr::Future(at) => future_end(world.futures[at].clone().await),
        Expr::FutureShielded(at) => future_end(combine::shield(world.futures[at].clone()).await),
    })
}
