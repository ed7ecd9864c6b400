"""A simulated directory: names whose changes a power cut may undo, each by itself.

Source: docs/design.md "Seams"; D8, D9, D10.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from lunalog.testing.image import Inode


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of the directory: `inode` gets `name`, or nothing has `gone` any more."""

    name: str | None
    inode: Inode | None
    gone: str | None


class Directory:
    """Names and files, with what is durable of both."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable: dict[str, Inode] = {}
        self.unsynced: list[Entry] = []
        self.inode_number = 0

    def find(self, name: str) -> Inode:
        """Return the file of that name, or raise `FileNotFoundError`."""
        if name not in self.names:
            raise FileNotFoundError(2, "no such file", name)
        return self.names[name]

    def create(self, name: str) -> Inode:
        """Make an empty file, or truncate the one there is."""
        if name in self.names:
            inode = self.names[name]
            if inode.cached.size:
                inode.set_size(0)
            return inode
        self.inode_number += 1
        inode = self.names[name] = Inode(self.inode_number)
        self.unsynced.append(Entry(name, inode, None))
        return inode

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it."""
        inode = self.find(old)
        if old != new:
            del self.names[old]
            self.names[new] = inode
            self.unsynced.append(Entry(new, inode, old))

    def remove(self, name: str) -> None:
        """Take a name away; a name that is not there is fine."""
        if self.names.pop(name, None) is not None:
            self.unsynced.append(Entry(None, None, name))

    def sync(self) -> None:
        """Make all changes of names durable."""
        self.durable = dict(self.names)
        self.unsynced.clear()

    def used_bytes(self) -> int:
        """Space that the files take, holes included."""
        return sum(inode.cached.size for inode in self.names.values())

    def cut_power(self, chance: random.Random) -> int:
        """Keep each unsynced change or not, and so the content; return what was not kept whole."""
        harmed = 0
        keep_rate = chance.choice((0.0, 0.5, 0.9, 1.0))
        for entry in self.unsynced:
            if chance.random() >= keep_rate:
                harmed += 1
                continue
            if entry.gone is not None:
                self.durable.pop(entry.gone, None)
            if entry.name is not None and entry.inode is not None:
                self.durable[entry.name] = entry.inode
        self.unsynced.clear()
        self.names = dict(self.durable)
        seen: set[int] = set()
        for _, inode in sorted(self.names.items()):
            if inode.number not in seen:  # a rename may have left both names
                seen.add(inode.number)
                harmed += inode.cut_power(chance)
        return harmed

    def copy(self) -> Directory:
        """Return an independent copy."""
        made = Directory()
        made.inode_number = self.inode_number
        copies: dict[int, Inode] = {}

        def twin(inode: Inode) -> Inode:
            if inode.number not in copies:
                copies[inode.number] = inode.copy()
            return copies[inode.number]

        made.names = {name: twin(inode) for name, inode in self.names.items()}
        made.durable = {name: twin(inode) for name, inode in self.durable.items()}
        made.unsynced = [Entry(e.name, e.inode and twin(e.inode), e.gone) for e in self.unsynced]
        return made
