"""Difference: which of two nested limits reports, when both expire at once."""

import asyncio

from stage import act, after, say, sleep


async def both():
    at = after(2)
    try:
        async with asyncio.timeout_at(at):
            try:
                async with asyncio.timeout_at(at):
                    await sleep(9)
            except TimeoutError:
                say("the inner one is over")
    except TimeoutError:
        say("the outer one is over")


act("the same moment", both)
