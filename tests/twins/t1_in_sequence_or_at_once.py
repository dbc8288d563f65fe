"""T1: two sleeps one after the other take their sum, as tasks the longer one."""

from asyncio import create_task

from stage import act, after, say, sleep


async def in_sequence():
    await sleep(1)
    say("the first is over")
    await sleep(2)
    say("the second is over")


async def as_tasks():
    one, two = create_task(sleep(1)), create_task(sleep(2))
    await one
    say("the first is over")
    await two
    say("the second is over")


act("one after the other", in_sequence)
act("as tasks", as_tasks)
