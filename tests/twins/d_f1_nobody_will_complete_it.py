"""Difference: the one who was to complete a future is gone."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, say, sleep


async def abandoned():
    future = asyncio.get_running_loop().create_future()

    async def promises():
        await sleep(1)
        return future.done()

    task = create_task(promises())
    try:
        say(f"value: {await asyncio.wait_for(future, 4 * UNIT)}")
    except TimeoutError:
        say("still nothing")


act("abandoned", abandoned)
