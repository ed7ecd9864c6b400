"""Faults of fencing, deciding and carrying over: R5 to R9."""

from __future__ import annotations

from typing import Any

from tests.mutants.registry import fault

from lunalog.core.effects import AnswerRead
from lunalog.core.leader_state import Phase
from lunalog.core.leadership import LeaderMachine
from lunalog.core.outbox import CopiedFrame
from lunalog.core.recovery import Decision, Recovery, Stage
from lunalog.core.replica import Replica
from lunalog.wire import frames


@fault(
    "R6",
    "one fence too few lets a takeover decide",
    "takeover",
    "lunalog.core.recovery:seal_quorum",
)
def seal_quorum_less_one(real: Any, members: int, ack_quorum: int) -> int:
    return max(1, int(real(members, ack_quorum)) - 1)


@fault(
    "R5",
    "a fence promises nothing: it only tells what is held",
    "zombie",
    "lunalog.core.replica:Replica.fence",
)
def fence_without_promise(real: Any, self: Replica, stream: bytes, *rest: Any) -> Any:
    known = self.streams.get(stream)
    before = known.promise if known is not None else None
    state, is_new = real(self, stream, *rest)
    if before is not None:
        self.streams[stream].promise = before
    return state, is_new


@fault(
    "R5, trap 6",
    "a promise is kept in memory only",
    "power",
    "lunalog.core.replica:Replica.fence",
)
def fence_not_recorded(real: Any, self: Replica, *rest: Any) -> Any:
    state, _ = real(self, *rest)
    return state, False


@fault(
    "R5, trap 5",
    "a segment that was never seen is not fenced",
    "unseen",
    "lunalog.core.replica:Replica.fence",
)
def fence_only_what_is_known(
    real: Any, self: Replica, stream: bytes, segment: Any, *rest: Any
) -> Any:
    if self.find(stream, segment) is not None:
        return real(self, stream, segment, *rest)
    known = self.streams.get(stream)
    before = known.promise if known is not None else None
    state, _ = real(self, stream, segment, *rest)
    if before is None:
        del self.streams[stream]
    else:
        self.streams[stream].promise = before
    return state, False


@fault(
    "R5",
    "a fence tells the durable end, while more is queued and will be acknowledged",
    "queued",
    "lunalog.core.replica:Replica.fence",
)
def fence_tells_too_little(
    real: Any, self: Replica, stream: bytes, segment: Any, *rest: Any
) -> Any:
    state, is_new = real(self, stream, segment, *rest)
    held = self.find(stream, segment)
    if held is None or held.durable == held.end:
        return state, is_new
    object.__setattr__(state, "end", held.durable)
    return state, is_new


@fault(
    "R6, trap 16",
    "a takeover ends where all is known to be committed, not where somebody may have acked",
    "takeover",
    "lunalog.core.recovery:Recovery._holder",
    "lunalog.core.recovery:Recovery._negatives",
)
def tail_is_what_was_committed(real: Any, self: Any, *rest: Any) -> Any:
    return None if real.__name__ == "_holder" else self.seal_quorum


@fault(
    "R6, trap 2",
    "a single negative ends the walk",
    "takeover",
    "lunalog.core.recovery:Recovery._holder",
    "lunalog.core.recovery:Recovery._negatives",
)
def one_negative_is_enough(real: Any, self: Any, *rest: Any) -> Any:
    if real.__name__ == "_negatives":
        return self.seal_quorum if real(self, *rest) else 0
    is_absent = any(answer.lacks(self._at) for answer in self.answers.values())
    return None if is_absent else real(self, *rest)


@fault(
    "R6",
    "a takeover must end at the largest end it was told, also over a hole",
    "torn_end",
    "lunalog.core.recovery:Recovery._negatives",
)
def tail_is_the_largest_end(real: Any, self: Any, sequence: int) -> int:
    if self.stage is Stage.WALKING and any(a.end > sequence for a in self.answers.values()):
        return 0
    return int(real(self, sequence))


@fault(
    "R18, trap 3",
    "a damaged range counts as one that was never held",
    "bad_copy",
    "lunalog.core.recovery:FenceAnswer.lacks",
)
def damage_is_a_negative(real: Any, self: Any, sequence: int) -> bool:
    return bool(real(self, sequence) or self.is_damaged(sequence))


@fault(
    "R7",
    "a takeover begins where the segment does, below the trim",
    "trims_at_once",
    "lunalog.core.recovery:Recovery.__init__",
)
def takeover_below_the_trim(real: Any, self: Any, segment: Any, truncated_before: int) -> None:
    real(self, segment, 0)


@fault(
    "R7, R9",
    "the transaction is sent before the carry-over is durable on A",
    "takeover",
    "lunalog.core.leadership:LeaderMachine._try_seal",
)
def seal_before_carry_over(real: Any, self: LeaderMachine, now: float) -> list[Any]:
    ahead, takeover = self.next, self._takeover
    is_early = self.phase is Phase.TAKEOVER and self.seal is None and takeover.decision is not None
    if is_early and ahead is not None and ahead.working >= ahead.ack_quorum:
        return self._send_seal(takeover.segment, ahead.first, ahead.chain, ahead.segment, now)
    return list(real(self, now))


@fault(
    "R7, trap 15",
    "nothing is carried over: the old set is believed to keep it",
    "takeover",
    "lunalog.core.recovery:Recovery.next_read",
)
def nothing_is_carried_over(real: Any, self: Recovery) -> Any:
    found = real(self)
    decision = self.decision
    if decision is not None and decision.frames:
        self.decision = Decision(decision.end, decision.chain, decision.end)
    return found


@fault(
    "R7, R26",
    "the carried frames get a later epoch of origin",
    "takeover",
    "lunalog.client.takeover:_copies",
)
def carry_over_changes_the_epoch(real: Any, stream: bytes, body: bytes) -> list[CopiedFrame]:
    found = []
    for copy in real(stream, body):
        head = frames.parse(copy.frame)
        payloads = frames.payloads(head, copy.frame)
        made = frames.build(stream, head.first, head.epoch + 1, head.appended_us, payloads)
        found.append(CopiedFrame(copy.first, copy.count, frames.parse(made).crc, made))
    return found


@fault(
    "R9, R14",
    "read points are answered before the takeover is known",
    "takeover",
    "lunalog.core.leader_state:LeaderState.asked",
)
def read_point_in_takeover(real: Any, self: LeaderMachine, token: int, now: float) -> list[Any]:
    if self.phase is Phase.TAKEOVER:
        return [AnswerRead(token, self.committed)]
    return list(real(self, token, now))
