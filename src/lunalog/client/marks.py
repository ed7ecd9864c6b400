"""When to tell the replicas what is committed: the next append carries it, if there is one (R12).

While appends follow each other, or the next one is made as soon as the last is acknowledged, none need
say it for them.  Who pauses between appends is not waited for: followers would be that much later.
While rolling, appends go to the next segment and tell the old set nothing, however long that takes.

Source: R11, R12; design.md section 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lunalog.core.leadership import LeaderMachine

PACED_S: Final = 0.0002
"""An append that comes so long after the last commit is of somebody who pauses between them.

Longer than a loop takes from one append to the next, and shorter than a follower takes to answer: two
programs that answer each other through a stream wait for this at every step.
"""


class Marks:
    """Calls `tell` when what is committed should be told without an append.

    Args:
        machine: Whose boundary and committed sequence it looks at.
        delay_s: How long an append is waited for.
        tell: Tells all replicas, unless they know.
    """

    def __init__(self, machine: LeaderMachine, delay_s: float, tell: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self._delay_s = delay_s
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._boundary = 0
        """What the boundary was when the timer was set."""
        self._moved_at = 0.0
        self._is_paced = False

    def appended(self, now: float) -> None:
        """Note that a frame goes out."""
        self._is_paced = now - self._moved_at > PACED_S

    def moved(self, now: float) -> None:
        """Note that acks made more committed."""
        self._moved_at = now

    def committed(self) -> None:
        """Tell at once, or later: the appends that became committed know it."""
        machine = self._machine
        is_last = self._is_paced or machine.next is not None
        if is_last and machine.committed == machine.boundary:
            self._tell()
        elif self._timer is None:
            self.later()

    def later(self) -> None:
        """Tell after `delay_s`, unless appends go on."""
        self.end()
        self._boundary = self._machine.boundary
        self._timer = self._loop.call_later(self._delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        machine = self._machine
        boundary = machine.boundary
        if boundary != self._boundary and machine.committed < boundary:
            self.later()
        else:
            self._tell()

    def end(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
