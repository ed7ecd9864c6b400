"""Room for large messages: what all connections of one listener may hold of them together (Z1, H7).

A receive buffer grows beyond its usual bound only for one large message, and a peer may begin one and
never end it.  So there are few places for such buffers.  Who finds none waits with its socket unread,
in order; who has one gives it back when the message is handled, or loses its connection when others
wait and it does not get on: on a slow link a large message may take its time (N3), or each would be cut
off in its middle by the next, for ever (L2).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import msgspec

from lunalog import limits

PLACES: Final = 2
HOLD_S: Final = 10.0
"""Between two looks at a large message that others wait behind."""
HOLD_BYTES_MIN: Final = 256 * limits.KIB
"""What must have come of it between two looks."""
HOLD_S_MAX: Final = 60.0
"""A large message that has not come to its end by then ends its connection, if others wait."""


class Guest(Protocol):
    """Who wants a place.

    Attributes:
        received_bytes: All that ever arrived of it.
    """

    received_bytes: int

    def has_room(self) -> None:
        """The place that it waited for is its own now."""

    def held_room_too_long(self) -> None:
        """Others may want it, too: give it back."""


class _Hold(msgspec.Struct):
    """A place that is taken."""

    since: float
    received: int
    """At the last look."""
    timer: asyncio.TimerHandle


class Room:
    """The places of one listener."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._held: dict[Guest, _Hold] = {}
        self._waiting: dict[Guest, None] = {}
        """In order of arrival."""

    def take(self, guest: Guest, *, may_wait: bool = True) -> bool:
        """Take a place for one message, or keep it for the next one.

        False: `has_room` is called when there is one.  Who has a place and may wait lets others go
        first.
        """
        if guest in self._held and not (may_wait and self._waiting):
            self._held.pop(guest).timer.cancel()
            self._lend(guest)
            return True
        self.give_back(guest)
        if not self._waiting and len(self._held) < self._places:
            self._lend(guest)
            return True
        self._waiting[guest] = None
        return False

    def _lend(self, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(HOLD_S, self._look, guest)
        self._held[guest] = _Hold(loop.time(), guest.received_bytes, timer)

    def _look(self, guest: Guest) -> None:
        loop, hold = asyncio.get_running_loop(), self._held[guest]
        moved = guest.received_bytes - hold.received
        is_slow = moved < HOLD_BYTES_MIN or loop.time() >= hold.since + HOLD_S_MAX
        if is_slow and self._waiting:
            guest.held_room_too_long()
            return
        hold.received = guest.received_bytes
        hold.timer = loop.call_later(HOLD_S, self._look, guest)

    def give_back(self, guest: Guest) -> None:
        """Leave the place, or the queue; who is in neither may say so, too."""
        self._waiting.pop(guest, None)
        hold = self._held.pop(guest, None)
        if hold is not None:
            hold.timer.cancel()
        while self._waiting and len(self._held) < self._places:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self._lend(first)
            first.has_room()
