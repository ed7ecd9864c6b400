"""Decide where a segment of a former epoch ends: T, and what must be carried over (R5 to R7).

A walk up from C0: a verified copy of the next frame keeps it; else S definitive negatives end the
walk; else another witness is needed.  Answers come in any order, late, twice or never.

Why no acknowledged event is lost: it is on A members that acked before their fence.  S members that
are fenced and end at or below a sequence include one of any A, so that sequence was never
acknowledged.  Damaged ranges are neither copies nor negatives (R18).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence as Run
from dataclasses import dataclass, field

from lunalog.core import chain as chains
from lunalog.core.outbox import CopiedFrame
from lunalog.core.quorum import check_set, held_by, seal_quorum
from lunalog.errors import PeerError
from lunalog.types import Chain, Member, OpenSegment, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceAnswer:
    """One member's end at the point of its log where its promise became durable (R5)."""

    end: Sequence
    chain: Chain
    """At `end`; nothing is said by it when nothing is held, or the frame before `end` is damaged."""
    committed: Sequence = 0
    """Known committed sequence of the segment; 0: none known."""
    unknown: tuple[tuple[Sequence, Sequence], ...] = ()

    def holds(self, sequence: Sequence) -> bool:
        """True if a copy of `sequence` should be readable there."""
        return sequence < self.end and not self.is_damaged(sequence)

    def lacks(self, sequence: Sequence) -> bool:
        """True if this member never acked `sequence`, and never will (I13)."""
        return sequence >= self.end and not self.is_damaged(sequence)

    def is_damaged(self, sequence: Sequence) -> bool:
        """True if nothing can be said of `sequence`."""
        return any(first <= sequence < end for first, end in self.unknown)


class Stage(enum.Enum):
    """How far a recovery is."""

    FENCING = "fencing"
    WALKING = "walking"
    DECIDED = "decided"


@dataclass(slots=True)
class Decision:
    """Where the old segment ends (C0), and the frames C0..T to carry over."""

    end: Sequence
    """C0: end of the old segment's row."""
    chain: Chain
    """At C0."""
    tail: Sequence
    """T."""
    frames: list[CopiedFrame] = field(default_factory=list)


class Recovery:
    """Fence answers and copies in, T out.  `next_read` tells whom to ask for what."""

    def __init__(self, segment: OpenSegment, truncated_before: Sequence) -> None:
        check_set(segment.members, segment.ack_quorum)
        self.segment = segment
        self.seal_quorum = seal_quorum(len(segment.members), segment.ack_quorum)
        self.answers: dict[Member, FenceAnswer] = {}
        self.witnesses: list[Member] = []
        """Members that live under another incarnation: no vote, but their bytes count (R18)."""
        self.stage = Stage.FENCING
        self.decision: Decision | None = None
        self._trim = max(truncated_before, segment.first)
        self._at = segment.first
        self._base = segment.first
        self._base_chain: Chain | None = None
        self._chain: Chain | None = None
        """At `_at`; none until some member has told it."""
        self._frames: list[CopiedFrame] = []
        self._asked: set[Member] = set()
        """Who could not give the frame at `_at`."""

    # ------------------------------------------------------------------ answers

    def fenced(self, member: Member, answer: FenceAnswer) -> bool:
        """Note a durable fence with what it told; a repeat changes nothing.  True if it is new."""
        if member in self.answers or member not in self.segment.members:
            return False
        self.answers[member] = answer
        if self.stage is Stage.WALKING and answer.end == self._at:
            self._chain = self._agreed(self._chain, answer)
            if self._at == self._base:
                self._base_chain = self._chain
        return True

    def refused(self, member: Member) -> None:
        """The server lives under another incarnation: its slot is failed, its bytes may help."""
        if member in self.segment.members and member not in self.witnesses:
            self.witnesses.append(member)

    def copied(
        self, member: Member, start: Sequence, before: Chain, found: Run[CopiedFrame]
    ) -> bool:
        """Take frames, whose checksums were verified, that `member` sent for a read at `start`.

        Returns True if the walk got further.  What does not fit is not believed: the member counts
        as one that could not give the frame.
        """
        if self.stage is not Stage.WALKING or start != self._at:
            return False
        if not found or not self._fits(found[0], before):
            self._asked.add(member)
            return False
        if found[0].first < self._at:
            self._rebase(found[0].first, before)
        elif self._chain is None:
            self._rebase(self._at, before)
        chain = before
        for copy in found:
            if copy.first != self._at:
                break
            chain = self._take(copy, chain)
        return True

    def unread(self, member: Member, start: Sequence) -> None:
        """`member` did not give the frame at `start`: damaged there, gone, or silent."""
        if start == self._at:
            self._asked.add(member)

    def retry(self) -> None:
        """Some time has passed: everybody may be asked again."""
        self._asked.clear()

    # ------------------------------------------------------------------ what next

    def next_read(self) -> tuple[Member, Sequence] | None:
        """Return whom to ask for the frames from where on; none: decided, or wait for an answer."""
        if self.stage is Stage.FENCING and not self._start():
            return None
        if self.stage is Stage.DECIDED:
            return None
        reader = self._holder()
        if reader is not None:
            return reader, self._at
        is_absent = self._negatives(self._at) >= self.seal_quorum
        if is_absent and self._base_chain is not None and self.lost_evidence() is None:
            self.stage = Stage.DECIDED
            self.decision = Decision(self._base, self._base_chain, self._at, self._frames)
            return None
        reader = self._witness()
        return None if reader is None else (reader, self._at)

    def lost_evidence(self) -> Sequence | None:
        """Return a reported committed sequence that the fenced members cannot hold, if any.

        It proves that acknowledged events are lost (R6): nothing is clamped, nothing decided, before
        another witness or the operator speaks (R18).
        """
        reported = max((a.committed for a in self.answers.values()), default=0)
        reported = max(reported, self._trim)
        if reported <= self._at and self._chain is not None:
            return None
        last = reported - 1
        if last < self.segment.first or self._negatives(last) < self.seal_quorum:
            return None
        return reported

    def _start(self) -> bool:
        if len(self.answers) < self.seal_quorum:
            return False
        answers = self.answers.values()
        known = [self._trim, *(a.committed for a in answers)]
        whole = [a.end for a in answers if not a.unknown]
        if len(whole) >= self.segment.ack_quorum:
            known.append(held_by(whole, self.segment.ack_quorum))
        self._at = self._base = max(known)
        if self._at == self.segment.first:
            self._chain = self.segment.chain
        for answer in answers:
            if answer.end == self._at:
                self._chain = self._agreed(self._chain, answer)
        self._base_chain = self._chain
        self.stage = Stage.WALKING
        return True

    def _holder(self) -> Member | None:
        """The fenced member that should have the frame here; the longest run first."""
        found = [
            (-answer.end, index, member)
            for index, member in enumerate(self.segment.members)
            if (answer := self.answers.get(member)) is not None
            and member not in self._asked
            and answer.holds(self._at)
        ]
        return min(found)[2] if found else None

    def _witness(self) -> Member | None:
        """A member without a vote that has not been asked for the frame here."""
        return next((m for m in self.witnesses if m not in self._asked), None)

    def _negatives(self, sequence: Sequence) -> int:
        return sum(answer.lacks(sequence) for answer in self.answers.values())

    # ------------------------------------------------------------------ the walk

    def _fits(self, copy: CopiedFrame, before: Chain) -> bool:
        if copy.first + copy.count <= self._at:
            return False
        if copy.first == self._at:
            return self._chain is None or self._chain == before
        # Only a trim may lie inside a frame; it then counts as the frame's first (R7).
        return (
            copy.first < self._at == self._trim == self._base
            and copy.first >= self.segment.first
            and not self._frames
        )

    def _rebase(self, base: Sequence, chain: Chain) -> None:
        self._at = self._base = base
        self._chain = self._base_chain = chain

    def _take(self, copy: CopiedFrame, before: Chain) -> Chain:
        chain = chains.extend(before, copy.first, copy.count, copy.crc)
        end = copy.first + copy.count
        for answer in self.answers.values():
            if answer.end == end:
                self._agreed(chain, answer)
        self._frames.append(copy)
        self._at, self._chain = end, chain
        self._asked.clear()
        return chain

    def _agreed(self, ours: Chain | None, answer: FenceAnswer) -> Chain | None:
        """Compare our chain with a member's at one end (I7); return what is known of it now."""
        if answer.end <= self.segment.first or answer.is_damaged(answer.end - 1):
            return ours  # it holds nothing here, or cannot say what
        if ours is not None and ours != answer.chain:
            raise PeerError(
                f"I7: two contents of {self.segment.id} below one end: chains {ours:016x} and "
                f"{answer.chain:016x}; an operator must look at its replicas {self.segment.members}"
            )
        return answer.chain
