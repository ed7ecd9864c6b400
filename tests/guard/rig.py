"""A cluster in one loop in which nothing happens by itself, and connections that a test feeds by hand.

The shipped master, servers and client run over the network in memory.  Every timer that could add
something to a count is put off for minutes, so that what is counted is what was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lunalog.client.journal import SingleWriteJournal
from lunalog.client.url import MemoryUrl
from lunalog.client.writer import StreamWriter
from lunalog.config import ClientConfig, MasterConfig, ServerConfig
from lunalog.embedded.cluster import EmbeddedCluster
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import ClosedError
from lunalog.master import Master
from lunalog.master.memory import MemoryStore
from lunalog.server.process import JournalServer
from lunalog.storage.files import SystemDisk, SystemFile
from lunalog.types import Policy, SegmentId
from lunalog.wire import codec, frames
from lunalog.wire.codec import Kind
from lunalog.wire.connection import Connection
from lunalog.wire.dialing import acceptor
from lunalog.wire.messages import Hello, OpenSlot, Read

NEVER_MS = 1_000_000
SERVER = ServerConfig(
    host="server",
    heartbeat_ms=NEVER_MS,
    idle_batch_ms=NEVER_MS,
    inline_sync_ms_max=NEVER_MS,
    reserve_bytes=0,
)
MASTER = MasterConfig(
    host="master", heartbeat_ms=NEVER_MS, lease_ms=4 * NEVER_MS, server_lost_ms=4 * NEVER_MS
)
CLIENT = ClientConfig(
    heartbeat_ms=NEVER_MS,
    commit_mark_ms=NEVER_MS,
    roll_ack_timeout_ms=NEVER_MS,
    leader_stall_ms=NEVER_MS,
    loop_stall_ms=NEVER_MS,
)
LEADER, SEGMENT = b"l" * 16, SegmentId(1, 0)


class CountedFile(SystemFile):
    """A real file whose syncs are counted and not made: nothing here has to survive."""

    def __init__(self, fd: int, disk: CountedDisk) -> None:
        super().__init__(fd)
        self._disk = disk

    async def write(self, offset: int, buffers: Sequence[Any]) -> None:
        self._disk.writes += 1
        await super().write(offset, buffers)

    async def sync(self) -> None:
        self._disk.syncs += 1


class CountedDisk(SystemDisk):
    """A real directory."""

    writes = 0
    syncs = 0

    async def open(self, name: str, *, create: bool = False) -> SystemFile:
        opened = await super().open(name, create=create)
        return CountedFile(opened._fd, self)


class Sink(asyncio.Transport):
    """The near end of a connection whose far end takes everything and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []
        self.writes = 0

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Any) -> None:
        self.writes += 1
        self.written += list_of_data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It never fills."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """It stays as it is."""


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def feed(connection: Connection, data: bytes) -> None:
    """Let bytes arrive, as a transport does."""
    view = memoryview(data)
    while view:
        room = connection.get_buffer(-1)
        assert room, "what came before was not taken"
        taken = min(len(room), len(view))
        room[:taken] = view[:taken]
        connection.buffer_updated(taken)
        view = view[taken:]


@asynccontextmanager
async def quiet_cluster(
    home: Path, servers: int = 1, **settings: Any
) -> AsyncIterator[EmbeddedCluster]:
    """A master and servers, all on this loop."""
    runtime, store = MemoryRuntime(), MemoryStore()
    cluster = EmbeddedCluster(
        MemoryUrl("guard"),
        runtime=runtime,
        store=store,
        disks=[CountedDisk(home / f"s{n + 1}") for n in range(servers)],
        config=replace(SERVER, **settings),
        policy=Policy(replicas=servers, ack_quorum=servers // 2 + 1),
    )
    cluster.master = Master(runtime, store, MASTER)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


@asynccontextmanager
async def quiet_journal(cluster: EmbeddedCluster) -> AsyncIterator[SingleWriteJournal]:
    """A client of it."""
    journal = SingleWriteJournal(
        cluster.runtime,
        cluster.masters,
        url="memory://guard",
        peer="guard",
        config=CLIENT,
        default_policy=cluster.policy,
        shares_process=True,
    )
    await journal.start(10)
    try:
        yield journal
    finally:
        await journal.aclose()


def stream_of(slot: int) -> bytes:
    """The stream that a hand-fed leader appends to by a slot."""
    return b"guarded:" + slot.to_bytes(8)


class HandFedServer:
    """A server, and a leader's connection to it whose bytes come from the test and go nowhere."""

    def __init__(self, server: JournalServer) -> None:
        self.server = server
        self.sink = Sink()
        self.connection = acceptor(server.runtime, server._welcome)()
        self.connection.connection_made(self.sink)
        self._tails: dict[int, int] = {}
        hello = Hello(1, codec.VERSION_MAX, "", "client", "hand", LEADER, b"n" * 16)
        feed(self.connection, codec.MAGIC + codec.control(Kind.HELLO, 0, hello))
        assert self.connection.is_open, self.connection.closed_by

    @property
    def disk(self) -> CountedDisk:
        found = self.server.disk
        assert isinstance(found, CountedDisk)
        return found

    def tail(self, slot: int) -> int:
        """Where the next frame begins."""
        return self._tails[slot]

    async def open(self, *slots: int) -> None:
        """Open a segment of one stream for each slot."""
        incarnation = self.server.identity.incarnation
        for slot in slots:
            message = OpenSlot(slot, stream_of(slot), SEGMENT, LEADER, incarnation, 0, 0, 1)
            feed(self.connection, codec.control(Kind.REQUEST, 1, message))
            self._tails[slot] = 0
        await turns(5)
        self.sink.written.clear()

    def frame(self, payloads: list[bytes], slot: int = 0) -> bytes:
        """The next frame, with its envelope; it carries that all before it is committed."""
        first = self._tails[slot]
        self._tails[slot] += len(payloads)
        body = frames.build(stream_of(slot), first, 1, 1, payloads)
        return codec.append_head(slot, first, len(body)) + body

    async def take(self, data: bytes) -> None:
        """Let bytes arrive, and the loop go round until they are dealt with."""
        feed(self.connection, data)
        await turns()
        self.sink.written.clear()

    async def answered(self, data: bytes, turns_max: int = 20) -> int:
        """Let bytes arrive; returns after how many turns of the loop there is an answer."""
        await turns()
        before = self.sink.writes
        feed(self.connection, data)
        for turn in range(turns_max):
            if self.sink.writes > before:
                await turns()
                self.sink.written.clear()
                return turn
            await turns(1)
        raise AssertionError(f"no answer in {turns_max} turns")

    @staticmethod
    def read(start: int, bytes_max: int, slot: int = 0) -> bytes:
        """A request for frames from `start` on."""
        message = Read(stream_of(slot), SEGMENT, start, bytes_max, 0, None)
        return codec.control(Kind.REQUEST, 1, message)


class HandFedClient:
    """A leader whose servers are played by the test: frames go nowhere, acks are fed.

    It took over with the help of real servers; then its connections were cut off from them.
    """

    def __init__(self, writer: StreamWriter) -> None:
        self.writer = writer
        slots = writer._epoch._target  # type: ignore[union-attr]
        self.number = slots.number
        self.connections: list[Connection] = list(slots.connections)
        self.sinks = [Sink() for _ in self.connections]
        for connection, sink in zip(self.connections, self.sinks, strict=True):
            connection._transport = sink

    def acks(self, events: int) -> bytes:
        """What a server says when it holds so many more events."""
        return codec.ack(self.number, self.writer.tail + events)

    async def take(self, acks: bytes) -> None:
        """Let every server say so."""
        await turns()
        for connection in self.connections:
            feed(connection, acks)
        await turns()
        for sink in self.sinks:
            sink.written.clear()

    async def append(self, payload: bytes, acks: bytes) -> None:
        """One lone append."""
        task = asyncio.get_running_loop().create_task(self.writer.append(payload))
        await self.take(acks)
        await task

    async def append_soon(self, payloads: list[bytes], acks: bytes) -> None:
        """Appends through futures, in one turn."""
        append_soon = self.writer.append_soon
        for payload in payloads:
            append_soon(payload)
        await self.take(acks)

    async def append_many(self, payloads: list[bytes], acks: bytes) -> None:
        """One batch."""
        await self.append_runs([payloads], acks)

    async def append_runs(self, runs: list[list[bytes]], acks: bytes) -> None:
        """Batches, in one turn."""
        start = asyncio.get_running_loop().create_task
        tasks = [start(self.writer.append_many(payloads)) for payloads in runs]
        await self.take(acks)
        for task in tasks:
            await task


@asynccontextmanager
async def leading(home: Path, servers: int = 3) -> AsyncIterator[HandFedClient]:
    """A client that leads a stream on three servers, fed by hand."""
    async with quiet_cluster(home, servers) as cluster, quiet_journal(cluster) as journal:
        await journal.create_stream("s")
        async with journal.lead("s", timeout=10) as writer:
            while len(writer._epoch._target.connections) < servers:  # type: ignore[union-attr]
                await turns(1)
            yield HandFedClient(writer)
            journal._end(ClosedError("its servers hear nothing"))  # so nothing need be waited for
