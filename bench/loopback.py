"""What do the connections reach alone, without a disk, beside a bare protocol on the same loop?

A process that appends and one that acknowledges at once, over TCP on loopback, both on uvloop.  Lone: a
frame of 1 KiB, there and back.  Flood: frames of 104 KB, 16 under way.  The bare side sends as many
bytes and gets as many back, and looks at none.  One line of JSON each.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection as Pipe

import uvloop

from lunalog.runtime import Address, SystemRuntime
from lunalog.wire import codec, frames
from lunalog.wire.connection import Connection
from lunalog.wire.dialing import acceptor, dial
from lunalog.wire.handler import Handler
from lunalog.wire.messages import Hello, Welcome

HELLO = Hello(1, 1, "", "client", "bench", b"", bytes(16))
WELCOME = Welcome(1, "", "server", "bench")
SLOT, ACK_BYTES = 1, len(codec.ack(1, 0))
BLOCKS, BLOCK, WARM = 20, 100, 200
ROUNDS, MESSAGES, WINDOW = 5, 3000, 16


class Acknowledging(Handler):
    """Takes frames, and says so."""

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        """Read the header, answer with its end."""
        connection.send_now(codec.ack(slot, frames.parse_head(frame).end))


class Bare(asyncio.Protocol):
    """Answers every so many bytes with as many as an acknowledgement has."""

    def __init__(self, size: int, got: Callable[[int], None] | None = None) -> None:
        self._size = size
        self._got = got
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Count."""
        whole, self._filled = divmod(self._filled + len(data), self._size)
        if self._got is not None:
            self._got(whole)
        elif whole:
            self.transport.write(bytes(ACK_BYTES * whole))


class Side:
    """The appending end of one way to send: how many messages came back, and who waits."""

    def __init__(self) -> None:
        self.send: Callable[[], object] = lambda: None
        self.answered = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def got(self, messages: int) -> None:
        """So many more were answered."""
        self.answered += messages
        if self._waiter is not None and self.answered >= self._wanted:
            self._waiter.set_result(None)
            self._waiter = None

    async def until(self, wanted: int) -> None:
        """Wait until so many were answered."""
        if self.answered < wanted:
            self._wanted = wanted
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def lone(self) -> list[float]:
        """Seconds of one block of messages, one at a time."""
        found = []
        for _ in range(BLOCK):
            began = time.perf_counter()
            self.send()
            await self.until(self.answered + 1)
            found.append(time.perf_counter() - began)
        return found

    async def flood(self, size: int) -> float:
        """Megabytes a second."""
        start, began = self.answered, time.perf_counter()
        for n in range(MESSAGES):
            await self.until(start + n - WINDOW)
            self.send()
        await self.until(start + MESSAGES)
        return MESSAGES * size / (time.perf_counter() - began) / 1e6


class Counting(Handler):
    """Tells a side of each acknowledgement; one comes for every frame."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        """One more."""
        self._side.got(1)


def accept(pipe: Pipe, sizes: list[int]) -> None:
    """The other process: the end of the wire, and one of the bare protocol for each size."""

    async def main() -> None:
        runtime, loop = SystemRuntime(), asyncio.get_running_loop()
        listener = await runtime.network.listen(
            acceptor(runtime, lambda hello: (WELCOME, Acknowledging())), ("127.0.0.1", 0)
        )
        bare = [await loop.create_server(partial(Bare, size), "127.0.0.1", 0) for size in sizes]
        pipe.send((listener.address, [b.sockets[0].getsockname()[:2] for b in bare]))
        await asyncio.Event().wait()

    uvloop.run(main())


async def connected(message: bytes, wire: Address, bare: Address) -> list[Side]:
    """Both ways to send a message."""
    ours, theirs = Side(), Side()
    connection = await dial(SystemRuntime(), wire, HELLO, Counting(ours))
    ours.send = partial(connection.send_now, message)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: Bare(ACK_BYTES, theirs.got), *bare)
    theirs.send = partial(transport.write, message)
    return [ours, theirs]


async def measure(messages: list[bytes], wire: Address, bare: list[Address]) -> None:
    """Lone round trips of the first message, a flood of the second."""
    lone = await connected(messages[0], wire, bare[0])
    for side in lone:
        for _ in range(WARM // BLOCK):
            await side.lone()
    took: list[list[float]] = [[], []]
    for _ in range(BLOCKS):
        for side, found in zip(lone, took, strict=True):
            found += await side.lone()
    show("lone 1KiB", "p50 us", [statistics.median(found) * 1e6 for found in took])

    flood = await connected(messages[1], wire, bare[1])
    rates: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for side, found in zip(flood, rates, strict=True):
            found.append(await side.flood(len(messages[1])))
    show("flood of 104 KB", "MB/s", [statistics.median(found) for found in rates])


def show(name: str, unit: str, found: list[float]) -> None:
    """Both figures, and the first over the second."""
    ours, theirs = (round(value, 1) for value in found)
    row = {f"wire {unit}": ours, f"bare {unit}": theirs, "ratio": round(ours / theirs, 2)}
    print(json.dumps({"loopback": name, **row}), flush=True)


def main() -> int:
    """Start the other process, measure, end it."""
    shapes = [[bytes(1024)], [os.urandom(100) for _ in range(1000)]]
    built = [bytes(frames.build(bytes(16), 0, 1, 0, payloads)) for payloads in shapes]
    messages = [codec.append_head(SLOT, 0, len(frame)) + frame for frame in built]
    here, there = multiprocessing.Pipe()
    other = multiprocessing.Process(target=accept, args=(there, list(map(len, messages))))
    other.start()
    try:
        wire, bare = here.recv()
        uvloop.run(measure(messages, wire, bare))
    finally:
        other.terminate()
        other.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
