"""The WAL writer: all that is queued leaves as one vectored write and one fdatasync.

`Wal` holds the end of the log and appends batches there; `WalWriter` drives it from a mailbox on a
worker.  When nothing is outstanding the loop may drive `Wal` itself, for a small batch (see `log`).

A crash in `commit` leaves a torn or unsynced batch at the end, which replay cuts or keeps as a whole;
a crash in `roll` leaves the old extent with or without its last mark, and the new one blank.

Source: R16, R17, R26; design.md section 6.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

import msgspec

from lunalog import limits
from lunalog.errors import DiskFullError, StorageError
from lunalog.runtime import Mailbox, Runtime
from lunalog.storage import extents
from lunalog.storage import format as layout
from lunalog.storage.extents import Extent
from lunalog.storage.files import Buffer, Disk
from lunalog.storage.format import BLOCK_BYTES, Batch, Flags, Place, Position
from lunalog.storage.records import Record

BATCH_BYTES_SOFT: Final = 8 * limits.MIB
"""What waits is cut into batches of about this size, so that acks keep flowing."""
SMALL_BYTES: Final = 32 * limits.KIB
BLANK_BYTES: Final = 256 * limits.KIB
"""Zeros that a small batch writes behind itself, when it is the first to get so far.

Blocks that were only reserved cost a commit of the file system's own journal when they are first
written; so written ahead, a run of lone appends pays that once.
"""
UNCACHE_BYTES: Final = 4 * limits.MIB
"""The page cache forgets what is durable in pieces of this size, all but the newest (ADR 0012).

No page, however large, is part of two of them: the kernel keeps one that is not forgotten as a whole.
"""
_BLANK: Final = memoryview(bytes(BLANK_BYTES))
SYNC_SHARE: Final = 0.2
"""Weight of the newest sync in the moving average of their times."""


class Put(msgspec.Struct, gc=False):
    """What one caller wants to be durable together."""

    records: list[Record]
    size: int
    done: Callable[[], object] | None = None
    synced: Callable[[], object] | None = None
    """See `Log.put`."""


class Closed(msgspec.Struct, frozen=True, gc=False):
    """An extent that gets no more batches, and the state of the log behind it."""

    extent: int
    end: int
    next: int
    number: int
    """Of the next batch."""
    before: int
    """Hash that it must name."""


class Committed(msgspec.Struct, gc=False):
    """A batch that is durable."""

    puts: list[Put]
    extent: int
    offsets: list[int]
    number: int
    closed: Closed | None = None
    """The extent that was left just before it."""


class Wal:
    """The end of the log.

    Attributes:
        synced_to: End of what is known synced; every header attests it (R17).
        next: The extent to go on in, once this one is full; set by who prepares it.
        is_short_of_space: Less than the reserve is free, or the disk has said that it is full.
        sync_ms: Moving average of the time that write and sync take.
    """

    def __init__(
        self,
        disk: Disk,
        runtime: Runtime,
        extent_bytes: int,
        reserve_bytes: int,
        tag: int,
        boot: int,
    ) -> None:
        self._disk = disk
        self._runtime = runtime
        self._extent_bytes = extent_bytes
        self._reserve_bytes = reserve_bytes
        self.tag = tag
        self.boot = boot
        self.extent: Extent | None = None
        self.offset = 0
        self.number = 1
        self.before = 0
        self.synced_to = Position()
        self.previous = Position()
        self._written_to = 0
        self._cached_from = 0
        self.next: Extent | None = None
        self.is_short_of_space = False
        self._spare_bytes = 0
        self.sync_ms = 0.0

    def has_room(self, size: int) -> bool:
        """Whether a batch of `size` record bytes fits without growing or leaving the extent."""
        return self.extent is not None and (
            self.offset + size + 3 * BLOCK_BYTES <= min(self.extent.allocated, self._extent_bytes)
        )

    @property
    def room_bytes(self) -> int:
        """What may still be queued without touching the reserve: allocated, or free when last seen.

        What the next extent was given is left out: where this one ends, as much may stay unused.
        """
        allocated = self.extent.allocated - self.offset if self.extent is not None else 0
        return self._spare_bytes + allocated

    def enter(self, extent: Extent, previous: Position) -> None:
        """Go on in a new extent; its first batch names where the log ended before."""
        self.extent, self.offset, self.previous = extent, 0, previous
        self._written_to = self._cached_from = 0

    def _encode(self, extent: Extent, records: list[Record], flags: int) -> Batch:
        place = Place(
            self.tag, self.boot, extent.number, self.offset, self.number, self.before,
            self.synced_to, self.previous, flags,
        )  # fmt: skip
        return layout.encode(place, records)

    async def commit(self, puts: list[Put], flags: int = Flags.NONE) -> Committed:
        """Make one batch of `puts` durable; raises `OSError`, after which nothing is known (R16)."""
        records = (
            puts[0].records
            if len(puts) == 1
            else [record for put in puts for record in put.records]
        )
        extent = self._extent()
        batch = self._encode(extent, records, flags)
        closed, following = None, self.next
        if (
            following is not None
            and self.offset
            and self.offset + batch.size + BLOCK_BYTES > self._extent_bytes
        ):
            closed = await self._roll(extent, following)
            extent = self._extent()
            batch = self._encode(extent, records, flags)
        await self._write(extent, batch)
        return Committed(puts, extent.number, batch.offsets, self.number - 1, closed)

    def _extent(self) -> Extent:
        if self.extent is None:
            raise StorageError("the log is closed")
        return self.extent

    async def _write(self, extent: Extent, batch: Batch) -> None:
        if self.offset - self._cached_from >= 2 * UNCACHE_BYTES:
            end = min(self.offset // UNCACHE_BYTES - 1, self._cached_from // UNCACHE_BYTES + 4)
            end *= UNCACHE_BYTES  # no more at a time: after a start all that was replayed is cached
            await extent.file.uncache(self._cached_from, end)
            self._cached_from = end
        began = self._runtime.now()
        end = self.offset + batch.size
        if end > extent.allocated and await extent.grow(end, self._extent_bytes):
            await self.check_space()
        await extent.file.write(self.offset, self._buffers(extent, batch))
        await extent.file.sync()
        self.offset += batch.size
        self.number += 1
        self.before = batch.hash
        self.synced_to = Position(extent.number, self.offset)
        self.previous = Position()
        took_ms = (self._runtime.now() - began) * 1000
        self.sync_ms += (took_ms - self.sync_ms) * (SYNC_SHARE if self.sync_ms else 1.0)

    def _buffers(self, extent: Extent, batch: Batch) -> list[Buffer]:
        end = self.offset + batch.size
        if end <= self._written_to or batch.size > SMALL_BYTES:
            return batch.buffers
        ahead = max(0, min(BLANK_BYTES, extent.allocated - end))
        self._written_to = end + ahead
        return [*batch.buffers, _BLANK[:ahead]]

    async def _roll(self, extent: Extent, following: Extent) -> Closed:
        await self._write(extent, self._encode(extent, [], Flags.LAST))
        self.next = None
        end = self.offset
        await extent.file.uncache(self._cached_from, end)
        await extent.file.close()
        self.enter(following, Position(extent.number, end))
        return Closed(extent.number, end, following.number, self.number, self.before)

    async def prepare(self, number: int) -> None:
        """Make the next extent ready.  Without room for it the log goes on in its extent: try again."""
        try:
            self.next = await extents.create(self._disk, number, self._extent_bytes)
            await self.check_space()
        except OSError as error:
            if not extents.is_full_error(error):
                raise
            self.is_short_of_space = True

    async def check_space(self) -> None:
        """See whether appends still have the room that fences are to keep (D3)."""
        self._spare_bytes = await self._disk.free_bytes() - self._reserve_bytes
        self.is_short_of_space = self._spare_bytes < 0

    async def close(self) -> None:
        """Close the files."""
        for extent in (self.extent, self.next):
            if extent is not None:
                await extent.file.close()
        self.extent = self.next = None


class WalWriter:
    """Takes what is queued, commits it in batches, and tells the loop."""

    def __init__(
        self,
        wal: Wal,
        mailbox: Mailbox[list[Put]],
        committed: Callable[[Committed], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._wal = wal
        self._mailbox = mailbox
        self._committed = committed
        self._failed = failed

    async def main(self) -> None:
        """Run until the mailbox is closed and empty, or an I/O error ends the node (R16, D2)."""
        while taken := await self._mailbox.take_all():
            queue = [put for puts in taken for put in puts]
            try:
                for batch in cut(queue):
                    self._committed(await self._wal.commit(batch))
            except OSError as error:
                self._failed(failure("write", error))
                return
            except Exception as error:
                self._failed(error)  # or who waits for these puts waits for good (L2, P5)
                raise


def cut(queue: list[Put]) -> list[list[Put]]:
    """Cut what waits into batches; a put is never cut."""
    batches: list[list[Put]] = []
    size = 0
    for put in queue:
        if not batches or size + put.size > BATCH_BYTES_SOFT:
            batches.append([])
            size = 0
        batches[-1].append(put)
        size += put.size
    return batches


def failure(what: str, error: OSError) -> StorageError:
    """Map an I/O error; nothing that was not acknowledged before it is known to be durable."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    kind = DiskFullError if full else StorageError
    return kind(f"log {what} failed, so this server ends: {error}")
