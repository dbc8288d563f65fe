"""T10: a task has a name, and the current one can be asked."""

import asyncio
from asyncio import create_task

from stage import act, after, say, sleep


async def names():
    async def own():
        say(f"within: {asyncio.current_task().get_name()}")
        await sleep(1)
        say(f"and after an await: {asyncio.current_task().get_name()}")

    task = create_task(own(), name="worker-7")
    say(f"by its handle: {task.get_name()}")
    await task


act("names", names)
