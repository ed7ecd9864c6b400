"""When a leader should move to another replica set, and away from whom (R11).  No I/O.

Urgent: fewer than A members answer.  Planned: a member is lost, lags or is slow, the set is short or
does not meet the policy, the segment is large or old, or the master wishes it.  Time enters as ticks:
a leader whose own loop stood still counts one tick, not a timeout (its acks wait unread).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lunalog.core.replication import Replica, SegmentReplication
from lunalog.types import Policy, Sequence

STALL_TICKS = 4
"""A member that owes acks and sends none for so many ticks does not answer."""
SLOW_TICKS = 16
"""... and after so many it is rolled away from although A others answer."""
AWAY_S = 0.5
"""A planned roll leaves a lost member this long to come back."""
SLOW_EVERY_S = 60.0
"""Between two attempts to leave a member that is only slow; each time twice as long."""
SLOW_DOUBLINGS_MAX = 6
FUTILE_ROLLS_MAX = 3
"""Doublings of the gap between planned rolls that find no better set."""


class LeaderSettings(msgspec.Struct, frozen=True):
    """What of the client's configuration matters for decisions."""

    roll_ack_timeout_ms: int = 250
    planned_roll_gap_ms: int = 2_000
    leader_stall_ms: int = 10_000
    in_flight_bytes_max: int = 64 << 20

    @property
    def tick_s(self) -> float:
        """How often acks are looked for while some are due."""
        return self.roll_ack_timeout_ms / 1000 / STALL_TICKS


class RollNeed(NamedTuple):
    """A reason to roll."""

    is_urgent: bool
    reason: str
    exclude: tuple[str, ...]


def answers(replica: Replica) -> bool:
    """True if the member's acks still come."""
    return replica.is_working and replica.idle_ticks < STALL_TICKS


def answering(segment: SegmentReplication) -> int:
    """How many members answer."""
    return sum(map(answers, segment.replicas))


def unreachable(segment: SegmentReplication, ticks: int = STALL_TICKS) -> tuple[str, ...]:
    """Names of members that a new set should not have, slow for so many ticks or away.

    A member that waits for its next segment is not among them, nor one under a new incarnation.
    """
    return tuple(
        r.member.server
        for r in segment.replicas
        if not (r.is_open and r.idle_ticks < ticks) and not r.is_behind and r.failure is None
    )


class RollWatch:
    """Notice that a roll is due."""

    def __init__(self, settings: LeaderSettings) -> None:
        self._settings = settings
        self._futile = 0
        self._leaving_slow = False
        self._slow_at = 0.0
        self._slow_rolls = 0
        self.planned_at = 0.0
        """No planned roll before this time."""
        self.wanted = ""
        """A reason from outside: size, age, or what the master wishes."""

    def tick(self, segment: SegmentReplication, written: Sequence) -> None:
        """Look whether every member that owes acks for what was `written` has sent some."""
        for replica in segment.replicas:
            if replica.matched != replica.seen or replica.matched >= written:
                replica.seen = replica.matched
                replica.idle_ticks = 0
            elif replica.is_open:
                replica.idle_ticks += 1

    def need(self, segment: SegmentReplication, policy: Policy, now: float) -> RollNeed | None:
        """Return why to roll now, if there is a reason."""
        self._leaving_slow = False
        if answering(segment) < segment.ack_quorum:
            return RollNeed(True, "server", unreachable(segment))
        if now < self.planned_at:
            return None
        reason = self._planned(segment, policy, now)
        exclude = unreachable(segment, SLOW_TICKS)
        if reason:
            return RollNeed(False, reason, exclude)
        slow = segment.pace.slow if segment.pace is not None and now >= self._slow_at else ""
        if not slow:
            return None
        self._leaving_slow = True
        return RollNeed(False, "slow", tuple(sorted({*exclude, slow})))

    def _planned(self, segment: SegmentReplication, policy: Policy, now: float) -> str:
        for replica in segment.replicas:
            if replica.failure is not None or replica.idle_ticks >= SLOW_TICKS:
                return "server"
            if not replica.is_open and now - replica.away_at >= AWAY_S:
                return "lagging" if replica.is_behind else "server"
        members = len(segment.replicas)
        if members != policy.replicas or segment.ack_quorum != policy.ack_quorum:
            return "policy" if members >= policy.replicas else "short"
        return self.wanted

    def rolled(self, now: float) -> None:
        """A roll began."""
        self._rest(now)
        self._futile = 0
        self.wanted = ""
        self.planned_at = now + self._settings.planned_roll_gap_ms / 1000

    def futile(self, now: float) -> None:
        """There is no better set now: look again later, and less and less often."""
        if self._leaving_slow:
            self._rest(now)
            return
        gap_s = self._settings.planned_roll_gap_ms / 1000
        self.planned_at = now + gap_s * (1 << min(self._futile, FUTILE_ROLLS_MAX))
        self._futile += 1

    def _rest(self, now: float) -> None:
        """Whether there was a better set or not, a slow member is borne for a while (trap 42)."""
        if self._leaving_slow:
            self._leaving_slow = False
            self._slow_at = now + SLOW_EVERY_S * (1 << min(self._slow_rolls, SLOW_DOUBLINGS_MAX))
            self._slow_rolls += 1
