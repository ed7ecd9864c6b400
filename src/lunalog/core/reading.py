"""Where a reader finds the next events, and which replica it asks: decisions without I/O.

Only sealed metadata ends a segment: neither an empty answer nor a server's hint does (R13).  Segments
are found by sequence, because a reader may stand past the end of the one it reads from: what was
committed there may lie in the next one by now (R7).

Source: design.md section 3; R12, R13, I16, I17.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lunalog.errors import PeerError, TruncatedError
from lunalog.types import (
    Member,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)

PENALTY_S = 0.1
"""How long a replica that failed once is asked last; doubles with each failure in a row."""
PENALTY_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class InSegment:
    """The position lies in this segment."""

    segment: SegmentId
    members: tuple[Member, ...]
    end: int | None
    """Of a sealed segment; none while it is open."""


@dataclass(frozen=True, slots=True)
class AtTail:
    """Nothing is open and the position is at the end: everything that exists was read (R31)."""


@dataclass(frozen=True, slots=True)
class NotKnown:
    """The metadata at hand has no segment for the position: newer metadata has, or will have."""


Place = InSegment | AtTail | NotKnown


def locate(view: StreamView, position: int) -> Place:
    """Find the segment that holds `position`; raises `TruncatedError` below the first kept event."""
    head = view.head
    if position < head.truncated_before:
        raise truncated(head, position)
    for row in reversed(view.rows):
        if row.first <= position < row.end:
            return InSegment(row.id, row.members, row.end)
    if head.open is not None:
        if position >= head.open.first:
            return InSegment(head.open.id, head.open.members, None)
    elif position >= head.next:
        return AtTail()
    return NotKnown()


def truncated(head: StreamHead, position: int) -> TruncatedError:
    """Make the error of a reader that asks for what is not kept any more."""
    return TruncatedError(
        f"{head.name!r} keeps events from sequence {head.truncated_before} on, not {position}; "
        f"start at {head.truncated_before}",
        start=head.truncated_before,
    )


def resolve_start(start: int | None, first: int, end: int) -> int:
    """Turn what the caller asked for into a sequence: none is the first kept, -3 the last three."""
    if start is None:
        return first
    return start if start >= 0 else max(first, end + start)


def check_run(position: int, bounds: Iterable[tuple[int, int]]) -> int:
    """Return the end of a run of frames, each (first, end), that must hold `position` on, densely.

    Raises `PeerError` for a hole, a repeat, or a run that starts behind `position` (I16).
    """
    at: int | None = None
    for first, end in bounds:
        if at is None:
            if not first <= position < end:
                raise PeerError(f"asked for sequence {position}, got a frame of {first} to {end}")
        elif first != at:
            raise PeerError(f"a frame at {first} follows one that ends at {at}")
        at = end
    return position if at is None else at


class ReplicaChoice:
    """Which replica to ask next: the one that serves us, then by spread, those that failed last."""

    def __init__(self, spread: int) -> None:
        self._spread = spread
        self._favourite = ""
        self._failures: dict[str, tuple[int, float]] = {}

    def order(
        self, members: Sequence[Member], servers: Iterable[ServerAddress], now: float
    ) -> list[ServerAddress]:
        """The members that have an address, best first."""
        known = {found.member.server: found for found in servers}
        count = len(members)
        ranked = []
        for place, member in enumerate(members):
            address = known.get(member.server)
            if address is not None:
                ranked.append(
                    (
                        self._is_failing(member.server, now),
                        not address.is_alive,
                        member.server != self._favourite,
                        (place - self._spread) % count,
                        address,
                    )
                )
        ranked.sort(key=lambda entry: entry[:4])
        return [entry[4] for entry in ranked]

    def _is_failing(self, server: str, now: float) -> bool:
        return server in self._failures and now < self._failures[server][1]

    def served(self, server: str) -> None:
        """This replica gave what it was asked for: stay with it."""
        self._favourite = server
        self._failures.pop(server, None)

    def failed(self, server: str, now: float) -> None:
        """This replica was gone, short, slow or damaged: ask others first for a while."""
        count = self._failures.get(server, (0, 0.0))[0] + 1
        pause = min(PENALTY_S * 2 ** min(count - 1, 10), PENALTY_S_MAX)
        self._failures[server] = (count, now + pause)
        if self._favourite == server:
            self._favourite = ""

    def was_idle(self, server: str) -> None:
        """This replica had nothing new: ask another one next, it may be cut off from the leader."""
        self._spread += 1
        if self._favourite == server:
            self._favourite = ""
