"""Read points for linearizable reads, confirmed by an ack quorum (R14).  No I/O.

A question fixes committed when it arrives.  A round asks the whole open set whether this leader is
unfenced; A answers given to a round that began after the question arrived confirm it.  A roll's
transaction that is sent voids what is under way: until it is known, questions queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunalog.core.effects import AnswerRead, CheckSet, Effect
from lunalog.errors import AvailabilityError, LunalogError
from lunalog.types import Member, OpenSegment, Sequence

RETRY_S = 0.1
EXPIRE_S = 10.0


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody asked at `at` what they may read."""

    token: int
    committed: Sequence
    at: float


class ReadPoints:
    """All questions of one leader."""

    def __init__(self) -> None:
        self._waiting: list[Question] = []
        self._asked: list[Question] = []
        self._round = 0
        self._segment: OpenSegment | None = None
        self._confirmed: set[Member] = set()
        self._failed: set[Member] = set()
        self.retry_at: float | None = None

    def ask(self, token: int, committed: Sequence, now: float) -> None:
        """Note a question; `committed` is fixed here and now."""
        self._waiting.append(Question(token, committed, now))

    def begin(self, segment: OpenSegment | None, now: float) -> list[Effect]:
        """Start a round for who waits, unless one runs or there is no segment to ask (R9)."""
        if segment is None or self._segment is not None or not self._waiting:
            return []
        if self.retry_at is not None and now < self.retry_at:
            return []
        self.retry_at = None
        self._asked, self._waiting = self._waiting, []
        self._round += 1
        self._segment = segment
        self._confirmed.clear()
        self._failed.clear()
        return [CheckSet(self._round, segment)]

    def void(self) -> None:
        """What is under way proves nothing any more: it must be asked again."""
        self._waiting = self._asked + self._waiting
        self._asked = []
        self._segment = None
        self._round += 1

    def checked(
        self, number: int, member: Member, *, is_unfenced: bool, now: float
    ) -> list[Effect]:
        """Note one member's answer to round `number`."""
        segment = self._segment
        if segment is None or number != self._round or member not in segment.members:
            return []
        if is_unfenced:
            self._confirmed.add(member)
        elif member not in self._confirmed:
            self._failed.add(member)
        if len(self._confirmed) >= segment.ack_quorum:
            answers: list[Effect] = [AnswerRead(q.token, q.committed) for q in self._asked]
            self._asked = []
            self._segment = None
            return answers
        if len(segment.members) - len(self._failed) < segment.ack_quorum:
            self.void()
            self.retry_at = now + RETRY_S
        return []

    def expire(self, now: float) -> list[Effect]:
        """Answer those who have waited for too long."""
        if not self._waiting:
            return []
        old = [q for q in self._waiting if now - q.at >= EXPIRE_S]
        self._waiting = [q for q in self._waiting if now - q.at < EXPIRE_S]
        error = AvailabilityError("the leader could not confirm itself at an ack quorum in time")
        return [AnswerRead(q.token, 0, error) for q in old]

    def end(self, error: LunalogError) -> list[Effect]:
        """Answer everybody: there is nothing to read here any more."""
        self.void()
        waiting, self._waiting = self._waiting, []
        return [AnswerRead(q.token, 0, error) for q in waiting]

    @property
    def is_waiting(self) -> bool:
        """True while somebody waits."""
        return bool(self._waiting or self._asked)
