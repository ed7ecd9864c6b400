"""Heartbeats of clients and servers, and the commands that ride on their replies.

Array-like structs: a field is only ever added at the end, with a default.  Tags are for ever.
"""

from __future__ import annotations

import msgspec

from lunalog.types import (
    Certificate,
    Count,
    Promise,
    SegmentId,
    Sequence,
    ServerAddress,
    StreamId,
)
from lunalog.wire.replica_messages import SegmentFact


class ClientBeat(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """On a client's beat connection -> ClientBeatReply.  Renews every stream it leads (R15)."""

    turn_age_ms: int
    """How long ago the client's main loop last took a turn."""
    applied: tuple[tuple[StreamId, Sequence], ...] = ()
    """Changed since the last confirmed beat: how far this peer has replayed each stream."""
    nonce: bytes = b""
    """That of the Welcome: the beats of a dead connection renew nothing and end nobody (N8, R2)."""


class ClientBeatReply(msgspec.Struct, frozen=True, array_like=True, tag=81):
    """The lease runs from when the beat was *sent* (R15)."""

    lease_ms: int
    heartbeat_ms: int


class EndSession(msgspec.Struct, frozen=True, array_like=True, tag=82):
    """This client closes for good; elections need not wait for a grace -> Done."""


class RegisterServer(msgspec.Struct, frozen=True, array_like=True, tag=83):
    """A server's first message to a master -> Registered.  Facts are whole, not deltas."""

    name: str
    incarnation: Count
    """0: an empty directory, never registered (R19)."""
    boot: Count
    synced_position: Count
    """Log position that is known synced (R19: an older image shows)."""
    may_have_lost: bool
    """Damage that may hide a promise or a tail: needs a new incarnation (R18)."""
    host: str
    port: int
    labels: tuple[str, ...]
    facts: tuple[SegmentFact, ...]
    pid: int = 0
    nonce: bytes = b""
    """That of the Welcome: the words of a dead connection say nothing of this disk (N8, R19)."""


class Registered(msgspec.Struct, frozen=True, array_like=True, tag=84):
    """Under this incarnation the server acks and votes."""

    cluster: str
    incarnation: Count
    heartbeat_ms: int


class CertifyCommand(msgspec.Struct, frozen=True, array_like=True, tag=85):
    """As Certify; confirmed when complete (R21, R30)."""

    id: int
    certificate: Certificate
    sources: tuple[ServerAddress, ...]


class TrimCommand(msgspec.Struct, frozen=True, array_like=True, tag=86):
    """Drop what lies below `before`; `version` is the head's (R22, R30)."""

    id: int
    stream: StreamId
    before: Sequence
    version: Count


class DropSegment(msgspec.Struct, frozen=True, array_like=True, tag=87):
    """Drop one segment and promise `promise` (R10, R22, R30)."""

    id: int
    stream: StreamId
    segment: SegmentId
    promise: Promise
    version: Count


class DropStream(msgspec.Struct, frozen=True, array_like=True, tag=88):
    """The stream is deleted: promise, drop all, keep the tombstone (R22)."""

    id: int
    stream: StreamId
    promise: Promise


Command = CertifyCommand | TrimCommand | DropSegment | DropStream


class ServerBeat(msgspec.Struct, frozen=True, array_like=True, tag=89):
    """Status of a server -> ServerBeatReply."""

    incarnation: Count
    boot: Count
    synced_position: Count
    free_bytes: int
    total_bytes: int
    append_bytes_per_s: int
    facts: tuple[SegmentFact, ...] = ()
    """Changed since the last confirmed beat."""
    confirmed: tuple[int, ...] = ()
    """Ids of commands carried out durably."""
    trouble: str = ""
    """disk_full, ...: take no new segments here."""


class ServerBeatReply(msgspec.Struct, frozen=True, array_like=True, tag=90):
    """Commands not confirmed yet; they repeat until they are."""

    commands: tuple[Command, ...] = ()
    is_leaving: bool = False
    """True: the server may exit, nothing needs it any more."""
