"""Read points are confirmed by an ack quorum that was asked after the question (R14)."""

from __future__ import annotations

from lunalog.core.asking import EXPIRE_S, RETRY_S, ReadPoints
from lunalog.core.effects import AnswerRead, CheckSet
from lunalog.errors import NotLeaderError
from lunalog.types import Member, OpenSegment, SegmentId

A, B, C = (Member(name, 1) for name in "abc")
OPEN = OpenSegment(SegmentId(3, 0), 0, 0, (A, B, C), 2)


def asked() -> ReadPoints:
    points = ReadPoints()
    points.ask(1, 10, 0.0)
    assert points.begin(OPEN, 0.0) == [CheckSet(1, OPEN)]
    assert points.is_waiting
    return points


def test_an_ack_quorum_confirms_what_was_committed_when_it_was_asked() -> None:
    points = asked()
    assert points.checked(1, A, is_unfenced=True, now=0.0) == []
    assert points.checked(1, A, is_unfenced=True, now=0.0) == [], "one member counts once"
    assert points.checked(1, B, is_unfenced=True, now=0.0) == [AnswerRead(1, 10)]
    assert not points.is_waiting


def test_answers_of_another_round_or_from_a_stranger_do_not_count() -> None:
    points = asked()
    points.checked(1, A, is_unfenced=True, now=0.0)
    for number, member in ((0, B), (2, B), (1, Member("d", 1))):
        assert points.checked(number, member, is_unfenced=True, now=0.0) == []


def test_a_question_that_came_after_the_round_waits_for_the_next() -> None:
    points = asked()
    points.ask(2, 11, 0.0)
    assert points.begin(OPEN, 0.0) == []
    points.checked(1, A, is_unfenced=True, now=0.0)
    assert points.checked(1, B, is_unfenced=True, now=0.0) == [AnswerRead(1, 10)]
    assert points.begin(OPEN, 0.0) == [CheckSet(2, OPEN)]


def test_who_confirmed_and_then_fails_has_confirmed() -> None:
    points = asked()
    points.checked(1, A, is_unfenced=True, now=0.0)
    assert points.checked(1, A, is_unfenced=False, now=0.0) == []
    assert points.checked(1, B, is_unfenced=True, now=0.0) == [AnswerRead(1, 10)]


def test_a_round_that_cannot_succeed_is_asked_again_a_little_later() -> None:
    points = asked()
    points.checked(1, A, is_unfenced=False, now=0.0)
    points.checked(1, B, is_unfenced=False, now=0.0)
    assert points.begin(OPEN, RETRY_S / 2) == []
    assert points.begin(None, RETRY_S) == [], "nothing is open"
    assert points.begin(OPEN, RETRY_S) == [CheckSet(3, OPEN)]


def test_a_roll_voids_what_is_under_way() -> None:
    points = asked()
    points.void()
    assert points.checked(1, A, is_unfenced=True, now=0.0) == []
    assert points.begin(OPEN, 0.0) == [CheckSet(3, OPEN)]


def test_who_waits_too_long_and_who_waits_at_the_end_is_told() -> None:
    points = asked()
    points.void()
    points.ask(2, 11, EXPIRE_S)
    (late,) = points.expire(EXPIRE_S)
    assert isinstance(late, AnswerRead)
    assert (late.token, type(late.error).code) == (1, "unavailable")
    error = NotLeaderError("gone")
    assert points.end(error) == [AnswerRead(2, 0, error)]
    assert not points.is_waiting
