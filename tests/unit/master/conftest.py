"""A master in one loop, with clients and servers that speak the raw protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit import virtual_time

from lunalog.config import MasterConfig
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.master import Master, MemoryStore, MetadataStore
from lunalog.runtime import SystemRuntime
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    StreamHead,
    StreamView,
)
from lunalog.wire.codec import VERSION_MAX, VERSION_MIN
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import dial
from lunalog.wire.messages import (
    ClientBeat,
    CreateStream,
    EndSession,
    GetStream,
    Hello,
    Message,
    RegisterServer,
    SealSegment,
    SegmentFact,
    ServerBeat,
    StreamChanged,
    WatchStream,
    Welcome,
)

CONFIG = MasterConfig(
    port=0, lease_ms=600, heartbeat_ms=100, session_grace_ms=60, server_lost_ms=400
)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": virtual_time.VirtualLoop}


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemRuntime, "now", virtual_time.now)


class TestRuntime(MemoryRuntime):
    """Remembers failures instead of ending the process."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)


class Mailbag(Handler):
    """Keeps pushes."""

    def __init__(self) -> None:
        self.pushes: list[Message] = []
        self.news = asyncio.Event()
        self.closed: Any = None

    def on_push(self, connection: Connection, message: Message) -> None:
        self.pushes.append(message)
        self.news.set()

    def on_closed(self, connection: Connection, error: Any) -> None:
        self.closed = error
        self.news.set()


class Client:
    """One client: a main connection, and a beat connection that beats by itself."""

    def __init__(self, world: World, name: str, incarnation: bytes) -> None:
        self.world = world
        self.peer = Peer(name, incarnation)
        self.mail = Mailbag()
        self.beat_mail = Mailbag()
        self.main: Connection
        self.beats: Connection
        self.beating: asyncio.Task[None] | None = None

    async def connect(self) -> Client:
        self.main = await self.world.dial(self.hello("main"), self.mail)
        self.beats = await self.world.dial(self.hello("beat"), self.beat_mail)
        await self.beat()
        self.beating = asyncio.get_running_loop().create_task(self._beat_on())
        return self

    def hello(self, purpose: str, cluster: str = "") -> Hello:
        return Hello(
            VERSION_MIN, VERSION_MAX, cluster, "client", *self._who(), b"nonce", purpose
        )  # fmt: skip

    def _who(self) -> tuple[str, bytes]:
        return self.peer.name, self.peer.incarnation

    async def beat(self, *applied: tuple[bytes, int]) -> Any:
        beat = ClientBeat(0, tuple(applied), self.beats.peer.nonce)
        return await self.beats.request(beat, timeout=2)

    async def _beat_on(self) -> None:
        with contextlib.suppress(Exception):
            while True:
                await asyncio.sleep(0.1)
                await self.beat()

    def silence(self) -> None:
        """Beat no more, but stay connected."""
        if self.beating is not None:
            self.beating.cancel()

    def die(self) -> None:
        """As kill -9: all connections close, nothing is said."""
        self.silence()
        self.main.abort()
        self.beats.abort()

    async def end(self) -> None:
        self.silence()
        await self.beats.request(EndSession(), timeout=2)
        self.die()

    async def ask(self, message: Message) -> Any:
        return await self.main.request(message, timeout=5)

    async def create(self, name: str = "orders", policy: Policy = Policy(), **more: Any) -> Any:  # noqa: B008
        stream = more.pop("stream", None) or self.world.runtime.random_bytes(16)
        return (await self.ask(CreateStream(name, stream, policy, **more))).view.head

    async def head(self, name: str = "orders") -> StreamHead:
        return (await self.ask(GetStream(name))).view.head

    async def view(self, name: str = "orders") -> StreamView:
        return (await self.ask(GetStream(name))).view

    async def stand(self, stream: bytes) -> StreamView:
        return (await self.ask(WatchStream(stream, is_candidate=True))).view

    async def pushed(self, wanted: Callable[[Any], bool], timeout: float = 3.0) -> Any:
        """Wait for a push that `wanted` holds for."""
        async with asyncio.timeout(timeout):
            while True:
                for message in self.mail.pushes:
                    if wanted(message):
                        return message
                self.mail.news.clear()
                await self.mail.news.wait()

    async def led(self, stream: bytes, epoch: int = 0, timeout: float = 3.0) -> StreamHead:
        """Wait until a push says that this client leads."""

        def leads(message: Any) -> bool:
            head = message.view.head if isinstance(message, StreamChanged) else None
            return (
                head is not None
                and head.stream == stream
                and head.leader == self.peer
                and not head.released
                and head.epoch >= epoch
            )

        return (await self.pushed(leads, timeout)).view.head

    def opens(
        self, head: StreamHead, members: tuple[Member, ...], *, n: int = 0, end: int | None = None,
        chain: int = 0, reason: str = "",
    ) -> SealSegment:  # fmt: skip
        """Return the request that seals what is open at `end` and opens the next."""
        return seal_request(
            head, Promise(head.epoch, self.peer.incarnation), members, n, end, chain, reason
        )

    def closes(self, head: StreamHead, end: int | None = None, chain: int = 0) -> SealSegment:
        return seal_request(
            head, Promise(head.epoch, self.peer.incarnation), (), 0, end, chain, "resign"
        )


def seal_request(
    head: StreamHead,
    promise: Promise,
    members: tuple[Member, ...],
    n: int,
    end: int | None,
    chain: int,
    reason: str,
) -> SealSegment:
    old = head.open
    at = head.next if end is None else end
    if at == head.next:
        chain = head.chain
    row = None
    if old is not None and at > old.first:
        row = SealedSegment(
            old.id, old.first, at, chain, old.members, old.ack_quorum, "", reason, 0
        )
    opened = None
    if members:
        opened = OpenSegment(SegmentId(head.epoch, n), at, chain, members, head.policy.ack_quorum)
    return SealSegment(
        head.stream, promise, old.id if old else None, row, opened, at, chain,
        release=not members, reason=reason,
    )  # fmt: skip


class Server:
    """One journal server: registers, and beats when told to."""

    def __init__(self, world: World, name: str, labels: tuple[str, ...] = ()) -> None:
        self.world = world
        self.name = name
        self.labels = labels
        self.incarnation = 0
        self.boot = 1
        self.position = 0
        self.facts: tuple[SegmentFact, ...] = ()
        self.connection: Connection
        self.beating: asyncio.Task[None] | None = None
        self.mail = Mailbag()
        self.port = 9000

    async def connect(self) -> None:
        hello = Hello(VERSION_MIN, VERSION_MAX, "", "server", self.name, b"", b"nonce")
        self.connection = await self.world.dial(hello, self.mail)
        assert isinstance(self.connection.peer, Welcome)
        self.nonce = self.connection.peer.nonce

    async def register(self, *, may_have_lost: bool = False) -> int:
        await self.connect()
        return await self.register_here(may_have_lost=may_have_lost)

    async def register_here(self, *, may_have_lost: bool = False) -> int:
        reply = await self.connection.request(
            RegisterServer(
                self.name, self.incarnation, self.boot, self.position, may_have_lost,
                "127.0.0.1", self.port, self.labels, self.facts, nonce=self.nonce,
            ),
            timeout=2,
        )  # fmt: skip
        self.incarnation = reply.incarnation
        return self.incarnation

    async def beat(self, *facts: SegmentFact, confirmed: tuple[int, ...] = (), **more: Any) -> Any:
        message = ServerBeat(
            self.incarnation,
            self.boot,
            self.position,
            1 << 40,
            1 << 41,
            0,
            facts,
            confirmed,
            **more,
        )
        return await self.connection.request(message, timeout=2)

    async def go_on(self) -> Server:
        await self.register()
        await self.beat()

        async def beat_on() -> None:
            with contextlib.suppress(Exception):
                while True:
                    await self.beat()
                    await asyncio.sleep(0.1)

        self.beating = asyncio.get_running_loop().create_task(beat_on())
        return self

    def die(self) -> None:
        if self.beating is not None:
            self.beating.cancel()
        self.connection.abort()

    @property
    def member(self) -> Member:
        return Member(self.name, self.incarnation)

    def fact(self, stream: bytes, segment: SegmentId, state: str = "open", **more: Any) -> Any:
        fields: dict[str, Any] = {
            "generation": 1, "first": 0, "end": 0, "committed": 0, "promise_epoch": 0
        }  # fmt: skip
        return SegmentFact(stream=stream, segment=segment, state=state, **(fields | more))


class World:
    """Everything of one test."""

    def __init__(self, runtime: Any = None) -> None:
        self.runtime = runtime or TestRuntime()
        self.store: MetadataStore = MemoryStore()
        self.config = CONFIG
        self.master: Master
        self.clients: list[Client] = []
        self.servers: list[Server] = []
        self.masters: list[Master] = []

    async def start(self, **more: Any) -> Master:
        self.master = Master(self.runtime, self.store, self.config, **more)
        await self.master.start()
        self.masters.append(self.master)
        return self.master

    async def kill(self) -> None:
        """End a master without a goodbye: nothing of it runs any more, the store stays as it is."""
        master = self.master
        await master.tasks.cancel()
        await master.stop()

    async def dial(self, hello: Hello, handler: Handler) -> Connection:
        return await dial(self.runtime, self.master.address, hello, handler)

    async def client(self, name: str = "engine-1", incarnation: bytes | None = None) -> Client:
        client = Client(self, name, incarnation or self.runtime.random_bytes(16))
        self.clients.append(client)
        return await client.connect()

    async def server(self, name: str, *labels: str) -> Server:
        server = Server(self, name, labels)
        self.servers.append(server)
        return await server.go_on()

    def quiet_server(self, name: str, *labels: str) -> Server:
        server = Server(self, name, labels)
        self.servers.append(server)
        return server

    async def three(self) -> tuple[Member, ...]:
        return tuple([(await self.server(f"s{n}")).member for n in (1, 2, 3)])

    async def close(self) -> None:
        for client in self.clients:
            if client.beating is not None:
                client.die()
        for server in self.servers:
            with contextlib.suppress(AttributeError):
                server.die()
        for master in self.masters:
            await master.stop()
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()
    assert made.runtime.failures == []


@pytest.fixture
async def started(world: World) -> World:
    await world.start()
    return world
