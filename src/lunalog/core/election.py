"""Who leads next.

Source: design.md section 4 "Election"; R15, N2.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lunalog.types import Peer


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One client that would lead, holds a session, and can be told."""

    peer: Peer
    applied: int = 0
    """How far it has replayed the stream."""
    leads: int = 0
    """How many streams it leads now."""
    stood: int = 0
    """Its turn in the queue of who stood for election, oldest first."""
    gave_up: int = 0
    """0, or a number that grows each time a candidate could not finish a takeover."""


def choose(
    candidates: Iterable[Candidate],
    *,
    last: Peer | None,
    has_resigned: bool,
    target: str | None = None,
) -> Peer | None:
    """Name the next leader, or nobody.

    The target of a transfer first; then the last leader unless it resigned; then who has applied most;
    then who leads least; then who has stood longest.  Who could not finish a takeover queues last, and
    before that, who has just resigned.
    """

    def rank(candidate: Candidate) -> tuple[int, int, int, int, int, int]:
        is_last = last is not None and candidate.peer.incarnation == last.incarnation
        place = 1
        if candidate.peer.name == target:
            place = 0
        elif candidate.gave_up:
            place = 4
        elif is_last:
            place = 3 if has_resigned else 1
        else:
            place = 2
        return (
            place,
            candidate.gave_up,
            -candidate.applied,
            candidate.leads,
            candidate.stood,
            0 if is_last else 1,
        )

    return min(candidates, key=rank).peer if (candidates := list(candidates)) else None
