"""The state of one leader: what it has sent, who holds it, what is committed, and how it ends.

`leadership.LeaderMachine` adds the decisions that change sets and segments.  `committed` is what may
be acknowledged: it moves only by acks of the segment that the head names, up to the boundary while
rolling, and not at all from sending a close until it is known (R31).

Source: R3, R4, R9, R11, R19, R31.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable

from lunalog.core.asking import ReadPoints
from lunalog.core.doubts import Doubts
from lunalog.core.effects import (
    Alarm,
    AnswerRead,
    DropSet,
    Effect,
    Ended,
    GiveBack,
    Seal,
    SendFrom,
    StopFencing,
)
from lunalog.core.outbox import Outbox
from lunalog.core.replication import Replica, SegmentReplication
from lunalog.core.rolling import STALL_TICKS, LeaderSettings, RollWatch, answering
from lunalog.core.takeover import Takeover
from lunalog.errors import (
    FencedError,
    GoneError,
    InvariantError,
    LunalogError,
    MetadataLostError,
    NotLeaderError,
    ReplicaConflictError,
    SealedError,
    StorageError,
    WrongIncarnationError,
)
from lunalog.types import Chain, Frame, Member, Peer, Promise, SegmentId, Sequence, StreamHead

PROPOSE_RETRY_S = 0.25
ATTEMPT_S = 1.0
"""A new set on which nothing moves for this long is replaced by a fresh one."""


class Phase(enum.Enum):
    """Where in its life a leader is."""

    TAKEOVER = "takeover"
    LEADING = "leading"
    ENDED = "ended"


class LeaderState(abc.ABC):
    """What one leader of one stream knows under one epoch (R2)."""

    def __init__(
        self,
        head: StreamHead,
        peer: Peer,
        settings: LeaderSettings,
        clock_us: Callable[[], int] = lambda: 0,
    ) -> None:
        if head.leader != peer or head.released or head.deleted:
            raise InvariantError(f"R1: {head.name!r} is not led by {peer}")
        if head.open is not None and head.open.id.epoch >= head.epoch:
            raise InvariantError(f"R2: epoch {head.epoch} of {head.name!r} has begun elsewhere")
        self.head = head
        self.peer = peer
        self.epoch = head.epoch
        self.promise = Promise(head.epoch, peer.incarnation)
        self.phase = Phase.TAKEOVER
        self.committed: Sequence = head.open.first if head.open else head.next
        """Everything below may be acknowledged and read; it never moves back."""
        self.outbox = Outbox(head.next, head.chain, settings.in_flight_bytes_max)
        self.current: SegmentReplication | None = None
        """The segment of ours that the head names; only its acks count."""
        self.next: SegmentReplication | None = None
        """The segment that is written ahead of the transaction that opens it."""
        self.seal: Seal | None = None
        """A transaction that was sent and whose outcome is not known (R28)."""
        self.is_resigning = False
        self.error: LunalogError | None = None
        self.next_tick: float | None = None
        """When `tick` should be called at the latest."""
        self.timing_at = 0.0
        """The first frame from this time on should be timed (`time_last`)."""
        self.settings = settings
        self._clock_us = clock_us
        self._rolls = RollWatch(settings)
        self._reads = ReadPoints()
        self._n = 0
        self._reason = "takeover"
        self._servers: tuple[Member, ...] | None = None
        self._is_proposing = False
        self._propose_at = 0.0
        self._propose_retry_s = PROPOSE_RETRY_S
        self._takeover = Takeover(head)
        self._is_decided = False
        self._doubts = Doubts()
        self._attempt: tuple[int, Sequence] = (0, 0)
        self._attempt_at = 0.0
        self._carried: Sequence = 0
        self._attempt_s = ATTEMPT_S
        self._healthy_at = 0.0
        self._is_giving_back = False
        self._resign_at = 0.0
        self._opened_at = 0.0
        self._bytes = 0
        self._alarms: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"<LeaderMachine {self.head.name} epoch {self.epoch} {self.phase.value}, committed "
            f"{self.committed}, tail {self.outbox.tail}, current {self.current}, next {self.next}>"
        )

    # ------------------------------------------------------------------ what is so

    @property
    def tail(self) -> Sequence:
        """First sequence that no frame has."""
        return self.outbox.tail

    @property
    def is_accepting(self) -> bool:
        """True while appends are taken."""
        return self.phase is Phase.LEADING and not self.is_resigning

    @property
    def is_waiting(self) -> bool:
        """True while acks are due without which something cannot go on."""
        is_due = self.committed < self.outbox.tail or self.next is not None
        return is_due and self.phase is Phase.LEADING

    @property
    def is_steady(self) -> bool:
        """True while nothing but acks is waited for, and none for long."""
        is_changing = self.next is not None or self.seal is not None or self.is_resigning
        is_asking = self._is_proposing or self._reads.is_waiting or self._doubts.is_open
        if is_changing or is_asking or self._rolls.wanted or self.current is None:
            return False
        return answering(self.current, STALL_TICKS) == len(self.current.replicas)

    @property
    def target(self) -> SegmentReplication | None:
        """Where new frames go: ahead into the next segment while rolling."""
        return self.next or self.current

    @property
    def boundary(self) -> Sequence:
        """End of what is sent on `current`: while rolling, later frames go ahead (R11)."""
        return self.tail if self.next is None else self.next.first

    def sent(self, segment: SegmentReplication) -> Sequence:
        """End of what is sent on `segment`, one of `current` and `next`."""
        return self.boundary if segment is self.current else self.tail

    def mark(self, segment: SegmentReplication) -> Sequence:
        """The committed sequence that may be told on `segment`: frozen until the head names it."""
        return self.committed if segment is self.current else segment.first

    @abc.abstractmethod
    def _settle(self, out: list[Effect], now: float) -> list[Effect]:
        """Do everything that has become possible; the machine says what that is."""

    # ------------------------------------------------------------------ replicas of ours

    def opened(
        self, segment: SegmentReplication, replica: Replica, end: Sequence, chain: Chain, now: float
    ) -> list[Effect]:
        """The segment is open at a member, durably, and it holds everything below `end`.

        What it holds is compared with what was sent before anything more is sent (R3, R19).
        """
        if segment is not self.current and segment is not self.next:
            return []
        if replica.failure is not None:
            return []
        replica.idle_ticks = 0
        if end < replica.matched:
            lost = StorageError(f"{replica.member} acked {replica.matched}, now it ends at {end}")
            segment.fail(replica, lost, lost=True)
            out = self._alarm("replica_lost_acked", member=str(replica.member), end=end)
            return self._settle(out, now)
        if end < self.outbox.start:
            replica.is_behind = True
            replica.is_open = False
            return self._settle([], now)
        if end > self.tail or self.outbox.chain_at(end) != chain:
            return self._conflict(
                ReplicaConflictError(
                    f"{replica.member} holds other bytes below {end} of {segment.id} than were sent"
                )
            )
        replica.is_open = True
        replica.is_behind = False
        segment.accepted(replica, end, self.tail)
        out = [SendFrom(segment, replica, end)]
        self._commit()
        return self._settle(out, now)

    def overtaken(self, segment: SegmentReplication, replica: Replica, now: float) -> list[Effect]:
        """A member takes so little that frames it lacks are not kept any more."""
        replica.is_behind = True
        replica.is_open = False
        replica.away_at = now
        return self._settle([], now)

    def away(self, segment: SegmentReplication, replica: Replica, now: float) -> list[Effect]:
        """The connection to a member is lost; the driver opens it again."""
        replica.is_behind = False
        if replica.is_open:
            replica.is_open = False
            replica.away_at = now
        if segment is not self.current and segment is not self.next:
            return []
        return self._settle([], now)

    def poke(self, now: float) -> list[Effect]:
        """Something was wished: do what has become possible."""
        return self._settle([], now)

    def refused(
        self, segment: SegmentReplication, replica: Replica, error: LunalogError, now: float
    ) -> list[Effect]:
        """A member refused to open the segment, or to take its frames.

        `replica.failure` tells afterwards whether it is any use to try again.
        """
        if replica.is_open:
            replica.is_open = False
            replica.away_at = now
        if self.phase is Phase.ENDED or (segment is not self.current and segment is not self.next):
            return []
        if isinstance(error, ReplicaConflictError):
            return self._conflict(error)
        out = self._doubts.told(segment.id, error)
        if isinstance(error, WrongIncarnationError | FencedError | SealedError | GoneError):
            segment.fail(replica, error)
        return self._settle(out, now)

    def moved(self, segment: SegmentReplication, now: float) -> list[Effect]:
        """`segment.held` moved by an ack: look at `committed`, it may have moved too."""
        if segment is self.current:
            self._commit()
            if self.next is None and not self.is_resigning:
                return []  # the common case: nothing is waiting for this
        return self._settle([], now)

    def _commit(self) -> None:
        current = self.current
        if current is None or self.phase is not Phase.LEADING:
            return
        if self.seal is not None and self.seal.release:
            return  # R31: from sending the close until it is known nothing more is acknowledged
        self.committed = max(self.committed, current.held)

    def trim(self) -> None:
        """Let go of frames that nobody will ask for."""
        current, outbox = self.current, self.outbox
        is_over = outbox.bytes > outbox.bytes_max  # its own property, without a call
        if current is None or not (is_over or current.is_on_all(outbox.oldest_end)):
            return  # the common case: an ack of one that is not the last
        floor = current.floor
        if self.next is not None:
            floor = min(floor, self.next.floor)
        outbox.trim(min(floor, self.committed), self.committed)

    # ------------------------------------------------------------------ appends

    def appended(self, first: Sequence, count: int, crc: int, frame: Frame) -> None:
        """A frame was made: from now on it goes to `target`."""
        if not self.is_accepting:
            raise InvariantError("R9: a frame was made by who does not lead")
        self.outbox.add(first, count, crc, frame)
        self._bytes += len(frame)
        if self._bytes > self.head.policy.segment_bytes_max:
            self.want_roll("size")

    def time_last(self, now: float) -> None:
        """Time the frame that was made last, to find a member that sets the pace of all (R11)."""
        self.timing_at = now + self.settings.tick_s
        current = self.current
        if current is not None and current.pace is not None and self.next is None:
            current.pace.sent(self.tail, now)

    def want_roll(self, reason: str) -> None:
        """Roll when that is possible; the next tick looks."""
        if not self._rolls.wanted:
            self._rolls.wanted = reason

    # ------------------------------------------------------------------ read points: R14

    def asked(self, token: int, now: float) -> list[Effect]:
        """Somebody wants to read everything that was acknowledged before now."""
        if self.phase is Phase.ENDED:
            error = self.error or not_leader(self.head.name, None)
            return [AnswerRead(token, 0, error)]
        if self.phase is Phase.TAKEOVER:
            return [AnswerRead(token, 0, not_leader(self.head.name, None, "recovery is not over"))]
        self._reads.ask(token, self.committed, now)
        return self._settle([], now)

    def checked(
        self, number: int, member: Member, *, is_unfenced: bool, now: float
    ) -> list[Effect]:
        """A member of the open set answered a check."""
        out = self._reads.checked(number, member, is_unfenced=is_unfenced, now=now)
        return self._settle(out, now)

    def check_failed(
        self, number: int, segment: SegmentId, member: Member, error: LunalogError, now: float
    ) -> list[Effect]:
        """A member refused a check of `segment`, which may have been rolled since, or is silent."""
        out = self._doubts.told(segment, error)
        out += self._reads.checked(number, member, is_unfenced=False, now=now)
        return self._settle(out, now)

    # ------------------------------------------------------------------ the end

    def _give_back(self, now: float) -> list[Effect]:
        """R15, N2: who cannot open its segment or reach A for long lets somebody else try."""
        target = self.target
        is_moving = self.phase is Phase.LEADING and (
            target is not None
            and (
                answering(target, STALL_TICKS) >= target.ack_quorum
                or target.held > self._carried  # slowly, and patience is not counted on top
            )
        )
        if target is not None:
            self._carried = max(self._carried, target.held)
        if is_moving or self.seal is not None:
            self._healthy_at = now
        stall_s = self.settings.leader_stall_ms / 1000
        if self._is_giving_back or now - self._healthy_at < stall_s:
            return []
        self._is_giving_back = True
        return [GiveBack()]

    def given_back(self, now: float) -> list[Effect]:
        """The master released the epoch."""
        return self._end(
            not_leader(self.head.name, None, "the epoch was given back"), is_release_due=False
        )

    def kept(self, now: float) -> list[Effect]:
        """The master did not release the epoch: nobody else could lead."""
        self._is_giving_back = False
        self._healthy_at = now
        return self._settle([], now)

    def lost(self, error: LunalogError) -> list[Effect]:
        """The driver has learned that the epoch is over, or that nobody can be told any more."""
        return self._end(error, is_release_due=False)

    def abandon(self, error: LunalogError) -> list[Effect]:
        """The journal ends, or the driver cannot go on."""
        return self._end(error, is_release_due=True)

    def _end(self, error: LunalogError, *, is_release_due: bool) -> list[Effect]:
        if self.phase is Phase.ENDED:
            return []
        self.phase = Phase.ENDED
        self.error = error
        self.next_tick = None
        out: list[Effect] = [StopFencing()]
        out += [DropSet(s) for s in (self.current, self.next) if s is not None]
        out += self._reads.end(error)
        out.append(Ended(error, is_release_due))
        return out

    def _conflict(self, error: LunalogError) -> list[Effect]:
        """Two contents of one sequence: this leader dies, the replicas keep what they have (R3)."""
        out = self._alarm("replica_conflict", why=error.message)
        return out + self._end(error, is_release_due=True)

    def _metadata_lost(self, why: str) -> list[Effect]:
        error = MetadataLostError(
            f"the metadata of {self.head.name!r} went back behind what servers hold ({why}): the "
            "stream is read-only until an operator confirms it (R25)"
        )
        out = self._alarm("metadata_lost", why=why)
        return out + self._end(error, is_release_due=False)

    def _alarm(self, event: str, **fields: object) -> list[Effect]:
        if event in self._alarms:
            return []
        self._alarms.add(event)
        return [Alarm(event, {"stream": self.head.name, "epoch": self.epoch, **fields})]


def not_leader(stream: str, leader: str | None, why: str = "") -> NotLeaderError:
    """Return the error that calls of a former leader end in."""
    told = f": {why}" if why else ""
    who = f"{leader} leads it now" if leader else "nobody is known to lead it now"
    return NotLeaderError(
        f"this client does not lead {stream!r} any more{told}; {who}", leader=leader
    )
