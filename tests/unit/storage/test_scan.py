"""The search for batch headers: all are found, and each byte is read about once (R17)."""

from __future__ import annotations

from lunalog.runtime import drive
from lunalog.storage import format as layout
from lunalog.storage.format import BATCH_HEAD_BYTES, BLOCK_BYTES, Place, Position
from lunalog.storage.scan import WINDOW_BYTES, ExtentReader

TAG = 7


class CountingFile:
    """Bytes, and how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read_bytes = 0

    async def read(self, offset: int, size: int) -> bytes:
        found = self.data[offset : offset + size]
        self.read_bytes += len(found)
        return found


def reader_of(data: bytes) -> tuple[ExtentReader, CountingFile]:
    file = CountingFile(data)
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
