"""W3: each limit reports its own expiry, and can be moved or lifted."""

import asyncio

from stage import UNIT, act, after, say, sleep


async def inner_first():
    async with asyncio.timeout(6 * UNIT):
        try:
            async with asyncio.timeout(2 * UNIT):
                await sleep(9)
        except TimeoutError:
            say("the inner one is over")
        await sleep(2)
        say("the rest had time")


async def outer_first():
    try:
        async with asyncio.timeout(2 * UNIT):
            try:
                async with asyncio.timeout(6 * UNIT):
                    await sleep(9)
            except TimeoutError:
                say("the inner one is over")
    except TimeoutError:
        say("the outer one is over")


async def moved():
    try:
        async with asyncio.timeout(2 * UNIT) as limit:
            await sleep(1)
            limit.reschedule(after(3))
            await sleep(9)
    except TimeoutError:
        say("over")


async def lifted():
    async with asyncio.timeout(2 * UNIT) as limit:
        await sleep(1)
        limit.reschedule(None)
        await sleep(3)
        say("it had time")


act("the inner one first", inner_first)
act("the outer one first", outer_first)
act("moved", moved)
act("lifted", lifted)
