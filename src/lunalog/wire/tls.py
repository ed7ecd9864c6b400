"""TLS as a network over another network: the same bytes, between ends that know whom they talk to.

    Connection  <- plain bytes ->  TlsLink  <- records ->  transport of the network below

A link decrypts into the buffer that the connection gives it and has no queue of its own: to pause
reading pauses the transport below, and what waits to be sent is counted there.  A connection is made
when its handshake is over, so that one which never comes costs a link and a timer.

Source: docs/adr/0011-tls-between-all-parts.md; docs/wire.md "TLS".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lunalog import limits
from lunalog.errors import TlsMismatchError
from lunalog.runtime import Address, Listener, Network, ProtocolFactory
from lunalog.wire import codec
from lunalog.wire.certificates import Contexts, reason, refused
from lunalog.wire.codec import Buffer, Kind
from lunalog.wire.connection import HANDSHAKE_TIMEOUT_S

logger = logging.getLogger("lunalog.wire")

HANDSHAKES_MAX: Final = 1_000
"""Under way at one listener; one more ends the oldest, which has had the most time."""
RECORD_BYTES: Final = 16 * limits.KIB
"""What one record of TLS holds; small buffers share one."""
WRITE_BYTES: Final = 64 * limits.KIB
"""Encrypted at once; bounds what OpenSSL keeps of a connection's memory."""
ARRIVED_BYTES_MIN: Final = 16 * limits.KIB
ARRIVED_BYTES_MAX: Final = 256 * limits.KIB
RECORD_TYPES: Final = (0x15, 0x16)
"""Alert and handshake: what the first record of a peer that speaks TLS can be."""
VERSION_MAJOR: Final = b"\x03"


class TlsNetwork:
    """Every connection of `below`, under TLS; raises what `certificates` calls a refusal."""

    def __init__(self, below: Network, contexts: Contexts) -> None:
        self._below = below
        self._contexts = contexts

    async def connect(self, factory: ProtocolFactory, address: Address) -> None:
        """Dial, and check that the peer's certificate is for the host that was dialled.

        Raises:
            OSError: The peer cannot be reached, or went away during the handshake.
            TlsError: It is not who it should be; `TlsMismatchError`: it does not speak TLS.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        link = TlsLink(factory, ready=ready)
        try:
            link.begin(self._contexts.dialling, address[0])
        except (ValueError, TypeError) as error:  # the latter for a null byte
            raise OSError(f"{address!r:.200} is no address: {error}") from error
        try:
            await self._below.connect(lambda: link, address)
            await ready
        except ssl.SSLError as error:
            raise refused(error, address, self._contexts.authority) from error
        except BaseException:
            link.abort()
            raise
        finally:
            if ready.done() and not ready.cancelled():
                ready.exception()  # seen

    async def listen(self, factory: ProtocolFactory, address: Address) -> Listener:
        """Accept at `address`; one `factory()` for each handshake that succeeds."""
        context = self._contexts.accepting
        if context is None:
            raise OSError("no certificate to listen with")
        handshakes = Handshakes()

        def accept() -> TlsLink:
            link = TlsLink(factory, handshakes=handshakes)
            link.begin(context)
            return link

        return await self._below.listen(accept, address)


class Handshakes:
    """Those under way at one listener, the oldest first, and how others failed."""

    def __init__(self) -> None:
        self._links: dict[TlsLink, None] = {}
        self._told = ""

    def began(self, link: TlsLink) -> None:
        """Note one; where there are too many, the oldest ends."""
        if len(self._links) >= HANDSHAKES_MAX:
            oldest = next(iter(self._links))
            self.ended(oldest)
            oldest.abort()
        self._links[link] = None

    def ended(self, link: TlsLink) -> None:
        """Forget one, whether it succeeded or not."""
        self._links.pop(link, None)

    def failed(self, peer: str, error: Exception) -> None:
        """Tell why a peer was refused, or refused us; the same again is not worth a warning."""
        why = reason(error)
        level = logging.DEBUG if why == self._told else logging.WARNING
        self._told = why
        logger.log(level, "handshake_failed", extra={"peer": peer, "why": why})


class TlsLink(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection: the protocol of the transport below, and the transport of the one above."""

    def __init__(
        self,
        factory: ProtocolFactory,
        *,
        ready: asyncio.Future[None] | None = None,
        handshakes: Handshakes | None = None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._ready = ready
        self._handshakes = handshakes
        self._below: Any = None
        self._above: Any = None
        """Made when the handshake is over."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: Any = None
        self._arrived = memoryview(bytearray(ARRIVED_BYTES_MIN))
        self._head = b""
        """The first two bytes of the peer."""
        self._deadline: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._is_closing = False
        self._is_lost = False
        self._broken_by: Exception | None = None

    def begin(self, context: ssl.SSLContext, host: str | None = None) -> None:
        """Take the side of who dials `host`, or accepts.  Raises for what is no host's name."""
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )

    # ------------------------------------------------------------------ handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake and its deadline."""
        self._below = transport
        if self._is_closing:
            self._below.abort()  # who dialled has given up
            return
        self._deadline = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._too_late)
        if self._handshakes is not None:
            self._handshakes.began(self)
        self._shake_hands()

    def _too_late(self) -> None:
        self._fail(TimeoutError(f"no TLS handshake within {HANDSHAKE_TIMEOUT_S:g} s"))

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_records()
        except ssl.SSLError as error:
            self._send_records()  # the alert that says why
            self._fail(error)
        else:
            self._send_records()
            self._open()

    def _open(self) -> None:
        self._settle()
        self._above = self._factory()
        self._above.connection_made(self)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        self._deliver()

    def _settle(self) -> None:
        """The handshake is over, whichever way."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._handshakes is not None:
            self._handshakes.ended(self)

    def _fail(self, error: Exception) -> None:
        """End a handshake; what is queued for the peer is still sent."""
        if self._is_closing:
            return
        self._is_closing = True
        self._settle()
        if self._handshakes is not None:
            address = self._below.get_extra_info("peername") or ("?",)
            self._handshakes.failed(str(address[0]), error)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        self._below.close()

    def _is_tls(self, count: int) -> bool:
        """Look at the first two bytes of the peer; a plain one is told so in its own words."""
        missing = 2 - len(self._head)
        if missing:
            self._head += bytes(self._arrived[: min(count, missing)])
            if self._head[0] not in RECORD_TYPES or self._head[1:] not in (b"", VERSION_MAJOR):
                self._fail(self._mismatch())
                return False
        return True

    def _mismatch(self) -> TlsMismatchError:
        if self._handshakes is None:
            return TlsMismatchError(
                "this port does not speak TLS; nothing was sent: use lunalog:// if you trust that "
                "network, or give all nodes of the cluster a certificate"
            )
        error = TlsMismatchError(
            "this port speaks TLS only; nothing was done: use lunalogs://, or give all nodes of the "
            "cluster a certificate"
        )
        self._below.write(codec.control(Kind.ERROR, 0, codec.failure_of(error)))
        return error

    # ------------------------------------------------------------------ from below

    def get_buffer(self, sizehint: int) -> memoryview:
        """Take records; they are copied to OpenSSL at once."""
        return self._arrived

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what is whole of the records that have arrived."""
        if self._is_closing:
            return
        if self._above is None and not self._is_tls(nbytes):
            return
        self._incoming.write(self._arrived[:nbytes])
        if nbytes == len(self._arrived) < ARRIVED_BYTES_MAX:
            self._arrived = memoryview(bytearray(2 * nbytes))
        if self._above is None:
            self._shake_hands()
        else:
            self._deliver()

    def _deliver(self) -> None:
        """Decrypt into the buffers of the connection until nothing is left, or it has enough."""
        is_dry = False
        while not (is_dry or self._is_paused or self._is_closing):
            room = self._above.get_buffer(-1)
            filled, is_dry = self._decrypt(room)
            if filled:
                self._above.buffer_updated(filled)
            if self._broken_by is not None and not self._is_closing:
                self._is_closing = True
                self._below.close()  # behind the alert that says why

    def _decrypt(self, room: memoryview) -> tuple[int, bool]:
        """Fill `room`; returns how many bytes there were, and whether these were all."""
        filled, size, read = 0, len(room), self._tls.read
        try:
            while filled < size:
                count = read(size - filled, room[filled:])
                if not count:  # the peer has said that this was all
                    self._loop.call_soon(self.eof_received)
                    return filled, True
                filled += count
        except ssl.SSLWantReadError:
            self._send_records()  # an answer to a new key of the peer's
            return filled, True
        except ssl.SSLError as error:
            self._broken_by = error
            self._send_records()
            return filled, True
        return filled, False

    def eof_received(self) -> None:
        """Close when the peer does; what it sent before has been delivered."""
        if self._above is not None and not self._is_closing:
            self._above.eof_received()
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection, or who waits for the handshake."""
        self._is_closing = self._is_lost = True
        self._settle()
        if self._above is not None:
            self._above.connection_lost(self._broken_by or exc)
        elif self._ready is not None and not self._ready.done():
            gone = ConnectionResetError("the peer closed the connection during the TLS handshake")
            self._ready.set_exception(exc or gone)

    def pause_writing(self) -> None:
        """The transport below has enough."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """The transport below takes more."""
        if self._above is not None:
            self._above.resume_writing()

    # ------------------------------------------------------------------ from above

    def write(self, data: Buffer) -> None:
        """Encrypt and send."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Encrypt several buffers, one behind another, and send each piece as soon as it is ready.

        So the peer decrypts while we still encrypt, and the memory of a piece serves the next one:
        records kept for a single call would come from fresh pages, which cost as much as the cipher.
        """
        if self._is_closing:
            return
        encrypt, take, send = self._tls.write, self._outgoing.read, self._below.write
        try:
            for piece in pieces(list_of_data):
                encrypt(piece)
                send(take())
        except ssl.SSLError as error:
            self._broken_by = error
            self.abort()

    def _send_records(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    def get_write_buffer_size(self) -> int:
        """Bytes that the peer has not taken yet."""
        return int(self._below.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Where the connection is asked to pause."""
        self._below.set_write_buffer_limits(high=high, low=low)

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""
        if not self._is_paused:
            self._is_paused = True
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read on, first what has already arrived."""
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._deliver)
            self._below.resume_reading()

    def is_closing(self) -> bool:
        """True once either side has ended the connection."""
        return self._is_closing or bool(self._below.is_closing())

    def close(self) -> None:
        """Say that this was all, and close once it is sent."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._above is not None:
            with contextlib.suppress(ssl.SSLError):  # the peer's own end is not waited for
                self._tls.unwrap()
            self._send_records()
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._is_closing = True
        if self._below is not None and not self._is_lost:
            self._below.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the transport below."""
        return self._below.get_extra_info(name, default)


def pieces(buffers: Iterable[Buffer]) -> Iterator[Buffer]:
    """Join small buffers so that they share a record, and cut large ones."""
    small: list[Buffer] = []
    size = 0
    for buffer in buffers:
        length = len(buffer)
        if small and size + length > RECORD_BYTES:
            yield b"".join(small)
            small, size = [], 0
        if length > RECORD_BYTES // 2:
            if small:
                yield b"".join(small)
                small, size = [], 0
            view = memoryview(buffer)
            for at in range(0, length, WRITE_BYTES):
                yield view[at : at + WRITE_BYTES]
        elif length:
            small.append(buffer)
            size += length
    if small:
        yield small[0] if len(small) == 1 else b"".join(small)
