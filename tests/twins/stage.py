"""What the Python twins share: units of time, and events printed with the time at which they came.

A unit is TWIN_UNIT_MS milliseconds (50). Times are rounded to half units.
"""

import asyncio
import os
import time

UNIT = float(os.environ.get("TWIN_UNIT_MS", "50")) / 1000
CLOCK = {"began": 0.0}


def say(event):
    now = (time.monotonic() - CLOCK["began"]) / UNIT
    print(f"{round(now * 2) / 2:.1f} {event}", flush=True)


def yes(truth):
    return "yes" if truth else "no"


def compute(units):
    """Keeps the loop busy."""
    time.sleep(units * UNIT)


async def sleep(units, result=None):
    return await asyncio.sleep(units * UNIT, result)


def after(units):
    """A point in time for the loop."""
    return asyncio.get_running_loop().time() + units * UNIT


async def work(name, units):
    say(f"{name} starts")
    await sleep(units)
    say(f"{name} is over")
    return units


async def guarded(name, units):
    """Says when it is gone, and when it was over."""
    try:
        await sleep(units)
        say(f"{name} is over")
        return units
    finally:
        say(f"{name} is gone")


async def fails(units, why):
    await sleep(units)
    raise ValueError(why)


async def cancelled(task):
    """Waits for a task; whether it was cancelled."""
    await asyncio.wait([task])
    return yes(task.cancelled())


def act(title, main):
    """Runs a program of its own."""
    print(f"-- {title}", flush=True)

    async def begin():
        CLOCK["began"] = time.monotonic()
        return await main()

    return asyncio.run(begin())
