"""What replicas say is held against a head that was read afterwards, never before."""

from __future__ import annotations

import msgspec

from lunalog.core.doubts import Doubts
from lunalog.core.effects import RereadHead
from lunalog.errors import FencedError, GapError, GoneError, SealedError
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SegmentId,
    StreamHead,
)

OLD, NEW = SegmentId(2, 0), SegmentId(2, 1)
LEADER = Peer("one", b"1" * 16)
HEAD = StreamHead(
    "orders",
    b"s" * 16,
    Policy(),
    epoch=2,
    leader=LEADER,
    open=OpenSegment(OLD, 0, 0, (Member("s1", 1),), 1),
)
ROLLED = msgspec.structs.replace(HEAD, open=OpenSegment(NEW, 5, 5, (Member("s1", 1),), 1))


def test_a_certificate_for_what_the_head_calls_open_is_proof() -> None:
    doubts = Doubts()
    assert doubts.told(OLD, SealedError("sealed")) == [RereadHead()]
    assert doubts.is_open
    assert doubts.judge(ROLLED) == ""
    assert not doubts.is_open
    doubts.suspect(OLD)
    assert "certificate" in doubts.judge(HEAD)


def test_an_answer_that_was_under_way_judges_nothing_later() -> None:
    """It was read before the certificate was given, and shows the segment open."""
    doubts = Doubts()
    assert doubts.told(OLD, GoneError("gone")) == [RereadHead()]
    assert doubts.suspect(OLD) == []
    assert doubts.judge(HEAD) == ""
    assert doubts.is_open
    assert doubts.again() == [RereadHead()]
    assert "certificate" in doubts.judge(HEAD)


def test_a_head_that_did_not_come_is_asked_for_again() -> None:
    doubts = Doubts()
    doubts.suspect(OLD)
    doubts.unread()
    assert doubts.is_open
    assert doubts.again() == [RereadHead()]
    assert "certificate" in doubts.judge(HEAD)
    assert doubts.again() == []


def test_what_two_replicas_say_alike_is_judged_once() -> None:
    doubts = Doubts()
    doubts.reread()
    assert doubts.suspect(OLD) == doubts.suspect(OLD) == []
    assert doubts.judge(HEAD) == "", "that head was asked for before"
    doubts.again()
    assert doubts.suspect(OLD) == [], "it is being looked into"
    assert doubts.judge(ROLLED) == ""
    assert not doubts.is_open


def test_a_promise_above_the_head_is_proof_and_an_older_one_is_not() -> None:
    doubts = Doubts()
    doubts.told(OLD, FencedError("fenced", epoch=3, incarnation=b"2" * 16))
    assert "promised 3" in doubts.judge(HEAD)
    doubts.suspect(Promise(2, b"2" * 16))
    assert "promised 2" in doubts.judge(HEAD)
    doubts.suspect(Promise(2, LEADER.incarnation))
    doubts.suspect(Promise(1, b"2" * 16))
    assert doubts.judge(HEAD) == ""


def test_what_says_nothing_of_the_head_asks_nothing() -> None:
    assert Doubts().told(OLD, GapError("gap", end=3)) == []
