"""The tail cache: recent frames of all segments together, bounded in bytes, the oldest dropped first.

Frames of one segment stand in it without a gap, so that a reader near the end is served without the
disk.  Source: design.md section 6; trap 48.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

from lunalog.storage.records import FrameRecord
from lunalog.types import Chain, SegmentId, Sequence, StreamId
from lunalog.wire.frames import FrameHead

Key = tuple[StreamId, SegmentId]
FRAME_BYTES: Final = 512
"""What a frame counts for besides its bytes."""
COMPACT_AT: Final = 64


class Tail:
    """The cached frames of one segment; those before `dropped` are gone."""

    __slots__ = ("dropped", "end", "firsts", "frames")

    def __init__(self, end: Sequence) -> None:
        self.end = end
        self.dropped = 0
        self.firsts: list[Sequence] = []
        self.frames: list[tuple[FrameHead, bytes, Chain]] = []


class TailCache:
    """Recent frames; used on the loop only."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._tails: dict[Key, Tail] = {}
        self._order: deque[tuple[Tail, Key, int]] = deque()
        self.bytes = 0

    def add(self, record: FrameRecord) -> None:
        """Keep a frame; one that does not follow the last starts its segment anew."""
        key = (record.stream, record.segment)
        head = record.head
        tail = self._tails.get(key)
        if tail is None or tail.end != head.first:
            self.forget(*key)
            tail = self._tails[key] = Tail(head.first)
        frame = record.frame if type(record.frame) is bytes else bytes(record.frame)
        tail.firsts.append(head.first)
        tail.frames.append((head, frame, record.chain))
        tail.end = head.first + head.count
        size = len(frame) + FRAME_BYTES
        self._order.append((tail, key, size))
        self.bytes += size
        while self.bytes > self._bytes_max:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        tail, key, size = self._order.popleft()
        self.bytes -= size
        if tail.dropped >= len(tail.frames):
            return  # was forgotten as a whole
        tail.frames[tail.dropped] = None  # type: ignore[call-overload]
        tail.dropped += 1
        if tail.dropped == len(tail.frames):
            if self._tails.get(key) is tail:
                del self._tails[key]
        elif tail.dropped >= COMPACT_AT and 2 * tail.dropped >= len(tail.frames):
            del tail.frames[: tail.dropped]
            del tail.firsts[: tail.dropped]
            tail.dropped = 0

    def find(
        self, stream: StreamId, segment: SegmentId, start: Sequence, bytes_max: int, end: Sequence
    ) -> list[tuple[FrameHead, bytes]] | None:
        """Frames from the one that holds `start` on, below `end`; none if that one is not here."""
        tail = self._tails.get((stream, segment))
        if tail is None or start >= tail.end:
            return None
        at = bisect_right(tail.firsts, start) - 1
        if at < tail.dropped:
            return None
        found: list[tuple[FrameHead, bytes]] = []
        room = bytes_max
        for i in range(at, len(tail.frames)):
            head, frame, _ = tail.frames[i]
            room -= len(frame)
            if found and (room < 0 or head.first >= end):
                break
            found.append((head, frame))
        return found

    def chain_at(self, stream: StreamId, segment: SegmentId, bound: Sequence) -> Chain | None:
        """Chain behind the frame that ends at `bound`, if it is here."""
        tail = self._tails.get((stream, segment))
        if tail is None or bound > tail.end:
            return None
        at = bisect_right(tail.firsts, bound - 1) - 1
        if at < tail.dropped:
            return None
        head, _, chain = tail.frames[at]
        return chain if head.end == bound else None

    def forget(self, stream: StreamId, segment: SegmentId | None = None) -> None:
        """Drop all frames of a segment, or of a stream."""
        if segment is None:
            keys = [key for key in self._tails if key[0] == stream]
        else:
            keys = [(stream, segment)] if (stream, segment) in self._tails else []
        for key in keys:
            tail = self._tails.pop(key)
            tail.frames = []
            tail.firsts = []
            tail.dropped = 0
