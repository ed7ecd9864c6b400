"""A disk that is a dictionary: for `memory://`, where nothing has to survive.

Source: design.md section 8.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

Buffer = bytes | bytearray | memoryview
FREE_BYTES: Final = 1 << 40


class Content:
    """What a file holds; what was allocated and never written takes no space and reads as zeros."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.allocated = 0


class MemoryFile:
    """One open file."""

    def __init__(self, content: Content) -> None:
        self._content = content

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Put the buffers in place."""
        content = self._content.written
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        for buffer in buffers:
            end = offset + len(buffer)
            content[offset:end] = buffer
            offset = end

    async def sync(self) -> None:
        """Nothing is more durable than memory here."""

    async def read(self, offset: int, size: int) -> bytes:
        """Read up to the end."""
        size = max(0, min(size, await self.size() - offset))
        found = bytes(self._content.written[offset : offset + size])
        return found + bytes(size - len(found))

    async def uncache(self, start: int, end: int) -> None:
        """Nothing lies anywhere else."""

    async def allocate(self, size: int) -> None:
        """Remember how long the file is."""
        self._content.allocated = max(self._content.allocated, size)

    async def size(self) -> int:
        """What was allocated or written."""
        return max(len(self._content.written), self._content.allocated)

    async def close(self) -> None:
        """Keep the content."""


class MemoryDisk:
    """A flat directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._files: dict[str, Content] = {}
        self._is_locked = False

    async def lock(self) -> None:
        """Take it; raises `BlockingIOError` when it is taken."""
        if self._is_locked:
            raise BlockingIOError(errno.EWOULDBLOCK, f"{self.name} is in use")
        self._is_locked = True

    async def unlock(self) -> None:
        """Give it back."""
        self._is_locked = False

    async def open(self, name: str, *, create: bool = False) -> MemoryFile:
        """Open or make a file."""
        if create:
            self._files[name] = Content()
        elif name not in self._files:
            raise FileNotFoundError(errno.ENOENT, f"no {name} in {self.name}")
        return MemoryFile(self._files[name])

    async def names(self) -> list[str]:
        """All names."""
        return sorted(self._files)

    async def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`."""
        if old not in self._files:
            raise FileNotFoundError(errno.ENOENT, f"no {old} in {self.name}")
        self._files[new] = self._files.pop(old)

    async def remove(self, name: str) -> None:
        """Forget a file."""
        self._files.pop(name, None)

    async def sync_directory(self) -> None:
        """Nothing to do."""

    async def free_bytes(self) -> int:
        """Always enough."""
        return FREE_BYTES

    async def total_bytes(self) -> int:
        """As much as is always free."""
        return FREE_BYTES
