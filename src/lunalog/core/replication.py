"""One segment on its replica set: who holds how much, and what an ack quorum holds.

Source: R3, R4, R11, R19; I10.
"""

from __future__ import annotations

from operator import attrgetter

from lunalog.core.pace import Pace
from lunalog.core.quorum import check_set
from lunalog.errors import LunalogError, PeerError
from lunalog.types import Chain, Member, OpenSegment, SegmentId, Sequence

_matched_of = attrgetter("matched")


class Replica:
    """What the leader knows of one member of one segment."""

    __slots__ = (
        "away_at",
        "failure",
        "idle_ticks",
        "is_behind",
        "is_open",
        "matched",
        "member",
        "seen",
    )

    def __init__(self, member: Member, first: Sequence, now: float) -> None:
        self.member = member
        self.matched = first
        """End of what it holds durably, without holes, of this segment."""
        self.is_open = False
        """True while frames reach it: the segment is open there, over a live connection."""
        self.is_behind = False
        """It lacks frames that the leader no longer keeps: it waits for the next segment (R11)."""
        self.failure: LunalogError | None = None
        """Why it never counts again in this segment; none while it may."""
        self.away_at = now
        """Since when it has not been open."""
        self.seen = first
        """`matched` at the last tick."""
        self.idle_ticks = 0
        """Ticks for which it has owed acks and sent none."""

    def __repr__(self) -> str:
        state = (
            "failed"
            if self.failure
            else "behind"
            if self.is_behind
            else ("open" if self.is_open else "away")
        )
        return f"{self.member}:{self.matched} {state}"

    @property
    def is_working(self) -> bool:
        """True if its acks can still move the committed sequence."""
        return self.is_open and self.failure is None


class SegmentReplication:
    """Decide what an ack quorum of one segment holds.

    Invariants: `held` never moves back and never passes `bound`; a member counts once (R4), with
    what *this* segment's acks under its incarnation said.
    """

    __slots__ = ("_ack_quorum", "bound", "held", "pace", "replicas", "segment")

    def __init__(self, segment: OpenSegment, now: float = 0.0) -> None:
        check_set(segment.members, segment.ack_quorum)
        self.segment = segment
        self.replicas = tuple(Replica(member, segment.first, now) for member in segment.members)
        self.held = segment.first
        """A-th largest matched: durable on an ack quorum, with all before it."""
        self.bound: Sequence | None = None
        """While rolling: acks count up to here only (R11)."""
        self.pace = Pace() if 1 < segment.ack_quorum == len(segment.members) else None
        """Only where all must answer: elsewhere the A fastest decide, and a slow one costs nothing."""
        self._ack_quorum = segment.ack_quorum

    def __repr__(self) -> str:
        return f"<{self.segment.id} held {self.held}, bound {self.bound}: {self.replicas}>"

    @property
    def id(self) -> SegmentId:
        """The segment's id."""
        return self.segment.id

    @property
    def first(self) -> Sequence:
        """The segment's first sequence."""
        return self.segment.first

    @property
    def chain(self) -> Chain:
        """At `first`."""
        return self.segment.chain

    @property
    def ack_quorum(self) -> int:
        """A of this segment."""
        return self._ack_quorum

    @property
    def working(self) -> int:
        """How many members can be written to now."""
        return sum(replica.is_working for replica in self.replicas)

    @property
    def floor(self) -> Sequence:
        """End of what every replica that may still ask for frames has."""
        found = [r.matched for r in self.replicas if r.failure is None and not r.is_behind]
        return min(found) if found else self.held

    def is_on_all(self, end: Sequence) -> bool:
        """True if every replica that may still ask for frames has everything below `end`."""
        for replica in self.replicas:  # a loop, because this runs once an ack
            if replica.matched < end and replica.failure is None and not replica.is_behind:
                return False
        return True

    def accepted(self, replica: Replica, end: Sequence, tail: Sequence) -> bool:
        """Note that `replica` holds everything below `end`; true when `held` moved.

        Raises `PeerError` for an ack of what was never written: it is not counted.
        """
        if end <= replica.matched or replica.failure is not None:
            return False
        if end > tail:
            raise PeerError(f"{replica.member} acked {end} of {self.id}; only {tail} were written")
        replica.matched = end
        return end > self.held and self._count()

    def timed(self, pace: Pace, replica: Replica, now: float) -> None:
        """`replica` acked the frame that is timed, or what is behind it."""
        missing = sum(r.matched < pace.end for r in self.replicas)
        pace.acked(replica.member.server, missing, now)

    def _count(self) -> bool:
        held = sorted(map(_matched_of, self.replicas))[-self._ack_quorum]
        if self.bound is not None and held > self.bound:
            held = self.bound
        if held <= self.held:
            return False
        self.held = held
        return True

    def bind(self, bound: Sequence) -> None:
        """Count acks up to `bound` only from now on; it is not below what is held."""
        self.bound = max(bound, self.held)

    def fail(self, replica: Replica, error: LunalogError, *, lost: bool = False) -> None:
        """Never count `replica` again; with `lost`, not even for what it acked (R19)."""
        replica.is_open = False
        replica.failure = error
        if lost:
            replica.matched = self.first
