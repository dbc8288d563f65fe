"""W2: the inner task outlives the limit and the canceller."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, cancelled, say, sleep, work, yes


async def the_limit():
    task = create_task(work("inner", 4))
    try:
        await asyncio.wait_for(asyncio.shield(task), 2 * UNIT)
    except TimeoutError:
        say("too late")
    say(f"cancelled: {yes(task.cancelled())}")
    say(f"value: {await task}")


async def the_canceller():
    async def outer(inner):
        await asyncio.shield(inner)

    task = create_task(outer(create_task(work("inner", 4))))
    await sleep(1)
    task.cancel()
    say(f"outer cancelled: {await cancelled(task)}")
    await sleep(4)


act("the limit", the_limit)
act("the canceller", the_canceller)
