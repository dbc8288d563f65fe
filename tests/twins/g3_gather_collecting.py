"""G3: every result, errors in their places."""

import asyncio

from stage import act, fails, say, work


async def collecting():
    results = await asyncio.gather(
        work("a", 1), fails(2, "refused"), work("c", 4), return_exceptions=True
    )
    for result in results:
        say(f"error {result}" if isinstance(result, ValueError) else f"value {result}")


act("the collecting form", collecting)
