"""Difference: in which order a cancelled task and the one it awaited are gone."""

from asyncio import create_task

from stage import act, cancelled, guarded, say, sleep, yes


async def order():
    async def outer(inner):
        try:
            await inner
        finally:
            say("outer is gone")

    task = create_task(outer(create_task(guarded("inner", 5))))
    await sleep(1)
    task.cancel()
    await sleep(1)
    say(f"outer cancelled: {yes(task.cancelled())}")


act("two that end", order)
