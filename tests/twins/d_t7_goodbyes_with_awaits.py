"""Difference: awaits in the clean-up of a task that is cancelled."""

from asyncio import create_task

from stage import act, cancelled, say, sleep


async def goodbyes():
    async def polite():
        try:
            await sleep(5)
        finally:
            say("cleans up")
            await sleep(2)
            say("said goodbye")

    task = create_task(polite())
    await sleep(1)
    task.cancel()
    say(f"cancelled: {await cancelled(task)}")


act("goodbyes", goodbyes)
