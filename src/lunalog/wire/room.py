"""Room for large messages: what all connections of one listener may hold of them together (Z1, H7).

A receive buffer grows beyond its usual bound only for one large message, and a peer may begin one and
never end it.  So there are few places for such buffers.  Who finds none waits with its socket unread,
in order; who has one gives it back when the message is handled, or loses its connection when others
wait and it takes too long: on a slow link a large message may take its time (N3).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

PLACES: Final = 2
HOLD_S: Final = 10.0
"""A large message that has not come to its end by then ends its connection, if others wait."""


class Guest(Protocol):
    """Who wants a place."""

    def has_room(self) -> None:
        """The place that it waited for is its own now."""

    def held_room_too_long(self) -> None:
        """Others may want it, too: give it back."""


class Room:
    """The places of one listener."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._held: dict[Guest, asyncio.TimerHandle] = {}
        self._waiting: dict[Guest, None] = {}
        """In order of arrival."""

    def take(self, guest: Guest, *, may_wait: bool = True) -> bool:
        """Take a place for one message, or keep it for the next one.

        False: `has_room` is called when there is one.  Who has a place and may wait lets others go
        first.
        """
        if guest in self._held and not (may_wait and self._waiting):
            self._held.pop(guest).cancel()
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
        self._held[guest] = loop.call_later(HOLD_S, self._expire, guest)

    def _expire(self, guest: Guest) -> None:
        if self._waiting:
            guest.held_room_too_long()
        else:
            self._lend(guest)

    def give_back(self, guest: Guest) -> None:
        """Leave the place, or the queue; who is in neither may say so, too."""
        self._waiting.pop(guest, None)
        timer = self._held.pop(guest, None)
        if timer is not None:
            timer.cancel()
        while self._waiting and len(self._held) < self._places:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self._lend(first)
            first.has_room()
