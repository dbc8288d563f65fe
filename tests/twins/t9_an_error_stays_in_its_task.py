"""T9: the awaiter gets it, the others go on."""

from asyncio import create_task

from stage import act, fails, say, work


async def awaited():
    a, b = create_task(fails(1, "boom")), create_task(work("b", 2))
    try:
        await a
    except ValueError as e:
        say(f"a failed: {e}")
    await b
    say("the loop went on")


async def nobody_asks():
    task = create_task(fails(1, "boom"))
    del task
    await work("main", 2)


act("awaited", awaited)
act("nobody asks", nobody_asks)
