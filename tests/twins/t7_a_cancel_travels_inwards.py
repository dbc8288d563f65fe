"""T7: through awaited tasks and futures, not past a shield, not to what is held."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, guarded, say, sleep, work, yes


async def awaits(inner):
    return await inner


async def a_task():
    outer = create_task(awaits(create_task(guarded("inner", 5))))
    await sleep(1)
    outer.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(outer.cancelled())}")


async def two_deep():
    outer = create_task(awaits(create_task(awaits(create_task(guarded("inner", 5))))))
    await sleep(1)
    outer.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(outer.cancelled())}")


async def a_future():
    future = asyncio.get_running_loop().create_future()
    outer = create_task(awaits(future))
    await sleep(1)
    outer.cancel()
    await sleep(1)
    say(f"future cancelled: {yes(future.cancelled())}")


async def shielded():
    outer = create_task(awaits(asyncio.shield(create_task(work("inner", 3)))))
    await sleep(1)
    outer.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(outer.cancelled())}")
    await sleep(2)


async def held():
    async def holds(inner):
        await sleep(9)
        await inner

    outer = create_task(holds(create_task(work("inner", 3))))
    await sleep(1)
    outer.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(outer.cancelled())}")
    await sleep(2)


act("an awaited task", a_task)
act("two deep", two_deep)
act("an awaited future", a_future)
act("shielded", shielded)
act("merely held", held)
