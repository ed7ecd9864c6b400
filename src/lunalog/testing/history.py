"""What a run did, written down as it happened: the checkers read nothing else.

Times are the simulation's own (true) time, not any node's clock.  Every append carries bytes that no
other append carries, so the payload is its identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lunalog.types import (
    Chain,
    Epoch,
    LeaderIncarnation,
    Member,
    Promise,
    SealedSegment,
    SegmentId,
    Sequence,
    StreamHead,
    StreamId,
)


@dataclass(slots=True)
class Append:
    """One event that somebody tried to append."""

    payload: bytes
    peer: str
    incarnation: LeaderIncarnation
    epoch: Epoch
    invoked: float
    outcome: str = "pending"
    """acked, refused (never applied), unknown, or pending (its client died)."""
    sequence: Sequence | None = None
    done: float = 0.0


@dataclass(slots=True)
class Delivery:
    """One event that a reader got."""

    sequence: Sequence
    epoch: Epoch
    payload: bytes


@dataclass(slots=True)
class ReaderSession:
    """One reader from its opening to its end; `start` is where it began."""

    name: str
    start: Sequence
    deliveries: list[Delivery] = field(default_factory=list)


@dataclass(slots=True)
class LinearRead:
    """One linearizable question and its answer."""

    peer: str
    invoked: float
    done: float
    committed: Sequence


@dataclass(slots=True)
class HeadChange:
    """One transaction of the master on a stream's head."""

    at: float
    head: StreamHead


@dataclass(slots=True)
class RowChange:
    """One transaction of the master on a sealed segment."""

    at: float
    stream: StreamId
    row: SealedSegment


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A frame as it lay on one server at some moment."""

    member: Member
    stream: StreamId
    segment: SegmentId
    first: Sequence
    count: int
    crc: int


@dataclass(slots=True)
class ServerMemory:
    """What a server had promised or acked when it stopped, or held when it was back (I9)."""

    promises: dict[StreamId, Promise]
    ends: dict[tuple[StreamId, SegmentId], Sequence]


@dataclass(slots=True)
class Restart:
    """A server's memory before and after a crash with its disk intact."""

    server: str
    before: ServerMemory
    after: ServerMemory


@dataclass(slots=True)
class ReplicaEnd:
    """What one replica says of a segment once all is quiet."""

    member: Member
    stream: StreamId
    segment: SegmentId
    first: Sequence
    end: Sequence
    committed: Sequence
    chain: Chain


@dataclass
class History:
    """Everything that the checkers may look at."""

    stream: StreamId = b""
    appends: list[Append] = field(default_factory=list)
    readers: list[ReaderSession] = field(default_factory=list)
    linear_reads: list[LinearRead] = field(default_factory=list)
    heads: list[HeadChange] = field(default_factory=list)
    rows: list[RowChange] = field(default_factory=list)
    held: list[HeldFrame] = field(default_factory=list)
    replicas: list[ReplicaEnd] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)
    log: list[Delivery] = field(default_factory=list)
    """The final log, read once everything is healed."""
    log_start: Sequence = 0
    """First event that is kept at the end."""

    @property
    def acked(self) -> list[Append]:
        """Appends whose caller was told a sequence."""
        return [append for append in self.appends if append.outcome == "acked"]


@dataclass
class Finding:
    """A checker's answer: how many facts it looked at, and what is wrong."""

    checked: int = 0
    violations: list[str] = field(default_factory=list)

    def require(self, holds: bool, text: str, **values: object) -> None:
        """Count one fact, and note it if it does not hold (`text.format(**values)`)."""
        self.checked += 1
        if not holds:
            self.violations.append(text.format(**values))
