"""The frames that a leader still needs: not yet on all replicas of the open segment.

Frames stay byte for byte as they were made (R26); each is kept with the chain behind it, so that a
replica that comes back can be compared before anything more is sent to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Final

import msgspec

from lunalog.core import chain as chains
from lunalog.errors import InvariantError
from lunalog.types import Chain, Frame, Sequence

BLOCK_FRAMES: Final = 256
"""Few enough that the oldest goes cheaply, and enough that 64 MiB of tiny frames are few blocks."""


class CopiedFrame(msgspec.Struct, frozen=True, gc=False):
    """One whole frame whose checksum was verified."""

    first: Sequence
    count: int
    crc: int
    frame: bytes


class SentFrame(msgspec.Struct, frozen=True, gc=False):
    """One frame as the outbox keeps it."""

    end: Sequence
    chain: Chain
    """Behind the frame."""
    frame: Frame


_end_of = attrgetter("end")


def _end_of_block(block: deque[SentFrame]) -> Sequence:
    return block[-1].end


class Outbox:
    """A dense run of frames `[start, tail)`, oldest first, in blocks: any bound is found by bisection.

    Invariants: bounds lie between frames; `start` never moves back, and never past committed.  No block
    is empty, but the last one while no frame is kept.
    """

    __slots__ = ("_blocks", "_last", "bytes", "bytes_max", "chain", "start", "start_chain", "tail")

    def __init__(self, start: Sequence, chain: Chain, bytes_max: int) -> None:
        self.start = start
        self.start_chain = chain
        self.tail = start
        self.chain = chain
        """At `tail`."""
        self.bytes = 0
        self.bytes_max = bytes_max
        """Committed frames are kept for slow replicas up to this."""
        self._last: deque[SentFrame] = deque()
        self._blocks = deque([self._last])

    def add(self, first: Sequence, count: int, crc: int, frame: Frame) -> Sequence:
        """Put a frame behind the last one; returns the new tail."""
        if first != self.tail:
            raise InvariantError(f"R26: frame at {first} behind tail {self.tail}")
        self.chain = chains.extend(self.chain, first, count, crc)
        self.tail = first + count
        self.bytes += len(frame)
        if len(self._last) == BLOCK_FRAMES:
            self._last = deque()
            self._blocks.append(self._last)
        self._last.append(SentFrame(self.tail, self.chain, frame))
        return self.tail

    @property
    def oldest_end(self) -> Sequence:
        """End of the oldest frame that is kept; the tail if none is."""
        oldest = self._blocks[0]
        return oldest[0].end if oldest else self.tail

    @property
    def is_over(self) -> bool:
        """True when more is kept than slow replicas may cost."""
        return self.bytes > self.bytes_max

    def chain_at(self, sequence: Sequence) -> Chain | None:
        """Return the chain at a bound between frames; none if it is no such bound or not kept."""
        if sequence == self.start:
            return self.start_chain
        if not self.start < sequence <= self.tail:
            return None
        kept = next(self._behind(sequence - 1))
        return kept.chain if kept.end == sequence else None

    def between(self, start: Sequence, end: Sequence, bytes_max: int) -> list[SentFrame]:
        """Return the first frames of `[start, end)`, in order, until they reach `bytes_max`."""
        found: list[SentFrame] = []
        for kept in self._behind(start):
            if kept.end > end or bytes_max <= 0:
                break
            found.append(kept)
            bytes_max -= len(kept.frame)
        return found

    def _behind(self, start: Sequence) -> Iterator[SentFrame]:
        """Frames that end behind `start`."""
        if start >= self.tail:
            return
        at = bisect_right(self._blocks, start, key=_end_of_block)
        block = self._blocks[at]
        yield from islice(block, bisect_right(block, start, key=_end_of), None)
        for block in islice(self._blocks, at + 1, None):
            yield from block

    def trim(self, floor: Sequence, committed: Sequence) -> None:
        """Forget what all replicas hold (below `floor`), and of the committed what is too much."""
        block = self._blocks[0]
        while block:
            oldest = block[0]
            if oldest.end > floor and (not self.is_over or oldest.end > committed):
                return
            block.popleft()
            self.start, self.start_chain = oldest.end, oldest.chain
            self.bytes -= len(oldest.frame)
            if not block and block is not self._last:
                self._blocks.popleft()
                block = self._blocks[0]
