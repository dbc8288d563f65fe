"""F2: a block, a handle, a future, a timer."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, say, sleep


async def gathered():
    async def one():
        return 1

    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    results = await asyncio.gather(one(), create_task(sleep(2, 2)), future, sleep(1))
    say(f"results: {results[0]} {results[1]} {results[2]}")


async def limited():
    async def one():
        return 1

    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    say(f"a block: {await asyncio.wait_for(one(), 2 * UNIT)}")
    say(f"a handle: {await asyncio.wait_for(create_task(sleep(1, 2)), 2 * UNIT)}")
    say(f"a future: {await asyncio.wait_for(future, 2 * UNIT)}")
    await asyncio.wait_for(sleep(1), 2 * UNIT)
    say("a timer")


act("gathered", gathered)
act("under a limit", limited)
