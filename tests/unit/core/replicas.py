"""Replicas for tests, and frames whose checksums tell their place."""

from __future__ import annotations

from typing import Any

from lunalog.core import chain as chains
from lunalog.core.held import FenceState, SegmentReplica
from lunalog.core.replica import Replica
from lunalog.types import (
    Certificate,
    Promise,
    SealedSegment,
    SegmentId,
)

STREAM, OTHER = b"s" * 16, b"t" * 16
ANN, BOB = b"a" * 16, b"b" * 16
SEGMENT = SegmentId(2, 0)
FIRST, CHAIN = 100, 7
INCARNATION = 3
NEXT = Promise(3, BOB)


def make() -> Replica:
    return Replica(INCARNATION)


def open_in(
    replica: Replica,
    segment: SegmentId = SEGMENT,
    leader: bytes = ANN,
    *,
    stream: bytes = STREAM,
    first: int = FIRST,
    chain: int = CHAIN,
    incarnation: int = INCARNATION,
) -> SegmentReplica:
    return replica.open(stream, segment, leader, incarnation, first, chain, 1)[0]


def append(replica: Replica, held: SegmentReplica, first: int, count: int = 1) -> bool:
    """Append a frame whose checksum tells its place."""
    return replica.append(replica.streams[STREAM], held, first, count, crc_of(first))


def crc_of(first: int) -> int:
    return first * 7919 % (1 << 32)


def chain_at(end: int, first: int = FIRST, chain: int = CHAIN) -> int:
    """The chain behind frames of one event each."""
    for sequence in range(first, end):
        chain = chains.extend(chain, sequence, 1, crc_of(sequence))
    return chain


def fence(
    replica: Replica,
    promise: Promise,
    segment: SegmentId = SEGMENT,
    *,
    incarnation: int = INCARNATION,
) -> tuple[FenceState, bool]:
    return replica.fence(STREAM, segment, FIRST, promise, incarnation)


def certificate(
    end: int,
    *,
    segment: SegmentId = SEGMENT,
    first: int = FIRST,
    chain: int | None = None,
    promise: Promise = NEXT,
    version: int = 1,
) -> Certificate:
    at_end = chain_at(end, first) if chain is None else chain
    row = SealedSegment(segment, first, end, at_end, (), 2, "ann", "takeover", 0, version)
    return Certificate(STREAM, row, promise)


def filled(replica: Replica, count: int = 5) -> SegmentReplica:
    """A segment with `count` durable frames of one event."""
    held = open_in(replica)
    for sequence in range(FIRST, FIRST + count):
        append(replica, held, sequence)
    held.durable = held.end
    return held


def state_of(replica: Replica) -> dict[Any, Any]:
    """All that a replica knows, to be compared."""
    found: dict[Any, Any] = {}
    for stream, state in replica.streams.items():
        found[stream] = (
            state.promise, state.trimmed_before, state.trim_version, state.versions,
            state.is_deleted,
        )  # fmt: skip
        for held in state.segments.values():
            found[stream, held.id] = (
                held.first, held.end, held.durable, held.chain, held.committed, held.certificate,
                held.unknown, held.leader, held.is_opened, held.generation,
            )  # fmt: skip
    return found
