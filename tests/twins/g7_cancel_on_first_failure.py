"""G7: one request is answered 429, the rest are called off."""

import asyncio
from asyncio import create_task

from stage import act, fails, say, sleep


async def request(name, units, answer):
    try:
        await sleep(units)
        say(f"{name}: {answer}")
        if answer != 200:
            raise ValueError(answer)
        return answer
    except asyncio.CancelledError:
        say("one is called off")  # Python keeps them in a set: in any order
        raise


async def first_failure():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(request("a", 1, 200))
            group.create_task(request("b", 5, 200))
            group.create_task(request("c", 2, 429))
            group.create_task(request("d", 6, 200))
    except* ValueError as e:
        say(f"failed: {' '.join(map(str, e.exceptions))}")


async def while_the_body_runs():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(request("a", 1, 429))
            await sleep(3)
            say("not reached")
    except* ValueError as e:
        say(f"failed: {' '.join(map(str, e.exceptions))}")


async def every_error():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(request("a", 3, 200))
            group.create_task(request("b", 1, 200))
            await sleep(2)
            raise ValueError("the body")
    except* ValueError as e:
        say(f"failed: {' '.join(map(str, e.exceptions))}")


async def all_well():
    async with asyncio.TaskGroup() as group:
        group.create_task(request("a", 3, 200))
        group.create_task(request("b", 1, 200))
        say("the body is over")
    say("all have ended")


async def added_by_children():
    async def parent(group):
        await sleep(1)
        group.create_task(request("child", 2, 200))
        say("parent is over")

    async with asyncio.TaskGroup() as group:
        group.create_task(parent(group))
    say("all have ended")


act("the first failure", first_failure)
act("while the body runs", while_the_body_runs)
act("the body fails", every_error)
act("all well", all_well)
act("children add children", added_by_children)
