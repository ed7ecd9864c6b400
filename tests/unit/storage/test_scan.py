"""The search for batch headers: all are found, and each byte is read about once (R17)."""

from __future__ import annotations

import errno

import pytest

from lunalog.runtime import drive
from lunalog.storage import format as layout
from lunalog.storage.format import BATCH_HEAD_BYTES, BLOCK_BYTES, Place, Position
from lunalog.storage.scan import RETRY_BYTES, WINDOW_BYTES, ExtentReader

TAG = 7


class CountingFile:
    """Bytes, and how many of them were read; those at `bad` cannot be."""

    def __init__(self, data: bytes, bad: int | None = None) -> None:
        self.data = data
        self.bad = bad
        self.read_bytes = 0
        self.largest = 0

    async def read(self, offset: int, size: int) -> bytes:
        self.largest = max(self.largest, size)
        if self.bad is not None and offset <= self.bad < offset + size:
            raise OSError(errno.EIO, "cannot be read")
        found = self.data[offset : offset + size]
        self.read_bytes += len(found)
        return found


def reader_of(data: bytes, bad: int | None = None) -> tuple[ExtentReader, CountingFile]:
    file = CountingFile(data, bad)
    return ExtentReader(file, 1, len(data), TAG), file  # type: ignore[arg-type]  # it reads only


def header_at(offset: int) -> bytes:
    place = Place(TAG, 1, 1, offset, 1, 0, Position(1, offset))
    return b"".join(map(bytes, layout.encode(place, []).buffers))


def headers(reader: ExtentReader, step: int) -> list[int]:
    """Offsets of all headers, each looked for `step` behind the one before."""
    found = []
    head = drive(reader.search(0))
    while head is not None:
        found.append(head.offset)
        head = drive(reader.search(head.offset + step))
    return found


def test_small_batches_behind_one_another_are_read_about_once() -> None:
    places = range(0, 4 * WINDOW_BYTES, BLOCK_BYTES)
    reader, file = reader_of(b"".join(map(header_at, places)))
    assert headers(reader, BLOCK_BYTES) == [*places]
    assert file.read_bytes < 5 * WINDOW_BYTES


def test_headers_are_found_wherever_a_window_ends() -> None:
    """Also from a place that is none of a block: windows then end in the middle of one."""
    places = [0, WINDOW_BYTES - BLOCK_BYTES, WINDOW_BYTES, 3 * WINDOW_BYTES + BLOCK_BYTES]
    data = bytearray(4 * WINDOW_BYTES)
    for at in places:
        data[at : at + BLOCK_BYTES] = header_at(at)
    for step in (BATCH_HEAD_BYTES, BLOCK_BYTES):
        for shift in (0, 1, 100, BATCH_HEAD_BYTES, BLOCK_BYTES - 1):
            reader, _ = reader_of(bytes(data))
            drive(reader.get(shift, 1))
            assert headers(reader, step) == places


def test_a_cut_or_foreign_header_is_none() -> None:
    whole = header_at(0)
    for data in (
        b"",
        whole[: BATCH_HEAD_BYTES - 1],
        bytes(BLOCK_BYTES) + whole,
        bytes(100) + whole,
    ):
        assert headers(reader_of(data)[0], BLOCK_BYTES) == []


@pytest.mark.parametrize(
    "at", [None, 0, 1024, WINDOW_BYTES - 1, WINDOW_BYTES, 3 * WINDOW_BYTES - 1]
)
@pytest.mark.parametrize("start", [0, 1024])
def test_where_zeros_begin_is_found_a_window_at_a_time(at: int | None, start: int) -> None:
    data = bytearray(3 * WINDOW_BYTES)
    if at is not None:
        data[at] = 1
    reader, file = reader_of(bytes(data))
    assert drive(reader.content_end(start)) == (start if at is None or at < start else at + 1)
    assert file.largest == WINDOW_BYTES


def test_r18_what_cannot_be_read_is_not_taken_for_zeros() -> None:
    reader, _ = reader_of(bytes(3 * WINDOW_BYTES), bad=WINDOW_BYTES + 5000)
    assert (
        WINDOW_BYTES + 5000 < drive(reader.content_end(1024)) <= WINDOW_BYTES + 5000 + RETRY_BYTES
    )
