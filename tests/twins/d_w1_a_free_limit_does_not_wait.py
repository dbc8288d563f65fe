"""Difference: a limit around a handle, by the free function."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, guarded, say, sleep


async def limited():
    try:
        await asyncio.wait_for(create_task(guarded("the task", 5)), 2 * UNIT)
    except TimeoutError:
        say("too late")
    await sleep(1)


act("a free limit", limited)
