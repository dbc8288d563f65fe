"""T2: nothing else runs until the first pending await. 8.5 units, and 7.5."""

from asyncio import create_task

from stage import act, compute, say, sleep, work


async def before_the_first_await():
    a, b = create_task(work("a", 5)), create_task(work("b", 6))
    compute(2.5)
    say("computed")
    await a
    await b
    say("both are over")


async def between_the_awaits():
    a, b = create_task(work("a", 5)), create_task(work("b", 6))
    await a
    compute(2.5)
    say("computed")
    await b
    say("both are over")


async def a_task_ahead():
    async def computes():
        say("computes")
        compute(3)

    ahead, behind = create_task(computes()), create_task(work("behind", 2))
    await ahead
    await behind


async def ready_awaits():
    async def ready():
        return 7

    async def other():
        say("the task runs")

    task = create_task(other())
    say(f"ready: {await ready()}")
    say("it did not give way")
    await task
    say("now it did")


async def nobody_awaits():
    coroutine = work("nobody's", 1)
    await sleep(2)
    say("it did nothing")
    coroutine.close()


act("computing before the first await", before_the_first_await)
act("computing between the awaits", between_the_awaits)
act("a computing task ahead in the queue", a_task_ahead)
act("awaiting what is ready", ready_awaits)
act("neither spawned nor awaited", nobody_awaits)
