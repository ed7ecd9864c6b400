"""Counting replicas: ack quorums, seal quorums, and what so many of them hold.

N members, A acks for a commit, S = N - A + 1 fences (or negatives) for a decision: any A and any S of
the N share a member.  N, A and S are always the segment's own.  Source: R4, R6, the quorum table.
"""

from __future__ import annotations

from collections.abc import Iterable

from lunalog.errors import InvariantError
from lunalog.types import Member, Sequence


def seal_quorum(members: int, ack_quorum: int) -> int:
    """Return S: so many fenced members leave fewer than A that could still ack."""
    return members - ack_quorum + 1


def held_by(ends: Iterable[Sequence], count: int) -> Sequence:
    """Return the largest end that at least `count` of `ends` have reached."""
    return sorted(ends, reverse=True)[count - 1]


def check_set(members: tuple[Member, ...], ack_quorum: int) -> None:
    """Raise `InvariantError` unless the set is of distinct servers and can reach its ack quorum."""
    InvariantError.check(
        len({member.server for member in members}) == len(members),
        "R4: a server counts once in a replica set",
        members=members,
    )
    InvariantError.check(
        1 <= ack_quorum <= len(members),
        "R11: a segment opens on at least A servers",
        members=len(members),
        ack_quorum=ack_quorum,
    )
