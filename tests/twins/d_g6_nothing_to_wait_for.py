"""Difference: a wait for nothing."""

import asyncio

from stage import act, say


async def nothing():
    try:
        done, pending = await asyncio.wait([])
        say(f"done {len(done)}, pending {len(pending)}")
    except ValueError:
        say("an error")


act("nothing", nothing)
