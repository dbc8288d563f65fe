//! The steps that never wait, on coreloop itself.
//!
//! Owns what each of them calls and how its answer is written down.

use coreloop::sync::{self, TryAcquireError, TryGetError, TryPutError, broadcast, mpsc, oneshot};

use super::Env;
use super::world::{Item, World};
use crate::model::program::{Act, CHANNEL, Id, Out};

/// Does it, and says what came of it.
pub(super) fn act(env: &Env, id: Id, act: Act) -> Out {
    of(env, id, act).unwrap_or(Out::Absent)
}

/// None if the end that it needs is gone or lent.
fn of(env: &Env, id: Id, act: Act) -> Option<Out> {
    let world = &*env.world;
    match act {
        Act::AddPermit => world.semaphore.add_permits(1),
        Act::TryAcquire(permits) => {
            return Some(match world.semaphore.try_acquire_many(permits) {
                Ok(_held) => Out::Unit,
                Err(TryAcquireError::Closed) => Out::Closed,
                Err(TryAcquireError::NoPermits) => Out::Full,
            });
        }
        Act::CloseSemaphore => world.semaphore.close(),
        Act::TryLock => return Some(tried(world.mutex.try_lock())),
        Act::TryRead => return Some(tried(world.rw_lock.try_read())),
        Act::TryWrite => return Some(tried(world.rw_lock.try_write())),
        Act::Set(at) => world.flags[at].set(),
        Act::Clear(at) => world.flags[at].clear(),
        Act::Notify(1) => world.condition.notify_one(),
        Act::Notify(n) => world.condition.notify(n),
        Act::NotifyAll => world.condition.notify_all(),
        Act::TryPut(queue) => return try_put(world, id, queue),
        Act::TryGet(queue) => return try_get(world, queue),
        Act::TaskDone(queue) => {
            let left = world.unfinished[queue].get().checked_sub(1)?;
            world.unfinished[queue].set(left);
            match queue {
                0 => world.fifo.task_done(),
                1 => world.lifo.task_done(),
                _ => world.priority.task_done(),
            }
        }
        Act::Shutdown(0) => world.fifo.shutdown(),
        Act::Shutdown(1) => world.lifo.shutdown(),
        Act::Shutdown(CHANNEL) => world.receiver.borrow_mut().as_mut()?.close(),
        Act::Shutdown(_) => world.priority.shutdown(),
        Act::ShutdownNow(CHANNEL) => {
            let receiver = world.receiver.take()?;
            drop(receiver);
        }
        Act::ShutdownNow(queue) => {
            let dropped = len(world, queue);
            let unfinished = &world.unfinished[queue];
            unfinished.set(unfinished.get().saturating_sub(dropped));
            match queue {
                0 => world.fifo.shutdown_now(),
                1 => world.lifo.shutdown_now(),
                _ => world.priority.shutdown_now(),
            }
        }
        Act::DropSender => {
            let sender = world.sender.take()?;
            drop(sender);
        }
        Act::ResetBarrier => world.barrier.reset(),
        Act::AbortBarrier => world.barrier.abort(),
        Act::SetOnce => return Some(Out::Flag(world.once.set(id).is_ok())),
        Act::Broadcast => {
            let sent = world.broadcast.borrow().as_ref()?.send(world.item(id));
            return Some(sent.map_or(Out::Closed, |receivers| Out::Value(receivers as u32)));
        }
        Act::TryHear(at) => {
            let heard = world.hearers[at].borrow_mut().as_mut()?.try_recv();
            return Some(match heard {
                Ok(item) => Out::Value(item.0),
                Err(broadcast::TryRecvError::Empty) => Out::Empty,
                Err(broadcast::TryRecvError::Lagged(lost)) => Out::Lagged(lost),
                Err(broadcast::TryRecvError::Closed) => Out::Closed,
            });
        }
        Act::DropBroadcast => {
            let sender = world.broadcast.take()?;
            drop(sender);
        }
        Act::DropHearer(at) => {
            let hearer = world.hearers[at].take()?;
            drop(hearer);
        }
        Act::Watch => {
            let sender = world.watch.borrow();
            sender.as_ref()?.send_modify(|value| *value += 1);
            world.versions.set(world.versions.get() + 1);
        }
        Act::DropWatch => {
            let sender = world.watch.take()?;
            drop(sender);
        }
        Act::SendOneshot(at) | Act::DropOneshot(at) => {
            if world.busy[0][at].get() {
                return None;
            }
            let sender = world.oneshots[at].take()?;
            if let Act::SendOneshot(_) = act {
                return Some(Out::Flag(sender.send(world.item(id)).is_ok()));
            }
            drop(sender);
        }
        Act::TryOneshot(at) | Act::CloseOneshot(at) => {
            if world.busy[1][at].get() {
                return None;
            }
            let mut receiver = world.answers[at].borrow_mut();
            let receiver = receiver.as_mut()?;
            if let Act::TryOneshot(_) = act {
                return Some(match receiver.try_recv() {
                    Ok(item) => Out::Value(item.0),
                    Err(oneshot::TryRecvError::Empty) => Out::Empty,
                    Err(oneshot::TryRecvError::Closed) => Out::Closed,
                });
            }
            receiver.close();
        }
        Act::Complete(at) => {
            let completed = world.completers[at].borrow().as_ref()?.complete(id);
            return Some(Out::Flag(completed.is_ok()));
        }
        Act::CancelCompleter(at) => {
            let cancelled = world.completers[at].borrow().as_ref()?.cancel();
            return Some(Out::Flag(cancelled));
        }
        Act::Abandon(at) => {
            let completer = world.completers[at].take()?;
            drop(completer);
        }
        Act::CancelFuture(at) => return Some(Out::Flag(world.futures[at].cancel())),
        Act::CancelGroup => env.group.as_ref()?.cancel(),
        Act::Probe => return Some(Out::Numbers(probe(world))),
    }
    Some(Out::Unit)
}

fn tried<T>(result: Result<T, sync::TryLockError>) -> Out {
    result.map_or(Out::Full, |_held| Out::Unit)
}

fn try_put(world: &World, id: Id, queue: usize) -> Option<Out> {
    let item = world.item(id);
    let put = match queue {
        0 => world.fifo.try_put(item),
        1 => world.lifo.try_put(item),
        CHANNEL => {
            let sent = world.sender.borrow().as_ref()?.try_send(item);
            return Some(match sent {
                Ok(()) => Out::Unit,
                Err(mpsc::TrySendError::Full(_)) => Out::Full,
                Err(mpsc::TrySendError::Closed(_)) => Out::Closed,
            });
        }
        _ => world.priority.try_put(item),
    };
    Some(match put {
        Ok(()) => {
            world.put_done(queue);
            Out::Unit
        }
        Err(TryPutError::Full(_)) => Out::Full,
        Err(TryPutError::ShutDown(_)) => Out::Closed,
    })
}

fn try_get(world: &World, queue: usize) -> Option<Out> {
    let value = |item: Item| Out::Value(item.0);
    let got = match queue {
        0 => world.fifo.try_get(),
        1 => world.lifo.try_get(),
        CHANNEL => {
            let got = world.receiver.borrow_mut().as_mut()?.try_recv();
            return Some(match got {
                Ok(item) => value(item),
                Err(mpsc::TryRecvError::Empty) => Out::Empty,
                Err(mpsc::TryRecvError::Disconnected) => Out::Closed,
            });
        }
        _ => world.priority.try_get(),
    };
    Some(match got {
        Ok(item) => value(item),
        Err(TryGetError::Empty) => Out::Empty,
        Err(TryGetError::ShutDown) => Out::Closed,
    })
}

fn len(world: &World, queue: usize) -> usize {
    match queue {
        0 => world.fifo.len(),
        1 => world.lifo.len(),
        _ => world.priority.len(),
    }
}

/// Everything that can be asked.
fn probe(world: &World) -> Vec<u64> {
    let mut seen = vec![
        world.semaphore.available_permits() as u64,
        u64::from(world.mutex.is_locked()),
        world.barrier.waiting() as u64,
        u64::from(world.barrier.is_broken()),
        u64::from(world.once.get().is_some()),
        world.versions.get(),
    ];
    let full = [world.fifo.is_full(), world.lifo.is_full(), world.priority.is_full()];
    for (queue, full) in full.into_iter().enumerate() {
        seen.push(len(world, queue) as u64);
        seen.push(u64::from(full));
    }
    for (flag, future) in world.flags.iter().zip(&world.futures) {
        seen.push(u64::from(flag.is_set()));
        seen.push(u64::from(future.is_done()));
    }
    if let Some(sender) = &*world.broadcast.borrow() {
        seen.push(sender.len() as u64);
    }
    seen
}
