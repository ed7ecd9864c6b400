"""Reading frames back: index, sidecar, extent; every record checked before it leaves (I12).

Files are opened for each read, never shared with the writer: a descriptor that rolls away under a
reader could be another file's by then.

Source: R12, R18, R26; trap 3.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Final

from lunalog import limits
from lunalog.errors import StorageError, UnknownDataError
from lunalog.runtime import Runtime
from lunalog.storage import format as layout
from lunalog.storage.extents import index_name_of, name_of
from lunalog.storage.files import Disk, File
from lunalog.storage.format import RECORD_HEAD_BYTES, Found
from lunalog.storage.index import Block, BlockCache, Index, Run, block_bytes, decode_block
from lunalog.storage.records import Damage, FrameRecord
from lunalog.storage.scan import ExtentReader
from lunalog.types import Chain, SegmentId, Sequence, StreamId
from lunalog.wire.frames import FrameHead

FRAMES_MAX: Final = 4096
"""In one reply."""
CHUNK_BYTES: Final = 1 * limits.MIB


class FrameReader:
    """Reads frames of one log; its methods run on the loop, the disk work beside it."""

    def __init__(
        self,
        disk: Disk,
        runtime: Runtime,
        index: Index,
        tag: int,
        damaged: Callable[[Damage], None],
    ) -> None:
        self._disk = disk
        self._runtime = runtime
        self._index = index
        self._tag = tag
        self._damaged = damaged
        self._blocks = BlockCache()
        self._known: set[Damage] = set()

    async def read(
        self, stream: StreamId, segment: SegmentId, start: Sequence, bytes_max: int, end: Sequence
    ) -> list[tuple[FrameHead, bytes]]:
        """Frames from the one that holds `start` on, at least one; empty when nothing is held there.

        Raises `UnknownDataError` where frames were held and are damaged, `StorageError` when the
        disk cannot be asked now.
        """
        run = self._run(stream, segment, start)
        if run is None:
            return []
        records = await self._records(run, start, bytes_max, end)
        return [(r.head, r.frame) for r in records]

    async def chain_at(self, stream: StreamId, segment: SegmentId, bound: Sequence) -> Chain | None:
        """Chain behind the frame that ends at `bound`; none if no frame here does."""
        run = self._run(stream, segment, bound - 1)
        if run is None:
            return None
        records = await self._records(run, bound - 1, 1, bound)
        return records[0].chain if records and records[0].head.end == bound else None

    def _run(self, stream: StreamId, segment: SegmentId, start: Sequence) -> Run | None:
        index = self._index.find(stream, segment)
        if index is None or not index.start <= start < index.end:
            return None
        run = index.run_at(start)
        if run is None:
            raise UnknownDataError(f"{start} of segment {segment} was held here and is damaged")
        return run

    async def _records(
        self, run: Run, start: Sequence, bytes_max: int, end: Sequence
    ) -> list[FrameRecord]:
        block = await self._block(run)
        at = max(bisect_right(block.firsts, start) - 1, 0)
        firsts = block.firsts[at : at + FRAMES_MAX]
        offsets = block.offsets[at : at + FRAMES_MAX]
        wanted = [
            (first, offset)
            for first, offset in zip(firsts, offsets, strict=True)
            if first < end or first <= start
        ]
        found = await self._runtime.offload(self._read(run, wanted, bytes_max))
        if found and start < found[0].head.end:
            return found
        if not run.count:
            return []  # forgotten meanwhile
        first, offset = wanted[0]
        if found:  # the block was made anew, of what is left
            first = found[0].head.end
        self._note(run, offset, first, firsts[1] if len(firsts) > 1 else run.end)
        raise UnknownDataError(f"the frame at {first} in {name_of(run.extent)} is damaged")

    def _note(self, run: Run, offset: int, first: Sequence, last: Sequence) -> None:
        owner, name = run.owner, name_of(run.extent)
        what = "frame is damaged"
        damage = Damage(name, offset, offset, what, owner.stream, owner.segment, first, last)
        if damage not in self._known:  # who asks again and again fills no memory
            self._known.add(damage)
            self._damaged(damage)

    async def _read(
        self, run: Run, wanted: list[tuple[Sequence, int]], bytes_max: int
    ) -> list[FrameRecord]:
        try:
            return await self._read_file(run, wanted, bytes_max)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _not_now(run, error) from error

    async def _read_file(
        self, run: Run, wanted: list[tuple[Sequence, int]], bytes_max: int
    ) -> list[FrameRecord]:
        owner = run.owner
        found: list[FrameRecord] = []
        file = await self._disk.open(name_of(run.extent))
        try:
            records = RecordReader(file, run.extent, self._tag, min(bytes_max, CHUNK_BYTES))
            for first, offset in wanted:
                item = await records.get(offset)
                record = item.record if item is not None and item.is_whole else None
                if (
                    type(record) is not FrameRecord
                    or record.head.first != first
                    or (record.stream, record.segment) != (owner.stream, owner.segment)
                    or (found and found[-1].head.end != first)
                ):
                    break
                bytes_max -= len(record.frame)
                if found and bytes_max < 0:
                    break
                found.append(record)
        finally:
            await file.close()
        return found

    async def _block(self, run: Run) -> Block:
        found = run.block or self._blocks.get(run.extent, run.place)
        if found is None:
            found = await self._runtime.offload(self._load(run))
            if run.place >= 0:
                self._blocks.put(run.extent, run.place, found)
        return found

    async def _load(self, run: Run) -> Block:
        data = b""
        try:
            file = await self._disk.open(index_name_of(run.extent))
            try:
                data = await file.read(run.place, block_bytes(run.count))
            finally:
                await file.close()
        except OSError:
            pass
        return decode_block(data, run) or await self._rebuild(run)

    async def _rebuild(self, run: Run) -> Block:
        """Read the extent itself where the sidecar is damaged."""
        block, end = Block(array("Q", (run.first,)), array("Q", (run.offset,))), run.first
        try:
            reader = await ExtentReader.open(self._disk, run.extent, self._tag)
        except FileNotFoundError:
            return block  # which nobody will find there: that is damage
        except OSError as error:
            raise _not_now(run, error) from error
        try:
            at, size = 0, reader.size
            while at < size:
                head = await reader.search(at)
                if head is None:  # the last frame may end in zeros
                    size = min(size, await reader.content_end(at) + layout.BODY_BYTES_MAX)
                stop = size if head is None else head.offset
                found = layout.salvage(await reader.get(at, stop - at), self._tag, run.extent, at)
                if head is not None:
                    found += (await reader.body(head)).found
                    stop = head.end
                for record, offset in _frames_of(found, run):
                    if record.head.first > run.first and record.head.first >= end:
                        block.firsts.append(record.head.first)
                        block.offsets.append(offset)
                        end = record.head.end
                at = stop
        finally:
            await reader.close()
        return block


def _not_now(run: Run, error: OSError) -> StorageError:
    """Nothing was read, so nothing is known to be damaged."""
    return StorageError(f"cannot read {name_of(run.extent)} now: {error}")


def _frames_of(found: list[Found], run: Run) -> Iterator[tuple[FrameRecord, int]]:
    owner = run.owner
    for item in found:
        record = item.record
        if (
            type(record) is FrameRecord
            and item.is_whole
            and (record.stream, record.segment) == (owner.stream, owner.segment)
            and run.first <= record.head.first < run.end
        ):
            yield record, item.offset


class RecordReader:
    """Records of one extent by their offsets, mostly rising; reads ahead by a chunk."""

    def __init__(self, file: File, extent: int, tag: int, chunk_bytes: int) -> None:
        self._file = file
        self._extent = extent
        self._seed = layout.record_seed(tag)
        self._chunk_bytes = chunk_bytes
        self._start = 0
        self._chunk = b""

    async def get(self, offset: int) -> Found | None:
        """Read the record at `offset`; none if its header is damaged.  Raises `OSError`."""
        head = await self._bytes(offset, RECORD_HEAD_BYTES)
        if len(head) < RECORD_HEAD_BYTES:
            return None
        size = RECORD_HEAD_BYTES + layout.body_size(head)
        record = await self._bytes(offset, min(size, limits.MESSAGE_BYTES_MAX))
        return layout.parse_record(record, 0, self._seed, self._extent, offset)

    async def _bytes(self, offset: int, size: int) -> memoryview:
        at = offset - self._start
        if at < 0 or at + size > len(self._chunk):
            try:
                self._chunk = await self._file.read(offset, max(size, self._chunk_bytes))
            except OSError:  # what cannot be read may lie behind what is asked for
                self._chunk = await self._file.read(offset, size)
            self._start, at = offset, 0
        return memoryview(self._chunk)[at : at + size]
