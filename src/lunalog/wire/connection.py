"""One connection between two nodes: handshake, requests and replies, pushes, data messages.

Everything is parsed where it arrives: no task, no queue and no copy between the socket and the
handler.  What is sent in one turn of the loop leaves in one write, unless by `send_now` or `flush`.

Source: docs/wire.md; N5 to N8, H1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from lunalog import limits
from lunalog.errors import (
    AvailabilityError,
    CorruptFrameError,
    InvariantError,
    LunalogError,
    OverloadedError,
    PeerError,
    ServerUnavailableError,
    UnsupportedVersionError,
)
from lunalog.runtime import Runtime
from lunalog.wire import codec
from lunalog.wire.codec import Buffer, FramesHead, Kind
from lunalog.wire.handler import Handler as Handler
from lunalog.wire.messages import ANSWERS, Failure, Hello, Message, Welcome
from lunalog.wire.patience import Patience
from lunalog.wire.room import Room
from lunalog.wording import plainly

HANDSHAKE_TIMEOUT_S: Final = 5.0
BUFFER_BYTES_MIN: Final = 16 * limits.KIB
BUFFER_BYTES_MAX: Final = 2 * limits.MIB
"""A receive buffer grows to this while reads fill it, beyond only for one large message."""
HANDSHAKES: Final = (Kind.HELLO, Kind.WELCOME)
WRITE_HIGH_BYTES: Final = limits.MIB
"""Where the transport asks us to pause."""


class Connection(asyncio.BufferedProtocol):
    """One end of a connection; `wire.dialing` makes it.

    Args:
        runtime: Of the node.
        handler: Who handles what arrives.
        greet: What the end that dials says of itself.
        welcome: What the end that accepts answers to that; see `dialing.acceptor`.
        room: For large messages; none: this side knows whom it has dialled.
        unreachable: The error that a lost connection is told as.
    """

    def __init__(
        self,
        runtime: Runtime,
        handler: Handler,
        *,
        greet: Callable[[], Hello] | None = None,
        welcome: Callable[[Hello], tuple[Welcome, Handler]] | None = None,
        room: Room | None = None,
        unreachable: type[AvailabilityError] = ServerUnavailableError,
    ) -> None:
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self.handler = handler
        self.peer: Hello | Welcome | None = None
        """What the other side said of itself; set when the handshake is over."""
        self.is_open = False
        self.closed_by: LunalogError | None = None
        """Why the connection is over; none while it is not."""
        self._transport: Any = None
        self._buffer = bytearray(BUFFER_BYTES_MIN)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self.has_more = False
        """Whether more had arrived behind the APPEND that is handled, or may have."""
        self.received_bytes = 0
        """All that ever arrived."""
        self._magic_left = 0
        self._room = room
        self._awaited = 0
        """Bytes that wait for room; nothing is read meanwhile."""
        self._out: list[Buffer] = []
        self._flush_is_due = False
        self.fed_bytes = 0
        """Of older frames, queued since the last write: who sends them counts them here."""
        self._is_paused = False
        self._drained: list[asyncio.Future[None]] = []
        self._pending: dict[int, tuple[asyncio.Future[Any], type]] = {}
        """Requests under way, and what they are to be answered with."""
        self._next_request = 1
        self._deadline: asyncio.TimerHandle | None = None
        self._greet = greet
        self._welcome = welcome
        self._unreachable = unreachable
        self.opened: asyncio.Future[None] | None = None
        """Whoever waits for the handshake puts it here; it ends in why there was none."""

    def __repr__(self) -> str:
        peer = self.peer
        state = "open" if self.is_open else "closed" if self.closed_by else "opening"
        return f"<Connection to {peer.role + ' ' + peer.name if peer else '?'}, {state}>"

    @property
    def peer_nonce(self) -> bytes:
        """What the other side drew for this connection (N8); empty before the handshake is over."""
        return b"" if self.peer is None else self.peer.nonce

    # ------------------------------------------------------------------ sending

    def send(self, *buffers: Buffer) -> None:
        """Queue bytes; they leave at the end of this turn of the loop, or by `flush`."""
        if self.closed_by is not None:
            return
        self._out += buffers
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    def send_now(self, buffer: Buffer) -> None:
        """Write at once, behind what is queued: for who knows that this turn brings nothing more."""
        if self.closed_by is None:
            self._out.append(buffer)
            self.flush()

    def flush(self) -> None:
        """Write what is queued in one call."""
        self._flush_is_due = False
        self.fed_bytes = 0
        if not self._out or self._transport is None:
            return
        out, self._out = self._out, []
        if self._transport.is_closing():
            return  # the peer is gone, and `connection_lost` is on its way
        if self._is_paused and self.unsent_bytes > limits.SEND_QUEUE_BYTES_MAX:
            self.close(OverloadedError(f"{self!r} takes too little of what is sent to it"))
        elif len(out) == 1:
            self._transport.write(out[0])
        else:
            self._transport.writelines(out)
            if not self._is_paused and self.unsent_bytes > WRITE_HIGH_BYTES:
                # Python 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1 do not look at the limit in `writelines`.
                self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def push(self, message: Message) -> None:
        """Send a one-way message."""
        self.send(codec.control(Kind.PUSH, 0, message))

    def reply(self, request: int, message: Message) -> None:
        """Answer a request."""
        self.send(codec.control(Kind.REPLY, request, message))

    def reply_frames(self, request: int, head: FramesHead, frames: list[Buffer]) -> None:
        """Answer a Read; the frames go out as they are, without a copy here."""
        self.send(codec.frames_head(request, head, sum(map(len, frames))), *frames)

    def fail(self, request: int, error: LunalogError) -> None:
        """Answer a request with an error."""
        self.send(codec.control(Kind.ERROR, request, codec.failure_of(error)))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the peer's window holds back."""
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    @property
    def is_paused(self) -> bool:
        """True while the transport has more to send than it likes."""
        return self._is_paused

    async def drained(self) -> None:
        """Wait until the transport takes more; returns at once when it does, or is closed."""
        while self._is_paused and self.closed_by is None:
            self._drained.append(self._loop.create_future())
            await self._drained[-1]

    def pause_reading(self) -> None:
        """Take nothing more from the peer until `resume_reading`; its own queue fills up."""
        if self.closed_by is None and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take what the peer sends again."""
        if self.closed_by is None and self._transport is not None and not self._awaited:
            self._transport.resume_reading()

    async def request(
        self, message: Message, *, timeout: float, timeout_max: float | None = None
    ) -> Any:
        """Send a request and wait for its reply.

        With `timeout_max`, a peer that sends has up to that long: a long answer takes its time on a
        slow link, and asking again would only start it anew (N3).

        Returns the reply message; for a `Read`, the pair (FramesHead, bytes of frames).

        Raises:
            LunalogError: What the peer answered.
            DeadlineExceededError: No answer within `timeout` seconds; may have been applied.
            AvailabilityError: Of type `unreachable`, when the connection is lost; may have been applied.

        Cancelling stops the waiting, not the operation.
        """
        if self.closed_by is not None:
            raise self._lost()
        number = self._next_request
        self._next_request = number + 1 if number < 0xFFFFFFFF else 1
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = answer, ANSWERS[type(message)]
        self.send(codec.control(Kind.REQUEST, number, message))
        patience = Patience(self, answer, type(message).__name__, timeout, timeout_max or timeout)
        try:
            return await answer
        finally:
            patience.end()
            self._pending.pop(number, None)

    def close(self, error: LunalogError | None = None) -> None:
        """End the connection; what is queued is still sent.  With `error`, the peer is told it."""
        if self.closed_by is not None:
            return
        if self._transport is not None:
            if error is not None:
                self._out.append(codec.control(Kind.ERROR, 0, codec.failure_of(error)))
            out, self._out = self._out, []
            if out and not self._transport.is_closing():  # as in `flush`
                self._transport.writelines(out)
            self._transport.close()
        self._end(error or PeerError("connection closed by this side"))

    def abort(self) -> None:
        """End the connection at once, without sending what is queued."""
        if self._transport is not None:
            self._transport.abort()
        self._end(PeerError("connection aborted by this side"))

    # ------------------------------------------------------------------ life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake and its deadline."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._deadline = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._too_late)
        if self._greet is not None:
            self._transport.write(codec.MAGIC + codec.control(Kind.HELLO, 0, self._greet()))
        else:
            self._magic_left = len(codec.MAGIC)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._end(
            PeerError(
                f"connection lost: {plainly(exc)}" if exc else "connection closed by the peer"
            )
        )

    def _too_late(self) -> None:
        self.close(PeerError(f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s"))

    def _end(self, error: LunalogError) -> None:
        if self.closed_by is not None:
            return
        self.closed_by = error
        was_open, self.is_open = self.is_open, False
        if self._deadline is not None:
            self._deadline.cancel()
        if self._room is not None:
            self._room.give_back(self)
        self._filled = 0  # nothing more is read: what had arrived of a large message is let go
        if len(self._buffer) > BUFFER_BYTES_MIN:
            self._go_on_in(self._view[:0], BUFFER_BYTES_MIN)
        self.resume_writing()
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(self._lost())
        self._pending.clear()
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(error)
        if was_open:
            self.handler.on_closed(self, error)

    def _lost(self) -> LunalogError:
        return self._unreachable(f"{self!r}: {self.closed_by}")

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._is_paused = True
        self.handler.on_paused(self)

    def resume_writing(self) -> None:
        """The transport takes more."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self.closed_by is None:
            self.handler.on_drained(self)
        drained, self._drained = self._drained, []
        for waiter in drained:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------ receiving

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the free end of the receive buffer."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle every whole message that has arrived."""
        self._filled += nbytes
        self.received_bytes += nbytes
        try:
            self._consume()
        except Exception as error:  # noqa: BLE001  a bug of ours: the node ends (P5, R27)
            if isinstance(error, LunalogError) and not isinstance(error, InvariantError):
                self.close(error)
            else:
                self._runtime.fail(error)

    def eof_received(self) -> None:
        """Close when the peer does."""

    def _consume(self) -> None:
        at = 0
        filled = self._filled
        if self._magic_left:
            if filled < self._magic_left:
                return
            if bytes(self._view[: self._magic_left]) != codec.MAGIC:
                raise CorruptFrameError("this is not the lunalog protocol")
            at, self._magic_left = self._magic_left, 0
        wanted = 0
        while filled - at >= codec.ENVELOPE_BYTES:
            size = self._take_data(at, filled) if filled - at >= codec.DATA_HEAD.size else 0
            if not size:
                size, kind, number = codec.parse_envelope(self._buffer, at, is_open=self.is_open)
                if filled - at < size:
                    wanted = size
                    break
                self._dispatch(kind, number, self._view[at + codec.ENVELOPE_BYTES : at + size])
            at += size
            if self.closed_by is not None:
                return
        if at == filled < len(self._buffer) <= BUFFER_BYTES_MAX:
            self._filled = 0  # the common case: nothing is left
        else:
            self._keep(at, wanted)

    def _take_data(self, at: int, filled: int) -> int:
        """Handle a whole and sound ACK, APPEND or MARK and return its size; else 0.

        What is wrong with one, `_dispatch` says.
        """
        found: tuple[int, int, int, int] = codec.DATA_HEAD.unpack_from(self._buffer, at)
        size, kind, number, sequence = found
        if (
            kind not in codec.SEQUENCE_KINDS
            or sequence > limits.SEQUENCE_MAX
            or not codec.DATA_HEAD.size <= size <= filled - at
            or size > limits.MESSAGE_BYTES_MAX
            or not self.is_open
        ):
            return 0
        if kind == codec.ACK:
            self.handler.on_ack(self, number, sequence)
        elif kind == codec.APPEND:
            self.has_more = at + size < filled or filled == len(self._buffer)
            frame = self._view[at + codec.DATA_HEAD.size : at + size]
            self.handler.on_append(self, number, sequence, frame)
        else:
            self.handler.on_mark(self, number, sequence)
        return size

    def _keep(self, at: int, wanted: int) -> None:
        """Move what is left to the front, of a buffer that the next message fits into."""
        rest = self._filled - at
        capacity = len(self._buffer)
        if wanted <= capacity and self._filled == capacity and capacity < BUFFER_BYTES_MAX:
            wanted = 2 * capacity  # the last read filled it: there is more where that came from
        if wanted > capacity or (
            capacity > BUFFER_BYTES_MAX and (at or wanted <= BUFFER_BYTES_MAX)
        ):
            if wanted <= BUFFER_BYTES_MAX:
                wanted = min(BUFFER_BYTES_MAX, max(wanted, 2 * min(capacity, BUFFER_BYTES_MAX)))
            self._resize(self._view[at : self._filled], wanted)
        elif at and rest:
            self._view[:rest] = self._view[at : self._filled]  # overlaps are fine
        self._filled = rest

    def _resize(self, content: memoryview, size: int) -> None:
        """Go on in another buffer; where a large one must wait, the socket is unread till then (Z1)."""
        if self._room is not None:
            if size <= BUFFER_BYTES_MAX:
                self._room.give_back(self)
            elif not self._room.take(self, may_wait=len(content) <= BUFFER_BYTES_MAX):
                self._awaited, size = size, min(len(self._buffer), BUFFER_BYTES_MAX)
                self.pause_reading()
        self._go_on_in(content, size)

    def _go_on_in(self, content: memoryview, size: int) -> None:
        grown = bytearray(size)
        grown[: len(content)] = content
        self._buffer, self._view = grown, memoryview(grown)

    def has_room(self) -> None:
        """Read on: there is room for the large message that has begun."""
        size, self._awaited = self._awaited, 0
        self._go_on_in(self._view[: self._filled], size)
        self.resume_reading()

    def held_room_too_long(self) -> None:
        """End this connection, so that others get the room."""
        self.close(OverloadedError("a large message does not get on, and others wait behind it"))

    def _dispatch(self, kind: int, number: int, body: memoryview) -> None:
        handler = self.handler
        if not self.is_open:
            self._handshake(kind, body)
        elif kind in codec.SEQUENCE_KINDS:
            codec.decode_u64(body)  # says what is wrong with it
            raise InvariantError("it was sound")  # pragma: no cover  `_take_data` has taken those
        elif kind == Kind.REQUEST:
            handler.on_request(self, number, codec.decode_control(body))
        elif kind == Kind.PUSH:
            handler.on_push(self, codec.decode_control(body))
        else:
            self._answered(kind, number, body)

    def _answered(self, kind: int, number: int, body: memoryview) -> None:
        result: Any
        if kind == Kind.FRAMES:
            head, frames = codec.decode_frames(body)
            result = (head, bytes(frames))
        else:
            result = codec.decode_control(body)
        if kind in HANDSHAKES or (kind == Kind.ERROR) != isinstance(result, Failure):
            raise PeerError(f"unexpected {Kind(kind).name} {type(result).__name__}")
        if isinstance(result, Failure) and number == 0:
            self.closed_by_peer(codec.error_of(result))
            return
        answer, wanted = self._pending.get(number, (None, None))
        if answer is None or answer.done():
            return  # who asked has gone
        if isinstance(result, Failure):
            answer.set_exception(codec.error_of(result))
        elif type(result) is wanted:
            answer.set_result(result)
        else:
            raise PeerError(f"a {type(result).__name__} does not answer what was asked")

    def closed_by_peer(self, error: LunalogError) -> None:
        """Note why the peer is about to close."""
        if self._transport is not None:
            self._transport.close()
        self._end(error)

    # ------------------------------------------------------------------ handshake

    def _handshake(self, kind: int, body: memoryview) -> None:
        message = codec.decode_control(body)
        if kind == Kind.ERROR and isinstance(message, Failure):
            self.closed_by_peer(codec.error_of(message))
        elif kind == Kind.HELLO and isinstance(message, Hello) and self._welcome is not None:
            codec.agreed_version(message)
            welcome, self.handler = self._welcome(message)
            self.send(codec.control(Kind.WELCOME, 0, welcome))
            self._is_ready(message)
        elif kind == Kind.WELCOME and isinstance(message, Welcome) and self._greet is not None:
            hello = self._greet()
            if not hello.version_min <= message.version <= hello.version_max:
                raise UnsupportedVersionError(
                    f"the other side chose version {message.version}, this one offered "
                    f"{hello.version_min} to {hello.version_max}"
                )
            self._is_ready(message)
        else:
            raise PeerError(f"{type(message).__name__} instead of a handshake")

    def _is_ready(self, peer: Hello | Welcome) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.peer = peer
        self.is_open = True
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(None)
        self.handler.on_open(self)
