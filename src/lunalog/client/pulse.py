"""Look whether acks that are due have come: for all leaders of a client, by one timer.

A server works off what a connection brings in its order.  While it acknowledges other streams' frames,
a stream that still owes acks stands in line there, and is no sign that the server is silent: each such
leader looks at every fourth beat only.  Where a server has acknowledged nothing since the last beat, all
who write to it look.

Source: R11; design.md section 5; trap 50.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Final, Protocol

WHOLE_BEATS: Final = 4
"""At every so many beats a leader counts everybody's silence."""


class Watched(Protocol):
    """A leader that acks are due to."""

    @property
    def servers(self) -> Set[str]:
        """Names of those it writes to."""
        ...

    def look(self, silent: Set[str] | None) -> bool:
        """Look whether acks have come, of `silent` or of all; true while some are still due."""
        ...


class Pulse:
    """Beats while somebody waits for acks.

    Args:
        beat_s: Seconds between two beats, at least: a loop that stood still has one, not many.
        silent: Names who has acknowledged nothing since it was called last.
    """

    def __init__(self, beat_s: float, silent: Callable[[], Set[str]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat_s = beat_s
        self._silent = silent
        self._new: dict[Watched, None] = {}
        """Who has waited for less than an interval yet."""
        self._watched: dict[Watched, int] = {}
        """Everybody else, and the beat at which each counts all members' silence."""
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, leader: Watched) -> None:
        """Let `leader` look, from the next whole interval on, until nothing is due to it."""
        if self._timer is not None:
            self._new[leader] = None
            return
        self._silent()  # who owed nothing was not silent
        self._watched[leader] = self._beats + 1
        self._timer = self._loop.call_later(self._beat_s, self._beat)

    def forget(self, leader: Watched) -> None:
        """Let `leader` look no more."""
        self._watched.pop(leader, None)
        self._new.pop(leader, None)

    def _beat(self) -> None:
        self._beats += 1
        silent = self._silent()
        for leader, whole_at in list(self._watched.items()):
            if leader not in self._watched:
                continue  # it ended when another one looked
            if self._beats >= whole_at:
                self._watched[leader] = self._beats + WHOLE_BEATS
                is_due = leader.look(None)
            elif silent and not silent.isdisjoint(leader.servers):
                is_due = leader.look(silent)
            else:
                continue
            if not is_due:
                self.forget(leader)
        new, self._new = self._new, {}
        for number, leader in enumerate(new):
            self._watched[leader] = self._beats + 1 + number % WHOLE_BEATS
        self._timer = None
        if self._watched:
            self._timer = self._loop.call_later(self._beat_s, self._beat)
