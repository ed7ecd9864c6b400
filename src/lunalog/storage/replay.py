"""Replay: read the log from the last checkpoint on, and tell a torn tail from damage.

Bytes that are not what they should be are *torn* when no later header attests that they were synced:
the log is cut there.  Else they are *damage*, which is never cut and never "no such event" (R17).

Each start of the server goes on in an extent of its own, whose first batch, the takeover, names the
end of the log before it and carries again what was not attested there (R16).  It is one batch, so a
crash leaves it whole or not at all; until it is whole, the old end counts.  No byte of the log is ever
written twice.

Source: R16, R17, R18; D4 to D8, D13; docs/storage.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from lunalog import limits
from lunalog.errors import StorageError
from lunalog.storage import format as layout
from lunalog.storage.extents import name_of
from lunalog.storage.files import Disk
from lunalog.storage.format import BATCH_HEAD_BYTES, BatchHead, Body, Flags, Found, Position
from lunalog.storage.index import Index
from lunalog.storage.records import Damage, FrameRecord, OpenRecord, Record
from lunalog.storage.scan import ExtentReader

COLLAPSE_BYTES: Final = 1 * limits.MIB
"""An extent that a restart finds with no more than this goes wholly into the next one."""


class Kept(msgspec.Struct, gc=False):
    """A batch that is not in the index yet: the takeover may have to carry it."""

    position: Position
    end: Position
    number: int
    before: int
    found: list[Found]


class Replayed(msgspec.Struct):
    """What was found."""

    tag: int
    number: int
    """Of the next batch."""
    before: int
    """Hash that it names: of the batch before `end`."""
    end: Position
    """Where the log goes on from; `tail` lay behind it."""
    tail: list[Record]
    full: list[tuple[int, int]]
    """Extents read, with the end of what counts in them."""
    blank: list[int]
    """Extents without a batch."""
    damage: list[Damage]
    may_have_lost: bool
    records: int = 0


class Replay:
    """One pass over the extents from `current` on.

    Args:
        current: The first extent to read; it must exist unless the next one took all of it over.
        number: The first batch has at least this number.
        before: The first batch names this hash; none if nothing is known (a lost checkpoint).
        floor: All before it was synced when the checkpoint was written.
    """

    def __init__(
        self,
        disk: Disk,
        index: Index,
        deliver: Callable[[Record, Damage | None], None],
        *,
        tag: int,
        current: int,
        number: int,
        before: int | None,
        floor: Position,
    ) -> None:
        self._floor = floor
        self._disk = disk
        self._index = index
        self._deliver = deliver
        self._tag = tag
        self._current = current
        self._number = number
        self._before = before
        self._readers: list[ExtentReader] = []
        self._openings: dict[int, BatchHead] = {}
        self._used = {floor.extent} if floor.offset else set()
        """Extents of which something says that batches in them were synced."""
        self._kept: list[Kept] = []
        self._kept_bytes = 0
        self._start_before = before or 0
        self._has_all = True
        self._synced_to = Position()
        self._is_lost = False
        self._damage: list[Damage] = []
        self._full: list[tuple[int, int]] = []
        self._blank: list[int] = []
        self._records = 0

    async def run(self, numbers: list[int]) -> Replayed:
        """Read the extents `numbers`, in order; raises `StorageError` if the end is unreadable."""
        try:
            for number in reversed(numbers):
                await self._survey(number)
            self._check_beginning()
            end = Position(self._current, 0)
            for i, reader in enumerate(self._readers):
                end = await self._read(i, reader)
            return self._finish(end)
        finally:
            for reader in self._readers:
                await reader.close()

    # ------------------------------------------------------------ before reading

    async def _survey(self, number: int) -> None:
        """Open an extent, and see whether its first batch may be believed; later ones come first.

        Without a whole header it is blank, unless something says that batches of it were synced: then
        what they carried is read by itself.
        """
        try:
            reader = await ExtentReader.open(self._disk, number, self._tag)
        except OSError as error:
            raise StorageError(f"cannot read {name_of(number)}: {error}") from error
        first = await reader.search(0)
        if first is None and reader.unreadable:
            await reader.close()
            raise StorageError(f"cannot read the beginning of {name_of(number)}")
        is_blank = first is None
        if first is not None and first.offset == 0:
            is_good = (await reader.body(first)).is_whole
            if is_good or await reader.search(first.end) is not None:
                self._openings[number] = first
                self._used |= {p.extent for p in (first.synced_to, first.previous) if p.offset}
            else:
                is_blank = number > self._current  # torn before it was ever synced
        if is_blank and number not in self._used and number >= self._floor.extent:
            await reader.close()
            self._blank.append(number)
        else:
            self._readers.insert(0, reader)

    def _check_beginning(self) -> None:
        first = self._readers[0].number if self._readers else None
        if first == self._current or self._before is None:
            return
        opening = self._openings.get(first) if first is not None else None
        # A takeover names the batch before all it carried: several may have followed each other.
        if opening is None or not opening.flags & Flags.TAKEOVER or opening.before != self._before:
            self._lose(name_of(self._current), 0, 0, "file is lost")

    def _limit(self, i: int) -> int | None:
        """Where the log left this extent, if the next one says so."""
        opening = self._opening(i + 1)
        if opening is None or opening.previous.extent != self._readers[i].number:
            return None
        return opening.previous.offset

    def _opening(self, i: int) -> BatchHead | None:
        return self._openings.get(self._readers[i].number) if i < len(self._readers) else None

    def _is_left(self, i: int) -> bool:
        """Whether the next extent carries all that comes behind the last batch read.

        It does not say so by place when the extent between was itself a takeover, and lost to a power
        cut before it was synced; the hash of the batch before tells it.
        """
        opening = self._opening(i + 1)
        return (
            opening is not None
            and bool(opening.flags & Flags.TAKEOVER)
            and opening.before == self._before
        )

    # ------------------------------------------------------------ reading

    async def _read(self, i: int, reader: ExtentReader) -> Position:
        self._enter()
        limit = self._limit(i)
        offset = 0
        is_last = False
        stop = reader.size if limit is None else limit
        while not is_last and offset < stop and not (limit is None and self._is_left(i)):
            head = await reader.head(offset)
            if head is not None and self._follows(head):
                body = await reader.body(head)
                if body.is_whole:
                    self._accept(head, body)
                    offset, is_last = head.end, bool(head.flags & Flags.LAST)
                    continue
            else:
                head = None
            after = await self._after(i, reader, offset, head)
            if limit is None and not self._is_attested(after, Position(reader.number, offset)):
                self._check_cut(reader, offset)
                break
            offset = await self._damaged(reader, offset, head, after, stop)
        self._check_following(i, reader, offset, is_last, limit)
        self._full.append((reader.number, offset))
        return Position(reader.number, offset)

    def _enter(self) -> None:
        """Begin an extent: nothing of the one before is carried over."""
        self._index_kept()
        self._has_all = True
        self._start_before = self._before or 0

    def _follows(self, head: BatchHead) -> bool:
        if self._before is None:
            return head.number >= self._number
        if head.before != self._before:
            return False
        if head.flags & Flags.TAKEOVER and head.offset == 0:
            return head.number >= self._number
        return head.number == self._number

    def _accept(self, head: BatchHead, body: Body) -> None:
        for found in body.found:
            self._give(found.record, None)
        self._settle(head.synced_to)
        self._keep(head, body.found)
        self._step(head)

    def _step(self, head: BatchHead) -> None:
        self._number = head.number + 1
        self._before = head.hash

    def _keep(self, head: BatchHead, found: list[Found]) -> None:
        position = Position(head.extent, head.offset)
        end = Position(head.extent, head.end)
        self._kept.append(Kept(position, end, head.number, head.before, found))
        self._kept_bytes += head.size
        if self._kept_bytes > COLLAPSE_BYTES:
            self._has_all = False
            self._settle(self._synced_to)

    def _settle(self, synced_to: Position) -> None:
        """Put into the index what is attested, unless this extent may still be taken over whole."""
        self._synced_to = max(self._synced_to, synced_to)
        if self._has_all:
            return
        while self._kept and self._kept[0].end <= self._synced_to:
            kept = self._kept.pop(0)
            self._kept_bytes -= kept.end.offset - kept.position.offset
            self._add(kept.position.extent, kept.found)

    def _index_kept(self) -> None:
        for kept in self._kept:
            self._add(kept.position.extent, kept.found)
        self._kept.clear()
        self._kept_bytes = 0

    def _add(self, extent: int, found: list[Found]) -> None:
        for item in found:
            if type(item.record) is FrameRecord:
                self._index.add(item.record, extent, item.offset)

    def _give(self, record: Record, damage: Damage | None) -> None:
        self._records += 1
        if type(record) is OpenRecord:
            self._index.opened(record)
        self._deliver(record, damage)

    # ------------------------------------------------------------ torn or damaged

    async def _after(
        self, i: int, reader: ExtentReader, offset: int, head: BatchHead | None
    ) -> list[BatchHead]:
        """Later headers: the next one in this extent, and one that attests the most."""
        found = []
        at = offset + BATCH_HEAD_BYTES if head is None else head.end
        later = await reader.search(at)
        while later is not None:
            if later.number > self._number:
                found.append(later)
                break
            later = await reader.search(later.offset + BATCH_HEAD_BYTES)
        for following in self._readers[i + 1 :]:
            later = await following.search(0)
            if later is not None:
                found.append(later)
                break
        return found

    def _is_attested(self, after: list[BatchHead], position: Position) -> bool:
        return self._floor > position or any(head.synced_to > position for head in after)

    @staticmethod
    def _check_cut(reader: ExtentReader, offset: int) -> None:
        """Refuse to take for torn what the disk would not give."""
        if any(at + 4096 > offset for at in reader.unreadable):
            raise StorageError(
                f"{name_of(reader.number)} cannot be read behind {offset}, where its end may be: "
                "nothing was changed; repair the disk, or start with an empty directory"
            )

    async def _damaged(
        self,
        reader: ExtentReader,
        offset: int,
        head: BatchHead | None,
        after: list[BatchHead],
        stop: int,
    ) -> int:
        """Take what can be taken out of a damaged batch; returns where to go on."""
        self._stop_keeping()
        name = name_of(reader.number)
        if head is not None:
            body = await reader.body(head)
            self._deliver_damaged(name, reader.number, body.found)
            if not body.is_complete:
                self._lose(name, body.stopped, head.end, "records are damaged")
            elif all(f.is_whole for f in body.found):
                self._damage.append(Damage(name, head.end - 1, head.end, "padding is not zeros"))
            self._step(head)
            return head.end
        end = stop
        if after and after[0].extent == reader.number:
            end = min(end, after[0].offset)
        data = await reader.get(offset, end - offset)
        found = layout.salvage(data, self._tag, reader.number, offset)
        self._deliver_damaged(name, reader.number, found)
        is_there = bool(offset or found)
        self._lose(
            name, offset, end, "batch header is damaged" if is_there else "nothing is left of it"
        )
        self._before = None
        return end

    def _stop_keeping(self) -> None:
        """An extent with damage stays as it is, as a witness."""
        self._has_all = False
        self._index_kept()

    def _deliver_damaged(self, name: str, extent: int, found: list[Found]) -> None:
        for item in found:
            damage = None
            record = item.record
            if not item.is_whole and type(record) is FrameRecord:
                damage = Damage(
                    name, item.offset, item.end, "frame is damaged",
                    record.stream, record.segment, record.head.first, record.head.end,
                )  # fmt: skip
                self._damage.append(damage)
            self._give(record, damage)
        self._add(extent, found)

    def _lose(self, name: str, offset: int, end: int, what: str) -> None:
        self._damage.append(Damage(name, offset, end, what))
        self._is_lost = True

    def _check_following(
        self, i: int, reader: ExtentReader, offset: int, is_last: bool, limit: int | None
    ) -> None:
        has_next = i + 1 < len(self._readers)
        if is_last and not has_next:
            if reader.number + 1 not in self._blank:  # else a crash came before its first batch
                self._lose(name_of(reader.number + 1), 0, 0, "file is lost")
                self._before = None
        elif has_next and limit is None and not self._is_left(i):
            opening = self._opening(i + 1)
            if opening is not None and reader.number + 1 != opening.extent:
                self._lose(name_of(opening.previous.extent), 0, 0, "file is lost")
            self._before = None
        elif (
            not has_next and offset >= reader.size and self._floor > Position(reader.number, offset)
        ):
            self._lose(name_of(reader.number), offset, self._floor.offset, "file is too short")

    # ------------------------------------------------------------ the end

    def _finish(self, end: Position) -> Replayed:
        number = self._number
        if self._has_all:
            carried = self._kept
            before = self._start_before
            end = Position(end.extent, 0)
        else:
            self._settle(self._synced_to)
            carried = self._kept
            before = carried[0].before if carried else self._before or 0
            end = carried[0].position if carried else end
        if self._full:
            self._full[-1] = (end.extent, end.offset)
        tail = [found.record for kept in carried for found in kept.found]
        return Replayed(
            self._tag, number, before, end, tail, self._full, self._blank, self._damage,
            self._is_lost, self._records,
        )  # fmt: skip
