"""A master that says what the test wants, over the network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit import virtual_time

from lunalog.client.master import MasterLink
from lunalog.config import ClientConfig
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import LunalogError, ServerUnavailableError, StreamNotFoundError
from lunalog.runtime import SystemRuntime
from lunalog.types import (
    Member,
    Peer,
    Policy,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)
from lunalog.wire import codec, frames
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import acceptor, dial
from lunalog.wire.messages import (
    AskLeader,
    ClientBeat,
    ClientBeatReply,
    Done,
    EndSession,
    GetStream,
    Hello,
    Ping,
    Read,
    ReadPoint,
    UnwatchStream,
    ViewReply,
    WatchStream,
    Welcome,
)

ADDRESS = ("master", 7600)
STREAM = b"s" * 16


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": virtual_time.VirtualLoop}


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemRuntime, "now", virtual_time.now)


class FakeMaster(Handler):
    """Answers by `answers[type]`, remembers what it was asked, pushes on demand."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.runtime = runtime
        self.cluster = "c1"
        self.role = "master"
        self.hellos: list[Hello] = []
        self.asked: list[Any] = []
        self.connections: list[Connection] = []
        self.refuse: LunalogError | None = None
        self.lease_ms = 2000
        self.views: dict[bytes, StreamView] = {}
        self.answers: dict[type, Callable[[Any], Any]] = {
            Ping: lambda m: Done(),
            ClientBeat: lambda m: ClientBeatReply(self.lease_ms, 500),
            EndSession: lambda m: Done(),
            UnwatchStream: lambda m: Done(),
            WatchStream: self.watched,
            GetStream: self.found,
        }
        self.listener: Any = None

    async def start(self) -> None:
        self.listener = await self.runtime.network.listen(
            acceptor(self.runtime, self.welcome), ADDRESS
        )

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.close()
        for connection in list(self.connections):
            connection.abort()
        self.connections.clear()

    def welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        self.hellos.append(hello)
        if self.refuse is not None:
            raise self.refuse
        return Welcome(codec.VERSION_MAX, self.cluster, self.role, "m"), self

    def on_open(self, connection: Connection) -> None:
        self.connections.append(connection)

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        if connection in self.connections:
            self.connections.remove(connection)

    def on_request(self, connection: Connection, request: int, message: Any) -> None:
        self.asked.append(message)
        answer = self.answers.get(type(message))
        if answer is None:
            return  # never answered
        try:
            connection.reply(request, answer(message))
        except LunalogError as error:
            connection.fail(request, error)

    def watched(self, message: WatchStream) -> ViewReply:
        if message.stream not in self.views:
            raise StreamNotFoundError("no such stream")
        return ViewReply(self.views[message.stream])

    def found(self, message: GetStream) -> ViewReply:
        for view in self.views.values():
            if view.head.name == message.name:
                return ViewReply(view)
        raise StreamNotFoundError(f"no stream {message.name!r}")

    def push(self, message: Any) -> None:
        for connection in self.connections:
            if connection.peer.purpose == "main":
                connection.push(message)

    def asked_for(self, kind: type) -> list[Any]:
        return [m for m in self.asked if isinstance(m, kind)]


def make_view(**head: Any) -> StreamView:
    """A view of one stream named "orders"."""
    fields = {"name": "orders", "stream": STREAM, "policy": Policy(), **head}
    return StreamView(StreamHead(**fields), (), ())


@pytest.fixture
def view() -> Callable[..., StreamView]:
    return make_view


@pytest.fixture
async def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
async def master(runtime: MemoryRuntime) -> AsyncIterator[FakeMaster]:
    found = FakeMaster(runtime)
    found.views[STREAM] = make_view()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def config() -> ClientConfig:
    return ClientConfig(
        heartbeat_ms=20,
        connect_timeout_ms=300,
        operation_timeout_ms=300,
        retry_ms_max=10,
        read_wait_ms=50,
    )


@pytest.fixture
async def link(
    runtime: MemoryRuntime, master: FakeMaster, config: ClientConfig
) -> AsyncIterator[MasterLink]:
    found = MasterLink(runtime, [ADDRESS], Peer("engine-1", b"i" * 16), config)
    await found.start()
    yield found
    await found.aclose()
    if runtime.error is not None:
        raise runtime.error


class FakeServer(Handler):
    """A replica: frames by segment, a known committed sequence, and faults on demand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ServerAddress(Member(name, 1), name, 1)
        self.frames: dict[SegmentId, list[bytes]] = {}
        self.committed: dict[SegmentId, int] = {}
        self.reads: list[Read] = []
        self.waiting: list[tuple[Connection, int, Read]] = []
        self.fault: Callable[[Connection, int, Read], bool] | None = None
        """Returns true when it has dealt with a read."""
        self.point: Any = None
        """What AskLeader gives: a number or an error; none: no answer."""
        self.connection: Connection | None = None

    def welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        return Welcome(codec.VERSION_MAX, "c1", "server", self.name), self

    def put(self, segment: SegmentId, first: int, payloads: list[bytes], epoch: int = 1) -> None:
        self.frames.setdefault(segment, []).append(frames.build(STREAM, first, epoch, 1, payloads))

    def commit(self, segment: SegmentId, committed: int) -> None:
        self.committed[segment] = committed
        waiting, self.waiting = self.waiting, []
        for entry in waiting:
            self.on_read(*entry)

    def on_request(self, connection: Connection, request: int, message: Any) -> None:
        if isinstance(message, Read):
            self.reads.append(message)
            if self.fault is None or not self.fault(connection, request, message):
                self.on_read(connection, request, message)
        elif isinstance(message, AskLeader):
            if isinstance(self.point, LunalogError):
                connection.fail(request, self.point)
            elif self.point is not None:
                connection.reply(request, ReadPoint(self.point))

    def on_read(self, connection: Connection, request: int, read: Read) -> None:
        committed = self.committed.get(read.segment, 0)
        found, size = [], 0
        for frame in self.frames.get(read.segment, []):
            head = frames.parse_head(frame)
            if head.end > read.start and head.end <= committed and size < read.bytes_max:
                found.append(frame)
                size += len(frame)
        if found:
            connection.reply_frames(
                request, FramesHead(committed, committed, 0, ReadStatus.HELD), found
            )
        elif read.wait_ms:
            self.waiting.append((connection, request, read))
            asyncio.get_running_loop().call_later(
                read.wait_ms / 1000, self.expire, connection, request, read
            )
        else:
            self.nothing(connection, request, ReadStatus.NOTHING_YET, committed)

    def expire(self, connection: Connection, request: int, read: Read) -> None:
        if (connection, request, read) in self.waiting:
            self.waiting.remove((connection, request, read))
            committed = self.committed.get(read.segment, 0)
            self.nothing(connection, request, ReadStatus.NOTHING_YET, committed)

    @staticmethod
    def nothing(connection: Connection, request: int, status: ReadStatus, committed: int) -> None:
        connection.reply_frames(request, FramesHead(0, committed, 0, status), [])


class FakeLinks:
    """Connections to fake servers."""

    def __init__(self, runtime: MemoryRuntime, servers: list[FakeServer]) -> None:
        self.runtime = runtime
        self.servers = {server.name: server for server in servers}
        self.connections: dict[str, Connection] = {}
        self.down: set[str] = set()

    async def start(self) -> None:
        for server in self.servers.values():
            await self.runtime.network.listen(
                acceptor(self.runtime, server.welcome), server.address.address
            )

    async def connection(self, server: ServerAddress) -> Connection:
        name = server.member.server
        if name in self.down:
            raise ServerUnavailableError(f"{name} is down", server=name)
        found = self.connections.get(name)
        if found is None or found.closed_by is not None:
            hello = Hello(1, 1, "c1", "client", "p", b"i" * 16, b"n" * 16)
            found = await dial(self.runtime, server.address, hello, Handler())
            self.connections[name] = found
        return found

    def cut(self, name: str) -> None:
        self.down.add(name)
        connection = self.connections.pop(name, None)
        if connection is not None:
            connection.abort()


@pytest.fixture
async def servers(runtime: MemoryRuntime) -> list[FakeServer]:
    return [FakeServer(f"s{n}") for n in range(3)]


@pytest.fixture
async def links(runtime: MemoryRuntime, servers: list[FakeServer]) -> FakeLinks:
    found = FakeLinks(runtime, servers)
    await found.start()
    return found
