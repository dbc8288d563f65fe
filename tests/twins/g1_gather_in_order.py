"""G1: results in the order in which they were passed."""

import asyncio

from stage import act, say, work


async def gathered():
    results = await asyncio.gather(work("a", 3), work("b", 1), work("c", 2))
    say(f"results: {' '.join(map(str, results))}")


act("gather", gathered)
