"""G8: the first is taken, the losers are cancelled."""

import asyncio
from asyncio import create_task

from stage import act, guarded, say, sleep


async def race():
    tasks = {create_task(guarded("a", 3)): "a", create_task(sleep(1, 7)): "b"}
    done, losers = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    await asyncio.wait(losers)
    winner = done.pop()
    say(f"{tasks[winner]} won: {winner.result()}")


act("a race", race)
