"""A network inside one process and one loop: the embedded modes run the protocol code over it.

Bytes arrive in the turn after they were sent, in order, as over a fast wire that loses nothing.  Where
the receiver reads no more they wait, and the sender is asked to pause, as over a socket.

Source: design.md sections 8 and 9.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from lunalog import limits
from lunalog.runtime import Address, ProtocolFactory

Buffer = bytes | bytearray | memoryview
WRITE_HIGH_BYTES: Final = 64 * limits.KIB
"""Where a sender is asked to pause unless it sets limits of its own; as asyncio has it."""


class MemoryNetwork:
    """Listeners by address; whoever holds this object can reach them."""

    def __init__(self) -> None:
        self._listeners: dict[Address, MemoryListener] = {}
        self._next_port = 1

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Join `factory()` with what listens at `address`; raises `ConnectionRefusedError`."""
        listener = self._listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, f"nobody listens at {address[0]}:{address[1]} in this process"
            )
        ours, theirs = MemoryTransport(), MemoryTransport()
        ours.other, theirs.other = theirs, ours
        theirs.attach(listener.factory())
        ours.attach(factory())

    async def listen(self, factory: ProtocolFactory, address: Address) -> MemoryListener:
        """Accept at `address`; port 0 takes the next free one.  Raises `OSError` when it is taken."""
        host, port = address
        while port == 0:
            if (host, self._next_port) not in self._listeners:
                port = self._next_port
            self._next_port += 1
        if (host, port) in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{host}:{port} is taken in this process")
        listener = MemoryListener(self, factory, (host, port))
        self._listeners[host, port] = listener
        return listener

    def _forget(self, address: Address) -> None:
        self._listeners.pop(address, None)


class MemoryListener:
    """One listening address."""

    def __init__(self, network: MemoryNetwork, factory: ProtocolFactory, address: Address) -> None:
        self.factory = factory
        self._network = network
        self._address = address

    @property
    def address(self) -> Address:
        """What to dial."""
        return self._address

    async def close(self) -> None:
        """Accept nobody more.  Idempotent."""
        self._network._forget(self._address)


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    other: MemoryTransport

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._inbox: deque[Buffer] = deque()
        self._inbox_bytes = 0
        self._high_bytes = WRITE_HIGH_BYTES
        self._low_bytes = WRITE_HIGH_BYTES // 4
        self._is_reading = True
        self._has_paused_protocol = False
        self._is_due = False
        self._is_closing = False
        self._is_lost = False
        self._is_eof = False
        """The other side has closed: what is in the inbox is the last."""

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """Give this end to `protocol`."""
        self._protocol = protocol
        protocol.connection_made(self)

    def get_write_buffer_size(self) -> int:
        """Bytes that the other side has not taken yet."""
        return self.other._inbox_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """While the other side reads no more, ask to pause above `high`, and to go on at `low`."""
        if high is None:
            high = WRITE_HIGH_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must not be below low ({low}), nor low below 0")
        self._high_bytes, self._low_bytes = high, low
        self._pause_protocol()

    def is_reading(self) -> bool:
        """True while the protocol takes what arrives."""
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        """Leave what arrives, an end too, where it is until `resume_reading`.  Idempotent."""
        if self._is_reading:
            self._is_reading = False
            self._loop.call_soon(self.other._pause_protocol)

    def resume_reading(self) -> None:
        """Take what has arrived meanwhile, from the next turn of the loop on.  Idempotent."""
        if not self._is_reading:
            self._is_reading = True
            self._schedule()

    def is_closing(self) -> bool:
        """True once either side has ended the connection."""
        return self._is_closing

    def write(self, data: Buffer) -> None:
        """Send bytes; they are copied unless they can never change."""
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Send several buffers, one behind another."""
        if self._is_closing:
            return
        other = self.other
        for data in list_of_data:
            if len(data):
                chunk = data if isinstance(data, bytes) else bytes(data)
                other._inbox.append(chunk)
                other._inbox_bytes += len(chunk)
        other._schedule()
        self._pause_protocol()

    def close(self) -> None:
        """End the connection; the other side gets what was sent before."""
        if self._is_closing:
            return
        self._is_closing = True
        self.other._is_eof = True
        self.other._schedule()
        self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """End the connection at once; what the other side has not taken is lost."""
        if not self._is_closing:
            self.other._inbox.clear()
            self.other._inbox_bytes = 0
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known of this wire."""
        return default

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        while self._inbox and self.is_reading():
            chunk = self._inbox.popleft()
            self._inbox_bytes -= len(chunk)
            if rest := self._feed(chunk):
                self._inbox.appendleft(rest)
                self._inbox_bytes += len(rest)
        if self._is_eof and self.is_reading():
            self._is_closing = True
            self._protocol.eof_received()
            self._lose(None)
        self.other._resume_protocol()

    def _feed(self, chunk: Buffer) -> memoryview:
        """Hand over a chunk; returns what is left of it when the protocol takes no more."""
        view = memoryview(chunk)
        while view and self.is_reading():
            room = self._protocol.get_buffer(len(view))
            taken = min(len(room), len(view))
            room[:taken] = view[:taken]
            self._protocol.buffer_updated(taken)
            view = view[taken:]
        return view

    def _pause_protocol(self) -> None:
        """Where the other side reads, what waits is taken in the next turn: then nobody pauses."""
        is_due = not (self.other._is_reading or self._is_lost or self._has_paused_protocol)
        if is_due and self.get_write_buffer_size() > self._high_bytes:
            self._has_paused_protocol = True
            self._protocol.pause_writing()

    def _resume_protocol(self) -> None:
        has_room = not self._is_lost and self.get_write_buffer_size() <= self._low_bytes
        if self._has_paused_protocol and has_room:
            self._has_paused_protocol = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._inbox.clear()
            self._inbox_bytes = 0
            self._protocol.connection_lost(error)
