"""A TCP proxy of our own: what a bad network does to connections, by seed.

One `Link` stands between one who dials and one who listens.  TCP keeps bytes in order and whole, so
there is nothing to duplicate or reorder inside a connection; what can happen to one is

    delay    each chunk arrives later, with jitter
    throttle bytes a second
    stall    one direction stands still for a while, nothing is lost
    hole     half-open: bytes vanish both ways and nobody is told; after minutes it is reset
    cut      it ends in the middle of a chunk, so of a frame; by FIN or by RST
    replay   the first bytes of a connection that is long dead arrive again, on a new one
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import deque
from typing import Final

CHUNK_BYTES: Final = 64 << 10
HELD_BYTES_MAX: Final = 1 << 20
"""What waits in one direction of one connection before its source is read no further."""
REPLAY_BYTES_MAX: Final = 64 << 10
HOLE_S: Final = 120.0
"""After this long what lies between forgets a connection that has fallen into a hole."""
RESET: Final = struct.pack("ii", 1, 0)
UP: Final = "up"
DOWN: Final = "down"

Address = tuple[str, int]


class Pipe:
    """One direction of one connection: chunks, each with the time when it is due."""

    def __init__(self, link: Link, way: str, source: asyncio.StreamReader) -> None:
        self._link = link
        self._way = way
        self._source = source
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._is_over = False
        self.first = bytearray()
        """How it began, kept to be replayed."""

    async def take(self) -> None:
        """Read the source to its end."""
        due = 0.0
        try:
            while data := await self._source.read(CHUNK_BYTES):
                if self._way == UP and len(self.first) < REPLAY_BYTES_MAX:
                    self.first += data
                due = max(due, time.monotonic() + self._link.draw_delay())
                self._held.append((due, data))
                self._held_bytes += len(data)
                self._changed.set()
                while self._held_bytes > HELD_BYTES_MAX:
                    self._changed.clear()
                    await self._changed.wait()
        except OSError:
            pass
        finally:
            self._is_over = True
            self._changed.set()

    async def give(self, sink: Connection, target: asyncio.StreamWriter) -> None:
        """Write what is due, until the source has ended and all is written."""
        while True:
            while not self._held:
                if self._is_over:
                    return
                self._changed.clear()
                await self._changed.wait()
            due, data = self._held[0]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._link.wait_open(self._way)
            self._held.popleft()
            self._held_bytes -= len(data)
            self._changed.set()
            if sink.is_hole:
                continue
            if self._link.cuts:
                sink.cut(target, data)
                return
            target.write(data)
            self._link.bytes[self._way] += len(data)
            await target.drain()
            if self._link.rate:
                await asyncio.sleep(len(data) / self._link.rate)


class Connection:
    """Two sockets and what lies between."""

    def __init__(
        self,
        link: Link,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._link = link
        self._near, self._far = near[1], far[1]
        self.up = Pipe(link, UP, near[0])
        self.down = Pipe(link, DOWN, far[0])
        self.is_hole = False

    async def run(self) -> None:
        """Carry bytes until both sides have ended; one that ends takes the other with it."""
        work = [
            asyncio.ensure_future(self.up.take()),
            asyncio.ensure_future(self.up.give(self, self._far)),
            asyncio.ensure_future(self.down.take()),
            asyncio.ensure_future(self.down.give(self, self._near)),
        ]
        gives = [work[1], work[3]]
        try:
            await asyncio.wait(gives, return_when=asyncio.FIRST_COMPLETED)
            if self.is_hole:
                # Half-open: that one side has given up is not told to the other.
                await asyncio.wait(gives)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """End both sides by FIN, behind what was given to them."""
        for writer in (self._near, self._far):
            writer.close()

    def fall(self) -> None:
        """Carry nothing any more."""
        self.is_hole = True
        asyncio.get_running_loop().call_later(HOLE_S, self.abort)

    def abort(self) -> None:
        """End both sides at once, whatever they have not taken yet."""
        for writer in (self._near, self._far):
            writer.transport.abort()

    def cut(self, target: asyncio.StreamWriter, data: bytes) -> None:
        """Let a part of a chunk through, then end both sides at once."""
        self._link.cuts -= 1
        self._link.cut_count += 1
        part = data[: self._link.chance.randrange(len(data))]
        with contextlib.suppress(OSError):
            target.write(part)
        if self._link.chance.random() < 0.5:
            for writer in (self._near, self._far):
                with contextlib.suppress(OSError):
                    sock: socket.socket = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()


class Link:
    """The way of one who dials to one who listens, and what is wrong with it now."""

    def __init__(self, name: str, target: Address, chance: random.Random) -> None:
        self.name = name
        self.target = target
        self.chance = chance
        self.delay_s = (0.0, 0.0)
        self.rate = 0.0
        self.cuts = 0
        """Connections that are yet to be cut, at their next chunk."""
        self.cut_count = 0
        self.bytes = {UP: 0, DOWN: 0}
        self.address: Address = ("", 0)
        self._is_hole = False
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._accepting: set[asyncio.Task[None]] = set()
        self._last = b""
        self.heal()

    async def start(self, host: str) -> None:
        """Listen on any port of `host`."""
        self._server = await asyncio.start_server(self._accepted, host, 0, limit=CHUNK_BYTES)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        connections, accepting = list(self._connections), list(self._accepting)
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0)  # the transports close themselves in the loop's next turn
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many there are; holes, too."""
        return len(self._connections)

    # ------------------------------------------------------------------ what is wrong

    def heal(self) -> None:
        """Let everything through again; what fell into a hole stays lost."""
        self.delay_s = (0.0, 0.0)
        self.rate = 0.0
        self.cuts = 0
        self._is_hole = False
        for gate in self._open.values():
            gate.set()

    def stall(self, way: str) -> None:
        """Hold one direction; nothing is lost."""
        self._open[way].clear()

    def hole(self) -> int:
        """Make half-open what there is and what comes; returns how many connections fell in."""
        self._is_hole = True
        fallen = [c for c in self._connections if not c.is_hole]
        for connection in fallen:
            connection.fall()
        return len(fallen)

    async def replay(self, seconds: float = 1.0) -> int:
        """Send the beginning of a dead connection again, on a new one; returns how many bytes."""
        sent = self._last or next((bytes(c.up.first) for c in self._connections), b"")
        if not sent:
            return 0
        try:
            reader, writer = await asyncio.open_connection(*self.target)
        except OSError:
            return 0
        try:
            writer.write(sent)
            async with asyncio.timeout(seconds):
                while await reader.read(CHUNK_BYTES):
                    pass
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()
        return len(sent)

    # ------------------------------------------------------------------ for the connections

    def draw_delay(self) -> float:
        """How long the next chunk is under way."""
        low, high = self.delay_s
        return self.chance.uniform(low, high) if high else 0.0

    async def wait_open(self, way: str) -> None:
        """Wait while a direction stands still."""
        await self._open[way].wait()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        except OSError:
            writer.close()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        for one in (writer, far[1]):
            sock: socket.socket = one.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, (reader, writer), far)
        if self._is_hole:
            connection.fall()
        task = asyncio.ensure_future(connection.run())
        self._connections[connection] = task
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del self._connections[connection]
            if connection.up.first:
                self._last = bytes(connection.up.first)
