"""The transport that a protocol sees on a simulated connection.

It keeps asyncio's promises: `connection_made` first and `connection_lost` last, callbacks only from
the loop, `pause_writing` and `resume_writing` around a full buffer, both kinds of protocol.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lunalog.testing.pipe import End, Pipe

if TYPE_CHECKING:
    import random

    from lunalog.testing.loop import SimulatedLoop

READ_BYTES_MAX = 256 * 1024


class SimulatedTransport(asyncio.Transport):
    """One end of a connection, on one loop of one node."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        outgoing: Pipe,
        incoming: Pipe,
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra)
        self.is_gone = False
        self.fragment_rate = 0.0
        self.write_high_bytes = 64 * 1024
        self.outgoing = outgoing
        self.loop = loop
        self.own_host: str = extra["sockname"][0]
        self.peer_host: str = extra["peername"][0]
        self.when_closed: Callable[[SimulatedTransport], None] | None = None
        self._incoming = incoming
        self._chance = chance.random
        self._chance_to = chance.randint
        self._scheduler = outgoing.scheduler
        self._protocol: asyncio.BaseProtocol | None = None
        self._buffered: asyncio.BufferedProtocol | None = None
        self._plain: asyncio.Protocol | None = None
        self._inbox: deque[bytes] = deque()
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._limits = (self.write_high_bytes // 4, self.write_high_bytes)
        self._has_paused_protocol = False
        self._has_paused_reading = False
        self._read_is_planned = False
        self._peer_has_ended = False
        self._eof_was_read = False
        self._has_written_eof = False
        self._is_closing = False
        self._is_lost = False
        self._fault: OSError | None = None

    def __repr__(self) -> str:
        return f"<SimulatedTransport {self.get_extra_info('sockname')}>"

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to its protocol; runs on the loop."""
        self.set_protocol(protocol)
        self.set_write_buffer_limits()
        protocol.connection_made(self)
        self._plan_read()

    # ------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes, now or when there is room; they are copied."""
        self._check_loop()
        if self._has_written_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._is_closing or not data:
            return
        if self._fault is not None:
            self._break(self._fault)
            return
        data = bytes(data)
        if not self._backlog:
            room = self.outgoing.room()
            if room >= len(data):
                self.outgoing.send(data)
                return
            if room > 0:
                self.outgoing.send(data[:room])
                data = data[room:]
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > self._limits[1] and not self._has_paused_protocol:
            self._has_paused_protocol = True
            self._tell("pause_writing")

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send several buffers, one behind another."""
        self.write(b"".join(list_of_data))

    def room_came(self) -> None:
        """The kernel has room; the loop sends on in one of its turns."""
        self.loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        if self.is_gone:
            return
        room = self.outgoing.room()
        while self._backlog and room > 0:
            data = self._backlog.popleft()
            if len(data) > room:
                self._backlog.appendleft(data[room:])
                data = data[:room]
            room -= len(data)
            self._backlog_bytes -= len(data)
            self.outgoing.send(data)
        if self._has_paused_protocol and self._backlog_bytes <= self._limits[0]:
            self._has_paused_protocol = False
            self._tell("resume_writing")
        if not self._backlog and not self.is_gone:
            if self._is_closing:
                self._shut(None)
            elif self._has_written_eof:
                self.outgoing.end(End.FINISHED)

    @property
    def has_backlog(self) -> bool:
        """Whether bytes wait for room."""
        return self._backlog_bytes > 0

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room."""
        return self._backlog_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark of the write buffer."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set where `pause_writing` and `resume_writing` come, by asyncio's rules."""
        if high is None:
            high = self.write_high_bytes if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        bound = self.write_high_bytes
        self._limits = (min(low, bound // 4), min(high, bound))

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """Send no more; go on reading."""
        self._check_loop()
        if not self._is_closing and not self._has_written_eof:
            self._has_written_eof = True
            if not self._backlog:
                self.outgoing.end(End.FINISHED)

    # ------------------------------------------------------------ reading

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`; the window fills meanwhile."""
        self._has_paused_reading = True

    def resume_reading(self) -> None:
        """Deliver again."""
        if self._has_paused_reading and not self._is_closing:
            self._has_paused_reading = False
            self._plan_read()

    def is_reading(self) -> bool:
        """Whether bytes are delivered as they come."""
        return not self._has_paused_reading and not self._is_closing

    def arrived(self, data: bytes) -> None:
        """Bytes have come to the kernel."""
        self._scheduler.note_bytes(data)
        self._inbox.append(data)
        self._plan_read()

    def arrived_end(self) -> None:
        """The peer sends no more."""
        self._peer_has_ended = True
        self._plan_read()

    def _plan_read(self) -> None:
        if self._read_is_planned or self._has_paused_reading or self._is_closing:
            return
        if self._protocol is not None and (self._inbox or self._peer_has_ended or self._fault):
            self._read_is_planned = True
            self.loop.call_soon_threadsafe(self._read)

    def _read(self) -> None:
        self._read_is_planned = False
        if self._has_paused_reading or self._is_closing:
            return
        try:
            if self._inbox:
                self._read_some()
            elif self._fault is not None:
                self._break(self._fault)
            elif self._peer_has_ended and not self._eof_was_read:
                self._eof_was_read = True
                if (self._plain is None and self._buffered is None) or not self._ask_eof():
                    self.close()
        except Exception as error:  # noqa: BLE001
            self._protocol_failed(error)
        if self._inbox or self._fault or (self._peer_has_ended and not self._eof_was_read):
            self._plan_read()

    def _read_some(self) -> None:
        if self._buffered is not None:
            room = memoryview(self._buffered.get_buffer(-1))
            if not room.nbytes:
                raise RuntimeError("get_buffer() returned an empty buffer")
            data = self._take(room.nbytes)
            room[: len(data)] = data
            self._incoming.consumed(len(data))
            self._buffered.buffer_updated(len(data))
        elif self._plain is not None:
            data = self._take(READ_BYTES_MAX)
            self._incoming.consumed(len(data))
            self._plain.data_received(data)

    def _take(self, most: int) -> bytes:
        inbox = self._inbox
        if len(inbox) == 1:
            data = inbox.popleft()
        else:
            data = b"".join(inbox)
            inbox.clear()
        size = min(len(data), most)
        if self.fragment_rate and self._chance() < self.fragment_rate:
            size = self._chance_to(1, size)
        if size < len(data):
            inbox.append(data[size:])
            data = data[:size]
        return data

    def _ask_eof(self) -> bool:
        protocol = self._plain or self._buffered
        return protocol is not None and bool(protocol.eof_received())

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Read no more, send what waits, then end."""
        self._check_loop()
        if not self._is_closing:
            self._is_closing = True
            if not self._backlog:
                self._shut(None)

    def abort(self) -> None:
        """End now; what waits is not sent."""
        self._check_loop()
        self._break(None)

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._is_closing

    def broke(self, error: OSError) -> None:
        """The connection has failed; a paused reader learns it when it reads or writes again."""
        if self.is_gone:
            return
        self._fault = error
        if self._is_closing or self._backlog:
            self.loop.call_soon_threadsafe(self._break, error)
        else:
            self._plan_read()

    def vanish(self, *, tell_peer: bool) -> None:
        """The process is gone, and the host with it unless it can still tell the peer."""
        if self.is_gone:
            return
        self.is_gone = self._is_closing = self._is_lost = True
        if tell_peer:
            how = self._last_word()
            self.outgoing.end(how, loses=how is End.RESET and self._chance() < 0.3)
        elif not self.outgoing.link.is_open:
            self.outgoing.forget()

    def _last_word(self) -> End:
        return End.RESET if self._inbox or self._chance() < 0.2 else End.FINISHED

    def _break(self, error: OSError | None) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0
        self._is_closing = True
        self._shut(error)

    def _shut(self, error: OSError | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self.is_gone = True
        if self.when_closed is not None:
            self.when_closed(self)
        if self._fault is None:
            self.outgoing.end(self._last_word() if self._inbox else End.FINISHED)
        self.loop.call_soon_threadsafe(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        protocol = self._protocol
        self._inbox.clear()
        if protocol is not None:
            protocol.connection_lost(error)

    # ------------------------------------------------------------ the rest of the interface

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to `protocol` from now on."""
        self._protocol = protocol
        self._buffered = protocol if isinstance(protocol, asyncio.BufferedProtocol) else None
        self._plain = protocol if isinstance(protocol, asyncio.Protocol) else None

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that this delivers to."""
        if self._protocol is None:
            raise RuntimeError("the connection has not begun")
        return self._protocol

    def _tell(self, what: str) -> None:
        try:
            getattr(self._protocol, what)()
        except Exception as error:  # noqa: BLE001
            self._protocol_failed(error)

    def _protocol_failed(self, error: Exception) -> None:
        self.loop.call_exception_handler(
            {"message": "protocol callback failed", "exception": error, "transport": self}
        )
        self._break(None)

    def _check_loop(self) -> None:
        running = self._scheduler.running
        if running is not self.loop and running is not None:
            raise RuntimeError(f"{running!r} touched {self!r}, which is {self.loop!r}'s")
