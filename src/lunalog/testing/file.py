"""An open file of a simulated disk.

Source: docs/design.md "Seams"; D2, D3, D4.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lunalog.storage.files import Buffer
from lunalog.testing.image import Inode

if TYPE_CHECKING:
    from lunalog.testing.disk import SimulatedDisk


class SimulatedFile:
    """An open file of a `SimulatedDisk`; useless after the crash of who opened it."""

    def __init__(self, disk: SimulatedDisk, inode: Inode, name: str) -> None:
        self._disk = disk
        self._inode = inode
        self._name = name
        self._generation = disk.generation
        self._errors_seen = inode.errors
        self._is_closed = False

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write to the page cache; a crash may leave a first part of it."""
        self._check()
        data = b"".join(buffers)
        cut = self._disk.faults.tear(len(data))
        if cut:
            first = data[:cut]
            await self._disk.perform("write", lambda: self._write(offset, first), cut)
            self._check()
        rest = data[cut:]
        if rest:
            kind = "write_rest" if cut else "write"
            at = offset + cut
            await self._disk.perform(kind, lambda: self._write(at, rest), len(rest))

    def _write(self, offset: int, data: bytes) -> None:
        self._need(offset + len(data))
        self._inode.write(offset, data)
        self._disk.record("write", self._name, self._inode.number, offset, data)

    async def sync(self) -> None:
        """Make durable what was written before this call, or lose it with EIO."""
        self._check()
        written = self._inode.written
        await self._disk.perform("sync", lambda: self._sync(written))

    def _sync(self, written: int) -> None:
        inode, faults = self._inode, self._disk.faults
        outcome = faults.sync_outcome()
        if outcome == "keep":
            inode.sync(written)
            self._disk.record("sync", self._name, inode.number)
        else:
            lost = inode.lose(written, self._disk.chance, strays=outcome == "stray")
            if outcome == "fail":
                inode.errors += 1
            else:
                inode.lied += lost
        if inode.errors > self._errors_seen:
            self._errors_seen = inode.errors
            raise faults.bite(OSError(errno.EIO, "writeback failed", self._name))

    async def read(self, offset: int, size: int) -> bytes:
        """Read from the page cache."""
        self._check()
        return await self._disk.perform("read", lambda: self._inode.read(offset, size), size)

    async def uncache(self, start: int, end: int) -> None:
        """Nothing: what was synced reads the same from the disk."""
        self._check()

    async def allocate(self, size: int) -> None:
        """Take the space and set the length."""
        self._check()

        def effect() -> None:
            self._need(size)
            if size > self._inode.cached.size:
                self._inode.set_size(size)
                self._disk.record("size", self._name, self._inode.number, size)

        await self._disk.perform("allocate", effect)

    async def size(self) -> int:
        """Length as processes see it."""
        self._check()
        return self._inode.cached.size

    async def close(self) -> None:
        """Close.  Idempotent."""
        self._is_closed = True

    def _check(self) -> None:
        if self._is_closed or self._generation != self._disk.generation:
            raise OSError(errno.EBADF, "the file is closed, or its process has died", self._name)

    def _need(self, end: int) -> None:
        growth = end - self._inode.cached.size
        disk = self._disk
        if growth > 0 and disk.directory.used_bytes() + growth > disk.capacity_bytes:
            raise disk.faults.bite(OSError(errno.ENOSPC, "disk full", self._name))
