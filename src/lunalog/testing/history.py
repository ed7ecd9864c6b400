"""What happened to one stream, written down as it happened: the checkers read nothing else.

Times are one true clock's seconds, not any node's.  Every append carries bytes that no other append
carries, so the payload is its identity.  Whoever runs real processes fills in what clients saw
(`appends`, `readers`, `linear_reads`, `log`, `calls`) and leaves the rest empty: a checker counts
what it looked at, so that nobody takes an empty list for a proof.

Source: docs/protocol.md, invariants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

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

PENDING: Final = "pending"
ACKED: Final = "acked"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"

# ---------------------------------------------------------------------- what clients saw


@dataclass(slots=True)
class Append:
    """One event that somebody tried to append."""

    payload: bytes
    peer: str
    incarnation: LeaderIncarnation
    epoch: Epoch
    """Of the writer when it was called; 0: it led nothing."""
    invoked: float
    outcome: str = PENDING
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
    """One linearizable question and its answer; or a linearizable read and where it ended."""

    peer: str
    invoked: float
    done: float
    committed: Sequence


@dataclass(frozen=True, slots=True)
class ServerFact:
    """What a server had durably at the moment of a transaction on the head."""

    member: Member
    promise: Promise
    ends: dict[SegmentId, Sequence]
    """Of the segments that were open before and after."""
    is_harmed: bool
    """Its disk was harmed at some time: what it says of itself may be less than it had said."""


@dataclass(slots=True)
class Call:
    """One call of a client that must not wait for ever (L2)."""

    peer: str
    incarnation: LeaderIncarnation
    what: str
    invoked: float
    limit_s: float
    """It ends within this, whatever its outcome, while its client runs undisturbed."""
    done: float | None = None


# ---------------------------------------------------------------------- what the master decided


@dataclass(slots=True)
class HeadChange:
    """One transaction of the master on a stream's head."""

    at: float
    head: StreamHead
    servers: tuple[ServerFact, ...] = ()


@dataclass(slots=True)
class RowChange:
    """One transaction of the master on a sealed segment."""

    at: float
    stream: StreamId
    row: SealedSegment
    copies: tuple[Member, ...] | None = None
    """Listed members that held all of it durably by then; none: nobody looked."""


# ---------------------------------------------------------------------- what servers did


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """A frame as one server accepted it, served it, or had it on its disk; each is noted once."""

    member: Member
    stream: StreamId
    segment: SegmentId
    first: Sequence
    count: int
    crc: int
    epoch: Epoch = 0
    """Of its origin; 0: only its place and checksum were seen."""
    is_sound: bool = True
    """Its bytes matched its checksum, where they were seen."""


class Denial(NamedTuple):
    """A server told a recoverer that it never held anything from `first` on (R5, R6)."""

    at: float
    member: Member
    segment: SegmentId
    first: Sequence
    unknown: tuple[tuple[Sequence, Sequence], ...] = ()
    """Ranges of which it said that it cannot tell."""


class Removal(NamedTuple):
    """A server gave up [first, end) of a segment."""

    at: float
    member: Member
    segment: SegmentId
    first: Sequence
    end: Sequence
    kind: str
    """trim, suffix, drop, or delete."""
    certificate: SealedSegment | None = None
    """Under which a suffix was cut."""


class Loss(NamedTuple):
    """An injected fault let this member's disk lose something it had said was durable."""

    at: float
    member: Member


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
    is_complete: bool = False
    """It knows its certificate and holds everything below its end (R21)."""
    is_damaged: bool = False
    """Some of it is unknown, which nothing mends yet (R18, R20)."""


# ---------------------------------------------------------------------- liveness


class Campaign(NamedTuple):
    """From the moment the core was stable to the first append that was acknowledged (L1)."""

    stable: float
    ended: float
    lease_s: float
    rtt_s: float


class GraySpell(NamedTuple):
    """One server was slow, not dead, from `first` to `end` (L3)."""

    server: str
    first: float
    end: float


# ---------------------------------------------------------------------- all of it


@dataclass
class History:
    """Everything that the checkers may look at, of one stream.

    Attributes:
        appends: In the order in which they were called; a writer's calls come from one task.
        acks: How far each member ever acknowledged each segment.
        log: The final log, read once everything is healed; `has_log` is false when there is none,
            because the stream was deleted.
        log_start: First event that is kept at the end.
        over_at: When the run ended, and `alive` whose client still ran then.
    """

    stream: StreamId = b""
    name: str = ""
    appends: list[Append] = field(default_factory=list)
    readers: list[ReaderSession] = field(default_factory=list)
    linear_reads: list[LinearRead] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    heads: list[HeadChange] = field(default_factory=list)
    rows: list[RowChange] = field(default_factory=list)
    deleted_at: float | None = None
    held: list[HeldFrame] = field(default_factory=list)
    replicas: list[ReplicaEnd] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)
    acks: dict[tuple[Member, SegmentId], Sequence] = field(default_factory=dict)
    denials: list[Denial] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    campaigns: list[Campaign] = field(default_factory=list)
    gray_spells: list[GraySpell] = field(default_factory=list)
    log: list[Delivery] = field(default_factory=list)
    has_log: bool = True
    log_start: Sequence = 0
    over_at: float = 0.0
    alive: frozenset[LeaderIncarnation] = frozenset()

    @property
    def acked(self) -> list[Append]:
        """Appends whose caller was told a sequence."""
        return [append for append in self.appends if append.outcome == ACKED]


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
