"""Faults of who leads: acknowledging, rolling, read points, the outcome of transactions, the close."""

from __future__ import annotations

from typing import Any

from tests.mutants.registry import fault

from lunalog.core.asking import ReadPoints
from lunalog.core.effects import AnswerRead, DropSet
from lunalog.core.leader_state import Phase, not_leader
from lunalog.core.leadership import LeaderMachine
from lunalog.core.replication import SegmentReplication
from lunalog.errors import AvailabilityError, LunalogError
from lunalog.wire.messages import SealSegment


@fault(
    "R4",
    "one ack too few commits",
    "takeover",
    "lunalog.core.replication:SegmentReplication._count",
)
def ack_quorum_less_one(real: Any, self: SegmentReplication) -> bool:
    quorum = self._ack_quorum
    self._ack_quorum = max(1, quorum - 1)
    try:
        return bool(real(self))
    finally:
        self._ack_quorum = quorum


@fault(
    "R4",
    "acks are counted without looking whose they are",
    "takeover",
    "lunalog.core.replication:SegmentReplication.accepted",
)
def acks_counted_twice(
    real: Any, self: SegmentReplication, replica: Any, end: int, tail: int
) -> bool:
    other = min(self.replicas, key=lambda r: (r is replica, r.matched))
    found = real(self, replica, end, tail)
    return bool(real(self, other, min(end, tail), tail)) or bool(found)


@fault(
    "R9, R11",
    "acks of the next segment count before the head names it",
    "rolls",
    "lunalog.core.leader_state:LeaderState._commit",
    "lunalog.core.leader_state:LeaderState.moved",
)
def acks_before_the_transaction(real: Any, self: LeaderMachine, *rest: Any) -> Any:
    found = real(self, *rest)
    ahead, current = self.next, self.current
    if ahead is not None and current is not None and current.held >= ahead.first:
        self.committed = max(self.committed, ahead.held)
    return found


@fault(
    "R11, trap 11",
    "late acks of a segment that is rolled away from count past the boundary",
    "rolls",
    "lunalog.core.replication:SegmentReplication.bind",
)
def late_acks_count(real: Any, self: SegmentReplication, bound: int) -> None:
    self.bound = None


@fault(
    "R11, trap 42",
    "a planned roll takes any set, at any time",
    "short",
    "lunalog.core.rolling:RollWatch.rolled",
    "lunalog.core.rolling:RollWatch.futile",
)
def rolls_at_any_time(real: Any, self: Any, need: Any, now: float, **more: Any) -> None:
    self.wanted = "again"


@fault(
    "R11",
    "a set that does not answer is never left",
    "lost_set",
    "lunalog.core.rolling:RollWatch.need",
)
def never_rolls_away(real: Any, self: Any, *rest: Any) -> None:
    real(self, *rest)


@fault(
    "R12",
    "replicas are told that all that was sent is committed",
    "stale",
    "lunalog.core.leader_state:LeaderState.mark",
)
def tail_is_told_as_committed(real: Any, self: LeaderMachine, segment: Any) -> int:
    return int(self.tail) if segment is self.current else int(real(self, segment))


@fault(
    "R12, trap 20",
    "what became committed last is told with the next append only",
    "quiet",
    "lunalog.client.leader:Leadership._tell_committed",
)
def no_mark_without_an_append(real: Any, self: Any) -> None:
    return None


@fault(
    "R14, trap 28",
    "a leader answers read points without asking anybody",
    "zombie",
    "lunalog.core.leader_state:LeaderState.asked",
)
def read_point_unchecked(real: Any, self: LeaderMachine, token: int, now: float) -> list[Any]:
    if self.phase is Phase.LEADING:
        return [AnswerRead(token, self.committed)]
    return list(real(self, token, now))


@fault(
    "R14",
    "S replies confirm a read point, where A are needed",
    "split",
    "lunalog.core.asking:ReadPoints.checked",
)
def seal_quorum_confirms(
    real: Any, self: ReadPoints, number: int, member: Any, **fields: Any
) -> Any:
    segment = self._segment
    found = real(self, number, member, **fields)
    if segment is None or self._segment is not segment or number != self._round:
        return found
    if len(self._confirmed) >= len(segment.members) - segment.ack_quorum + 1:
        answers = [AnswerRead(q.token, q.committed) for q in self._asked]
        self._asked, self._segment = [], None
        return found + answers
    return found


@fault(
    "R14",
    "a server confirms whoever asks",
    "zombie",
    "lunalog.core.replica:Replica.check",
)
def check_without_looking(real: Any, self: Any, *rest: Any) -> None:
    return


@fault(
    "R28, trap 41",
    "a roll whose answer is late counts as failed, and acks go on",
    "rolls",
    "lunalog.client.leader_calls:LeaderCalls.seal",
)
async def roll_taken_back(real: Any, self: Any, seal: Any) -> None:
    machine, feed = self._leadership.machine, self._leadership.feed
    if machine.phase is not Phase.LEADING or seal.open is None:
        await real(self, seal)
        return
    promise = self._leadership.promise
    sent = (seal.old, seal.row, seal.open, seal.next, seal.chain, seal.release, seal.reason)
    try:
        reply = await self._master.request(SealSegment(self._stream, promise, *sent), 0.03)
    except AvailabilityError:
        feed(_unfreeze, machine, seal)
    except LunalogError as error:
        feed(machine.seal_refused, seal, error, self._runtime.now())
    else:
        feed(machine.head_seen, reply.head, self._runtime.now())


def _unfreeze(machine: LeaderMachine, seal: Any) -> list[Any]:
    ahead, current = machine.next, machine.current
    if machine.seal is not seal or ahead is None or current is None:
        return []
    machine.seal = machine.next = current.bound = None
    for replica in current.replicas:
        if replica.is_open:
            replica.is_open = False
    return [DropSet(ahead)]


@fault(
    "R31",
    "a leader that resigns closes at its tail",
    "resigns",
    "lunalog.core.leadership:LeaderMachine._try_close",
)
def close_at_the_tail(real: Any, self: LeaderMachine, now: float) -> list[Any]:
    committed = self.committed
    current = self.current
    if not self.is_resigning or current is None or self.seal is not None or self.next is not None:
        return list(real(self, now))
    self.committed = self.tail
    try:
        return list(real(self, now))
    finally:
        self.committed = committed


@fault(
    "R31",
    "a leader goes on acknowledging while it closes",
    "resigns",
    "lunalog.core.leader_state:LeaderState._commit",
)
def acks_while_closing(real: Any, self: LeaderMachine) -> None:
    if self.current is not None and self.phase is Phase.LEADING:
        self.committed = max(self.committed, self.current.held)


@fault(
    "R25, trap 43",
    "epochs climb past what servers have promised",
    "restored",
    "lunalog.core.leader_state:LeaderState._metadata_lost",
    "lunalog.core.leadership:LeaderMachine.fenced",
    "lunalog.core.streams:proof_of_loss",
)
def epochs_climb(real: Any, *args: Any, **fields: Any) -> Any:
    if real.__name__ == "proof_of_loss":
        return ""
    if real.__name__ == "fenced":
        return real(*args, **{**fields, "has_certificate": False})
    machine, why = args
    return machine._end(not_leader(machine.head.name, None, why), is_release_due=True)
