"""Every state that a power cut may leave of a simulated disk.

What was synced is there.  Of the rest, each by itself: a write arrives whole, torn where a sector
begins (its first or its last sectors), as zeros, or not at all; a file's new length arrives or not; a
name that was made, replaced or removed is there or not.

Source: protocol.md D4, D8, D13; R16, R17.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lunalog.testing.directory import Directory, Entry
from lunalog.testing.image import NO_PAGE, SECTOR_BYTES, Inode

SUBSETS_MAX = 8
"""Up to so many things unsynced, every subset of them is tried."""
SAMPLES = 256
"""Of all combinations, where there are more."""


class Fate(NamedTuple):
    """What becomes of one write: the bytes `[start, end)` of it arrive, as they are or as zeros."""

    start: int
    end: int
    is_zeros: bool = False


OLD = Fate(0, 0)
Item = tuple[int | None, int]
"""An inode's number and the place of one of its unsynced writes; or none and that of an entry."""


class PowerCuts:
    """The states that a power cut at one moment may leave, by number; each is made when asked for.

    Some may be equal.  They share with `directory` the files that have nothing unsynced: change none
    of them.

    Args:
        samples: Where there are more combinations, so many of them: first what is whole or missing,
            or only all of it if that is too many as well; then half as many drawn ones.
    """

    def __init__(
        self, directory: Directory, chance: random.Random, *, samples: int = SAMPLES
    ) -> None:
        self._directory, self._chance = directory, chance
        self._items, self._options = _pending(directory)
        self._listed = self._options
        count, drawn = math.prod(map(len, self._options)), 0
        if count > samples:
            self._listed = [option[:2] for option in self._options]
            is_small = len(self._options) <= SUBSETS_MAX and 1 << len(self._options) <= samples
            count, drawn = 1 << len(self._options) if is_small else 2, samples // 2
        self._count, self._drawn = count, drawn

    def __len__(self) -> int:
        return self._count + self._drawn

    def make(self, number: int) -> Directory:
        """Return what is left; number 0 has nothing that was not synced."""
        return _settle(self._directory, dict(zip(self._items, self._choice(number), strict=True)))

    def _choice(self, number: int) -> list[object]:
        if number >= self._count:
            return [self._chance.choice(options) for options in self._options]
        if self._drawn and self._count == 2:  # all is missing, or all is whole
            return [options[number] for options in self._listed]
        found = []
        for options in reversed(self._listed):
            number, place = divmod(number, len(options))
            found.append(options[place])
        return found[::-1]


def power_cuts(
    directory: Directory, chance: random.Random, *, samples: int = SAMPLES
) -> Iterator[Directory]:
    """All these states, each once."""
    cuts = PowerCuts(directory, chance, samples=samples)
    seen: set[int] = set()
    for number in range(len(cuts)):
        found = cuts.make(number)
        key = fingerprint(found)
        if key not in seen:
            seen.add(key)
            yield found


def fingerprint(directory: Directory) -> int:
    """Equal for directories of equal content, whatever is synced of it."""
    return hash(tuple((n, _hash_of(inode)) for n, inode in sorted(directory.names.items())))


def pending_in(directory: Directory) -> int:
    """Tells what is not synced: a kill leaves it so, a power cut that keeps all of it does not."""
    files = [(inode.number, tuple(inode.unsynced)) for inode in _inodes(directory)]
    return hash((len(directory.unsynced), tuple(files)))


def _hash_of(inode: Inode) -> int:
    pages = sorted(inode.cached.pages.items())
    return hash((inode.cached.size, *[page for page in pages if page[1] != NO_PAGE]))


def _pending(directory: Directory) -> tuple[list[Item], list[Sequence[object]]]:
    items: list[Item] = []
    options: list[Sequence[object]] = []
    for place in range(len(directory.unsynced)):
        items.append((None, place))
        options.append((False, True))
    for inode in _inodes(directory):
        for place, (offset, data) in enumerate(inode.unsynced):
            items.append((inode.number, place))
            options.append(_fates(offset, data))
        if inode.unsynced:
            items.append((inode.number, -1))  # its length
            options.append((False, True))
    return items, options


def _inodes(directory: Directory) -> list[Inode]:
    found = [*directory.names.values(), *directory.durable.values()]
    found += [entry.inode for entry in directory.unsynced if entry.inode is not None]
    return [inode for _, inode in sorted({inode.number: inode for inode in found}.items())]


def _fates(offset: int, data: bytes) -> Sequence[object]:
    if not data:
        return (False, True)  # a new length that cuts; growth goes by the file's length alone
    size = len(data)
    used = len(data.rstrip(b"\0")) or 1
    found = [OLD, Fate(0, size), Fate(0, size, is_zeros=True)]
    first = SECTOR_BYTES - offset % SECTOR_BYTES
    for cut in range(first, min(size, used + SECTOR_BYTES), SECTOR_BYTES):
        found += [Fate(0, cut), Fate(cut, size)]
    return found


def _settle(directory: Directory, choice: dict[Item, object]) -> Directory:
    made = Directory()
    made.inode_number = directory.inode_number
    names = dict(directory.durable)
    for place, entry in enumerate(directory.unsynced):
        if choice[None, place]:
            _enter(names, entry)
    copies: dict[int, Inode] = {}
    for name, inode in names.items():
        twin = copies.get(inode.number)
        if twin is None:
            twin = copies[inode.number] = _settle_file(inode, choice)
        made.names[name] = made.durable[name] = twin
    return made


def _enter(names: dict[str, Inode], entry: Entry) -> None:
    if entry.gone is not None:
        names.pop(entry.gone, None)
    if entry.name is not None and entry.inode is not None:
        names[entry.name] = entry.inode


def _settle_file(inode: Inode, choice: dict[Item, object]) -> Inode:
    """What was written behind a truncation never stands beside what was cut off."""
    if not inode.unsynced:
        return inode
    image = inode.durable.copy()
    least = size = image.size
    for place, (offset, data) in enumerate(inode.unsynced):
        fate = choice[inode.number, place]
        if isinstance(fate, Fate):
            part = data[fate.start : fate.end]
            image.write(offset + fate.start, bytes(len(part)) if fate.is_zeros else part)
            size = max(size, offset + len(data))
        elif offset >= size:
            size = offset
        elif fate:
            image.truncate(offset)
            least = size = offset
        else:
            break
    image.truncate(size if choice[inode.number, -1] else least)
    made = Inode(inode.number)
    made.durable, made.cached = image, image.copy()
    return made
