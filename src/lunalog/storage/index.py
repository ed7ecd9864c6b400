"""Where each frame lies: in memory for extents being filled, on disk beside full ones.

A segment has *runs*: frames without a gap between them in one extent.  What lies between two runs, or
between the last run and the segment's end, was held and is damaged (R18).  A run keeps two arrays of
64 bits a frame while its extent is filled; when that is full they go to the extent's sidecar file and
come back through a bounded cache.

A sidecar is blocks one behind another, one for each run of more than one frame:

    offset  size  field
         0     4  magic "LLX1"
         4     4  count of frames
         8    16  stream
        24    16  segment: epoch, n
        40     8  extent
        48    8n  first sequences
              8n  offsets of the record headers
               4  crc32c over all before

Source: design.md section 6; docs/storage.md.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from crc32c import crc32c

from lunalog.storage.files import Buffer
from lunalog.storage.records import FrameRecord, OpenRecord
from lunalog.types import Chain, SegmentId, Sequence, StreamId

MAGIC: Final = b"LLX1"
HEAD: Final = struct.Struct("<4sI16sQQQ")
CRC: Final = struct.Struct("<I")
NO_PLACE: Final = -1
CACHE_BYTES_MAX: Final = 4 << 20
"""Index blocks of full extents kept in memory."""


StartOf = Callable[[StreamId, SegmentId], Sequence | None]
"""The first sequence that is kept of a segment; none when nothing is."""


class Block(msgspec.Struct, frozen=True, gc=False):
    """The frames of one run, in order."""

    firsts: array[int]
    offsets: array[int]


class Run:
    """Frames of one segment that follow each other in one extent."""

    __slots__ = ("count", "end", "extent", "first", "firsts", "offset", "offsets", "owner", "place")

    def __init__(
        self, owner: SegmentIndex, extent: int, first: Sequence, end: Sequence, offset: int
    ) -> None:
        self.owner = owner
        self.extent = extent
        self.first = first
        self.end = end
        self.offset = offset
        """Of the first frame."""
        self.count = 1
        self.firsts: array[int] | None = None
        self.offsets: array[int] | None = None
        self.place = NO_PLACE
        """Of its block in the sidecar."""

    def append(self, first: Sequence, end: Sequence, offset: int) -> None:
        """Add the next frame."""
        if self.firsts is None or self.offsets is None:
            self.firsts = array("Q", (self.first,))
            self.offsets = array("Q", (self.offset,))
        self.firsts.append(first)
        self.offsets.append(offset)
        self.end = end
        self.count += 1

    @property
    def block(self) -> Block | None:
        """The frames, unless they are only in the sidecar."""
        if self.count == 1:
            return Block(array("Q", (self.first,)), array("Q", (self.offset,)))
        if self.firsts is None or self.offsets is None:
            return None
        return Block(self.firsts, self.offsets)


class SegmentIndex:
    """What is held of one segment.

    Attributes:
        start: First sequence that should be here: the segment's first, or where it was trimmed.
        end: Behind the last frame, damaged ones included.
        chain: At `end`.
    """

    __slots__ = ("chain", "committed", "end", "runs", "segment", "start", "stream")

    def __init__(self, stream: StreamId, segment: SegmentId, first: Sequence) -> None:
        self.stream = stream
        self.segment = segment
        self.start = self.end = first
        self.chain: Chain = 0
        self.committed: Sequence = 0
        self.runs: list[Run] = []

    def run_at(self, sequence: Sequence) -> Run | None:
        """The run that holds `sequence`, if any does."""
        at = bisect_right(self.runs, sequence, key=_first_of) - 1
        if at >= 0 and sequence < self.runs[at].end:
            return self.runs[at]
        return None

    def gaps(self) -> Iterator[tuple[Sequence, Sequence]]:
        """Ranges that were held and are damaged."""
        at = self.start
        for run in self.runs:
            if run.first > at:
                yield at, run.first
            at = max(at, run.end)
        if at < self.end:
            yield at, self.end


class Index:
    """All segments of one log; used on the loop only (and by replay before that).

    Attributes:
        start_of: Tells what the owner of the log keeps.
        live: Runs by extent; an extent without any is dead.
    """

    def __init__(self, start_of: StartOf = lambda *_: 0) -> None:
        self.start_of = start_of
        self._streams: dict[StreamId, list[SegmentIndex]] = {}
        self._filling: dict[int, list[Run]] = {}
        self.live: dict[int, int] = {}

    def find(self, stream: StreamId, segment: SegmentId) -> SegmentIndex | None:
        """What is held of a segment."""
        segments = self._streams.get(stream)
        if segments is None:
            return None
        if segments[-1].segment == segment:
            return segments[-1]
        at = bisect_left(segments, segment, key=_segment_of)
        if at < len(segments) and segments[at].segment == segment:
            return segments[at]
        return None

    def all(self) -> Iterator[SegmentIndex]:
        """Every segment, in a fixed order."""
        for segments in self._streams.values():
            yield from segments

    def ensure(self, stream: StreamId, segment: SegmentId, first: Sequence) -> SegmentIndex:
        """Find or add a segment."""
        found = self.find(stream, segment)
        if found is None:
            found = SegmentIndex(stream, segment, first)
            segments = self._streams.setdefault(stream, [])
            segments.insert(bisect_left(segments, segment, key=_segment_of), found)
        return found

    def opened(self, record: OpenRecord) -> None:
        """Note where a segment begins."""
        if self.find(record.stream, record.segment) is None:
            self.ensure(record.stream, record.segment, record.first).chain = record.chain

    def add(self, record: FrameRecord, extent: int, offset: int) -> None:
        """Note a frame.

        One without bytes was held and is damaged: it leaves a gap.  One that fills a gap is taken;
        one that is there already, or was forgotten, changes nothing.
        """
        head = record.head
        first = head.first
        end = first + head.count
        index = self.find(record.stream, record.segment)
        if index is None:
            index = self.ensure(record.stream, record.segment, first)
        if record.committed > index.committed:
            index.committed = record.committed
        if end > index.end:
            index.end, index.chain = end, record.chain
        if not record.frame or end <= index.start:
            return
        runs = index.runs
        at = len(runs)
        if runs and runs[-1].end != first:
            at = bisect_right(runs, first, key=_first_of)
        if at < len(runs) and runs[at].first < end:
            return
        if at:
            last = runs[at - 1]
            if last.end > first:
                return
            if last.end == first and last.extent == extent:
                last.append(first, end, offset)
                return
        run = Run(index, extent, first, end, offset)
        self._insert(index, run)
        self._filling.setdefault(extent, []).append(run)

    def lose(self, extents: set[int]) -> None:
        """Take out the runs of extents that are gone: gaps are left."""
        for index in self.all():
            for run in [r for r in index.runs if r.extent in extents]:
                index.runs.remove(run)
                self.live[run.extent] -= 1

    def _insert(self, index: SegmentIndex, run: Run) -> None:
        index.runs.insert(bisect_left(index.runs, run.first, key=_first_of), run)
        self.live[run.extent] = self.live.get(run.extent, 0) + 1

    def restore(self, index: SegmentIndex, run: Run) -> None:
        """Put back a run of a full extent, as a checkpoint knows it."""
        self._insert(index, run)

    def forget(self, stream: StreamId, segment: SegmentId | None, before: Sequence | None) -> None:
        """Drop the frames that end at or below `before`; with none, the segments altogether.

        A segment may begin behind its end then: what it lacks below `before` is no gap.
        """
        segments = self._streams.get(stream, [])
        for index in [s for s in segments if segment is None or s.segment == segment]:
            if before is not None:
                index.start = max(index.start, before)
            kept = [] if before is None else [r for r in index.runs if r.end > before]
            for run in index.runs[: len(index.runs) - len(kept)]:
                run.count = 0
                self.live[run.extent] -= 1
            index.runs = kept
            if before is None:
                segments.remove(index)
        if not segments:
            self._streams.pop(stream, None)

    def forget_unlisted(self) -> None:
        """Forget all else than what the owner keeps."""
        for index in list(self.all()):
            self.forget(index.stream, index.segment, self.start_of(index.stream, index.segment))

    def filled(self, extent: int) -> list[Run]:
        """The live runs of an extent that gets no more frames; they go to its sidecar."""
        return [run for run in self._filling.pop(extent, []) if run.count]


class BlockCache:
    """Index blocks of full extents, the longest unused dropped first."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()

    def get(self, extent: int, place: int) -> Block | None:
        """Find a block."""
        found = self._blocks.get((extent, place))
        if found is not None:
            self._blocks.move_to_end((extent, place))
        return found

    def put(self, extent: int, place: int, block: Block) -> None:
        """Keep a block."""
        if (extent, place) in self._blocks:
            return
        self._blocks[extent, place] = block
        self._bytes += 16 * len(block.firsts)
        while self._bytes > self._bytes_max and len(self._blocks) > 1:
            _, dropped = self._blocks.popitem(last=False)
            self._bytes -= 16 * len(dropped.firsts)


def encode_block(run: Run, block: Block) -> bytes:
    """Bytes of one sidecar block."""
    owner = run.owner
    head = HEAD.pack(
        MAGIC, len(block.firsts), owner.stream, owner.segment.epoch, owner.segment.n, run.extent
    )
    body = head + _little(block.firsts) + _little(block.offsets)
    return body + CRC.pack(crc32c(body))


def block_bytes(count: int) -> int:
    """Size of a block of `count` frames."""
    return HEAD.size + 16 * count + CRC.size


def decode_block(buffer: Buffer, run: Run) -> Block | None:
    """Read the block of `run`; none if it is damaged or another one's.

    On a worker: meanwhile the run may be forgotten, which takes its count.
    """
    count, owner = run.count, run.owner
    if not count or len(buffer) != block_bytes(count):
        return None
    if CRC.unpack_from(buffer, len(buffer) - CRC.size)[0] != crc32c(buffer[: -CRC.size]):
        return None
    expected = (MAGIC, count, owner.stream, owner.segment.epoch, owner.segment.n, run.extent)
    if HEAD.unpack_from(buffer) != expected:
        return None
    middle = HEAD.size + 8 * count
    block = Block(_array(buffer[HEAD.size : middle]), _array(buffer[middle : -CRC.size]))
    is_its = (block.firsts[0], block.offsets[0]) == (run.first, run.offset)
    return block if is_its and block.firsts[-1] < run.end else None


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        return values.tobytes()
    swapped = array("Q", values)
    swapped.byteswap()
    return swapped.tobytes()


def _array(data: Buffer) -> array[int]:
    values = array("Q")
    values.frombytes(data)
    if sys.byteorder != "little":
        values.byteswap()
    return values


def _first_of(run: Run) -> Sequence:
    return run.first


def _segment_of(index: SegmentIndex) -> SegmentId:
    return index.segment
