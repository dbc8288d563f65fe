"""Difference: a task that is cancelled in the very poll in which it returns."""

from asyncio import create_task

from stage import act, cancelled, say, sleep, yes


async def last():
    own = []

    async def ends():
        own[0].cancel()
        return 7

    own.append(create_task(ends()))
    await sleep(1)
    task = own[0]
    say(f"cancelled: {yes(task.cancelled())}")


act("in its last poll", last)
