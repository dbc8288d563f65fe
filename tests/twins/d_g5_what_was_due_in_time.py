"""Difference: a task whose time came before the limit, while the loop was busy until after both."""

import asyncio
from asyncio import create_task

from stage import UNIT, act, compute, say, sleep


async def busy():
    tasks = [create_task(sleep(1, "a")), create_task(sleep(2, "b")), create_task(sleep(8, "c"))]
    for ended in asyncio.as_completed(tasks, timeout=3 * UNIT):
        try:
            say(await ended)
        except TimeoutError:
            say("late")
        compute(3)


act("busy until after the limit", busy)
