"""T3: a zero sleep gives way for one iteration. 6 units."""

from asyncio import create_task

from stage import act, compute, say, sleep, work


async def before_computing():
    a, b = create_task(work("a", 5)), create_task(work("b", 6))
    await sleep(0)
    compute(2.5)
    say("computed")
    await a
    await b
    say("both are over")


async def one_iteration():
    async def in_turn(name):
        for turn in range(3):
            say(f"{name} {turn}")
            await sleep(0)

    a, b = create_task(in_turn("a")), create_task(in_turn("b"))
    await a
    await b


act("before computing", before_computing)
act("exactly one iteration", one_iteration)
