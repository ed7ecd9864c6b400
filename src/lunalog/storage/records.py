"""The durable facts of a journal server: what its log is made of.

A frame's record keeps the producer's frame byte for byte; all others are small and travel as
MessagePack.  They are facts that only grow, so that replaying one twice, or after a newer one of its
kind, must change nothing (I9).

Source: R3, R5, R12, R16, R18, R21, R22, R26.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lunalog.types import (
    Certificate,
    Chain,
    LeaderIncarnation,
    Promise,
    SegmentId,
    Sequence,
    StreamId,
)
from lunalog.wire.frames import FrameHead


class FrameRecord(msgspec.Struct, frozen=True, gc=False):
    """One frame of a segment; `frame` is empty where replay found only its header whole (R18)."""

    stream: StreamId
    segment: SegmentId
    committed: Sequence
    """What was known to be committed of this segment (R12)."""
    chain: Chain
    """Behind this frame."""
    head: FrameHead
    frame: bytes


class OpenRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A segment was opened here (R3)."""

    stream: StreamId
    segment: SegmentId
    leader: LeaderIncarnation
    first: Sequence
    chain: Chain
    """At `first`."""
    generation: int


class PromiseRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Nothing below `promise` is accepted for this stream (R5)."""

    stream: StreamId
    promise: Promise


class CertificateRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A segment's end is decided (R21)."""

    certificate: Certificate


class TrimRecord(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Events below `before` are gone (R22)."""

    stream: StreamId
    before: Sequence
    version: int
    """Of the head that said so (R30)."""


class DropRecord(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A segment's copy here is not wanted any more (R22)."""

    stream: StreamId
    segment: SegmentId
    promise: Promise
    version: int


class TombstoneRecord(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The stream was deleted (R22)."""

    stream: StreamId
    promise: Promise


class MarkRecord(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The known committed sequence of a segment moved (R12)."""

    stream: StreamId
    segment: SegmentId
    committed: Sequence


class EndRecord(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """What was held of a segment when a checkpoint was written; its later frames follow in replay."""

    stream: StreamId
    segment: SegmentId
    first: Sequence
    end: Sequence
    chain: Chain
    """At `end`."""
    committed: Sequence


class UnknownRecord(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Frames of `[first, end)` were held, and are damaged: neither present nor absent (R18)."""

    stream: StreamId
    segment: SegmentId
    first: Sequence
    end: Sequence


class BaseRecord(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The first frame that is kept of a segment that was truncated in part, and the chain before it."""

    stream: StreamId
    segment: SegmentId
    first: Sequence
    chain: Chain


ControlRecord = (
    OpenRecord
    | PromiseRecord
    | CertificateRecord
    | TrimRecord
    | DropRecord
    | TombstoneRecord
    | MarkRecord
    | EndRecord
    | UnknownRecord
    | BaseRecord
)
Record = FrameRecord | ControlRecord

CONTROL_BYTES: Final = 256
"""What a control record counts for where bytes are bounded before it is encoded."""


class Damage(msgspec.Struct, frozen=True, gc=False):
    """One damaged range of a file, and what is known to have lain there."""

    file: str
    offset: int
    end: int
    what: str
    stream: StreamId | None = None
    segment: SegmentId | None = None
    first: Sequence = 0
    last: Sequence = 0
    """End of the sequences, if `segment` is known: `[first, last)` is UNKNOWN."""


def bytes_of(records: list[Record]) -> int:
    """Estimate what `records` take in the log."""
    total = 0
    for record in records:
        total += CONTROL_BYTES
        if type(record) is FrameRecord:
            total += len(record.frame)
    return total
