"""A takeover asks whom it should, and gives up on nobody; with nothing open it has nothing to do."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.core import chain as chains
from lunalog.core.effects import FenceSet, GiveBack, ReadFrom, Seal, StopFencing
from lunalog.core.leadership import LeaderMachine
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import FenceAnswer
from lunalog.core.rolling import LeaderSettings
from lunalog.core.takeover import READ_TIMEOUT_MS, READ_TIMEOUT_MS_MAX, RETRY_S, Takeover
from lunalog.errors import (
    LunalogError,
    MasterUnavailableError,
    NotEnoughServersError,
    ServerUnavailableError,
)
from lunalog.types import Member, OpenSegment, Peer, Policy, SegmentId, StreamHead

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


def test_a_read_that_brought_nothing_is_over_and_is_not_repeated_at_once() -> None:
    takeover = reading()
    asked = read(takeover)
    takeover.unread(asked.member, asked.start)
    assert takeover.walk(0.0) == [], "nobody else has it"
    takeover.refused(C)
    assert read(takeover).member == C, "a witness may"


def begun(segment: OpenSegment | None) -> LeaderMachine:
    """A leader that has asked for servers, and for fences if there is what to take over."""
    me = Peer("me", b"m" * 16)
    stream = StreamHead(
        "orders", b"s" * 16, Policy(), version=5, epoch=3, leader=me, released=False, open=segment
    )
    m = LeaderMachine(stream, me, LeaderSettings())
    m.start(0.0)
    return m


def gives_back(m: LeaderMachine, now: float) -> bool:
    return any(isinstance(effect, GiveBack) for effect in m.tick(now))


def carrying(count: int) -> LeaderMachine:
    """A leader that has `count` events to carry over, to a set that is open and holds none yet."""
    m = begun(OPEN)
    m.proposed((A, B, C), 0.0)
    frames = [CopiedFrame(10 + n, 1, 7, b"frame") for n in range(count)]
    chain = 5
    for frame in frames:
        chain = chains.extend(chain, frame.first, frame.count, frame.crc)
    m.fenced(A, FenceAnswer(end=10, chain=5), has_certificate=False, now=0.0)
    m.fenced(B, FenceAnswer(end=10 + count, chain=chain), has_certificate=False, now=0.0)
    m.copied(B, 10, 5, frames, 0.0)
    ahead = m.next
    assert ahead is not None
    for replica in ahead.replicas:
        m.opened(ahead, replica, ahead.first, ahead.chain, 0.0)
    return m


def test_n3_a_carry_over_that_moves_is_not_given_back_however_long_it_takes() -> None:
    """Else each leader begins it anew on a slow link, and none comes to its end."""
    m, now = carrying(count=6), 0.0
    ahead, stall_s = m.next, m.settings.leader_stall_ms / 1000
    assert ahead is not None
    assert (ahead.first, m.tail) == (10, 16)
    for end in range(11, 16):
        now += 0.7 * stall_s
        for replica in ahead.replicas[:2]:
            ahead.accepted(replica, end, m.tail)
            assert m.moved(ahead, now) == []
        assert not gives_back(m, now + 0.1)
    assert gives_back(m, now + stall_s)
    for replica in ahead.replicas[:2]:
        ahead.accepted(replica, 16, m.tail)
    assert any(isinstance(effect, Seal) for effect in m.moved(ahead, now + stall_s))


def test_n2_a_carry_over_that_reaches_too_few_is_given_back() -> None:
    m = carrying(count=6)
    ahead, stall_s = m.next, m.settings.leader_stall_ms / 1000
    assert ahead is not None
    for step in range(1, 6):
        ahead.accepted(ahead.replicas[0], 10 + step, m.tail)
        m.moved(ahead, step * stall_s / 6)
    assert gives_back(m, stall_s)


def test_n2_a_takeover_that_hears_nothing_new_is_given_back() -> None:
    """A fence told again is no progress, nor is a member that cannot be reached."""
    m, stall_s = begun(OPEN), LeaderSettings().leader_stall_ms / 1000
    answer = FenceAnswer(end=10, chain=5)
    assert m.fenced(A, answer, has_certificate=False, now=1.0) == []
    assert m.fenced(A, answer, has_certificate=False, now=stall_s) == []
    assert m.unfenced(B, ServerUnavailableError("down"), stall_s) == []
    assert not gives_back(m, stall_s + 0.5)
    assert gives_back(m, stall_s + 1.5)


@pytest.mark.parametrize(
    ("error", "is_given_back"),
    [
        (NotEnoughServersError("none", have=0, need=2), True),
        (MasterUnavailableError("silent"), False),
    ],
)
def test_n2_nothing_is_given_back_for_the_master_s_silence(
    error: LunalogError, is_given_back: bool
) -> None:
    m, stall_s = begun(None), LeaderSettings().leader_stall_ms / 1000
    m.not_proposed(error, stall_s / 2)
    assert gives_back(m, stall_s * 1.25) is is_given_back
