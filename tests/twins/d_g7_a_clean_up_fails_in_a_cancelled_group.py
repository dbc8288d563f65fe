"""Difference: errors of clean-ups, when the group itself was cancelled."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, fails, say, sleep, yes


async def failing_clean_up():
    async def child():
        try:
            await sleep(5)
        finally:
            raise ValueError("in the clean-up")

    async def runs():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    task = create_task(runs())
    await sleep(1)
    task.cancel()
    await asyncio.wait([task])
    say(f"cancelled: {yes(task.cancelled())}")
    if not task.cancelled():
        say(f"error: {task.exception().exceptions[0]}")


act("a clean-up that fails", failing_clean_up)
