"""A master that says what the test wants, over the network in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lunalog.client.master import MasterLink
from lunalog.config import ClientConfig
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import LunalogError, StreamNotFoundError
from lunalog.types import Peer, Policy, StreamHead, StreamView
from lunalog.wire import codec
from lunalog.wire.connection import Connection, Handler, acceptor
from lunalog.wire.messages import (
    ClientBeat,
    ClientBeatReply,
    Done,
    EndSession,
    GetStream,
    Hello,
    Ping,
    UnwatchStream,
    ViewReply,
    WatchStream,
    Welcome,
)

ADDRESS = ("master", 7600)
STREAM = b"s" * 16


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
