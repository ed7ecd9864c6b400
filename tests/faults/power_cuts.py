"""Every state that a power cut may leave of a simulated disk.

What was synced is there.  Of the rest, each by itself: a write arrives whole, torn where a sector
begins (its first or its last sectors), as zeros, or not at all; a file's new length arrives or not; a
name that was made, replaced or removed is there or not.

Source: protocol.md D4, D8, D13; R16, R17.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lunalog.testing.directory import Directory, Entry
from lunalog.testing.image import SECTOR_BYTES, Inode

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


def power_cuts(
    directory: Directory, chance: random.Random, *, samples: int = SAMPLES
) -> Iterator[Directory]:
    """All states after a power cut at this moment, each once; drawn ones if they are too many.

    They share with `directory` the files that have nothing unsynced: change none of them.
    """
    items, options = _pending(directory)
    hashes = {id(inode): _hash_of(inode) for inode in _inodes(directory) if not inode.unsynced}
    seen: set[int] = set()
    for choice in _choices(options, chance, samples):
        found = _settle(directory, dict(zip(items, choice, strict=True)))
        key = _fingerprint(found, hashes)
        if key not in seen:
            seen.add(key)
            yield found


def fingerprint(directory: Directory) -> int:
    """Equal for directories of equal content, whatever is synced of it."""
    return _fingerprint(directory, {})


def pending_in(directory: Directory) -> int:
    """Tells what is not synced: a kill leaves it so, a power cut that keeps all of it does not."""
    files = [(inode.number, tuple(inode.unsynced)) for inode in _inodes(directory)]
    return hash((len(directory.unsynced), tuple(files)))


def _fingerprint(directory: Directory, hashes: dict[int, int]) -> int:
    parts = []
    for name, inode in sorted(directory.names.items()):
        known = hashes.get(id(inode))
        parts.append((name, _hash_of(inode) if known is None else known))
    return hash(tuple(parts))


def _hash_of(inode: Inode) -> int:
    pages = sorted(inode.cached.pages.items())
    return hash((inode.cached.size, *[(n, bytes(p)) for n, p in pages if any(p)]))


def _choices(
    options: list[Sequence[object]], chance: random.Random, samples: int
) -> Iterator[tuple[object, ...]]:
    if math.prod(map(len, options)) <= samples:
        yield from itertools.product(*options)
        return
    if len(options) <= SUBSETS_MAX:  # what is whole or missing, before what is torn
        yield from itertools.islice(itertools.product(*(o[:2] for o in options)), samples)
    else:
        yield tuple(o[0] for o in options)
        yield tuple(o[1] for o in options)
    for _ in range(samples // 2):
        yield tuple(chance.choice(o) for o in options)


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
