"""G5: as they end, with a limit for the whole."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, say, sleep, work


async def of(name, units):
    await sleep(units)
    return name


async def in_order():
    for ended in asyncio.as_completed([of("a", 3), of("b", 1), of("c", 2)]):
        say(await ended)


async def over_the_limit():
    tasks = [create_task(work("a", 4)), create_task(work("b", 1)), create_task(work("c", 5))]
    for ended in asyncio.as_completed(tasks, timeout=2.5 * UNIT):
        try:
            say(f"value {await ended}")
        except TimeoutError:
            say("late")
    await asyncio.wait(tasks)
    say("they ran on")


async def what_had_ended():
    tasks = [create_task(of("a", 8)), create_task(of("b", 1)), create_task(of("c", 2))]
    for ended in asyncio.as_completed(tasks, timeout=3 * UNIT):
        try:
            say(await ended)
        except TimeoutError:
            say("late")
        await sleep(3)


act("in the order of their ends", in_order)
act("over the limit", over_the_limit)
act("what had ended comes first", what_had_ended)
