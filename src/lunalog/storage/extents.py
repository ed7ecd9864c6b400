"""Extent files: names, creation, growth.

An extent is preallocated in steps, so that a batch never waits for the file system to find space, and
ENOSPC comes before the batch is begun (D3).  It is made ready while its predecessor is still filled:
created, allocated, directory synced.  Its number is its generation: a number that has held a batch is
never used again for other bytes (D7).

Source: design.md section 6; docs/storage.md.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from lunalog import limits
from lunalog.storage.files import Disk, File

STEP_BYTES: Final = 16 * limits.MIB
STEPS_BYTES: Final = (STEP_BYTES, 1 * limits.MIB, 64 * limits.KIB)
"""What to try when the disk is nearly full."""
NAME: Final = re.compile(r"extent-(\d{10})\.wal")
INDEX_NAME: Final = re.compile(r"extent-(\d{10})\.index")


def name_of(number: int) -> str:
    """File name of an extent."""
    return f"extent-{number:010}.wal"


def index_name_of(number: int) -> str:
    """File name of its sidecar."""
    return f"extent-{number:010}.index"


class Extent:
    """An extent file open for writing."""

    __slots__ = ("allocated", "file", "number")

    def __init__(self, number: int, file: File, allocated: int) -> None:
        self.number = number
        self.file = file
        self.allocated = allocated

    async def grow(self, end: int, most: int) -> bool:
        """Allocate up to at least `end`, by a step if there is room; true if the file grew.

        Raises `OSError` when not even `end` is to be had.
        """
        if end <= self.allocated:
            return False
        for step in (*STEPS_BYTES, 0):
            size = max(end, min(self.allocated + step, most) if end <= most else end + step)
            try:
                await self.file.allocate(size)
            except OSError as error:
                if step == 0 or not is_full_error(error):
                    raise
            else:
                self.allocated = size
                return True
        return False


async def create(disk: Disk, number: int, size: int) -> Extent:
    """Make an extent ready: its name and its space are durable when this returns.

    A crash before leaves an extent without a batch, which the next start removes.
    """
    file = await disk.open(name_of(number), create=True)
    extent = Extent(number, file, 0)
    try:
        await extent.grow(min(STEPS_BYTES[-1], size), min(STEP_BYTES, size))
        await file.sync()
        await disk.sync_directory()
    except OSError:
        await file.close()
        raise
    return extent


async def numbers(disk: Disk) -> list[int]:
    """Extents of this directory, in order."""
    return sorted(int(m[1]) for n in await disk.names() if (m := NAME.fullmatch(n)))


def is_full_error(error: OSError) -> bool:
    """Whether an error says that space is short, and not that the disk is bad."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
