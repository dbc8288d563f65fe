"""Difference: tasks that were spawned when the main future ends without ever having given way."""

from asyncio import create_task

from stage import act, compute, guarded, say, work


async def spawned():
    tasks = [create_task(work("a", 1)), create_task(guarded("b", 1))]
    compute(2)
    say(f"main ends, having spawned {len(tasks)}")


act("never given way", spawned)
