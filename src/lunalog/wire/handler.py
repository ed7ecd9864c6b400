"""What happens on a connection: the seam between the wire and the roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lunalog.errors import LunalogError, PeerError
from lunalog.wire.messages import Message

if TYPE_CHECKING:
    from lunalog.wire.connection import Connection


class Handler:
    """What happens on a connection; every method runs on the loop and must not block.

    A `LunalogError` that leaves a method closes the connection with it; anything else is a bug and
    fails the node.  Views are valid only during the call.
    """

    def on_open(self, connection: Connection) -> None:
        """The handshake is over."""

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """The connection is gone; nothing more will arrive."""

    def on_paused(self, connection: Connection) -> None:
        """The connection has more to send than it likes; what is sent all the same waits in memory."""

    def on_drained(self, connection: Connection) -> None:
        """The connection takes more again."""

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        """A request came: call `connection.reply` or `connection.fail` with `request`, now or later."""
        raise PeerError(f"unexpected request {type(message).__name__}")

    def on_push(self, connection: Connection, message: Message) -> None:
        """A one-way message came."""
        raise PeerError(f"unexpected push {type(message).__name__}")

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        """A frame came for `slot`; not checked yet."""
        raise PeerError("unexpected append")

    def on_ack(self, connection: Connection, slot: int, end: int) -> None:
        """Everything of `slot` below `end` is durable at the peer."""
        raise PeerError("unexpected ack")

    def on_mark(self, connection: Connection, slot: int, committed: int) -> None:
        """Everything of `slot` below `committed` is committed."""
        raise PeerError("unexpected mark")
