"""Two ends of a connection on simulated time, and an end that says any bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lunalog.errors import LunalogError
from lunalog.testing.simulation import Simulation
from lunalog.wire import codec
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import acceptor, dial
from lunalog.wire.messages import Hello, Message, Welcome

HELLO = Hello(1, 1, "", "client", "engine-1", b"\x11" * 16, b"\x22" * 16)
WELCOME = Welcome(1, "c0ffee", "server", "s1")
ADDRESS = ("harness", 7000)


class Recorder(Handler):
    """Notes all that happens on a connection; `answer` may answer requests."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.connection: Connection | None = None
        self.answer: Callable[[Connection, int, Message], None] = lambda *_: None

    def on_open(self, connection: Connection) -> None:
        self.connection = connection
        self.seen.append(("open",))

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        self.seen.append(("closed", type(error), str(error)))

    def on_paused(self, connection: Connection) -> None:
        self.seen.append(("paused",))

    def on_drained(self, connection: Connection) -> None:
        self.seen.append(("drained",))

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        self.seen.append(("request", request, message))
        self.answer(connection, request, message)

    def on_push(self, connection: Connection, message: Message) -> None:
        self.seen.append(("push", message))

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        self.seen.append(("append", slot, committed, bytes(frame)))

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        self.seen.append(("ack", slot, end))

    def on_mark(self, connection: Connection, slot: int, committed: int) -> None:
        self.seen.append(("mark", slot, committed))

    def of(self, what: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.seen if entry[0] == what]


class Raw(asyncio.Protocol):
    """An end that sends what it is told and keeps what it gets."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.is_lost = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True

    def messages(self) -> list[tuple[int, int, Message]]:
        """(kind, id, message) of every control message that came."""
        found = []
        at = 0
        while at < len(self.got):
            size, kind, number = codec.parse_envelope(self.got, at, is_open=True)
            body = bytes(self.got[at + codec.ENVELOPE_BYTES : at + size])
            found.append((kind, number, codec.decode_control(body)))
            at += size
        return found


class World:
    """One listener and whoever dials it, all on the harness of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.runtime = simulation.harness_runtime
        self.theirs = Recorder()
        self.refusal: LunalogError | None = None
        self.hellos: list[Hello] = []
        self.welcome = WELCOME
        self.accepted: list[Connection] = []

    def now(self) -> float:
        return self.runtime.now()

    def _welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        self.hellos.append(hello)
        if self.refusal is not None:
            raise self.refusal
        return self.welcome, self.theirs

    async def listen(self) -> None:
        make = acceptor(self.runtime, self._welcome)

        def accept() -> Connection:
            self.accepted.append(make())
            return self.accepted[-1]

        await self.runtime.network.listen(accept, ADDRESS)

    async def listen_raw(self) -> Raw:
        raw = Raw()
        await self.runtime.network.listen(lambda: raw, ADDRESS)
        return raw

    async def dial(self, handler: Handler | None = None, **options: Any) -> Connection:
        hello = options.pop("hello", HELLO)
        return await dial(self.runtime, ADDRESS, hello, handler or Recorder(), **options)

    async def dial_raw(self, *, is_open: bool = False) -> Raw:
        raw = Raw()
        await self.runtime.network.connect(lambda: raw, ADDRESS)
        if is_open:
            raw.transport.write(codec.MAGIC + codec.control(codec.Kind.HELLO, 0, HELLO))
            await asyncio.sleep(1)
            raw.got.clear()
        return raw

    async def pair(self, handler: Handler | None = None) -> Connection:
        """A listener, and a connection to it whose both sides are open."""
        await self.listen()
        ours = await self.dial(handler)
        await asyncio.sleep(1)
        return ours


def play(story: Callable[[World], Awaitable[None]], seed: int = 1) -> None:
    """Run a story to its end on simulated time."""

    async def main() -> None:
        await story(World(simulation))

    with Simulation(seed) as simulation:
        simulation.run(main(), timeout_s=1000.0)
