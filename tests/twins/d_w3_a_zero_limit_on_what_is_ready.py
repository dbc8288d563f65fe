"""Difference: a limit of zero, around what would be ready at once."""

import asyncio

from stage import act, say


async def zero():
    async def ready():
        say("it runs")
        return 7

    for limit in [0, -1]:
        try:
            say(f"value: {await asyncio.wait_for(ready(), limit)}")
        except TimeoutError:
            say("too late")


act("a limit of zero", zero)
