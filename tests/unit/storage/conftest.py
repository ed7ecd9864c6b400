"""A log on a simulated machine, and an owner that decides and remembers as a server does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lunalog.config import ServerConfig
from lunalog.core import chain as chains
from lunalog.core.held import SegmentReplica
from lunalog.core.replica import Replica
from lunalog.errors import UnknownDataError
from lunalog.server import facts
from lunalog.storage.log import Log
from lunalog.storage.records import (
    CertificateRecord,
    Damage,
    DropRecord,
    EndRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    Record,
    TombstoneRecord,
    TrimRecord,
    UnknownRecord,
)
from lunalog.testing.disk import SimulatedDisk
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation
from lunalog.types import NO_PROMISE, Certificate, Promise, SealedSegment, SegmentId
from lunalog.wire import frames

STREAM, OTHER = b"s" * 16, b"t" * 16
ANN = b"a" * 16
SEGMENT = SegmentId(1, 0)
Key = tuple[bytes, SegmentId]
Story = Callable[["Owner"], Coroutine[Any, Any, Any]]

CONFIG = ServerConfig(extent_bytes=16 << 10, reserve_bytes=0, idle_batch_ms=20)
"""Extents so small that a few frames fill one."""


def build_frame(stream: bytes, first: int, count: int = 1, size: int = 20) -> bytes:
    """A frame whose bytes tell its place."""
    payloads = [random.Random(f"{stream!r} {first + i}").randbytes(size) for i in range(count)]
    return frames.build(stream, first, 1, 1000 + first, payloads)


@dataclass
class Memory:
    """What an owner was told or has told; it outlives every crash."""

    boots: int = 0
    put_ends: dict[Key, int] = field(default_factory=dict)
    """How far frames were ever handed to the log."""
    ends: dict[Key, int] = field(default_factory=dict)
    """How far they were told to be durable."""
    frames: dict[Key, dict[int, bytes]] = field(default_factory=dict)
    asked: dict[bytes, Promise] = field(default_factory=dict)
    promises: dict[bytes, Promise] = field(default_factory=dict)
    certificates: dict[Key, Certificate] = field(default_factory=dict)
    trims: dict[bytes, int] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    """Dropped, deleted, or truncated away, and told to be."""
    going: set[Key] = field(default_factory=set)
    """The same, put but perhaps not told."""
    told: int = 0
    """How many puts were told to be durable."""


class Owner:
    """One life of a log's owner.

    Attributes:
        heard: Records of the replay.
        records: All that was put in this life.
    """

    def __init__(
        self, runtime: SimulatedRuntime, disk: SimulatedDisk, memory: Memory, config: ServerConfig
    ) -> None:
        self.runtime = runtime
        self.disk = disk
        self.memory = memory
        self.config = config
        self.replica = Replica(1)
        self.heard: list[Record] = []
        self.damaged: list[tuple[Record, Damage]] = []
        self.records: list[Record] = []
        self.log: Log

    async def open(self) -> Owner:
        self.memory.boots += 1
        await self.disk.lock()
        self.log = await Log.open(
            self.disk,
            self.runtime,
            self.config,
            boot=self.memory.boots,
            replay=self._replay,
            snapshot=lambda: facts.snapshot(self.replica),
            start_of=partial(facts.start_of, self.replica),
        )
        self.replica.settled()
        self.log.forget_unlisted()
        return self

    def _replay(self, record: Record, damage: Damage | None) -> None:
        self.heard.append(record)
        if damage is not None:
            self.damaged.append((record, damage))
        facts.replay(self.replica, record, damage)

    async def close(self) -> None:
        await self.log.close()
        await self.disk.unlock()

    # ------------------------------------------------------------ puts

    def put(
        self,
        records: list[Record],
        told: Callable[[], None] = lambda: None,
        *,
        is_append: bool = False,
    ) -> None:
        self.records += records

        def done() -> None:
            self.memory.told += 1
            told()

        if is_append:
            self.log.put(records, synced=done)
        else:
            self.log.put(records, done)

    def promise(self, stream: bytes, epoch: int) -> None:
        promise = Promise(epoch, ANN)
        self.memory.asked[stream] = max(promise, self.memory.asked.get(stream, NO_PROMISE))
        self.replica.promised(stream, promise)
        self.put([PromiseRecord(stream, promise)], lambda: self._promised(stream, promise))

    def _promised(self, stream: bytes, promise: Promise) -> None:
        self.replica.promise_synced(stream, promise)
        known = self.memory.promises.get(stream, NO_PROMISE)
        self.memory.promises[stream] = max(known, promise)

    def open_segment(
        self, stream: bytes = STREAM, segment: SegmentId = SEGMENT, first: int = 0, chain: int = 0
    ) -> SegmentReplica:
        held, is_new, _ = self.replica.open(stream, segment, ANN, 1, first, chain, 1)
        promise = Promise(segment.epoch, ANN)
        self.memory.asked[stream] = max(promise, self.memory.asked.get(stream, NO_PROMISE))
        if is_new:
            self.memory.put_ends.setdefault((stream, segment), first)
            self.put(
                [
                    PromiseRecord(stream, promise),
                    OpenRecord(stream, segment, ANN, first, chain, 1),
                ],
                lambda: self._opened(stream, segment, promise, first),
            )
        return held

    def _opened(self, stream: bytes, segment: SegmentId, promise: Promise, first: int) -> None:
        self._promised(stream, promise)
        self.memory.ends.setdefault((stream, segment), first)

    def append(
        self,
        held: SegmentReplica,
        stream: bytes = STREAM,
        *,
        count: int = 1,
        size: int = 20,
        told: Callable[[], None] = lambda: None,
    ) -> FrameRecord:
        key = (stream, held.id)
        frame = build_frame(stream, held.end, count, size)
        head = frames.parse(frame)
        assert self.replica.append(
            self.replica.streams[stream], held, head.first, head.count, head.crc
        )
        self.memory.frames.setdefault(key, {})[head.first] = frame
        self.memory.put_ends[key] = head.end
        record = FrameRecord(stream, held.id, held.committed, held.chain, head, frame)

        def synced() -> None:
            held.durable = max(held.durable, min(head.end, held.end))
            self.memory.ends[key] = max(self.memory.ends.get(key, 0), head.end)
            told()

        self.put([record], synced, is_append=True)
        return record

    def mark(self, held: SegmentReplica, committed: int, stream: bytes = STREAM) -> None:
        self.replica.mark(held, committed)
        self.records.append(MarkRecord(stream, held.id, committed))
        self.log.mark(stream, held.id, committed)

    def certify(
        self, held: SegmentReplica, end: int | None = None, stream: bytes = STREAM
    ) -> Certificate:
        """Seal a segment at a bound between its frames; the end that is held if none is told."""
        end = held.end if end is None else end
        chain = held.start_chain
        for first, frame in sorted(self.memory.frames.get((stream, held.id), {}).items()):
            if first < end:
                head = frames.parse_head(frame)
                chain = chains.extend(chain, first, head.count, head.crc)
        row = SealedSegment(held.id, held.first, end, chain, (), 1, "ann", "age", 0)
        certificate = Certificate(stream, row, self.replica.streams[stream].promise)
        self.replica.certify(certificate)

        def synced() -> None:
            self.memory.certificates[stream, held.id] = certificate

        self.put([CertificateRecord(certificate)], synced)
        return certificate

    def trim(self, before: int, stream: bytes = STREAM, version: int = 1) -> None:
        segments = list(self.replica.streams[stream].segments.values())
        version = max(version, self.replica.streams[stream].trim_version)
        if not self.replica.trim(stream, before, version):
            return
        left = self.replica.streams[stream].segments
        away = [held.id for held in segments if held.id not in left]
        self.memory.going |= {(stream, segment) for segment in away}

        def synced() -> None:
            self.memory.trims[stream] = before
            self.memory.gone |= {(stream, segment) for segment in away}
            for held in segments:
                if held.id in away:
                    self.log.forget(stream, held.id)
                else:
                    self.log.forget(stream, held.id, before)

        self.put([TrimRecord(stream, before, version)], synced)

    def drop(self, segment: SegmentId, stream: bytes = STREAM, version: int = 1) -> None:
        promise = self.replica.streams[stream].promise
        if not self.replica.drop(stream, segment, promise, version):
            return
        self.memory.going.add((stream, segment))

        def synced() -> None:
            self.memory.gone.add((stream, segment))
            self.log.forget(stream, segment)

        self.put([DropRecord(stream, segment, promise, version)], synced)

    def delete(self, stream: bytes) -> None:
        promise = self.replica.streams[stream].promise
        away = {(stream, segment) for segment in self.replica.streams[stream].segments}
        if not self.replica.delete(stream, promise):
            return
        self.memory.going |= away

        def synced() -> None:
            self.memory.gone |= away
            self.log.forget(stream)

        self.put([TombstoneRecord(stream, promise)], synced)

    # ------------------------------------------------------------ what must hold

    async def check(self) -> None:
        """All that was told in any life is there (I9)."""
        await check_told(self.memory, self.replica, self.log)


async def check_told(memory: Memory, replica: Replica, log: Log) -> None:
    """I9: all that was told is there, nothing was invented, and every frame is its bytes."""
    for stream, promise in memory.promises.items():
        assert promise <= replica.streams[stream].promise <= memory.asked[stream]
    for stream, before in memory.trims.items():
        assert replica.streams[stream].trimmed_before >= before
    for key, certificate in memory.certificates.items():
        if key not in memory.going:
            held = replica.find(*key)
            assert held is not None
            assert held.certificate == certificate
    for key in memory.gone:
        assert replica.find(*key) is None
    for key, end in memory.ends.items():
        if key not in memory.going:
            await _check_segment(memory, replica, log, key, end)


async def _check_segment(memory: Memory, replica: Replica, log: Log, key: Key, told: int) -> None:
    held = replica.find(*key)
    assert held is not None, f"{key} is forgotten"
    if held.certificate is not None:
        told = min(told, held.certificate.row.end)
    assert told <= held.durable == held.end <= memory.put_ends[key]
    trimmed = replica.streams[key[0]].trimmed_before
    at = max(held.first, trimmed)
    while at < held.end:
        found = await log.read(*key, at, 1 << 20, held.end)
        assert found, f"{key} has no frame at {at}"
        for head, frame in found:
            assert frame == memory.frames[key][head.first]
            at = head.end
    if held.end > max(held.first, trimmed):
        chain = await log.chain_at(*key, held.end)
        assert chain == held.chain


async def check_or_unknown(owner: Owner) -> None:
    """As `Owner.check`, but for what the log says it may have lost."""
    memory, replica = owner.memory, owner.replica
    if not owner.log.may_have_lost:
        for stream, promise in memory.promises.items():
            assert replica.streams[stream].promise >= promise
        for key, certificate in memory.certificates.items():
            held = replica.find(*key)
            assert held is not None
            assert held.certificate == certificate
    for key, end in memory.ends.items():
        held = replica.find(*key)
        if held is not None and held.certificate is not None:
            end = min(end, held.certificate.row.end)
        if held is None or held.durable < end:
            assert owner.log.may_have_lost, f"{key} lost {end} in silence"
    for key in memory.ends:
        await read_all(owner, key)


async def read_all(owner: Owner, key: Key) -> set[int]:
    """Read every frame, each from its own beginning, alone and with what follows; the unknown ones."""
    held = owner.replica.find(*key)
    unknown = set()
    cut = held.certificate.row.end if held is not None and held.certificate else None
    all_frames = sorted(owner.memory.frames[key].items())
    for at, (first, frame) in enumerate(all_frames):
        if cut is not None and first >= cut:
            break
        try:
            found = await owner.log.read(*key, first, 1)
            more = await owner.log.read(*key, first, 1 << 20)
        except UnknownDataError:
            unknown.add(first)
            continue
        if not found:
            assert held is None or owner.log.may_have_lost
            continue
        assert [data for _, data in found] == [frame]
        following = [data for _, data in all_frames[at : at + len(more)]]
        assert [data for _, data in more] == following  # nothing is left out
    return unknown


def essence(replica: Replica) -> dict[Any, Any]:
    """All that must be the same after a restart."""
    found: dict[Any, Any] = {}
    for stream, state in replica.streams.items():
        found[stream] = (
            state.promise, state.trimmed_before, state.trim_version, state.versions or {},
            state.is_deleted,
        )  # fmt: skip
        for held in state.segments.values():
            found[stream, held.id] = (
                held.first, held.start_chain, held.end, held.durable, held.chain, held.committed,
                held.certificate, held.unknown, held.leader, held.is_opened, held.generation,
            )  # fmt: skip
    return found


def replay_all(records: list[Record]) -> Replica:
    """What a replica is that heard every record ever put."""
    replica = Replica(1)
    for record in records:
        if not isinstance(record, EndRecord | UnknownRecord):
            facts.replay(replica, record, None)
    replica.settled()
    return replica


class LogWorld:
    """One machine with one log, over many lives.

    Attributes:
        kind: Who owns the log.
        owner: Of the last life.
    """

    kind: type[Owner] = Owner

    def __init__(self, simulation: Simulation, config: ServerConfig = CONFIG) -> None:
        self.simulation = simulation
        self.config = config
        self.node: SimulatedNode = simulation.node("server")
        self.disk: SimulatedDisk = self.node.disk()
        self.memory = Memory()
        self.owner: Owner

    def begin(self, story: Story, *, close: bool = True) -> None:
        """Start a life that opens the log, runs `story(owner)` and closes the log."""

        async def main(runtime: SimulatedRuntime) -> Any:
            self.owner = self.kind(runtime, self.disk, self.memory, self.config)
            await self.owner.open()
            result = await story(self.owner)
            if close:
                await self.owner.close()
            return result

        self.node.start(main)

    def end(self) -> Any:
        """Wait until the life is over; its result."""

        async def wait() -> None:
            while self.node.is_running:
                await asyncio.sleep(0.005)

        self.simulation.run(wait(), timeout_s=600)
        return self.node.result

    def live(self, story: Story, *, close: bool = True) -> Any:
        """One whole life."""
        self.begin(story, close=close)
        return self.end()

    def restart(self, *, power: bool = False) -> Owner:
        """Crash, open again, check all that was told; the owner of the life that checked."""
        self.node.crash(power=power)
        self.live(lambda owner: owner.check())
        return self.owner


async def fill(owner: Owner, count: int, *, size: int = 20, stream: bytes = STREAM) -> Any:
    """Append frames to the first segment and wait for them."""
    held = owner.open_segment(stream)
    for _ in range(count):
        owner.append(held, stream, size=size)
    await owner.log.flush()
    return held
