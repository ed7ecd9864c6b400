"""Stand-ins for the real clock and the real chance, for code that was not written for a simulator.

While they are in place, code on a simulated loop that asks the modules `time`, `random` and `os` gets
its own node's clocks and chance from the seed; all other code, other threads included, gets the real
ones.  Who holds a function of its own (`from time import monotonic`) is not reached.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Any

from lunalog.testing.clock import NodeClock
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.scheduler import SimulationError


class StandIns:
    """Put in place by `install`, taken away by `remove`.

    Args:
        seed: All chance comes from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bytes = random.Random(f"{seed}/urandom")
        self._chance: Any = None
        self._real: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        """Take the place of the real ones."""
        self._chance = random.getstate()
        random.seed(f"{self._seed}/random")
        self._replace(time, "time", lambda clock: clock.wall_us() / 1e6)
        self._replace(time, "time_ns", lambda clock: clock.wall_us() * 1000)
        for name in ("monotonic", "perf_counter"):
            self._replace(time, name, lambda clock: clock.monotonic())
            self._replace(time, f"{name}_ns", lambda clock: int(clock.monotonic() * 1e9))
        self._replace(time, "sleep", _refuse_to_sleep)
        self._replace(os, "urandom", lambda _, size: self._bytes.randbytes(size))

    def remove(self) -> None:
        """Put the real ones back."""
        while self._real:
            module, name, real = self._real.pop()
            setattr(module, name, real)
        random.setstate(self._chance)

    def _replace(self, module: Any, name: str, simulated: Callable[..., Any]) -> None:
        real = getattr(module, name)

        def stand_in(*args: Any) -> Any:
            clock = _clock_of_caller()
            return real(*args) if clock is None else simulated(clock, *args)

        self._real.append((module, name, real))
        setattr(module, name, stand_in)


def _clock_of_caller() -> NodeClock | None:
    loop = asyncio._get_running_loop()
    return loop.owner.clock if isinstance(loop, SimulatedLoop) else None


def _refuse_to_sleep(_: NodeClock, seconds: float) -> None:
    raise SimulationError(
        f"time.sleep({seconds!r}) stops a whole event loop, simulated or not: await asyncio.sleep"
    )
