"""The words of lunalog as types: identities, metadata records, events, roles.

Records are `msgspec.Struct`s because they travel on the wire and lie in the metadata store as they
are: array-like ones only ever get new fields at the end, with defaults.  Intervals are half-open: an
`end` is the first sequence that is *not* held.
"""

from __future__ import annotations

import datetime
import enum
import re
from typing import Annotated, Final

import msgspec

from lunalog import limits
from lunalog.errors import BadNameError, UsageError

# Bounds are checked where a peer's message or a stored record is decoded (H1), not in this process.
Sequence = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQUENCE_MAX)]
"""Dense integer from 0; one order a stream over all epochs."""
Epoch = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQUENCE_MAX)]
"""A leader's turn; 0 before the first grant, then it only grows."""
Count = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQUENCE_MAX)]
"""A number that only grows: incarnation, boot, version, position."""
Chain = Annotated[int, msgspec.Meta(ge=0)]
"""64-bit running hash over the frames of a stream up to some sequence (R26); 0 before sequence 0."""
Frame = bytes | bytearray
"""One whole frame, as it travels and is stored; once made it never changes (R26)."""
StreamId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""16 random bytes; never reused, unlike a stream's name."""
LeaderIncarnation = Annotated[bytes, msgspec.Meta(max_length=16)]
"""16 random bytes a journal object (`linc` in the rules, R2); empty: nobody's."""

STREAM_NAME = re.compile(r"[A-Za-z0-9._/-]{1,255}", re.ASCII)
NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
LAST_US: Final = 253_402_300_799_000_000
"""The last second that `datetime` can show, in microseconds since 1970."""


class SegmentId(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The `n`-th segment that epoch `epoch` tried to open; only that epoch writes to it."""

    epoch: Epoch
    n: Count

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"


class Member(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One journal server under one incarnation: what a replica set names (R19)."""

    server: str
    incarnation: Count

    def __str__(self) -> str:
        return f"{self.server}#{self.incarnation}"


class Peer(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One client process: its name, and the incarnation behind it (R2)."""

    name: str
    incarnation: LeaderIncarnation

    def __str__(self) -> str:
        return self.name


class Promise(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """What a server has promised to a stream: nothing below `epoch`, nobody else in it (R3, R5)."""

    epoch: Epoch = 0
    leader: LeaderIncarnation = b""


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """How a stream is replicated and cut into segments."""

    replicas: int = 3
    ack_quorum: int = 2
    segment_bytes_max: int = 1 << 30
    segment_age_s: float = 86400.0

    def validate(self) -> None:
        """Raise `UsageError` for a pair that is not legal: N >= A >= 2, or N = A = 1."""
        n, a = self.replicas, self.ack_quorum
        if not (2 <= a <= n <= limits.REPLICAS_MAX or n == a == 1):
            raise UsageError(
                f"replicas={n} with ack_quorum={a} is not a legal policy: "
                f"use 2 <= ack_quorum <= replicas <= {limits.REPLICAS_MAX}, or 1 and 1"
            )
        if self.segment_bytes_max < limits.FRAME_BYTES_MAX or not self.segment_age_s > 0:  # nor NaN
            raise UsageError(
                f"a segment must hold at least {limits.FRAME_BYTES_MAX} bytes and live some time"
            )


class OpenSegment(msgspec.Struct, frozen=True, array_like=True):
    """The segment that takes appends: its replica set never changes (R11)."""

    id: SegmentId
    first: Sequence
    chain: Chain
    members: tuple[Member, ...]
    ack_quorum: int
    opened_us: int = 0


class SealedSegment(msgspec.Struct, frozen=True, array_like=True):
    """A segment whose end is decided and durable at the master ("row" in the rules)."""

    id: SegmentId
    first: Sequence
    end: Sequence
    chain: Chain
    """At `end`."""
    members: tuple[Member, ...]
    ack_quorum: int
    leader: str
    """Name of the peer that led epoch `id.epoch`."""
    reason: str
    """Why it was sealed: takeover, size, age, server, resign, ..."""
    sealed_us: int
    version: Count = 1


class StreamHead(msgspec.Struct, frozen=True, array_like=True):
    """The one record of a stream that guards its leadership and its open segment (R1, R8, R31)."""

    name: str
    stream: StreamId
    policy: Policy
    generation: Count = 1
    version: Count = 1
    epoch: Epoch = 0
    leader: Peer | None = None
    """Who holds `epoch`; kept after a release, to name the last leader."""
    released: bool = True
    truncated_before: Sequence = 0
    next: Sequence = 0
    """First sequence of the segment to come when none is open; else `open.first`."""
    chain: Chain = 0
    """At `next`."""
    open: OpenSegment | None = None
    deleted: bool = False
    created_us: int = 0

    @property
    def promise(self) -> Promise:
        """The promise that a server should hold at most for this head (R25)."""
        return Promise(self.epoch, self.leader.incarnation if self.leader else b"")


class Certificate(msgspec.Struct, frozen=True, array_like=True):
    """Tells a replica its segment's end (R21)."""

    stream: StreamId
    row: SealedSegment
    promise: Promise
    """Epoch and leader of the head when it was made."""


class ServerAddress(msgspec.Struct, frozen=True, array_like=True):
    """Where a server listens now, and whether the master hears from it."""

    member: Member
    host: str
    port: int
    is_alive: bool = True

    @property
    def address(self) -> tuple[str, int]:
        """What to dial."""
        return self.host, self.port


class StreamView(msgspec.Struct, frozen=True, array_like=True):
    """What a client knows of a stream: its head, sealed segments, and where their servers are."""

    head: StreamHead
    rows: tuple[SealedSegment, ...]
    """In order of `first`; a watch sends only rows that changed since the last push."""
    servers: tuple[ServerAddress, ...]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One committed event."""

    sequence: Sequence
    epoch: Epoch
    """The epoch that first appended it, also after carry-over (R26)."""
    payload: bytes
    appended_us: int
    """The leader's clock in microseconds since 1970; for people, it decides nothing."""

    @property
    def appended_at(self) -> datetime.datetime:
        """The leader's clock when the event was appended."""
        seconds = min(self.appended_us, LAST_US) / 1e6  # a clock gone wild hides no event (C1)
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


class Role(enum.Enum):
    """What this client is for one stream."""

    LEADER = "leader"
    FOLLOWER = "follower"
    OBSERVER = "observer"


class RoleState(msgspec.Struct, frozen=True):
    """One observation of a stream's leadership; later ones have a higher (epoch, version)."""

    role: Role
    epoch: Epoch
    leader: Peer | None
    """Who leads `epoch`; none while nobody does."""
    version: int = 0
    is_confirmed: bool = True
    """False while this client leads but its lease has lapsed by its own clock (R15)."""


class LeaderTurn(msgspec.Struct, frozen=True):
    """Who led which sequences: one line of `history`."""

    epoch: Epoch
    leader: str
    first: Sequence
    end: Sequence | None
    """None while the turn goes on."""


class StreamDescription(msgspec.Struct, frozen=True):
    """What `info` shows of a stream."""

    head: StreamHead
    rows: tuple[SealedSegment, ...]


NO_PROMISE: Final = Promise()


def check_stream_name(name: object) -> str:
    """Return `name` if it is a legal stream name, else raise `BadNameError`."""
    if not isinstance(name, str) or not STREAM_NAME.fullmatch(name):
        raise BadNameError(
            f"{name!r:.300} is not a stream name: use 1 to {limits.STREAM_NAME_BYTES_MAX} of "
            "letters, digits, '.', '_', '/', '-'"
        )
    return name


def check_node_name(name: object) -> str:
    """Return `name` if it is a legal peer or server name, else raise `BadNameError`."""
    if not isinstance(name, str) or not NODE_NAME.fullmatch(name):
        raise BadNameError(
            f"{name!r:.100} is not a peer or server name: use 1 to {limits.NAME_BYTES_MAX} of "
            "letters, digits, '.', '_', '-'"
        )
    return name
