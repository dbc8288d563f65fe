"""T6: before the first poll, at the next await, after the end."""

from asyncio import create_task

from stage import act, after, cancelled, compute, guarded, say, sleep, work, yes


async def before_the_first_poll():
    task = create_task(work("never", 1))
    say(f"asked: {yes(task.cancel())}")
    say(f"cancelled: {await cancelled(task)}")


async def waiting():
    task = create_task(guarded("it", 5))
    await sleep(1)
    task.cancel()
    say(f"not yet: {yes(not task.done())}")
    say(f"cancelled: {await cancelled(task)}")


async def itself():
    own = []

    async def runs():
        own[0].cancel()
        compute(1)
        say("runs on to its next await")
        await sleep(1)
        say("and no further")

    own.append(create_task(runs()))
    await sleep(3)
    say(f"cancelled: {yes(own[0].cancelled())}")


async def too_late():
    async def seven():
        return 7

    task = create_task(seven())
    await sleep(1)
    say(f"asked: {yes(task.cancel())}")
    say(f"result: {await task}")


act("before the first poll", before_the_first_poll)
act("while it waits", waiting)
act("by itself", itself)
act("after its end", too_late)
