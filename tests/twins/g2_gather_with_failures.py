"""G2: the first error at once, the others run on."""

import asyncio

from stage import act, fails, say, sleep, work


async def failing():
    try:
        await asyncio.gather(work("a", 1), fails(2, "refused"), work("c", 4), fails(3, "unheard"))
    except ValueError as e:
        say(f"error: {e}")
    await sleep(3)
    say("main ends")


act("the failing form", failing)
