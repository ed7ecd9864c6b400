"""Look whether acks that are due have come: for all leaders of a client, by one timer.

A server works off what a connection brings in its order.  While it acknowledges other streams' frames,
a stream to which acks are due stands in line there, and that is no sign of silence: its leader counts
every fourth beat only, and looks no more often.  Where a server has acknowledged nothing since the last
beat, all who write to it look; and so does, at every beat, who waits for more than acks.

Source: R11; design.md section 5; trap 50.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Final, Protocol

WHOLE_BEATS: Final = 4
"""At every so many beats a leader counts everybody's silence ..."""
WHOLE_S: Final = 0.25
"""... which are no further apart than this, if a beat is not longer itself."""


class Watched(Protocol):
    """A leader that acks are due to."""

    servers: Set[str]
    """Names of those it writes to."""

    @property
    def is_steady(self) -> bool:
        """True while nothing but acks is waited for, and none for long: else it looks at every beat."""
        ...

    def look(self, silent: Set[str] | None) -> bool:
        """Look whether acks have come, of `silent` or of all; true while some are still due."""
        ...


class Pulse:
    """Beats while somebody waits for acks.

    Args:
        beat_s: Seconds between two beats, at least: a loop that stood still has one, not many.
        take_silent: Names who has acknowledged nothing since it was called last.
        fail: Called with what may not happen, which would be lost in a callback (R27).
    """

    def __init__(
        self,
        beat_s: float,
        take_silent: Callable[[], Set[str]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat_s = beat_s
        self._whole_beats = max(1, min(WHOLE_BEATS, round(WHOLE_S / beat_s))) if beat_s else 1
        self._take_silent = take_silent
        self._fail = fail
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
        self._take_silent()  # who owed nothing was not silent
        self._watched[leader] = self._beats + 1
        self._later()

    def forget(self, leader: Watched) -> None:
        """Let `leader` look no more."""
        self._watched.pop(leader, None)
        self._new.pop(leader, None)
        if not (self._watched or self._new):
            self._stop()

    def _later(self) -> None:
        self._timer = self._loop.call_later(self._beat_s, self._beat)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._beats += 1
        try:
            self._look(self._take_silent())
            for number, leader in enumerate(self._new):
                self._watched[leader] = self._beats + 1 + number % self._whole_beats
            self._new = {}
        finally:
            self._stop()  # if the last leader was forgotten meanwhile, and another one came
            if self._watched or self._new:
                self._later()

    def _look(self, silent: Set[str]) -> None:
        for leader, whole_at in list(self._watched.items()):
            if leader not in self._watched:
                continue  # it ended when another one looked
            try:
                if self._beats >= whole_at:
                    self._watched[leader] = self._beats + self._whole_beats
                    is_due = leader.look(None)
                elif not (leader.is_steady and silent.isdisjoint(leader.servers)):
                    is_due = leader.look(silent)
                else:
                    continue
            except Exception as error:  # noqa: BLE001  one leader's trouble must not stop others' ticks
                self._fail(error)
                continue
            if not is_due:
                self.forget(leader)
