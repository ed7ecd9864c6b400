"""The disk seam: the few calls by which lunalog touches a file system.

All are coroutines.  In production they never suspend (`runtime.drive` runs them on a worker thread, or
on the loop where that is wanted); in the simulator they do, so that a crash lands between any two.

Source: docs/design.md "Seams"; R16, R17, R29.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class File(Protocol):
    """One open file.  Errors are `OSError`; after one of `write` or `sync` nothing is known (D2)."""

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write all buffers one behind another at `offset`; not durable before `sync` returned."""
        ...

    async def sync(self) -> None:
        """Make all that was written through this descriptor durable (`fdatasync`)."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        ...

    async def uncache(self, start: int, end: int) -> None:
        """Let the page cache forget these bytes, which are durable; a hint, without an error."""
        ...

    async def allocate(self, size: int) -> None:
        """Reserve space up to `size` bytes and extend the file to it, zeros where never written."""
        ...

    async def size(self) -> int:
        """Length in bytes."""
        ...

    async def close(self) -> None:
        """Close the descriptor.  Idempotent."""
        ...


class Disk(Protocol):
    """One data directory, flat: names are plain file names."""

    name: str
    """How errors and logs call it (a path in production)."""

    async def lock(self) -> None:
        """Take the directory for this process alone, creating it if it is not there.

        Raises `BlockingIOError` when another process holds it, other `OSError` when it cannot be used.
        """
        ...

    async def unlock(self) -> None:
        """Give the directory back.  Idempotent."""
        ...

    async def open(self, name: str, *, create: bool = False) -> File:
        """Open for reading and writing; `create` makes a new, empty file (an old one is truncated).

        Raises `FileNotFoundError` without `create`.  A new name is durable after `sync_directory`.
        """
        ...

    async def names(self) -> list[str]:
        """All file names, sorted; the lock file left out."""
        ...

    async def rename(self, old: str, new: str) -> None:
        """Rename within the directory, replacing `new`; durable after `sync_directory`."""
        ...

    async def remove(self, name: str) -> None:
        """Unlink; durable after `sync_directory`."""
        ...

    async def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        ...

    async def free_bytes(self) -> int:
        """Free space for this process on the file system."""
        ...

    async def total_bytes(self) -> int:
        """Size of the file system."""
        ...


IOV_MAX = 1024


class SystemFile:
    """A file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """`pwritev` until all is written; a short write goes on from where it stopped."""
        for start in range(0, len(buffers), IOV_MAX):
            part = buffers[start : start + IOV_MAX]
            size = sum(map(len, part))
            written = os.pwritev(self._fd, part, offset)
            offset += written
            if written < size:
                rest = memoryview(b"".join(part))[written:]
                while rest:
                    written = os.pwrite(self._fd, rest, offset)
                    if written == 0:
                        raise OSError(errno.EIO, "pwrite wrote nothing")
                    offset += written
                    rest = rest[written:]

    async def sync(self) -> None:
        """`fdatasync`."""
        os.fdatasync(self._fd)

    async def read(self, offset: int, size: int) -> bytes:
        """`pread` until `size` or the end."""
        found = os.pread(self._fd, size, offset)
        while 0 < len(found) < size:
            more = os.pread(self._fd, size - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    async def uncache(self, start: int, end: int) -> None:
        """`posix_fadvise`: what is not durable stays, and a page that is only partly among them."""
        with contextlib.suppress(OSError):  # a file system that does not know it keeps its pages
            os.posix_fadvise(self._fd, start, end - start, os.POSIX_FADV_DONTNEED)

    async def allocate(self, size: int) -> None:
        """`posix_fallocate`: ENOSPC comes here and not in the middle of an append (D3)."""
        os.posix_fallocate(self._fd, 0, size)

    async def size(self) -> int:
        """`fstat`."""
        return os.fstat(self._fd).st_size

    async def close(self) -> None:
        """`close`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class SystemDisk:
    """A directory of the real file system."""

    LOCK_NAME = "lock"

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.name = str(self._path)
        self._lock_fd = -1

    async def lock(self) -> None:
        """`flock` on a lock file; the kernel frees it when the process ends."""
        self._path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path / self.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._lock_fd = fd

    async def unlock(self) -> None:
        """Close the lock file."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    async def open(self, name: str, *, create: bool = False) -> SystemFile:
        """`open`, never inherited by a child."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return SystemFile(os.open(self._path / name, flags, 0o644))

    async def names(self) -> list[str]:
        """Plain files, sorted."""
        with os.scandir(self._path) as entries:
            return sorted(e.name for e in entries if e.is_file() and e.name != self.LOCK_NAME)

    async def rename(self, old: str, new: str) -> None:
        """`rename`."""
        (self._path / old).replace(self._path / new)

    async def remove(self, name: str) -> None:
        """`unlink`; a name that is not there is fine (a crash after the first try)."""
        with contextlib.suppress(FileNotFoundError):
            (self._path / name).unlink()

    async def sync_directory(self) -> None:
        """`fsync` of the directory."""
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    async def free_bytes(self) -> int:
        """`statvfs`."""
        found = os.statvfs(self._path)
        return found.f_bavail * found.f_frsize

    async def total_bytes(self) -> int:
        """`statvfs`."""
        found = os.statvfs(self._path)
        return found.f_blocks * found.f_frsize
