"""T5: a handle is asked without waiting, and dropped without harm."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, say, sleep, work, yes


async def asked():
    async def seven():
        await sleep(2)
        return 7

    task = create_task(seven())
    say(f"finished: {yes(task.done())}")
    await sleep(1)
    try:
        task.result()
    except asyncio.InvalidStateError:
        say("no result yet")
    await sleep(2)
    say(f"finished: {yes(task.done())}, cancelled: {yes(task.cancelled())}")
    say(f"result: {task.result()}")


async def dropped():
    task = create_task(work("nobody's", 2))
    await sleep(1)
    del task
    await sleep(2)
    say("main ends")


act("asked", asked)
act("dropped", dropped)
