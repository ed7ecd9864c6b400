"""Lives of a journal server's disk, recorded call by call with what was told at each point.

A story is a few small operations, one behind another, each ending right behind the sync that told of
it; background work (checkpoints, reclaiming) goes on meanwhile and may overlap.

Source: testing.md "WAL crash enumerator"; I9.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
from tests.unit.storage.conftest import CONFIG, OTHER, STREAM, LogWorld, Memory, Owner
from tests.unit.storage.workload import Workload

from lunalog.config import ServerConfig
from lunalog.core.held import SegmentReplica
from lunalog.server.process import JournalServer
from lunalog.storage import identity
from lunalog.testing.directory import Directory
from lunalog.testing.disk import Operation
from lunalog.testing.simulation import Simulation

TINY = replace(CONFIG, extent_bytes=6 << 10)
"""A few frames fill an extent."""
FACTS = (
    "boots", "put_ends", "ends", "asked", "promises", "certificates", "trims", "gone", "going",
)  # fmt: skip
"""Of a `Memory`, all but the bytes of the frames."""
LEGAL = ServerConfig(name="server")


def serve(runtime: Any, disk: Any, config: ServerConfig) -> JournalServer:
    """A server with extents smaller than its settings may say."""
    server = JournalServer(runtime, disk, (), LEGAL)
    server.config = config
    return server


class Told(NamedTuple):
    """What was told, and what was handed in, by some moment."""

    memory: Memory
    position: int
    """The log's synced position, as the master may have heard it (R19)."""
    incarnation: int
    """What the server lived as (R19)."""

    @property
    def key(self) -> int:
        """Equal where the same was told."""
        return hash((repr([getattr(self.memory, name) for name in FACTS]), *self[1:]))


class ServerOwner(Owner):
    """An owner whose log was opened as a server opens it, its identity and all."""

    async def open(self) -> ServerOwner:
        server = serve(self.runtime, self.disk, self.config)
        await self.runtime.offload(identity.lock(self.disk))
        await server.recover()
        server.identity = msgspec.structs.replace(  # the master admits it (R19)
            server.identity, incarnation=1, found_position=identity.ADMITTED
        )
        await self.runtime.offload(identity.store(self.disk, server.identity))
        server.replica.incarnation = 1
        self.replica, self.log = server.replica, server.log
        self.memory.boots = server.identity.boot
        return self


class StoryWorld(LogWorld):
    """A machine whose log is a server's."""

    kind = ServerOwner

    def look(self) -> Told:
        """What was told by now."""
        owner = getattr(self, "owner", None)
        log = getattr(owner, "log", None)
        if owner is None or log is None:
            return Told(remember(self.memory), 0, 0)
        return Told(remember(self.memory), log.synced_position, owner.replica.incarnation)


class Recording(list[Operation]):
    """Operations on a disk, and what was told before each of them."""

    def __init__(self, look: Callable[[], Told]) -> None:
        super().__init__()
        self._look = look
        self.told: list[Told] = []

    def append(self, operation: Operation) -> None:
        self.told.append(self._look())
        super().append(operation)

    def end(self) -> None:
        """Note what was told behind the last of them."""
        self.told.append(self._look())


class Story(NamedTuple):
    """A story to be recorded; equal ones give equal recordings."""

    base: str
    steps: tuple[str, ...]
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.base}: {' '.join(self.steps)}" + f" (seed {self.seed})" * bool(self.seed)


def remember(memory: Memory) -> Memory:
    """A copy that later lives do not change; frames are shared, their bytes go by their place."""
    made = copy.copy(memory)
    for name in FACTS[1:]:
        setattr(made, name, getattr(memory, name).copy())
    return made


class Lived(NamedTuple):
    """A story as it was lived.

    Attributes:
        before: The disk at its beginning.
        operations: All that was done to the disk.
        told: What was told before each of these, and behind the last.
    """

    before: Directory
    operations: Recording
    told: list[Told]
    after: Directory


def live(story: Story, config: ServerConfig = TINY) -> Lived:
    """Live a story on a disk as its base left it."""
    found = _live(Story("fresh", BASES[story.base]), config, Directory(), Memory())
    if story.base == "fresh":
        before, memory = Directory(), Memory()
    else:
        before, memory = found.after.copy(), found.told[-1].memory
    return _live(story, config, before, remember(memory))


def _live(story: Story, config: ServerConfig, before: Directory, memory: Memory) -> Lived:
    with Simulation(story.seed) as simulation:
        world = StoryWorld(simulation, config)
        world.memory, world.disk.directory = memory, before.copy()
        world.disk.recorded = recording = Recording(world.look)
        for life in lives(story.steps):
            world.live(Steps(life, story.seed).run, close=False)
            world.node.crash()
        recording.end()
        return Lived(before, recording, recording.told, world.disk.directory)


def lives(steps: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Cut steps where the process is killed."""
    rest = list(steps)
    while "kill" in rest:
        at = rest.index("kill")
        yield tuple(rest[:at])
        del rest[: at + 1]
    yield tuple(rest)


class Steps:
    """What one life does."""

    def __init__(self, names: tuple[str, ...], seed: int) -> None:
        self._names = names
        self._seed = seed

    async def run(self, owner: Owner) -> None:
        """Do it all; then give what goes on beside it a moment, but no idle batch."""
        self._owner = owner
        self._work = Workload(owner, self._seed, 30)
        for name in self._names:
            await STEPS[name](self)
            await owner.log.flush()
        await asyncio.sleep(0.01)

    def _held(self, stream: bytes = STREAM) -> SegmentReplica:
        """The segment that may be appended to; a new one if there is none."""
        held = self._work._open(stream)
        if held is None:
            self._work._begin(stream)
            held = self._work._open(stream)
        assert held is not None
        return held

    def _is_deleted(self, stream: bytes) -> bool:
        state = self._owner.replica.streams.get(stream)
        return state is not None and state.is_deleted

    async def append(self) -> None:
        """One small frame."""
        self._owner.append(self._held())

    async def burst(self) -> None:
        """Several frames of two streams that share a batch."""
        held = self._held()
        for size in (20, 700, 90):
            self._owner.append(held, size=size)
        if not self._is_deleted(OTHER):
            self._owner.append(self._held(OTHER), OTHER, count=2, size=300)

    async def roll(self) -> None:
        """Large frames until the log has left its extent, and one behind."""
        owner, held = self._owner, self._held()
        wal = owner.log._wal
        entered = wal.extent
        for _ in range(12):
            owner.append(held, size=1500)
            await owner.log.flush()
            if wal.extent is not entered:
                break
        owner.append(held)

    async def fence(self) -> None:
        """A promise of a new epoch for both streams."""
        for stream in (STREAM, OTHER):
            state = self._owner.replica.streams.get(stream)
            self._owner.promise(stream, 1 + (state.promise.epoch if state else 0))

    async def open(self) -> None:
        """The next segment; the one before is sealed where it ends."""
        self._work._begin(STREAM)

    async def certify(self) -> None:
        """A certificate that cuts the last frame off (R21)."""
        owner, held = self._owner, self._held()
        owner.append(held)
        end = held.end
        owner.append(held, size=700)
        await owner.log.flush()
        owner.certify(held, end)

    async def trim(self) -> None:
        """Everything sealed goes; of an open segment, the frames but the last."""
        owner, held = self._owner, self._held()
        starts = sorted(owner.memory.frames.get((STREAM, held.id), {0: b""}))
        owner.trim(starts[-1])

    async def drop(self) -> None:
        """The oldest sealed segment; where none is sealed, the open one is first."""
        owner, state = self._owner, self._owner.replica.streams.get(STREAM)
        held = min((h for h in (state.segments if state else {}).values()), default=None, key=_id)
        if held is None or held.certificate is None:
            held = self._held()
            owner.append(held)
            owner.certify(held)
        owner.drop(held.id, version=2)

    async def delete(self) -> None:
        """The other stream; once gone it stays gone."""
        if self._is_deleted(OTHER):
            return
        self._owner.append(self._held(OTHER), OTHER)
        self._owner.delete(OTHER)

    async def mark(self) -> None:
        """A committed sequence that only the idle batch records (R12)."""
        owner, held = self._owner, self._held()
        owner.append(held)
        owner.mark(held, held.end)
        await owner.log.flush()
        await asyncio.sleep(0.05)

    async def checkpoint(self) -> None:
        """One more checkpoint."""
        await self._owner.log.checkpoint()

    async def idle(self) -> None:
        """The idle batch."""
        await asyncio.sleep(0.05)

    async def reclaim(self) -> None:
        """Everything below the last frame goes, and so long a rest that extents are given back."""
        await self.trim()
        await self._owner.log.flush()
        await asyncio.sleep(2.5)

    async def work(self) -> None:
        """A drawn life of thirty steps."""
        await self._work.run()


def _id(held: SegmentReplica) -> Any:
    return held.id


STEPS: dict[str, Callable[[Steps], Any]] = {
    name: getattr(Steps, name)
    for name in (
        "append", "burst", "roll", "fence", "open", "certify", "trim", "drop", "delete", "mark",
        "checkpoint", "idle", "reclaim", "work",
    )
}  # fmt: skip
SMALL = [*[*STEPS][:-1], "kill"]
"""The operations of short stories."""
BASES = {
    "fresh": (),
    "used": ("fence", "burst", "roll", "open", "roll", "idle"),
    "worn": ("burst", "roll", "open", "roll", "kill", "append", "kill", "append"),
}
"""What was on the disk before."""


def short(length: int) -> list[Story]:
    """All stories of that many operations."""
    found = itertools.product(BASES, itertools.product(SMALL, repeat=length))
    return [Story(base, steps) for base, steps in found]


def drawn(seed: int) -> Story:
    """A longer story."""
    chance = random.Random(seed)
    steps = tuple(chance.choice([*SMALL, "work", "kill", "burst"]) for _ in range(4))
    return Story(chance.choice([*BASES]), steps, seed)
