"""When the events of an open loop are due, whatever became of those before them.

Nobody is asked whether it is ready: the moment at which an event was meant to leave is fixed before the
run begins, and its latency counts from there.  A stall is so felt by all that were due during it, not
only by the one that happened to be under way (coordinated omission).
"""

from __future__ import annotations

import math


class Schedule:
    """Units (events, or frames of them) at a fixed rate: number 0 at `start`."""

    def __init__(self, rate: float, start: float, units_max: int | None) -> None:
        self._rate = rate
        self._start = start
        self._units_max = units_max

    def intended(self, number: int) -> float:
        """Return the moment at which unit `number` is meant to leave."""
        return self._start + number / self._rate

    def due(self, now: float) -> int:
        """Return how many units were meant to leave by `now`."""
        if now < self._start:
            return 0
        count = math.floor((now - self._start) * self._rate) + 1
        while self.intended(count) <= now:
            count += 1
        while count > 0 and self.intended(count - 1) > now:
            count -= 1
        return count if self._units_max is None else min(count, self._units_max)

    def is_over(self, sent: int) -> bool:
        """True when nothing more will be due behind `sent` units."""
        return self._units_max is not None and sent >= self._units_max
