"""When a leader leaves its replica set, and for what reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lunalog.core.replication import SegmentReplication
from lunalog.core.rolling import (
    AWAY_S,
    CALM_S,
    PATIENCE_TICKS_MAX,
    SLOW_TICKS,
    STALL_TICKS,
    LeaderSettings,
    RollNeed,
    RollWatch,
)
from lunalog.errors import ServerUnavailableError
from lunalog.types import Member, OpenSegment, Policy, SegmentId

POLICY = Policy(replicas=3, ack_quorum=2)
NOW = 100.0


def whole() -> SegmentReplication:
    """Three members that all answer."""
    members = tuple(Member(name, 1) for name in "abc")
    found = SegmentReplication(OpenSegment(SegmentId(3, 0), 0, 0, members, 2))
    for replica in found.replicas:
        replica.is_open = True
    return found


def need(found: SegmentReplication, policy: Policy = POLICY) -> RollNeed | None:
    return RollWatch(LeaderSettings()).need(found, policy, NOW)


def test_a_set_that_is_as_it_should_be_is_kept() -> None:
    assert need(whole()) is None


def _failed(found: SegmentReplication) -> None:
    found.replicas[0].failure = ServerUnavailableError("it forgot what it had acked")


def _slow(found: SegmentReplication) -> None:
    found.replicas[0].idle_ticks = SLOW_TICKS


def _away(found: SegmentReplication) -> None:
    found.replicas[0].is_open = False
    found.replicas[0].away_at = NOW - AWAY_S


def _lagging(found: SegmentReplication) -> None:
    _away(found)
    found.replicas[0].is_behind = True


@pytest.mark.parametrize(
    ("happens", "reason", "exclude"),
    [
        (_failed, "server", ()),
        (_slow, "server", ("a",)),
        (_away, "server", ("a",)),
        (_lagging, "lagging", ()),
    ],
)
def test_r11_one_member_that_is_no_help_is_left_by_a_planned_roll(
    happens: Callable[[SegmentReplication], None], reason: str, exclude: tuple[str, ...]
) -> None:
    found = whole()
    happens(found)
    assert need(found) == (False, reason, exclude)


def test_r11_who_has_just_gone_may_come_back() -> None:
    found = whole()
    found.replicas[0].is_open = False
    found.replicas[0].away_at = NOW - AWAY_S / 2
    assert need(found) is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(replicas=5, ack_quorum=2), "short"),
        (Policy(replicas=2, ack_quorum=2), "policy"),
        (Policy(replicas=3, ack_quorum=3), "policy"),
    ],
)
def test_r11_a_set_of_another_shape_than_the_policy_s_is_left(policy: Policy, reason: str) -> None:
    assert need(whole(), policy) == (False, reason, ())


def test_r11_a_set_that_cannot_ack_is_left_at_once() -> None:
    found = whole()
    for replica in found.replicas[:2]:
        replica.is_open = False
    assert need(found) == (True, "server", ("a", "b"))


SILENT = RollNeed(True, "server", ("a", "b"))


def silent(found: SegmentReplication, ticks: int) -> None:
    """Two members owe acks and have sent none."""
    for replica in found.replicas[:2]:
        replica.idle_ticks = ticks


def test_r11_each_roll_for_silence_alone_makes_the_next_one_wait_twice_as_long() -> None:
    """Trap 50: what is slow is not mended by sending everything again."""
    rolls, found = RollWatch(LeaderSettings()), whole()
    patience = STALL_TICKS
    while patience < PATIENCE_TICKS_MAX:
        silent(found, patience - 1)
        assert rolls.need(found, POLICY, NOW) is None
        silent(found, patience)
        assert rolls.need(found, POLICY, NOW) == (True, "server", ("a", "b"))
        rolls.rolled(SILENT, NOW, is_silent=True)
        patience *= 2
        assert rolls.patience == patience
    rolls.rolled(SILENT, NOW, is_silent=True)
    assert rolls.patience == PATIENCE_TICKS_MAX
    rolls.rolled(SILENT, NOW)  # away from members that are lost
    assert rolls.patience == PATIENCE_TICKS_MAX


def test_r11_patience_goes_when_the_network_is_calm() -> None:
    rolls, found = RollWatch(LeaderSettings()), whole()
    for _ in range(3):
        rolls.rolled(SILENT, NOW, is_silent=True)
    for after, patience in ((0.9, 8), (1.0, 4), (2.5, 2), (3.0, 1), (30.0, 1)):
        rolls.tick(found, 0, NOW + after * CALM_S)
        assert rolls.patience == patience * STALL_TICKS


def test_r11_an_ack_that_comes_after_all_shows_that_patience_was_too_short() -> None:
    rolls, found = RollWatch(LeaderSettings()), whole()
    silent(found, STALL_TICKS)
    found.replicas[0].matched = 5
    rolls.tick(found, 9, NOW)
    assert rolls.patience == 2 * STALL_TICKS
    assert [replica.idle_ticks for replica in found.replicas] == [0, STALL_TICKS + 1, 1]


def test_r11_a_late_ack_that_nobody_waited_for_shows_nothing() -> None:
    rolls, found = RollWatch(LeaderSettings()), whole()
    found.replicas[0].idle_ticks = STALL_TICKS
    found.replicas[0].matched = 5
    rolls.tick(found, 9, NOW)
    assert rolls.patience == STALL_TICKS


def test_r11_who_owes_no_acks_any_more_has_sent_none() -> None:
    """An urgent roll takes the boundary down to what all hold."""
    rolls, found = RollWatch(LeaderSettings()), whole()
    silent(found, STALL_TICKS)
    rolls.tick(found, found.first, NOW)
    assert [replica.idle_ticks for replica in found.replicas] == [0, 0, 0]
    assert rolls.patience == STALL_TICKS


def test_r11_who_acknowledges_other_streams_meanwhile_is_not_silent() -> None:
    """Its frames stand in line at the server, behind those of a thousand streams perhaps."""
    rolls, found = RollWatch(LeaderSettings()), whole()
    for _ in range(STALL_TICKS):
        rolls.tick(found, 9, NOW, {"b"})
    assert [replica.idle_ticks for replica in found.replicas] == [0, STALL_TICKS, 0]
    assert need(found) is None
    found.replicas[1].matched = 9
    rolls.tick(found, 9, NOW, set())
    assert [replica.idle_ticks for replica in found.replicas] == [0, 0, 0]
    for _ in range(STALL_TICKS):
        rolls.tick(found, 9, NOW)  # for all, however they answer others
    assert need(found) == (True, "server", ("a", "c"))


def test_r11_a_long_silence_is_no_queue_whatever_patience_has_grown_to() -> None:
    """Or a leader that was patient before gives its epoch back before it rolls (R15)."""
    rolls, found = RollWatch(LeaderSettings()), whole()
    while rolls.patience < PATIENCE_TICKS_MAX:
        rolls.rolled(RollNeed(True, "server", ()), NOW, is_silent=True)
    for _ in range(STALL_TICKS):
        rolls.tick(found, 9, NOW)
    for _ in range(PATIENCE_TICKS_MAX - STALL_TICKS):
        assert rolls.need(found, POLICY, NOW) is None
        rolls.tick(found, 9, NOW, set())
    assert rolls.need(found, POLICY, NOW) is not None


def test_r11_acks_that_came_before_the_last_tick_of_all_do_not_speak_for_this_one() -> None:
    """Who looks at every fourth tick only hears late that an ack has come, and that none has since."""
    rolls, found = RollWatch(LeaderSettings()), whole()
    for replica in found.replicas:
        replica.matched = 5
    rolls.tick(found, 9, NOW, {"a", "b"})
    assert [replica.idle_ticks for replica in found.replicas] == [1, 1, 0]
    found.replicas[0].matched = 9
    rolls.tick(found, 9, NOW, {"a", "b"})
    assert [replica.idle_ticks for replica in found.replicas] == [0, 2, 0]
