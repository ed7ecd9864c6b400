"""How what waits is cut into batches, and what of the log the page cache keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.storage.conftest import SEGMENT, STREAM, build_frame

from lunalog import limits
from lunalog.errors import StorageError
from lunalog.runtime import SystemRuntime, drive
from lunalog.storage.extents import Extent
from lunalog.storage.format import Position
from lunalog.storage.records import FrameRecord
from lunalog.storage.writer import BATCH_BYTES_SOFT, UNCACHE_BYTES, Put, Wal, cut
from lunalog.wire import frames


def put(size: int) -> Put:
    return Put([], size)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([0], [[0]]),
        ([0, 0, 5], [[0, 0, 5]]),
        ([BATCH_BYTES_SOFT + 1], [[BATCH_BYTES_SOFT + 1]]),
        ([1, BATCH_BYTES_SOFT, 0, 2], [[1], [BATCH_BYTES_SOFT, 0], [2]]),
    ],
)
def test_nothing_waits_twice_and_nothing_is_left(
    sizes: list[int], batches: list[list[int]]
) -> None:
    """A put of no bytes attests what was synced before: alone, it is a batch too."""
    assert [[p.size for p in batch] for batch in cut([put(s) for s in sizes])] == batches


async def test_a_log_that_is_closed_takes_no_batch() -> None:
    disk: Any = None
    wal = Wal(disk, SystemRuntime(), 16 << 10, 0, 1, 1)
    with pytest.raises(StorageError, match="the log is closed"):
        await wal.commit([put(0)])


class CachedFile:
    """Knows what was written, what of that is durable, and what is not cached any more."""

    def __init__(self) -> None:
        self.written = self.synced = 0
        self.forgotten: list[tuple[int, int]] = []
        self.is_closed = False

    async def write(self, offset: int, buffers: Sequence[Any]) -> None:
        self.written = max(self.written, offset + sum(map(len, buffers)))

    async def sync(self) -> None:
        self.synced = self.written

    async def uncache(self, start: int, end: int) -> None:
        assert not self.is_closed
        assert start < end <= self.synced
        self.forgotten.append((start, end))

    async def close(self) -> None:
        self.is_closed = True


def extent_of(number: int) -> tuple[Extent, Any]:
    file: Any = CachedFile()
    return Extent(number, file, 128 * limits.MIB), file


def test_the_page_cache_keeps_the_newest_of_the_log_and_each_older_piece_goes_once() -> None:
    """Whole pieces: a page that lies across two of them would stay for good."""
    disk: Any = None
    wal = Wal(disk, SystemRuntime(), 32 * limits.MIB, 0, 1, 1)
    first, old = extent_of(1)
    second, new = extent_of(2)
    wal.enter(first, Position())
    wal.next = second
    data = build_frame(STREAM, 0, size=3 * limits.MIB)
    batch = [Put([FrameRecord(STREAM, SEGMENT, 0, 0, frames.parse(data), data)], len(data))]
    while wal.next is not None:
        kept = old.written - (old.forgotten[-1][1] if old.forgotten else 0)
        assert kept < 3 * UNCACHE_BYTES
        drive(wal.commit(batch))
    assert [start for start, _ in old.forgotten] == [0, *(end for _, end in old.forgotten[:-1])]
    assert all(start % UNCACHE_BYTES == 0 for start, _ in old.forgotten)
    assert old.forgotten[-1][1] > 32 * limits.MIB - len(data)
    assert old.is_closed
    for _ in range(3):
        drive(wal.commit(batch))
    assert new.forgotten == [(0, UNCACHE_BYTES)]


def test_a_log_of_lone_appends_forgets_nothing_for_a_long_time() -> None:
    disk: Any = None
    wal = Wal(disk, SystemRuntime(), 32 * limits.MIB, 0, 1, 1)
    extent, file = extent_of(1)
    wal.enter(extent, Position())
    data = build_frame(STREAM, 0, size=1024)
    for _ in range(1_000):
        drive(wal.commit([Put([FrameRecord(STREAM, SEGMENT, 0, 0, frames.parse(data), data)], 0)]))
    assert file.synced > limits.MIB
    assert file.forgotten == []


def test_after_a_start_what_was_replayed_is_forgotten_a_few_pieces_at_a_time() -> None:
    """All of it in one call would hold up an append for milliseconds."""
    disk: Any = None
    wal = Wal(disk, SystemRuntime(), 128 * limits.MIB, 0, 1, 1)
    extent, file = extent_of(1)
    wal.enter(extent, Position())
    wal.offset = 100 * limits.MIB
    data = build_frame(STREAM, 0, size=1024)
    for _ in range(10):
        file.written = file.synced = max(file.written, wal.offset)
        drive(wal.commit([Put([FrameRecord(STREAM, SEGMENT, 0, 0, frames.parse(data), data)], 0)]))
    assert {end - start for start, end in file.forgotten[:-1]} == {4 * UNCACHE_BYTES}
    assert file.forgotten[-1][1] == 96 * limits.MIB
