"""What leaders, readers and peers say to a journal server, and its answers.

Array-like structs: a field is only ever added at the end, with a default.  Tags are for ever.
"""

from __future__ import annotations

import msgspec

from lunalog.types import (
    Certificate,
    Chain,
    Count,
    LeaderIncarnation,
    Promise,
    SegmentId,
    Sequence,
    ServerAddress,
    StreamId,
)
from lunalog.wire.base_messages import Failure


class OpenSlot(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Open a segment here (R3), or find it again after a reconnect -> Opened.

    From then on APPEND, ACK and MARK on this connection name it by `slot`.
    """

    slot: int
    stream: StreamId
    segment: SegmentId
    leader: LeaderIncarnation
    incarnation: Count
    first: Sequence
    chain: Chain
    """At `first`."""
    generation: Count


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The segment is open, durably; appends go on at `end`."""

    end: Sequence
    chain: Chain


class CloseSlot(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Push: this connection will not name `slot` again."""

    slot: int


class AppendRefused(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Push from the server: frames of `slot` are not accepted (again) before another OpenSlot."""

    slot: int
    failure: Failure


class Fence(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Promise to refuse lower epochs, durably (R5) -> Fenced."""

    stream: StreamId
    segment: SegmentId
    """The open segment to report on."""
    first: Sequence
    promise: Promise
    incarnation: Count


class Fenced(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """The promise is durable; the rest is as of the same point of the log."""

    end: Sequence
    chain: Chain
    committed: Sequence
    """Known committed sequence of this segment; 0: none known."""
    unknown: tuple[tuple[Sequence, Sequence], ...] = ()
    """Damaged ranges: they count neither as held nor as absent (R18)."""
    certificate: Certificate | None = None


class Check(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Is (epoch, leader) still unfenced, and the segment open here, not sealed (R14) -> Done."""

    stream: StreamId
    segment: SegmentId
    promise: Promise
    incarnation: Count


class Read(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Read frames from the one that holds `start` on -> FRAMES (see `wire.codec`).

    Without `promise`: only frames below the known committed sequence or a certificate's end (R12);
    waits up to `wait_ms` for some.  With `promise`: a recovery read, also past committed, that is
    refused if another epoch was promised since (R6).
    """

    stream: StreamId
    segment: SegmentId
    start: Sequence
    bytes_max: int
    wait_ms: int = 0
    promise: Promise | None = None


class Certify(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Here is your segment's end: cut, complete yourself from `sources` (R21) -> Certified."""

    certificate: Certificate
    sources: tuple[ServerAddress, ...] = ()


class Certified(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The certificate is durable; `is_complete` when all below its end is held too."""

    is_complete: bool


class AskLeader(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Ask the leader, through one replica of the open segment, for a read point (R14) -> ReadPoint."""

    stream: StreamId
    segment: SegmentId


class LeaderAsked(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Push from the server to the leader's connection; answered by the push LeaderAnswer."""

    token: int
    stream: StreamId
    segment: SegmentId


class LeaderAnswer(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Push from the leader: the read point for `token`, or why there is none."""

    token: int
    committed: Sequence
    failure: Failure | None = None


class ReadPoint(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """All that was acknowledged before the question arrived lies below `committed`."""

    committed: Sequence


class SegmentFact(msgspec.Struct, frozen=True, array_like=True):
    """What one server holds of one segment."""

    stream: StreamId
    segment: SegmentId
    generation: Count
    first: Sequence
    end: Sequence
    committed: Sequence
    state: str
    """open, sealed (certificate known, not all held), complete, or dropped."""
    promise_epoch: int = 0


class DescribeServer(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """What does this server hold -> ServerReport."""


class ServerReport(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Numbers for people and tests."""

    name: str
    incarnation: Count
    boot: Count
    facts: tuple[SegmentFact, ...]
    counters: dict[str, int]
