"""W4: it means never."""

import asyncio

from stage import act, say, sleep


async def enormous():
    say(f"value: {await asyncio.wait_for(sleep(2, 7), 1e12)}")
    async with asyncio.timeout(1e12):
        await sleep(1)
    say("no overflow")


act("an enormous limit", enormous)
