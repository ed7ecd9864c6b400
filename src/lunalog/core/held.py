"""What one journal server holds of streams and segments: the state that `core.replica` decides over.

Source: R3, R5, R12, R16, R18, R22, R30.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lunalog.core import chain as chains
from lunalog.types import (
    NO_PROMISE,
    Certificate,
    Chain,
    LeaderIncarnation,
    Promise,
    SegmentId,
    Sequence,
)

Range = tuple[Sequence, Sequence]
Base = tuple[Sequence, Chain]
"""The first frame that is kept of a segment that was truncated in part, and the chain before it."""
RECENT_FRAMES_MAX = 256
"""How many of its last frames a segment can tell from others of the same sequences (R3)."""


class SegmentReplica:
    """One segment as this server holds it."""

    __slots__ = (
        "base",
        "certificate",
        "chain",
        "committed",
        "durable",
        "end",
        "first",
        "generation",
        "id",
        "is_opened",
        "leader",
        "recent",
        "start_chain",
        "unknown",
    )

    def __init__(self, segment: SegmentId, first: Sequence, chain: Chain, generation: int) -> None:
        self.id = segment
        self.first = first
        self.start_chain = self.chain = chain
        self.generation = generation
        self.leader: LeaderIncarnation = b""
        self.is_opened = False
        """An OPEN record was taken: the segment's own epoch may append (R3)."""
        self.end = self.durable = first
        self.committed: Sequence = 0
        self.certificate: Certificate | None = None
        self.unknown: tuple[Range, ...] = ()
        self.base: Base | None = None
        self.recent: deque[tuple[Sequence, Sequence, int]] | None = None

    def __repr__(self) -> str:
        row = self.certificate.row if self.certificate else None
        return (
            f"<SegmentReplica {self.id} [{self.first}, {self.end}) durable={self.durable} "
            f"committed={self.committed} opened={self.is_opened} unknown={self.unknown} row={row}>"
        )

    @property
    def is_complete(self) -> bool:
        """True if everything below the certificate's end is held, durably and undamaged."""
        row = self.certificate.row if self.certificate else None
        return row is not None and self.durable >= row.end and not self.unknown

    @property
    def is_only_listed(self) -> bool:
        """True if all that is held comes from peers, under a certificate (R21)."""
        return self.certificate is not None and not self.is_opened

    def may_come_from_peers(self, first: Sequence) -> bool:
        """Tell whether a frame in the log joins what is held, where that is all from peers.

        The first one has its base before it.  Any other was held before the segment was dropped, which
        the log may tell again behind a checkpoint that knows of the new listing, or follows damage:
        peers have it.
        """
        if not self.is_only_listed or (self.base is not None and self.base[0] == first):
            return True
        return self.first < self.end == first

    @property
    def readable(self) -> Sequence:
        """End of what readers may see (R12)."""
        if self.certificate is not None:
            return min(self.durable, self.certificate.row.end)
        return min(self.durable, self.committed)

    def synced(self, end: Sequence) -> bool:
        """Note that a frame up to `end` is durable; true if readers may see more (R12)."""
        before = self.durable
        if end > self.end:
            end = self.end  # what was cut meanwhile is not held
        if end <= before:
            return False
        self.durable = end
        return self.committed > before or self.certificate is not None

    def take(self, first: Sequence, count: int, crc: int) -> None:
        """Move the end behind an accepted frame."""
        self.chain = chains.extend(self.chain, first, count, crc)
        self.end = first + count
        if self.recent is None:
            self.recent = deque(maxlen=RECENT_FRAMES_MAX)
        self.recent.append((first, self.end, crc))

    def holds(self, first: Sequence, end: Sequence, crc: int) -> bool | None:
        """Tell whether exactly this frame is held; none: too long ago to say."""
        for known in reversed(self.recent or ()):
            if known[0] == first:
                return known == (first, end, crc)
            if known[0] < first:
                return False
        return None


class StreamReplica:
    """One stream as this server knows it."""

    __slots__ = (
        "is_deleted",
        "promise",
        "segments",
        "synced_promise",
        "trim_version",
        "trimmed_before",
        "versions",
    )

    def __init__(self) -> None:
        self.promise = Promise()
        self.synced_promise = NO_PROMISE
        """The part of `promise` that the log has synced: what may have been replied."""
        self.segments: dict[SegmentId, SegmentReplica] = {}
        self.trimmed_before: Sequence = 0
        self.trim_version = 0
        self.versions: dict[SegmentId, int] | None = None
        """Newest row version seen of a segment that was dropped (R30)."""
        self.is_deleted = False


@dataclass(frozen=True, slots=True)
class FenceState:
    """What a fence reply tells: one point of the log (R5)."""

    end: Sequence
    chain: Chain
    committed: Sequence
    unknown: tuple[Range, ...]
    certificate: Certificate | None
