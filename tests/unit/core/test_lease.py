"""Leases by the master's own clock."""

from __future__ import annotations

from lunalog.core import lease
from lunalog.core.lease import Leases, StallClock
from lunalog.types import Peer

ONE, TWO = Peer("one", b"1" * 16), Peer("two", b"2" * 16)
AGAIN = Peer("one", b"3" * 16)


def made(now: float = 0.0) -> Leases:
    return Leases(now, lease_s=2.0, grace_s=0.25)


def test_the_clock_leaves_stalls_out() -> None:
    clock = StallClock(100.0, tick_s=0.1)
    assert clock.now(100.1) == 100.1
    assert round(clock.now(107.1), 6) == 100.2  # stood still for 7 s but one tick
    assert round(clock.now(107.2), 6) == 100.3
    assert round(clock.now(107.0), 6) == 100.3  # never back


def test_a_lease_lasts_from_the_last_renewal() -> None:
    leases = made()
    session = leases.open(ONE)
    assert not leases.is_eligible(ONE.incarnation, 0.0)  # it never beat
    assert leases.beat(session, 1.0)
    assert not leases.beat(session, 1.5)
    assert not leases.is_void(ONE.incarnation, 3.4)
    assert leases.is_void(ONE.incarnation, 3.5)
    assert leases.judge(3.4) == []
    assert leases.judge(3.5) == [session]
    assert leases.judge(3.6) == []
    assert leases.beat(session, 9.0)  # late, and it counts
    assert not leases.is_void(ONE.incarnation, 9.0)


def test_a_closed_session_is_over_after_the_grace() -> None:
    leases = made()
    session = leases.open(ONE)
    leases.beat(session, 1.0)
    leases.closed(session, 1.1)
    assert not leases.is_eligible(ONE.incarnation, 1.2)
    assert not leases.is_void(ONE.incarnation, 1.3)
    assert leases.is_void(ONE.incarnation, 1.36)
    assert leases.judge(1.36) == [session]
    assert leases.get(ONE.incarnation) is None
    assert leases.is_void(ONE.incarnation, 1.36)


def test_one_that_comes_back_within_the_grace_goes_on() -> None:
    leases = made()
    session = leases.open(ONE)
    leases.beat(session, 1.0)
    leases.closed(session, 1.1)
    assert leases.open(ONE) is session
    leases.beat(session, 1.2)
    assert leases.judge(2.0) == []
    assert leases.is_eligible(ONE.incarnation, 2.0)


def test_a_master_that_starts_gives_a_full_lease_of_grace() -> None:
    leases = made(now=10.0)
    assert not leases.is_void(ONE.incarnation, 11.9)
    assert leases.is_void(ONE.incarnation, 12.0)
    leases.open(ONE)  # connected, but has not beaten yet
    assert not leases.is_void(ONE.incarnation, 11.9)


def test_the_end_of_a_session_is_at_once() -> None:
    leases = made()
    session = leases.open(ONE)
    leases.beat(session, 0.1)
    leases.end(ONE.incarnation)
    assert leases.is_void(ONE.incarnation, 0.1)
    assert not leases.was_replaced(ONE.incarnation)
    assert len(leases) == 0


def test_a_newer_incarnation_replaces_the_older_which_cannot_come_back() -> None:
    leases = made()
    old = leases.open(ONE)
    assert leases.claim(old) is None
    leases.beat(old, 0.1)
    new = leases.open(AGAIN)
    assert leases.claim(old) is None  # a hello alone replaces nobody: it may be late
    assert leases.claim(new) is old
    assert leases.claim(new) is None
    assert leases.is_void(ONE.incarnation, 0.1)
    assert leases.was_replaced(ONE.incarnation)
    leases.open(TWO)
    assert [session.peer for session in leases.sessions()] == [AGAIN, TWO]
    assert new.peer == AGAIN


def test_a_beat_of_a_dead_incarnation_comes_too_late() -> None:
    """Neither had beaten at this master before; the one that said hello first was started first."""
    leases = made()
    old, new = leases.open(ONE), leases.open(AGAIN)
    assert leases.claim(new) is None
    assert leases.claim(old) is old
    assert leases.was_replaced(ONE.incarnation)
    assert not leases.was_replaced(AGAIN.incarnation)


def test_one_that_never_beat_and_went_is_forgotten() -> None:
    leases = made()
    session = leases.open(ONE)
    leases.closed(session, 0.0)
    leases.judge(0.3)
    assert len(leases) == 0


def test_the_end_of_an_older_session_leaves_the_name_to_the_newer() -> None:
    leases = made()
    older, newer = leases.open(ONE), leases.open(AGAIN)
    assert leases.claim(newer) is None
    leases.end(older.peer.incarnation)
    assert leases.claim(newer) is None
    leases.end(newer.peer.incarnation)
    assert len(leases) == 0


def test_what_is_remembered_of_ended_ones_is_bounded() -> None:
    leases = made()
    for number in range(lease.REMEMBERED_MAX + 10):
        leases.end(number.to_bytes(16, "big"))
    assert not leases.is_void((0).to_bytes(16, "big"), 0.0)
    assert leases.is_void((11).to_bytes(16, "big"), 0.0)
