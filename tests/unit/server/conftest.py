"""Journal servers on simulated machines, a master that a test plays, and leaders that speak raw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lunalog import limits
from lunalog.config import ServerConfig
from lunalog.core import chain as chains
from lunalog.errors import LunalogError
from lunalog.runtime import Address
from lunalog.server.process import JournalServer
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation
from lunalog.types import (
    Certificate,
    Member,
    Promise,
    SealedSegment,
    SegmentId,
    ServerAddress,
)
from lunalog.wire import codec, frames
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import acceptor, dial
from lunalog.wire.messages import (
    AppendRefused,
    Command,
    Fence,
    Hello,
    Message,
    Opened,
    OpenSlot,
    Read,
    Registered,
    RegisterServer,
    ServerBeat,
    ServerBeatReply,
    Welcome,
)

CLUSTER = "c" * 32
STREAM, OTHER = b"s" * 16, b"t" * 16
ANN, BOB = b"a" * 16, b"b" * 16
SEGMENT = SegmentId(1, 0)
FIRST, CHAIN = 100, 7
PORT = 7700
MASTER: Address = ("harness", 7600)
CONFIG = ServerConfig(
    extent_bytes=2 * limits.MESSAGE_BYTES_MAX, port=PORT, heartbeat_ms=100, reserve_bytes=0
)


def build_frame(first: int, count: int = 1, size: int = 20, stream: bytes = STREAM) -> bytes:
    """A frame whose bytes tell its place."""
    payloads = [b"%08d" % (first + i) + b"x" * (size - 8) for i in range(count)]
    return frames.build(stream, first, 1, 1000 + first, payloads)


def chain_behind(made: list[bytes], chain: int = CHAIN) -> int:
    for frame in made:
        head = frames.parse(frame)
        chain = chains.extend(chain, head.first, head.count, head.crc)
    return chain


class FakeMaster(Handler):
    """Registers whoever comes, gives out commands, and keeps what it was told.

    Attributes:
        incarnation: Given to servers that have none; others keep theirs unless `fresh` is set.
        refusal: What to answer a registration with instead.
        turns_away: What to refuse a connection with.
        commands: Given with every beat until their id was confirmed.
        deaf: Beats are heard and not answered.
    """

    def __init__(self, cluster: str = CLUSTER) -> None:
        self.cluster = cluster
        self.incarnation = 1
        self.fresh: int | None = None
        self.refusal: LunalogError | None = None
        self.turns_away: LunalogError | None = None
        self.registrations: list[RegisterServer] = []
        self.beats: list[ServerBeat] = []
        self.commands: dict[str, list[Command]] = {}
        self.confirmed: set[int] = set()
        self.is_leaving = False
        self.deaf = False
        self.connections: list[Connection] = []

    async def listen(self, simulation: Simulation, address: Address = MASTER) -> None:
        runtime = simulation.harness_runtime
        await runtime.network.listen(acceptor(runtime, self._welcome), address)

    def _welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        if self.turns_away is not None:
            raise self.turns_away
        return Welcome(codec.VERSION_MAX, self.cluster, "master", "master"), self

    def on_open(self, connection: Connection) -> None:
        self.connections.append(connection)

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        if isinstance(message, RegisterServer):
            self.registrations.append(message)
            if self.refusal is not None:
                connection.fail(request, self.refusal)
                return
            incarnation = self.fresh or message.incarnation or self.incarnation
            connection.reply(request, Registered(self.cluster, incarnation, 100))
        elif isinstance(message, ServerBeat):
            self._beat(connection, request, message)
        else:
            raise AssertionError(f"a server asked its master for {message!r}")

    def _beat(self, connection: Connection, request: int, beat: ServerBeat) -> None:
        self.beats.append(beat)
        if self.deaf:
            return
        self.confirmed.update(beat.confirmed)
        assert isinstance(connection.peer, Hello)
        due = self.commands.get(connection.peer.name, [])
        commands = tuple(c for c in due if c.id not in self.confirmed)
        connection.reply(request, ServerBeatReply(commands, self.is_leaving))

    def facts(self) -> dict[tuple[bytes, SegmentId], Any]:
        """The newest fact of each segment, over registrations and beats of one server."""
        found = {}
        for told in (*self.registrations[-1:], *self.beats):
            for fact in told.facts:
                found[fact.stream, fact.segment] = fact
        return found

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.abort()
        self.connections.clear()


class Mail(Handler):
    """What a server says of its own accord."""

    def __init__(self) -> None:
        self.acks: list[tuple[int, int]] = []
        self.pushes: list[Message] = []
        self.closed: LunalogError | None = None
        self.news = asyncio.Event()

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        self.acks.append((slot, end))
        self.news.set()

    def on_push(self, connection: Connection, message: Message) -> None:
        self.pushes.append(message)
        self.news.set()

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        self.closed = error
        self.news.set()


class Leader:
    """A connection to one server that opens one segment there, and appends."""

    def __init__(self, connection: Connection, mail: Mail) -> None:
        self.connection = connection
        self.mail = mail
        self.slot = 1
        self.frames: list[bytes] = []
        self.end = FIRST

    async def ask(self, message: Message, timeout: float = 5.0) -> Any:
        return await self.connection.request(message, timeout=timeout)

    async def open(
        self,
        segment: SegmentId = SEGMENT,
        leader: bytes = ANN,
        *,
        stream: bytes = STREAM,
        incarnation: int = 1,
        first: int = FIRST,
        chain: int = CHAIN,
        slot: int = 1,
    ) -> Opened:
        message = OpenSlot(slot, stream, segment, leader, incarnation, first, chain, 1)
        found: Opened = await self.ask(message)
        self.end = found.end
        return found

    def append(self, count: int = 1, *, committed: int = 0, size: int = 20, slot: int = 1) -> bytes:
        frame = build_frame(self.end, count, size)
        self.frames.append(frame)
        self.end += count
        self.send(frame, committed=committed, slot=slot)
        return frame

    def send(self, frame: bytes, *, committed: int = 0, slot: int = 1) -> None:
        self.connection.send(codec.append_head(slot, committed, len(frame)), frame)

    def mark(self, committed: int, slot: int = 1) -> None:
        self.connection.send(codec.mark(slot, committed))

    async def acked(self, end: int, slot: int = 1, timeout: float = 5.0) -> None:
        """Wait until everything below `end` is acknowledged."""
        await self.until(lambda: (slot, end) in self.mail.acks, timeout)

    async def refused(self, timeout: float = 5.0) -> str:
        """Wait for a refusal; its code."""

        def found() -> list[AppendRefused]:
            return [p for p in self.mail.pushes if isinstance(p, AppendRefused)]

        await self.until(lambda: bool(found()), timeout)
        (refusal,) = found()
        self.mail.pushes.remove(refusal)
        return refusal.failure.code

    async def closed(self, timeout: float = 5.0) -> LunalogError:
        await self.until(lambda: self.mail.closed is not None, timeout)
        assert self.mail.closed is not None
        return self.mail.closed

    async def until(self, holds: Callable[[], bool], timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            while not holds():
                self.mail.news.clear()
                await self.mail.news.wait()

    async def fence(
        self,
        epoch: int,
        leader: bytes = BOB,
        *,
        segment: SegmentId = SEGMENT,
        stream: bytes = STREAM,
        incarnation: int = 1,
    ) -> Any:
        promise = Promise(epoch, leader)
        return await self.ask(Fence(stream, segment, FIRST, promise, incarnation))

    async def read(
        self,
        start: int,
        *,
        segment: SegmentId = SEGMENT,
        stream: bytes = STREAM,
        bytes_max: int = 1 << 20,
        wait_ms: int = 0,
        promise: Promise | None = None,
        timeout: float = 5.0,
    ) -> tuple[codec.FramesHead, list[bytes]]:
        message = Read(stream, segment, start, bytes_max, wait_ms, promise)
        head, body = await self.ask(message, timeout)
        return head, [bytes(frame) for _, frame in frames.split(body)]


class World:
    """One simulation: servers, the master, and everybody's connections from the harness."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.master = FakeMaster()
        self.servers: dict[str, JournalServer] = {}
        self.configs: dict[str, ServerConfig] = {}
        self.masters: list[Address] = [MASTER]

    def node(self, name: str = "server") -> SimulatedNode:
        return self.simulation.node(name)

    def start(self, host: str = "server", **changes: Any) -> None:
        """Start a server's process, or start it again."""
        config = self.configs.get(host) or replace(CONFIG, name=host, host=host)
        self.configs[host] = config = replace(config, **changes)
        node = self.node(host)
        disk = node.disk()

        async def main(runtime: SimulatedRuntime) -> None:
            server = JournalServer(runtime, disk, self.masters, config)
            self.servers[host] = server
            await server.start()
            await server.wait_left()
            await server.stop()

        node.start(main)

    @property
    def server(self) -> JournalServer:
        return self.servers["server"]

    async def ready(self, name: str = "server", timeout: float = 10.0) -> JournalServer:
        """Wait until a server is registered."""
        await self.until(
            lambda: (
                name in self.servers
                and hasattr(self.servers[name], "registration")
                and self.servers[name].is_registered
            ),
            timeout,
        )
        return self.servers[name]

    async def until(self, holds: Callable[[], bool], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not holds():
                await asyncio.sleep(0.01)

    async def begin(self, **changes: Any) -> Leader:
        """The usual beginning: a master, one server, one connection to it."""
        await self.master.listen(self.simulation)
        self.start(**changes)
        await self.ready()
        return await self.dial()

    async def again(self, host: str = "server", *, power: bool = False, **changes: Any) -> Leader:
        """Crash a server, start it again, connect again."""
        self.node(host).crash(power=power)
        self.servers.pop(host)
        self.start(host, **changes)
        await self.ready(host)
        return await self.dial(host)

    async def dial(
        self, name: str = "server", cluster: str = CLUSTER, timeout: float = 5.0
    ) -> Leader:
        mail = Mail()
        hello = Hello(
            codec.VERSION_MIN, codec.VERSION_MAX, cluster, "client", "ann", ANN, b"nonce"
        )  # fmt: skip
        connection = await dial(
            self.simulation.harness_runtime, (name, PORT), hello, mail, timeout=timeout
        )
        return Leader(connection, mail)

    def certificate(
        self,
        made: list[bytes],
        *,
        segment: SegmentId = SEGMENT,
        first: int = FIRST,
        chain: int = CHAIN,
        stream: bytes = STREAM,
        promise: Promise = Promise(2, BOB),  # noqa: B008
        version: int = 1,
    ) -> Certificate:
        """The certificate of a segment that ends behind these frames."""
        end = frames.parse(made[-1]).end if made else first
        members = tuple(Member(name, 1) for name in self.configs)
        row = SealedSegment(
            segment, first, end, chain_behind(made, chain), members, 2, "ann", "takeover", 0,
            version,
        )  # fmt: skip
        return Certificate(stream, row, promise)

    def source(self, name: str) -> ServerAddress:
        return ServerAddress(Member(name, 1), name, PORT)


Story = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def world() -> Iterator[World]:
    with Simulation(1) as simulation:
        yield World(simulation)


@pytest.fixture
def run(world: World) -> Callable[[Story], None]:
    """Run a story on the harness's machine."""

    def go(story: Story) -> None:
        world.simulation.run(story(world), timeout_s=300)

    return go
