"""What the Python twins share: units of time, and events printed with the time at which they came.

Time is virtual: the loop's clock jumps to the next timer instead of waiting for it, and computing moves it
on. With TWIN_UNIT_MS set, time is real, in units of so many milliseconds. Times are rounded to half units.
"""

import asyncio
import os
import selectors
import time

UNIT_MS = os.environ.get("TWIN_UNIT_MS")
UNIT = float(UNIT_MS) / 1000 if UNIT_MS else 1.0
CLOCK = {"now": 1000.0, "began": 0.0}


def now():
    return time.monotonic() if UNIT_MS else CLOCK["now"]


class Jumping(selectors.DefaultSelector):
    """Waits by moving the clock."""

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            CLOCK["now"] += timeout
        if not ready and timeout is None:
            raise RuntimeError("nothing would ever happen")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__(Jumping())

    def time(self):
        return CLOCK["now"]


def say(event):
    print(f"{round((now() - CLOCK['began']) / UNIT * 2) / 2:.1f} {event}", flush=True)


def yes(truth):
    return "yes" if truth else "no"


def compute(units):
    """Keeps the loop busy."""
    if UNIT_MS:
        time.sleep(units * UNIT)
    else:
        CLOCK["now"] += units


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
        CLOCK["began"] = now()
        return await main()

    with asyncio.Runner(loop_factory=None if UNIT_MS else VirtualLoop) as runner:
        return runner.run(begin())
