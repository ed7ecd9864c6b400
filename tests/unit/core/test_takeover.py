"""A takeover asks whom it should, and gives up on nobody; with nothing open it has nothing to do."""

from __future__ import annotations

from typing import Any

from lunalog.core import chain as chains
from lunalog.core.effects import FenceSet, ReadFrom, StopFencing
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import FenceAnswer
from lunalog.core.takeover import READ_TIMEOUT_MS, READ_TIMEOUT_MS_MAX, RETRY_S, Takeover
from lunalog.types import Member, OpenSegment, Policy, SegmentId, StreamHead

A, B, C = (Member(name, 1) for name in "abc")
OPEN = OpenSegment(SegmentId(2, 0), 10, 5, (A, B, C), 2)


def head(segment: OpenSegment | None) -> StreamHead:
    return StreamHead("orders", b"s" * 16, Policy(), epoch=3, next=10, chain=5, open=segment)


def damaged(end: int) -> FenceAnswer:
    """It holds frames below `end`, and cannot say which."""
    return FenceAnswer(end=end, chain=0, unknown=((10, end),))


def test_with_nothing_open_it_is_decided_and_asks_nobody() -> None:
    takeover = Takeover(head(None))
    assert takeover.decision is not None
    assert (takeover.decision.end, takeover.decision.chain, takeover.decision.tail) == (10, 5, 10)
    assert takeover.segment is None
    assert takeover.lost_evidence is None
    assert takeover.start() == takeover.walk(0.0) == []
    assert not takeover.fenced(A, FenceAnswer(end=10, chain=5))
    assert not takeover.copied(A, 10, 5, [])
    takeover.refused(A)
    takeover.unread(A, 10)
    takeover.tick(0.0)


def test_it_fences_everybody_and_decides_by_a_seal_quorum() -> None:
    takeover = Takeover(head(OPEN))
    assert takeover.start() == [FenceSet(OPEN)]
    takeover.fenced(A, FenceAnswer(end=10, chain=5))
    assert takeover.walk(0.0) == []
    takeover.fenced(B, FenceAnswer(end=10, chain=5))
    assert takeover.walk(0.0) == [StopFencing()]
    assert takeover.walk(0.0) == []
    assert takeover.decision is not None


def read(takeover: Takeover, now: float = 0.0) -> ReadFrom:
    (found,) = takeover.walk(now)
    assert isinstance(found, ReadFrom)
    return found


def reading() -> Takeover:
    """A holds a frame, B says nothing of it: the frame is asked for."""
    takeover = Takeover(head(OPEN))
    takeover.fenced(A, FenceAnswer(end=11, chain=chains.extend(5, 10, 1, 7)))
    takeover.fenced(B, damaged(12))
    return takeover


def test_one_read_at_a_time_and_late_copies_change_nothing() -> None:
    takeover = reading()
    asked = read(takeover)
    assert (asked.member, asked.start, asked.timeout_ms) == (A, 10, READ_TIMEOUT_MS)
    assert takeover.walk(0.0) == []
    frames: list[Any] = [CopiedFrame(10, 1, 7, b"x")]
    assert not takeover.copied(B, 10, 5, frames)
    takeover.unread(B, 10)
    assert takeover.walk(0.0) == []
    assert takeover.copied(A, 10, 5, frames)
    assert not takeover.copied(A, 10, 5, frames)


def test_who_could_not_help_is_asked_again_and_may_take_longer() -> None:
    takeover, now = reading(), 0.0
    timeouts = []
    for _ in range(7):
        timeouts.append(read(takeover, now).timeout_ms)
        assert not takeover.copied(A, 10, 5, [])
        assert takeover.walk(now) == []
        takeover.tick(now + RETRY_S * 0.9)
        assert takeover.walk(now) == []
        now += RETRY_S
        takeover.tick(now)
    assert timeouts == [1000, 2000, 4000, 8000, 16000, READ_TIMEOUT_MS_MAX, READ_TIMEOUT_MS_MAX]
    assert read(takeover, now).member == A
    assert takeover.copied(A, 10, 5, [CopiedFrame(10, 1, 7, b"x")])
    takeover.fenced(C, FenceAnswer(end=13, chain=1))
    assert read(takeover, now).timeout_ms == READ_TIMEOUT_MS, "a frame that came is progress"
