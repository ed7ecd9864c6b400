"""What a simulated disk holds: files whose unsynced writes a power cut may keep, tear or lose.

A file is two images: `cached`, what the processes of the host read, and `durable`, what is left
without power.  Between them stands the list of writes not synced yet.  A power cut decides about
each 512-byte sector of each such write by itself.

Source: docs/design.md "Seams"; D2, D4, D5, D8, D13.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

PAGE_BYTES = 4096
SECTOR_BYTES = 512
NO_PAGE = bytes(PAGE_BYTES)


class SparseBytes:
    """Bytes of any length of which only written pages take memory; the rest are zeros.

    A page is never changed, a write puts another one in its place: copies share them all.
    """

    __slots__ = ("pages", "size")

    def __init__(self) -> None:
        self.size = 0
        self.pages: dict[int, bytes] = {}

    def copy(self) -> SparseBytes:
        """Return an independent copy."""
        made = SparseBytes()
        made.size = self.size
        made.pages = self.pages.copy()
        return made

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`, growing as needed."""
        end = offset + len(data)
        at = 0
        while offset < end:
            number, start = divmod(offset, PAGE_BYTES)
            count = min(PAGE_BYTES - start, end - offset)
            page = self.pages.get(number, NO_PAGE)
            part = data[at : at + count]
            self.pages[number] = b"".join((page[:start], part, page[start + count :]))
            at += count
            offset += count
        self.size = max(self.size, end)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        end = min(offset + size, self.size)
        parts = []
        while offset < end:
            number, start = divmod(offset, PAGE_BYTES)
            count = min(PAGE_BYTES - start, end - offset)
            parts.append(self.pages.get(number, NO_PAGE)[start : start + count])
            offset += count
        return b"".join(parts)

    def content_end(self) -> int:
        """Return the end of what is not zeros."""
        for number in sorted(self.pages, reverse=True):
            found = len(self.pages[number].rstrip(b"\0"))
            if found:
                return min(self.size, number * PAGE_BYTES + found)
        return 0

    def truncate(self, size: int) -> None:
        """Set the length; what is cut off reads as zeros if the file grows again."""
        if size < self.size:
            last, start = divmod(size, PAGE_BYTES)
            self.pages = {n: page for n, page in self.pages.items() if n <= last}
            if last in self.pages:
                self.pages[last] = self.pages[last][:start].ljust(PAGE_BYTES, b"\0")
        self.size = size


class Inode:
    """One file's content, whatever names it has.

    Attributes:
        cached: What a read returns.
        durable: What the platter holds.
        unsynced: Writes since the last sync, in order; an empty one stands for a new length.
        written: How many writes there ever were, synced or not.
        flips: Byte offset to bit mask, applied on read until the byte is written again.
        errors: How many writebacks have failed; each descriptor reports each of them once.
        lied: What syncs have lost that said they had kept it, in order.
    """

    __slots__ = ("cached", "durable", "errors", "flips", "lied", "number", "unsynced", "written")

    def __init__(self, number: int) -> None:
        self.number = number
        self.cached = SparseBytes()
        self.durable = SparseBytes()
        self.unsynced: list[tuple[int, bytes]] = []
        self.flips: dict[int, int] = {}
        self.errors = 0
        self.lied: list[tuple[int, bytes]] = []
        self.written = 0

    def copy(self) -> Inode:
        """Return an independent copy, for a snapshot."""
        made = Inode(self.number)
        made.cached, made.durable = self.cached.copy(), self.durable.copy()
        made.unsynced, made.flips = list(self.unsynced), dict(self.flips)
        made.lied = list(self.lied)
        return made

    def write(self, offset: int, data: bytes) -> None:
        """Write to the page cache."""
        self.cached.write(offset, data)
        self._note(offset, data)
        if self.flips:
            end = offset + len(data)
            self.flips = {at: m for at, m in self.flips.items() if not offset <= at < end}

    def set_size(self, size: int) -> None:
        """Grow (with zeros) or cut in the page cache."""
        self.cached.truncate(size)
        self._note(size, b"")
        self.flips = {at: mask for at, mask in self.flips.items() if at < size}

    def read(self, offset: int, size: int) -> bytes:
        """Read what is cached, with the flips of the platter in it."""
        found = self.cached.read(offset, size)
        hits = [at for at in self.flips if offset <= at < offset + len(found)]
        if hits:
            damaged = bytearray(found)
            for at in hits:
                damaged[at - offset] ^= self.flips[at]
            return bytes(damaged)
        return found

    def sync(self, written: int) -> None:
        """Make durable what was written before `written` said so."""
        for offset, data in self._take(written):
            self._apply(offset, data)

    def lose(
        self, written: int, chance: random.Random, share: float = 0.5, *, strays: bool = False
    ) -> list[tuple[int, bytes]]:
        """Fail the writeback of what `sync` would make durable: it is clean then, and lost.

        Each write has a chance of `share` to be lost, and at least one is.  The page cache still
        shows them, as on Linux.  With `strays` they overwrite something else instead (D7).

        Returns:
            The writes that are lost.
        """
        lost = []
        taken = self._take(written)
        lucky = [chance.random() >= share for _ in taken]
        if lucky and all(lucky):
            lucky[chance.randrange(len(lucky))] = False
        for (offset, data), is_kept in zip(taken, lucky, strict=True):
            if is_kept:
                self._apply(offset, data)
                continue
            lost.append((offset, data))
            if strays and data:
                room = max(1, (self.durable.size - len(data)) // SECTOR_BYTES)
                self.durable.write(chance.randrange(room) * SECTOR_BYTES, data)
        return lost

    def put_back(self, start: int) -> None:
        """Let syncs not have lied about what they lost at or behind `start`."""
        for offset, data in self.lied:
            if offset >= start:
                self._apply(offset, data)
        self.lied.clear()

    def evict(self) -> None:
        """Drop clean pages: writes that a failed writeback lost disappear from reads."""
        self.cached = self.durable.copy()
        for offset, data in self.unsynced:
            if data:
                self.cached.write(offset, data)
            else:
                self.cached.truncate(offset)

    def cut_power(self, chance: random.Random) -> int:
        """Keep what is durable and a random part of the rest; return the writes not whole.

        Each sector of each unsynced write is kept, lost, torn at a byte, or zeros, in random order
        of arrival.  The length is the durable one or one that some write has made.
        """
        writes, sizes = self._surviving(chance)
        pieces = [piece for write in writes for piece in sectors(*write)]
        harmed = 0
        keep_rate = chance.choice((0.0, 0.5, 0.9, 1.0))
        if chance.random() < 0.5:
            chance.shuffle(pieces)
        for offset, data in pieces:
            draw = chance.random()
            if draw < keep_rate:
                self.durable.write(offset, data)
                continue
            harmed += 1
            if draw > 1 - (1 - keep_rate) / 4:
                self.durable.write(offset, data[: chance.randrange(len(data))])
            elif draw > 1 - (1 - keep_rate) / 2:
                self.durable.write(offset, bytes(len(data)))
        self.durable.truncate(chance.choice(sizes) if chance.random() < 0.5 else sizes[-1])
        self.unsynced.clear()
        self.cached = self.durable.copy()
        self.errors = 0
        return harmed

    def _surviving(self, chance: random.Random) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Choose whether a truncation happened; give the writes behind it and possible lengths.

        What was written behind a truncation never stands beside what was cut off: file systems
        free blocks before they use them again.
        """
        writes: list[tuple[int, bytes]] = []
        sizes = [self.durable.size]
        for offset, data in self.unsynced:
            if not data and offset < sizes[-1]:
                if chance.random() < 0.3:
                    break
                self.durable.truncate(offset)
                writes, sizes = [w for w in writes if w[0] + len(w[1]) <= offset], [offset]
            elif data:
                writes.append((offset, data))
                sizes.append(max(sizes[-1], offset + len(data)))
            else:
                sizes.append(offset)
        return writes, sizes

    def _note(self, offset: int, data: bytes) -> None:
        self.unsynced.append((offset, data))
        self.written += 1

    def _take(self, written: int) -> list[tuple[int, bytes]]:
        count = max(0, written - (self.written - len(self.unsynced)))
        taken = self.unsynced[:count]
        del self.unsynced[:count]
        return taken

    def _apply(self, offset: int, data: bytes) -> None:
        if data:
            self.durable.write(offset, data)
        else:
            self.durable.truncate(offset)


def sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut one write where sectors begin."""
    at = 0
    while at < len(data):
        count = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data) - at)
        yield offset + at, data[at : at + count]
        at += count
