"""When a leader should move to another replica set, and away from whom (R11).  No I/O.

Urgent: fewer than A members answer.  Planned: a member is lost, lags or is slow, the set is short or
does not meet the policy, the segment is large or old, or the master wishes it.  Time enters as ticks:
a leader whose own loop stood still counts one tick, not a timeout (its acks wait unread), and of a
member that acknowledges other streams meanwhile fewer count (client/pulse.py).
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import msgspec

from lunalog.core.replication import SegmentReplication
from lunalog.types import Policy, Sequence

STALL_TICKS = 4
"""A member that owes acks and sends none for so many ticks does not answer."""
PATIENCE_TICKS_MAX = 64
"""... once rolls away from silent members have come one after another (trap 50)."""
CALM_S = 60.0
"""Without such a roll patience is halved."""
SLOW_TICKS = 16
"""After so many, and no fewer than patience, a member is left although A others answer."""
AWAY_S = 0.5
"""A planned roll leaves a lost member this long to come back."""
SLOW_EVERY_S = 60.0
"""Between two attempts to leave a member that is only slow; each time twice as long."""
SLOW_DOUBLINGS_MAX = 6
FUTILE_ROLLS_MAX = 3
"""Doublings of the gap between planned rolls that find no better set."""
SLOW = "slow"
"""The reason of a roll away from a member that answers, and holds up all others."""


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

    @property
    def is_for_pace(self) -> bool:
        """True when nothing is wrong but that a member is slow."""
        return self.reason == SLOW and not self.is_urgent


def answering(segment: SegmentReplication, patience: int) -> int:
    """How many members' acks still come: none was late by so many ticks."""
    found = 0
    for replica in segment.replicas:  # a loop, because this runs twice a tick of every stream
        if replica.idle_ticks < patience and replica.is_open and replica.failure is None:
            found += 1
    return found


def unreachable(segment: SegmentReplication, ticks: int) -> tuple[str, ...]:
    """Names of members that a new set should not have, silent for so many ticks or away.

    A member that waits for its next segment is not among them, nor one under a new incarnation.
    """
    return tuple(
        r.member.server
        for r in segment.replicas
        if not (r.is_open and r.idle_ticks < ticks) and not r.is_behind and r.failure is None
    )


class RollWatch:
    """Notice that a roll is due.

    A member that is silent may be slow: leaving it sends everything again that is not committed, to
    others on the same network.  So patience doubles with each roll for silence alone, and whenever
    an ack comes after all from one without whom no ack quorum answered.
    """

    def __init__(self, settings: LeaderSettings) -> None:
        self._settings = settings
        self._futile = 0
        self._slow_at = 0.0
        self._slow_rolls = 0
        self._silent_at = 0.0
        self.patience = STALL_TICKS
        """Ticks of silence after which a member does not answer."""
        self.planned_at = 0.0
        """No planned roll before this time."""
        self.wanted = ""
        """A reason from outside: size, age, or what the master wishes."""

    def tick(
        self,
        segment: SegmentReplication,
        written: Sequence,
        now: float,
        silent: Set[str] | None = None,
    ) -> None:
        """Look whether every member that owes acks for what was `written` has sent some.

        With `silent`, time passes for these servers only, who have sent none of any stream since the
        last tick of the client: the others acknowledge other streams, which explains some silence here,
        but none that has lasted for `STALL_TICKS`.
        """
        self._calm(now)
        was_short = was_wrong = False
        for replica in segment.replicas:
            if replica.idle_ticks >= self.patience:
                was_short = answering(segment, self.patience) < segment.ack_quorum
                break
        for replica in segment.replicas:
            has_moved = replica.matched != replica.seen
            is_due = replica.is_open and replica.matched < written
            is_silent = silent is not None and replica.member.server in silent
            if has_moved or replica.matched >= written:  # a boundary may have come down to it
                was_wrong |= has_moved and was_short and replica.idle_ticks >= self.patience
                replica.seen = replica.matched
                replica.idle_ticks = int(is_due and is_silent)  # its ack came before that silence
            elif is_due and (silent is None or is_silent or replica.idle_ticks >= STALL_TICKS):
                replica.idle_ticks += 1
        if was_wrong:
            self._be_patient(now)

    def need(self, segment: SegmentReplication, policy: Policy, now: float) -> RollNeed | None:
        """Return why to roll now, if there is a reason."""
        if answering(segment, self.patience) < segment.ack_quorum:
            return RollNeed(True, "server", unreachable(segment, self.patience))
        if now < self.planned_at:
            return None
        reason = self._planned(segment, policy, now)
        exclude = unreachable(segment, self._slow_ticks)
        if reason:
            return RollNeed(False, reason, exclude)
        slow = segment.pace.slow if segment.pace is not None and now >= self._slow_at else ""
        if not slow:
            return None
        return RollNeed(False, SLOW, tuple(sorted({*exclude, slow})))

    def _planned(self, segment: SegmentReplication, policy: Policy, now: float) -> str:
        for replica in segment.replicas:
            if replica.failure is not None or replica.idle_ticks >= self._slow_ticks:
                return "server"
            if not replica.is_open and now - replica.away_at >= AWAY_S:
                return "lagging" if replica.is_behind else "server"
        members = len(segment.replicas)
        if members != policy.replicas or segment.ack_quorum != policy.ack_quorum:
            return "policy" if members >= policy.replicas else "short"
        return self.wanted

    @property
    def _slow_ticks(self) -> int:
        return max(SLOW_TICKS, self.patience)

    def _be_patient(self, now: float) -> None:
        self.patience = min(2 * self.patience, PATIENCE_TICKS_MAX)
        self._silent_at = now

    def _calm(self, now: float) -> None:
        while self.patience > STALL_TICKS and now - self._silent_at >= CALM_S:
            self.patience //= 2
            self._silent_at += CALM_S

    def rolled(self, need: RollNeed, now: float, *, is_silent: bool = False) -> None:
        """A roll began; `is_silent` if A members can be reached and do not answer."""
        if is_silent:
            self._be_patient(now)
        if need.is_for_pace:
            self._bear_slow(now)
        self._futile = 0
        self.wanted = ""
        self.planned_at = now + self._settings.planned_roll_gap_ms / 1000

    def futile(self, need: RollNeed | None, now: float) -> None:
        """There is no better set now: look again later, and less and less often."""
        if need is not None and need.is_for_pace:
            self._bear_slow(now)
            return
        gap_s = self._settings.planned_roll_gap_ms / 1000
        self.planned_at = now + gap_s * (1 << min(self._futile, FUTILE_ROLLS_MAX))
        self._futile += 1

    def _bear_slow(self, now: float) -> None:
        """Whether there was a better set or not, a slow member is borne for a while (trap 42)."""
        self._slow_at = now + SLOW_EVERY_S * (1 << min(self._slow_rolls, SLOW_DOUBLINGS_MAX))
        self._slow_rolls += 1
