"""Opening the log: checkpoint, replay, takeover, and a checkpoint over the result.

What each step leaves if the process dies behind it: replay changes nothing; the position found stays
what it is until a master admits a start (R19); a new extent without a batch is removed by the next
start; the takeover, once synced, is where the next replay goes on; the checkpoint then makes all
extents before it full ones.

Source: R16, R17, R18, R29; docs/storage.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from lunalog.config import ServerConfig
from lunalog.runtime import Runtime
from lunalog.storage import checkpoint, extents, ledger
from lunalog.storage.checkpoint import Contents
from lunalog.storage.extents import name_of
from lunalog.storage.files import Disk
from lunalog.storage.format import BLOCK_BYTES, Flags, Position
from lunalog.storage.index import Index
from lunalog.storage.ledger import Beginning, Ledger
from lunalog.storage.records import (
    ControlRecord,
    Damage,
    FrameRecord,
    Record,
    UnknownRecord,
)
from lunalog.storage.replay import Replay, Replayed
from lunalog.storage.scan import ExtentReader
from lunalog.storage.writer import Put, Wal, failure

Deliver = Callable[[Record, Damage | None], None]
Snapshot = Callable[[], list[ControlRecord]]
KeepPosition = Callable[[int], Coroutine[Any, Any, None]]

START_BATCHES: Final = 2
START_BYTES: Final = START_BATCHES * BLOCK_BYTES
"""The first start of all writes so much before its checkpoint."""


class Booted(msgspec.Struct):
    """An open log."""

    wal: Wal
    ledger: Ledger
    beginning: Beginning
    damage: list[Damage]


class Boot:
    """One start; `run` is disk work from one end to the other."""

    def __init__(
        self,
        disk: Disk,
        runtime: Runtime,
        config: ServerConfig,
        index: Index,
        *,
        boot: int,
        deliver: Deliver,
        snapshot: Snapshot,
        keep_position: KeepPosition | None = None,
    ) -> None:
        self._disk = disk
        self._runtime = runtime
        self._config = config
        self._index = index
        self._boot = boot
        self._deliver = deliver
        self._snapshot = snapshot
        self._keep_position = keep_position
        self._damage: list[Damage] = []
        self._may_have_lost = False

    async def run(self) -> Booted:
        """Open the log; raises `StorageError`, after which it may be tried again."""
        try:
            return await self._run()
        except OSError as error:
            raise failure("opening", error) from error

    async def _run(self) -> Booted:
        for name in await self._disk.names():
            if name.startswith(("extent-", "checkpoint")) and name.endswith(".tmp"):
                await self._disk.remove(name)
        numbers = await extents.numbers(self._disk)
        contents, highest, damage = await checkpoint.load(self._disk)
        self._damage += damage
        is_new = contents is None and not numbers
        if contents is None:
            contents = await self._without_checkpoint(numbers, highest)
        self._may_have_lost = contents.may_have_lost
        replayed = await self._replay(contents, numbers, is_known=bool(contents.current))
        may_be_unused = highest == 0 and 1 in numbers and replayed.records == 0
        if is_new or (may_be_unused and await self._is_unused(replayed.number - 1, max(numbers))):
            self._may_have_lost = False
            self._damage.clear()
        if self._keep_position is not None:
            await self._keep_position(replayed.number - 1)
        last = max([*numbers, contents.current, replayed.end.extent])
        wal = await self._take_over(replayed, last + 1)
        self._report_gaps()
        beginning = Beginning(last + 1, replayed.number, replayed.before)
        return await self._checkpoint(contents, replayed, wal, beginning)

    async def _without_checkpoint(self, numbers: list[int], highest: int) -> Contents:
        """Begin anew in an empty directory; else read all extents there are, and trust nothing."""
        tag = await self._tag_of(numbers)
        if tag is None:
            tag = int.from_bytes(self._runtime.random_bytes(8), "little")
        may_have_lost = bool(numbers or highest)
        if may_have_lost:
            self._damage.append(Damage(checkpoint.name_of(highest), 0, 0, "no checkpoint is whole"))
        return Contents(highest, tag, [], 0, 1, 0, Position(), may_have_lost, [], [])

    async def _is_unused(self, batches: int, starts: int) -> bool:
        """Whether the first start has come no further than its checkpoint: nothing was answered then.

        What cannot be read behind its two empty batches may have been anything, zeros too where a
        later header counts more than two batches of each start (R18).
        """
        if batches > START_BATCHES * starts:
            return False
        reader = await ExtentReader.open(self._disk, 1, None)
        try:
            return await reader.content_end(START_BYTES) == START_BYTES
        finally:
            await reader.close()

    async def _tag_of(self, numbers: list[int]) -> int | None:
        """Find the tag of this log: where an extent begins, or where those are damaged in any header."""
        for is_search in (False, True):
            for number in numbers:
                reader = await ExtentReader.open(self._disk, number, None)
                try:
                    head = await (reader.search(0) if is_search else reader.head(0))
                finally:
                    await reader.close()
                if head is not None:
                    return head.tag
        return None

    async def _replay(self, contents: Contents, numbers: list[int], *, is_known: bool) -> Replayed:
        checkpoint.restore(contents, self._index)
        await self._check_full(contents, numbers)
        for record in contents.replay():
            self._deliver(record, None)
        for number in [n for n in numbers if n < contents.current]:
            if number not in {note.number for note in contents.extents}:
                await self._disk.remove(name_of(number))
                await self._disk.remove(extents.index_name_of(number))
        numbers = [n for n in numbers if n >= contents.current]
        replay = Replay(
            self._disk,
            self._index,
            self._deliver,
            tag=contents.tag,
            current=contents.current if is_known else min(numbers, default=0),
            number=contents.batch,
            before=contents.before if is_known or not numbers else None,
            floor=contents.synced_to,
        )
        replayed = await replay.run(numbers)
        self._damage += replayed.damage
        self._may_have_lost |= replayed.may_have_lost
        return replayed

    async def _check_full(self, contents: Contents, numbers: list[int]) -> None:
        """Compare the full extents with what the checkpoint says of them (D8)."""
        lost = {note.number for note in contents.extents} - set(numbers)
        for number in sorted(lost):
            self._damage.append(Damage(name_of(number), 0, 0, "file is lost"))
        if lost:
            self._index.lose(lost)
        for note in contents.extents:
            if note.number in lost:
                continue
            file = await self._disk.open(name_of(note.number))
            try:
                size = await file.size()
            finally:
                await file.close()
            if size < note.end:
                name = name_of(note.number)
                self._damage.append(Damage(name, size, note.end, "file is too short"))

    def _report_gaps(self) -> None:
        """Tell what is missing of what the owner keeps: the rest may have gaps, and goes."""
        for s in self._index.all():
            kept = self._index.start_of(s.stream, s.segment)
            for first, end in s.gaps():
                if kept is None or end <= kept:
                    continue
                damage = Damage("", 0, 0, "frames are missing", s.stream, s.segment, first, end)
                self._damage.append(damage)
                self._deliver(UnknownRecord(s.stream, s.segment, first, end), damage)

    async def _take_over(self, replayed: Replayed, number: int) -> Wal:
        """Go on in a new extent, which carries what was not attested (R16), and attest it."""
        config = self._config
        wal = Wal(
            self._disk, self._runtime, config.extent_bytes, config.reserve_bytes,
            replayed.tag, self._boot,
        )  # fmt: skip
        extent = await extents.create(self._disk, number, config.extent_bytes)
        wal.number = replayed.number
        wal.before = replayed.before
        wal.synced_to = replayed.end
        wal.enter(extent, replayed.end)
        put = Put(replayed.tail, 0)
        done = await wal.commit([put], Flags.TAKEOVER)
        await wal.commit([])
        await wal.check_space()
        for record, offset in zip(replayed.tail, done.offsets, strict=True):
            if type(record) is FrameRecord:
                self._index.add(record, done.extent, offset)
        return wal

    async def _checkpoint(
        self,
        contents: Contents,
        replayed: Replayed,
        wal: Wal,
        beginning: Beginning,
    ) -> Booted:
        book = Ledger(self._index, replayed.tag)
        book.number = contents.number  # the next one replaces what is damaged: two are whole again
        lost = {damage.file for damage in self._damage if damage.what == "file is lost"}
        book.notes = {
            note.number: note for note in contents.extents if name_of(note.number) not in lost
        }
        book.may_have_lost = self._may_have_lost
        for number, end in replayed.full:
            book.closed(number, end)
        plan = book.plan(beginning, wal.synced_to, self._snapshot())
        try:
            await ledger.carry_out(self._disk, plan)
        except OSError as error:
            if not extents.is_full_error(error):
                raise
            wal.is_short_of_space = True  # the old checkpoint and the extents since still tell all
        else:
            book.finished(plan)
            for number in replayed.blank:
                await self._disk.remove(name_of(number))
        return Booted(wal, book, beginning, self._damage)
