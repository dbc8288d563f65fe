"""T4: the end of the main future ends the program."""

from asyncio import create_task

from stage import act, say, work


async def shorter():
    short, long = create_task(work("short", 2)), create_task(work("long", 5))
    await short
    say("main ends")


async def longer():
    short, long = create_task(work("short", 2)), create_task(work("long", 5))
    await long
    say("main ends")


act("awaiting the shorter", shorter)
act("awaiting the longer", longer)
