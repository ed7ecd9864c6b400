"""Whether one member of a set sets the pace of all: its acks come, but much later than the others'.

About one frame a tick is timed, so that nothing is done for each event.

Source: R11; D11, L3.
"""

from __future__ import annotations

from lunalog import limits
from lunalog.types import Sequence

LATE_FACTOR = 2.0
"""A member is late with a frame if the others had it in half of the time ..."""
LATE_S = 0.002
"""... and waited this long for it: a roll is not worth less."""
LATE_FRAMES = 16
"""A member that was late with so many is slow; a frame it was not late with undoes one that it was."""
NEVER = limits.SEQUENCE_MAX + 1


class Pace:
    """Times frames of one segment, and counts with how many the same member was late."""

    __slots__ = ("_late", "_others_at", "_sent_at", "_who", "end")

    def __init__(self) -> None:
        self.end: Sequence = NEVER
        """Of the frame that is timed now; above everything while none is."""
        self._sent_at = 0.0
        self._others_at: float | None = None
        """When only one member still lacked it."""
        self._who = ""
        self._late = 0

    def __repr__(self) -> str:
        return f"<Pace: {self._who or 'nobody'} late {self._late} times>"

    @property
    def slow(self) -> str:
        """Name of the member that all wait for, if it is always the same and they wait long."""
        return self._who if self._late >= LATE_FRAMES else ""

    def sent(self, end: Sequence, now: float) -> None:
        """Time the frame that was sent now, unless another one is still under way."""
        if self.end == NEVER:
            self.end = end
            self._sent_at = now
            self._others_at = None

    def acked(self, name: str, missing: int, now: float) -> None:
        """A member acked the timed frame, or what is behind it; `missing` members lack it now."""
        if missing == 1 and self._others_at is None:
            self._others_at = now
        elif missing == 0:
            self.end = NEVER
            if self._others_at is not None:
                self._judge(name, self._others_at - self._sent_at, now - self._sent_at)

    def _judge(self, name: str, others_s: float, last_s: float) -> None:
        if last_s < LATE_FACTOR * others_s or last_s - others_s < LATE_S:
            self._late = max(0, self._late - 1)
        elif name != self._who:
            self._who, self._late = name, 1
        else:
            self._late = min(self._late + 1, LATE_FRAMES)
