"""G6: (done, pending) under three conditions and a limit."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, cancelled, fails, say, sleep, yes


def begin(*units, failing=None):
    tasks = []
    for number, n in enumerate(units):
        tasks.append(create_task(fails(n, "boom") if number == failing else sleep(n)))
    return tasks


def told(tasks, waited):
    done, pending = (sorted(tasks.index(t) for t in some) for some in waited)
    for t in waited[0]:
        t.cancelled() or t.exception()
    say(f"done {done}, pending {pending}")


async def all_completed():
    tasks = begin(1, 3, 2)
    told(tasks, await asyncio.wait(tasks))


async def first_completed():
    tasks = begin(2, 1, 3)
    told(tasks, await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    told(tasks, await asyncio.wait(tasks))


async def first_exception():
    tasks = begin(1, 2, 4, failing=1)
    told(tasks, await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))


async def no_exception():
    tasks = begin(1, 2)
    told(tasks, await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))


async def with_a_limit():
    tasks = begin(4, 1, 3)
    told(tasks, await asyncio.wait(tasks, timeout=2 * UNIT))
    say(f"cancelled: {yes(any(t.cancelled() for t in tasks))}")
    tasks[0].cancel()
    told(tasks, await asyncio.wait(tasks))
    say(f"the first cancelled: {yes(tasks[0].cancelled())}")


act("all completed", all_completed)
act("first completed", first_completed)
act("first exception", first_exception)
act("first exception, and there is none", no_exception)
act("with a limit", with_a_limit)
