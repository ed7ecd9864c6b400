"""Reading extents from their beginning: windows of a file, and the search for later headers.

Source: R17, R26.
"""

from __future__ import annotations

from typing import Final

from lunalog.storage import format as layout
from lunalog.storage.extents import name_of
from lunalog.storage.files import Disk, File
from lunalog.storage.format import BATCH_HEAD_BYTES, BLOCK_BYTES, BatchHead, Body

WINDOW_BYTES: Final = 1 << 20
RETRY_BYTES: Final = 4096


class ExtentReader:
    """One extent open for reading, through a window; without a tag, that of any log."""

    def __init__(self, file: File, number: int, size: int, tag: int | None) -> None:
        self._file = file
        self.number = number
        self.size = size
        self.tag = tag
        self.unreadable: list[int] = []
        """Offsets of blocks that the disk would not give; they read as zeros."""
        self._start = 0
        self._window = b""

    @classmethod
    async def open(cls, disk: Disk, number: int, tag: int | None) -> ExtentReader:
        """Open an extent; raises `OSError`."""
        file = await disk.open(name_of(number))
        return cls(file, number, await file.size(), tag)

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()

    async def get(self, offset: int, size: int) -> memoryview:
        """Return up to `size` bytes at `offset`; fewer at the end of the file."""
        if not self._start <= offset or offset + size > self._start + len(self._window):
            self._window = await self._read(offset, max(size, WINDOW_BYTES))
            self._start = offset
        at = offset - self._start
        return memoryview(self._window)[at : at + size]

    async def _read(self, offset: int, size: int) -> bytes:
        try:
            return await self._file.read(offset, size)
        except OSError:
            return await self._read_blocks(offset, min(size, self.size - offset))

    async def _read_blocks(self, offset: int, size: int) -> bytes:
        parts = []
        for at in range(offset, offset + max(size, 0), RETRY_BYTES):
            count = min(RETRY_BYTES, offset + size - at)
            try:
                parts.append(await self._file.read(at, count))
            except OSError:
                self.unreadable.append(at)
                parts.append(bytes(count))
        return b"".join(parts)

    async def head(self, offset: int) -> BatchHead | None:
        """Read the batch header at `offset`, if one of this log is there."""
        data = await self.get(offset, BATCH_HEAD_BYTES)
        found = layout.parse_batch_head(data, 0, self.number, offset)
        return found if found is not None and self.tag in {None, found.tag} else None

    async def body(self, head: BatchHead) -> Body:
        """Read the records of a batch."""
        data = await self.get(head.offset + BATCH_HEAD_BYTES, head.size - BATCH_HEAD_BYTES)
        return layout.decode_body(data, head)

    async def content_end(self, offset: int) -> int:
        """Find where nothing but zeros begins, at or behind `offset`; what cannot be read is none."""
        at = end = offset
        while window := await self.get(at, WINDOW_BYTES):
            if kept := len(bytes(window).rstrip(b"\0")):
                end = at + kept
            at += len(window)
        return max([end, *(block + RETRY_BYTES for block in self.unreadable)])

    async def search(self, offset: int) -> BatchHead | None:
        """Find the first batch header at or behind `offset`."""
        offset += -offset % BLOCK_BYTES
        while offset < self.size:
            await self.get(offset, BATCH_HEAD_BYTES)
            window, start = self._window, self._start
            end = start + len(window)
            if end <= offset:
                return None
            at = window.find(layout.MAGIC, offset - start)
            while at >= 0:
                where = start + at
                if where % BLOCK_BYTES == 0 and (found := await self.head(where)) is not None:
                    return found
                at = window.find(layout.MAGIC, at + 1)
            offset = max(end - end % BLOCK_BYTES, offset + BLOCK_BYTES)
        return None
