"""Who sets the pace of a set where all must answer."""

from __future__ import annotations

import pytest

from lunalog.core.pace import LATE_FRAMES, LATE_S, Pace
from lunalog.core.replication import SegmentReplication
from lunalog.core.rolling import SLOW_EVERY_S, LeaderSettings, RollWatch
from lunalog.types import Member, OpenSegment, Policy, SegmentId

FAST_S = 0.001
LATE = 0.010


def segment(members: int = 3, ack_quorum: int = 3) -> SegmentReplication:
    names = tuple(Member(f"s{n}", 1) for n in range(members))
    found = SegmentReplication(OpenSegment(SegmentId(3, 0), 0, 0, names, ack_quorum))
    for replica in found.replicas:
        replica.is_open = True
    return found


class Clocked:
    """A set whose members answer after given times."""

    def __init__(self, found: SegmentReplication) -> None:
        self.segment = found
        self.now, self.tail = 0.0, 0

    def append(self, *delays: float) -> None:
        """Time one frame; each member acks it so many seconds later."""
        self.tail += 1
        pace = self.segment.pace
        assert pace is not None
        pace.sent(self.tail, self.now)
        for delay, replica in sorted(
            zip(delays, self.segment.replicas, strict=True), key=lambda pair: pair[0]
        ):
            self.segment.accepted(replica, self.tail, self.tail)
            if pace.end <= self.tail:
                self.segment.timed(pace, replica, self.now + delay)
        self.now += 0.0625

    def slow(self) -> str:
        assert self.segment.pace is not None
        return self.segment.pace.slow


def test_l3_a_member_that_is_late_again_and_again_is_slow() -> None:
    found = Clocked(segment())
    for _ in range(LATE_FRAMES - 1):
        found.append(FAST_S, LATE, 2 * FAST_S)
    assert found.slow() == ""
    found.append(FAST_S, LATE, 2 * FAST_S)
    assert found.slow() == "s1"


@pytest.mark.parametrize(
    "rounds",
    [
        [(FAST_S, 0.9 * LATE_S, FAST_S)],
        [(LATE, 1.9 * LATE, LATE)],
        [(FAST_S, LATE, LATE)],
        [(FAST_S, LATE, FAST_S), (FAST_S, FAST_S, FAST_S)],
        [(FAST_S, LATE, FAST_S), (LATE, FAST_S, FAST_S)],
    ],
    ids=["by little", "not by much more", "two of three", "now and then", "by turns"],
)
def test_nobody_is_slow(rounds: list[tuple[float, ...]]) -> None:
    found = Clocked(segment())
    for _ in range(4 * LATE_FRAMES):
        for delays in rounds:
            found.append(*delays)
    assert found.slow() == ""


def test_who_was_slow_and_is_not_any_more_is_forgotten() -> None:
    found = Clocked(segment())
    for _ in range(3 * LATE_FRAMES):
        found.append(LATE, FAST_S, FAST_S)
    assert found.slow() == "s0"
    found.append(FAST_S, FAST_S, FAST_S)
    assert found.slow() == ""


def test_one_frame_at_a_time_is_timed() -> None:
    pace = Pace()
    pace.sent(5, 0.0)
    pace.sent(9, 0.5)
    assert pace.end == 5


def test_a_frame_of_which_only_the_last_ack_was_seen_says_nothing() -> None:
    pace = Pace()
    for n in range(1, 2 * LATE_FRAMES):
        pace.sent(n, float(n))
        pace.acked("s0", 0, n + 0.5)
    assert pace.slow == ""


@pytest.mark.parametrize(("members", "ack_quorum"), [(3, 2), (1, 1), (4, 3)])
def test_nobody_is_timed_where_a_others_answer(members: int, ack_quorum: int) -> None:
    assert segment(members, ack_quorum).pace is None


def slow_segment() -> SegmentReplication:
    found = Clocked(segment())
    for _ in range(LATE_FRAMES):
        found.append(FAST_S, LATE, FAST_S)
    return found.segment


POLICY = Policy(replicas=3, ack_quorum=3)


def test_r11_a_slow_member_is_left_by_a_planned_roll() -> None:
    rolls, found = RollWatch(LeaderSettings()), slow_segment()
    need = rolls.need(found, POLICY, 10.0)
    assert need == (False, "slow", ("s1",))
    rolls.wanted = "size"
    assert rolls.need(found, POLICY, 10.0) == (False, "size", ())


@pytest.mark.parametrize("outcome", ["rolled", "futile"])
def test_trap_42_slow_members_are_left_ever_more_rarely(outcome: str) -> None:
    """Whether there was a better set or not; a roll for another reason waits for none of this."""
    rolls, found, at = RollWatch(LeaderSettings()), slow_segment(), 10.0
    for doublings in (0, 1, 2, 3, 4, 5, 6, 6, 6):
        need = rolls.need(found, POLICY, at)
        assert need is not None
        getattr(rolls, outcome)(need, at)
        gap_s = SLOW_EVERY_S * (1 << doublings)
        assert rolls.need(found, POLICY, at + gap_s - 1.0) is None
        if outcome == "futile":
            rolls.wanted = "size"
            assert rolls.need(found, POLICY, at) == (False, "size", ())
            rolls.wanted = ""
        at += gap_s


def test_a_roll_for_another_reason_says_nothing_of_slow_members() -> None:
    rolls, found = RollWatch(LeaderSettings()), slow_segment()
    rolls.wanted = "size"
    need = rolls.need(found, POLICY, 10.0)
    assert need is not None
    rolls.rolled(need, 10.0)
    assert rolls.need(found, POLICY, 13.0) == (False, "slow", ("s1",))


def test_it_says_whom_it_found_late():
    pace = Pace()
    assert repr(pace) == "<Pace: nobody late 0 times>"
    pace.sent(1, 0.0)
    pace.acked("s1", 1, 0.001)
    pace.acked("s2", 0, 1.0)
    assert repr(pace) == "<Pace: s2 late 1 times>"
