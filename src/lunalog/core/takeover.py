"""Drive the recovery of a former epoch's open segment: whom to fence, whom to read, when to ask again.

Timeouts are by progress: a member that could not give the frame is asked again after a pause, and
each pause without progress doubles the time a read may take (N3).  Source: R5 to R7, R18.
"""

from __future__ import annotations

from collections.abc import Sequence as Run

from lunalog.core.effects import Effect, FenceSet, ReadFrom, StopFencing
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import Decision, FenceAnswer, Recovery
from lunalog.types import Chain, Member, OpenSegment, Sequence, StreamHead

RETRY_S = 1.0
READ_TIMEOUT_MS = 1_000
READ_TIMEOUT_MS_MAX = 30_000


class Takeover:
    """Get from a grant to a decision.  With nothing open there is nothing to decide (R31)."""

    def __init__(self, head: StreamHead) -> None:
        self.recovery = Recovery(head.open, head.truncated_before) if head.open else None
        self.decision: Decision | None = None
        if head.open is None:
            self.decision = Decision(head.next, head.chain, head.next)
        self._reading: tuple[Member, Sequence] | None = None
        self._read_timeout_ms = READ_TIMEOUT_MS
        self._retry_at = 0.0

    @property
    def segment(self) -> OpenSegment | None:
        """The segment that must be recovered."""
        return self.recovery.segment if self.recovery is not None else None

    @property
    def lost_evidence(self) -> Sequence | None:
        """A committed sequence that was reported and that the fenced members cannot hold (R18)."""
        recovery = self.recovery
        if recovery is None or len(recovery.answers) < recovery.seal_quorum:
            return None
        return recovery.lost_evidence()

    def start(self) -> list[Effect]:
        """Fence everybody (R5)."""
        return [] if self.recovery is None else [FenceSet(self.recovery.segment)]

    def fenced(self, member: Member, answer: FenceAnswer) -> bool:
        """A promise is durable; true if that is news."""
        return self.recovery is not None and self.recovery.fenced(member, answer)

    def refused(self, member: Member) -> None:
        """The member lives under another incarnation: its slot is failed, its bytes may help."""
        if self.recovery is not None:
            self.recovery.refused(member)

    def copied(
        self, member: Member, start: Sequence, before: Chain, found: Run[CopiedFrame]
    ) -> bool:
        """Verified frames came; true if the walk got further.  Raises `PeerError` (I7)."""
        if self.recovery is None or self._reading != (member, start):
            return False
        self._reading = None
        if not self.recovery.copied(member, start, before, found):
            return False
        self._read_timeout_ms = READ_TIMEOUT_MS
        return True

    def unread(self, member: Member, start: Sequence) -> None:
        """A read brought nothing: absent, damaged, refused or too late."""
        if self.recovery is not None and self._reading == (member, start):
            self._reading = None
            self.recovery.unread(member, start)

    def walk(self, now: float) -> list[Effect]:
        """Ask for the next frames, or take the decision (R6).  Raises `PeerError` (I7)."""
        recovery = self.recovery
        if recovery is None or self.decision is not None or self._reading is not None:
            return []
        wanted = recovery.next_read()
        if recovery.decision is not None:
            self.decision = recovery.decision
            return [StopFencing()]
        if wanted is not None:
            self._reading = wanted
            return [ReadFrom(recovery.segment, *wanted, self._read_timeout_ms)]
        if self._retry_at == 0.0:
            self._retry_at = now + RETRY_S
        return []

    def tick(self, now: float) -> None:
        """Some time has passed: ask again who could not help before."""
        if self.recovery is not None and self._retry_at and now >= self._retry_at:
            self._retry_at = 0.0
            self._read_timeout_ms = min(2 * self._read_timeout_ms, READ_TIMEOUT_MS_MAX)
            self.recovery.retry()
