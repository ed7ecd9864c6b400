"""Tries crash states: cut the power or kill at each call, start a real server on what is left, check.

A start must find all that was told (I9), report no damage and ask for no new incarnation (R17), and a
second one must find the same.  Each start is itself crashed at each of its calls, and so on; what a
start has found when it is done counts as told from then on (R16).

Source: testing.md "WAL crash enumerator"; R16, R17, R18, R29; D4, D12, D13.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

from tests.faults.power_cuts import SAMPLES, PowerCuts, fingerprint, pending_in
from tests.faults.stories import TINY, Story, Told, live, serve
from tests.unit.storage.conftest import ANN, check_told, essence

from lunalog.config import ServerConfig
from lunalog.embedded.runtime import LoopMailbox
from lunalog.runtime import Worker, drive
from lunalog.server.process import JournalServer
from lunalog.storage import extents, identity, replay, writer
from lunalog.storage.records import PromiseRecord
from lunalog.testing.directory import Directory
from lunalog.testing.disk import Operation, SimulatedDisk
from lunalog.types import Promise

DEPTH_MAX = 3
"""A crash, one in the recovery from it, and one in the recovery from that."""
INNER_POINTS, INNER_SAMPLES = 3, 32
"""How many calls of a recovery are crashed, and of how many states at each one is taken."""
LIVES_ON_SHARE = 0.2
"""Of the states, those from which life goes on for a while."""
WITNESS = b"w" * 16
"""A stream that only the life after a recovery knows."""


class CrashError(AssertionError):
    """A state from which a start did not find what it must."""


class StartRuntime:
    """Runs a server's start on a loop that nothing else uses; no time passes."""

    is_blocking = True
    drive = staticmethod(drive)
    network: Any = None

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.error: BaseException | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def now(self) -> float:
        """No time passes."""
        return 0.0

    def wall_us(self) -> int:
        """No time passes."""
        return 0

    def random_bytes(self, size: int) -> bytes:
        """The same for every start."""
        return self.random.randbytes(size)

    def process_id(self) -> int:
        """Of no process."""
        return 1

    def mailbox(self) -> LoopMailbox:
        """A queue between tasks."""
        return LoopMailbox()

    def start_worker(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run the worker as a task."""
        self._tasks.append(asyncio.get_running_loop().create_task(main(), name=name))
        return Ended()

    start_loop = start_worker

    async def offload(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do the work here."""
        return await work

    def fail(self, error: BaseException) -> None:
        """Remember what the server died of."""
        self.error = self.error or error

    async def end(self) -> None:
        """End the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Ended:
    """A worker that nobody waits for."""

    async def join(self) -> None:
        """It is over."""


@contextlib.contextmanager
def small_steps(collapse_bytes: int) -> Iterator[None]:
    """Scale what the log does in steps down to extents of a few kilobytes."""
    with (
        mock.patch.object(replay, "COLLAPSE_BYTES", collapse_bytes),
        mock.patch.object(writer, "BLANK_BYTES", 2 << 10),
        mock.patch.object(extents, "STEPS_BYTES", (4 << 10, 1 << 10, 512)),
    ):
        yield


class Found(NamedTuple):
    """What a start found, and what it did to the disk."""

    essence: dict[Any, Any]
    operations: list[Operation]
    live: Directory


@dataclass(frozen=True, slots=True)
class Point:
    """The disk behind one call, and what may be left of it."""

    at: int
    what: str
    directory: Directory
    cuts: PowerCuts

    @property
    def count(self) -> int:
        """How many states there are: a kill's, and those of power cuts."""
        return 1 + len(self.cuts)

    def state(self, number: int) -> tuple[str, Directory]:
        """One of them, and how it came about."""
        if not number:
            return f"kill {self.what}", self.directory
        return f"power cut {number - 1} {self.what}", self.cuts.make(number - 1)


class Budget:
    """How many states may still be tried, and how many of these behind a second crash."""

    def __init__(self, states: int) -> None:
        self.left, self.deeper = states, states // 2

    def take(self, depth: int) -> None:
        """One more."""
        self.left -= 1
        self.deeper -= depth > 1


class Explorer:
    """Tries states, and counts them.

    Attributes:
        states: Distinct states from which a server was started, by how many crashes led there.
        seen: Counts other things that a run must not be blind for.
    """

    def __init__(self, seed: int, config: ServerConfig = TINY) -> None:
        self.chance = random.Random(seed)
        self.config = config
        self.states: Counter[int] = Counter()
        self.seen: Counter[str] = Counter()
        self._tried: set[tuple[int, int]] = set()
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """Close the loop."""
        self._loop.close()

    def explore(self, story: Story, states: int) -> None:
        """Crash a story anywhere; raises `CrashError` with the way to the state that is wrong."""
        lived = live(story, self.config)
        everywhere = range(len(lived.operations) + 1)
        points = self._points(lived.before, lived.operations, everywhere, SAMPLES)
        places = [(point, number) for point in points for number in range(point.count)]
        self.chance.shuffle(places)
        budget = Budget(states)
        for point, number in places:
            if budget.left <= 0:
                break
            way, directory = point.state(number)
            self._try(f"{story}; {way}", lived.told[point.at], directory, budget, 1)

    def _points(
        self, before: Directory, operations: list[Operation], wanted: Collection[int], samples: int
    ) -> list[Point]:
        """The disk behind some of these calls; 0 stands for the beginning."""
        disk = SimulatedDisk("points", self.chance)
        disk.directory = before.copy()
        points = []
        for at, operation in enumerate([None, *operations]):
            if operation is not None:
                disk.replay([operation])
            if at in wanted:
                directory = disk.directory.copy()
                cuts = PowerCuts(directory, self.chance, samples=samples)
                points.append(Point(at, _show(at, operation), directory, cuts))
        return points

    def _try(
        self, way: str, told: Told, directory: Directory, budget: Budget, depth: int
    ) -> Found | None:
        """Start on a state, and crash that start as well; none if that was tried before."""
        key = fingerprint(directory), hash((told.key, pending_in(directory)))
        if key in self._tried:
            return None
        self._tried.add(key)
        self.states[depth] += 1
        budget.take(depth)
        try:
            found = self._start(directory, told)
            again = self._start(found.live, told)
            if again.essence != found.essence:
                raise CrashError("I9: a second start found something else")
            if self.chance.random() < LIVES_ON_SHARE:
                self._lives_on(found.live, told)
        except Exception as error:
            raise CrashError(f"{way}: {error!r}") from error
        if depth < DEPTH_MAX and budget.deeper > 0:
            self._try_deeper(way, told, directory, found, budget, depth)
        return found

    def _try_deeper(
        self,
        way: str,
        told: Told,
        directory: Directory,
        found: Found,
        budget: Budget,
        depth: int,
    ) -> None:
        """Crash a recovery at some of its calls, and always behind the last."""
        last = len(found.operations)
        wanted = {*self.chance.sample(range(last + 1), min(last + 1, INNER_POINTS)), last}
        for point in self._points(directory, found.operations, wanted, INNER_SAMPLES):
            if budget.deeper <= 0:
                return
            then, state = point.state(self.chance.randrange(point.count))
            more = f"{way}; then {then}"
            again = self._try(more, told, state, budget, depth + 1)
            if point.at == last:
                again = again or self._start(state, told)
                if again.essence != found.essence:
                    raise CrashError(f"{more}: R16: what a start had found is not there any more")

    # ------------------------------------------------------------ one start

    def _start(self, directory: Directory, told: Told) -> Found:
        return self._loop.run_until_complete(self._start_and_check(directory, told))

    async def _start_and_check(self, directory: Directory, told: Told) -> Found:
        disk, runtime, server = self._server(directory)
        try:
            await recover(server)
            self._check_clean(server, told)
            await check_told(told.memory, server.replica, server.log)
            self.seen["frames"] += sum(map(len, told.memory.frames.values()))
            self.seen["promises"] += len(told.memory.promises)
            self.seen["certificates"] += len(told.memory.certificates)
            self.seen["extents given back"] += any(
                o.kind == "remove" and o.name.endswith(".wal") for o in disk.recorded or ()
            )
        finally:
            await abandon(server, runtime)
        return Found(essence(server.replica), disk.recorded or [], disk.directory)

    def _server(self, directory: Directory) -> tuple[SimulatedDisk, StartRuntime, JournalServer]:
        disk, runtime = SimulatedDisk("disk", self.chance), StartRuntime()
        disk.directory, disk.recorded = directory.copy(), []
        return disk, runtime, serve(runtime, disk, self.config)

    @staticmethod
    def _check_clean(server: JournalServer, told: Told) -> None:
        log = server.log
        if log.damage or log.may_have_lost:
            raise CrashError(f"R17: a crash was read as damage: {log.damage}")
        if server.identity.boot <= told.memory.boots:
            raise CrashError(f"R16: boot {server.identity.boot} was counted before")
        if server.identity.incarnation < told.incarnation:
            raise CrashError(f"R19: incarnation {told.incarnation} was told, and is forgotten")
        if server.identity.found_position < told.position:
            found = server.identity.found_position
            raise CrashError(f"R19: found at {found}, reported as {told.position}")

    def _lives_on(self, directory: Directory, told: Told) -> None:
        """What is promised behind a recovery outlives a power cut that keeps nothing unsynced."""
        disk = self._loop.run_until_complete(self._promise(directory))
        cut = PowerCuts(disk.directory, self.chance).make(0)
        self._loop.run_until_complete(self._look_for_promise(cut, told))

    async def _promise(self, directory: Directory) -> SimulatedDisk:
        disk, runtime, server = self._server(directory)
        try:
            await recover(server)
            server.replica.promised(WITNESS, Promise(7, ANN))
            server.log.put([PromiseRecord(WITNESS, Promise(7, ANN))])
            await server.log.flush()
        finally:
            await abandon(server, runtime)
        return disk

    async def _look_for_promise(self, directory: Directory, told: Told) -> None:
        _, runtime, server = self._server(directory)
        try:
            await recover(server)
            self._check_clean(server, told)
            await check_told(told.memory, server.replica, server.log)
            if server.replica.promises().get(WITNESS) != Promise(7, ANN):
                raise CrashError("R5: a promise made after the recovery is lost")
        finally:
            await abandon(server, runtime)


async def recover(server: JournalServer) -> None:
    """Lock the directory and recover, as a start does."""
    await identity.lock(server.disk)
    await server.recover()


async def abandon(server: JournalServer, runtime: StartRuntime) -> None:
    """Let nothing of a server go on, as a kill does."""
    log = getattr(server, "log", None)
    for timer in (log._idle_timer, log._free_timer) if log else ():
        if timer is not None:
            timer.cancel()
    await runtime.end()


def _show(at: int, operation: Operation | None) -> str:
    if operation is None:
        return "at the beginning"
    kind, name, _, offset, data = operation
    return f"behind call {at}, {kind} {name} {offset}+{len(data)}"
