"""Difference: a task that catches its cancel."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, say, sleep


async def caught():
    async def stubborn():
        try:
            await sleep(5)
        except asyncio.CancelledError:
            say("told of the cancel")
        await sleep(2)
        say("it went on")

    task = create_task(stubborn())
    await sleep(1)
    task.cancel()
    say(f"cancelled: {await cancelled(task)}")


act("caught", caught)
