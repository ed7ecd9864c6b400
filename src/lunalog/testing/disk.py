"""A disk in memory that takes time, tears, loses, flips and fails: the `storage.files.Disk` of tests.

Without a scheduler it never suspends and has no latency, so that `runtime.drive` runs its coroutines:
that is how unit tests of the storage use it.  In a simulation each call takes virtual time, and a
crash may land before, after or in the middle of its effect.

Source: docs/design.md "Seams"; D1 to D11, D13.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lunalog.testing.directory import Directory
from lunalog.testing.diskfaults import Damage, DiskFaults
from lunalog.testing.file import SimulatedFile
from lunalog.testing.image import Inode
from lunalog.testing.scheduler import Scheduler
from lunalog.testing.tasks import settle

if TYPE_CHECKING:
    from lunalog.testing.loop import SimulatedLoop

T = TypeVar("T")
UNLIMITED_BYTES = 1 << 50


class ProcessDiedError(SystemExit):
    """The process of the code that runs was crashed: nothing of it may go on."""


class Operation(NamedTuple):
    """One effect on the disk, as recorded for a crash enumerator; `inode` tells files apart."""

    kind: str
    name: str
    inode: int
    offset: int = 0
    data: bytes = b""


class SimulatedDisk:
    """One data directory that outlives its node's crashes; the test holds it.

    Inject faults through `faults` (errors, latency) and by `crash`, `flip`, `overwrite`, `lose`,
    `wipe`, `snapshot` and `restore`; all damage done is listed in `damage`.  Example:

        disk = SimulatedDisk("d", random.Random(1))
        file = drive(disk.open("wal", create=True))
        drive(file.write(0, [b"x" * 2000]))
        disk.crash(power=True)  # the name was never synced, so it may be gone
    """

    def __init__(
        self,
        name: str,
        chance: random.Random,
        scheduler: Scheduler | None = None,
        *,
        capacity_bytes: int = UNLIMITED_BYTES,
    ) -> None:
        self.name = name
        self.chance = chance
        self.capacity_bytes = capacity_bytes
        self.faults = DiskFaults(chance, scheduler)
        self.damage: list[Damage] = []
        self.recorded: list[Operation] | None = None
        self.directory = Directory()
        self.generation = 0
        self.blocked: SimulatedLoop | None = None
        """The loop that waits in place for what it asks of this disk."""
        self._is_locked = False
        self._replayed: dict[int, Inode] = {}

    # ------------------------------------------------------------ Disk

    async def lock(self) -> None:
        """Take it for this process; raises `BlockingIOError` when it is taken."""

        def effect() -> None:
            if self._is_locked:
                raise BlockingIOError(errno.EAGAIN, "locked", self.name)
            self._is_locked = True

        await self.perform("lock", effect)

    async def unlock(self) -> None:
        """Give it back."""
        self._is_locked = False

    async def open(self, name: str, *, create: bool = False) -> SimulatedFile:
        """Open a file, or make or truncate one with `create`."""

        def effect() -> SimulatedFile:
            if not create:
                return SimulatedFile(self, self.directory.find(name), name)
            inode = self.directory.create(name)
            self.record("create", name, inode.number)
            return SimulatedFile(self, inode, name)

        return await self.perform("create" if create else "open", effect)

    async def names(self) -> list[str]:
        """All names, sorted."""
        return await self.perform("names", lambda: sorted(self.directory.names))

    async def rename(self, old: str, new: str) -> None:
        """Rename, replacing."""

        def effect() -> None:
            self.directory.rename(old, new)
            self.record("rename", new, self.directory.find(new).number, data=old.encode())

        await self.perform("rename", effect)

    async def remove(self, name: str) -> None:
        """Unlink; a name that is not there is fine."""

        def effect() -> None:
            self.directory.remove(name)
            self.record("remove", name, 0)

        await self.perform("remove", effect)

    async def sync_directory(self) -> None:
        """Make the changes of names durable."""

        def effect() -> None:
            if not self.faults.directory_is_kept():
                return
            self.directory.sync()
            self.record("sync_directory", "", 0)

        await self.perform("sync_directory", effect)

    async def free_bytes(self) -> int:
        """Capacity that is left."""
        return max(0, self.capacity_bytes - self.directory.used_bytes())

    async def total_bytes(self) -> int:
        """Capacity."""
        return self.capacity_bytes

    # ------------------------------------------------------------ faults

    def crash(self, *, power: bool) -> int:
        """End the process that uses the disk: its lock and open files are gone.

        With `power` the page cache is gone too, and unsynced sectors and names are kept, torn or
        lost by chance; without, all that was written stays as it is, synced or not.

        Returns:
            How many sectors and names did not survive whole.
        """
        self.generation += 1
        self._is_locked = False
        return self.directory.cut_power(self.chance) if power else 0

    def wipe(self) -> None:
        """Put an empty disk in its place."""
        self.generation += 1
        self._is_locked = False
        self.directory = Directory()
        self.damage.append(Damage("wipe", "", 0, b"", b""))

    def snapshot(self) -> Directory:
        """Return an image of all there is, for `restore`."""
        return self.directory.copy()

    def restore(self, image: Directory) -> None:
        """Put an old image back, as a virtual machine's snapshot would."""
        self.generation += 1
        self._is_locked = False
        self.directory = image.copy()
        self.damage.append(Damage("restore", "", 0, b"", b""))

    def flip(self, name: str, offset: int, mask: int = 1) -> None:
        """Let reads find other bits at one offset until it is written again."""
        inode = self.directory.find(name)
        before = inode.read(offset, 1)
        inode.flips[offset] = inode.flips.get(offset, 0) ^ mask
        self.damage.append(Damage("flip", name, offset, before, inode.read(offset, 1)))

    def flip_some(self, count: int, end_of: Callable[[str], int] | None = None) -> list[Damage]:
        """Flip single bits at random places of all that is durable; returns what was flipped.

        With `end_of`, only below that offset of each file.
        """
        ends = {name: inode.durable.size for name, inode in self.directory.names.items()}
        places = [
            (n, end_of(n) if end_of is not None else size) for n, size in sorted(ends.items())
        ]
        places = [(name, size) for name, size in places if size]
        known = len(self.damage)
        for _ in range(count if places else 0):
            name, size = self.chance.choice(places)
            self.flip(name, self.chance.randrange(size), 1 << self.chance.randrange(8))
        return self.damage[known:]

    def flip_before(self, name: str, end: int, within: int) -> list[Damage]:
        """Flip a bit of the durable bytes that lie right before `end`."""
        known = len(self.damage)
        if end > 0:
            at = self.chance.randrange(max(0, end - within), end)
            self.flip(name, at, 1 << self.chance.randrange(8))
        return self.damage[known:]

    def evict(self) -> None:
        """Drop clean pages from the cache: what a failed or lying sync lost is gone from reads."""
        for _, inode in sorted(self.directory.names.items()):
            inode.evict()

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Put other bytes on the platter: a misdirected, stale or lost write."""
        inode = self.directory.find(name)
        before = inode.read(offset, len(data))
        inode.durable.write(offset, data)
        inode.cached.write(offset, data)
        self.damage.append(Damage("overwrite", name, offset, before, data))

    def lose(self, name: str) -> None:
        """Lose a file with its name."""
        self.directory.find(name)
        self.directory.names.pop(name)
        self.directory.durable.pop(name, None)
        self.damage.append(Damage("lose", name, 0, b"", b""))

    # ------------------------------------------------------------ for files

    async def perform(self, kind: str, effect: Callable[[], T], size: int = 0) -> T:
        """Count the call, let it fail or take its time, then do it.

        As with a thread, the effect comes even when the caller is cancelled; not when it crashes.
        """
        error, delay = self.faults.next_call(kind, size)
        blocked = self.blocked
        if delay is None:
            return self._perform_now(kind, effect, error)
        if blocked is not None and blocked.is_running():
            self._while_alive(partial(blocked.stand_still, delay))
            return self._while_alive(partial(self._perform_now, kind, effect, error))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        loop.call_later(delay, self._finish, kind, future, effect, error)
        return await future

    def _perform_now(self, kind: str, effect: Callable[[], T], error: OSError | None) -> T:
        if error is not None:
            raise error
        result = effect()
        self.faults.spring_traps(kind)
        return result

    def _while_alive(self, step: Callable[[], T]) -> T:
        generation = self.generation
        result = step()
        if self.generation != generation:
            raise ProcessDiedError
        return result

    def _finish(
        self,
        kind: str,
        future: asyncio.Future[Any],
        effect: Callable[[], Any],
        error: OSError | None,
    ) -> None:
        try:
            if error is not None:
                raise error
            result = effect()
        except OSError as raised:
            settle(future, None, raised)
        else:
            settle(future, result, None)
        self.faults.spring_traps(kind)

    def record(self, kind: str, name: str, inode: int, offset: int = 0, data: bytes = b"") -> None:
        """Note an effect, if somebody wants them: set `recorded` to a list."""
        if self.recorded is not None:
            self.recorded.append(Operation(kind, name, inode, offset, data))

    def replay(self, operations: Sequence[Operation]) -> None:
        """Do recorded operations, at once and without faults; call it again to go on."""
        inodes = self._replayed
        inodes.update({inode.number: inode for inode in self.directory.names.values()})
        for kind, name, number, offset, data in operations:
            if kind == "create":
                inodes[number] = self.directory.create(name)
            elif kind == "rename":
                self.directory.rename(data.decode(), name)
            elif kind == "remove":
                self.directory.remove(name)
            elif kind == "sync_directory":
                self.directory.sync()
            elif kind == "write":
                inodes[number].write(offset, data)
            elif kind == "size":
                inodes[number].set_size(offset)
            elif kind == "sync":
                inodes[number].sync(inodes[number].written)
