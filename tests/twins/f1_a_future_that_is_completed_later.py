"""F1: with a value, with an error, once, or cancelled."""

import asyncio
from asyncio import create_task

from stage import act, cancelled, say, sleep, yes


async def waits(name, future):
    try:
        say(f"{name}: {await future}")
    except ValueError as e:
        say(f"{name}: error {e}")
    except asyncio.CancelledError:
        say(f"{name}: cancelled")


async def a_value():
    future = asyncio.get_running_loop().create_future()
    a, b = create_task(waits("a", future)), create_task(waits("b", future))
    await sleep(1)
    say(f"done: {yes(future.done())}")
    await sleep(1)
    future.set_result(7)
    await a
    await b
    say(f"done: {yes(future.done())}")
    try:
        future.set_result(8)
    except asyncio.InvalidStateError:
        say("a second time is refused")
    say(f"once more: {await future}")


async def an_error():
    future = asyncio.get_running_loop().create_future()
    a = create_task(waits("a", future))
    await sleep(1)
    future.set_exception(ValueError("boom"))
    await a


async def a_cancel():
    future = asyncio.get_running_loop().create_future()
    a = create_task(waits("a", future))
    await sleep(1)
    say(f"asked: {yes(future.cancel())}")
    await a
    say(f"again: {yes(future.cancel())}")
    try:
        future.set_result(8)
    except asyncio.InvalidStateError:
        say("a value is refused")


act("a value", a_value)
act("an error", an_error)
act("a cancel", a_cancel)
