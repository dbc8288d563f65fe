"""G4: a cancel reaches the children; an empty gather is ready."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, guarded, say, sleep, work, yes


async def by_a_cancel():
    async def gathers():
        await asyncio.gather(guarded("a", 5), guarded("b", 5), work("c", 1))

    outer = create_task(gathers())
    await sleep(2)
    outer.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(outer.cancelled())}")


async def empty():
    say(f"{len(await asyncio.gather())} results")


act("cancelled", by_a_cancel)
act("empty", empty)
