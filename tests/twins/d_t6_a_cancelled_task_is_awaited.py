"""Difference: what the cancel of an awaited task does to its awaiter."""

from asyncio import create_task

from stage import act, cancelled, say, sleep, yes


async def awaited():
    async def outer(inner):
        await inner
        say("outer goes on")

    inner = create_task(sleep(5))
    task = create_task(outer(inner))
    await sleep(1)
    inner.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(task.cancelled())}")


act("a cancelled task is awaited", awaited)
