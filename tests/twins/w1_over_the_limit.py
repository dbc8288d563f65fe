"""W1: the cancel is complete before the error is returned."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, cancelled, guarded, say, yes


async def over():
    task = create_task(guarded("the task", 5))
    try:
        await asyncio.wait_for(task, 2 * UNIT)
    except TimeoutError:
        say("too late")
    say(f"cancelled: {yes(task.cancelled())}")


async def in_time():
    task = create_task(guarded("the task", 1))
    say(f"value: {await asyncio.wait_for(task, 2 * UNIT)}")
    say(f"cancelled: {yes(task.cancelled())}")


async def around_a_block():
    try:
        async with asyncio.timeout(2 * UNIT):
            await guarded("the future", 5)
    except TimeoutError:
        say("too late")


act("over it", over)
act("in time", in_time)
act("around what is no task", around_a_block)
