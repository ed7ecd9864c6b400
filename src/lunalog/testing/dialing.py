"""How a simulated connection comes about: SYN, answer, and what may be in the way.

The server's kernel completes a connection on its own: the client may be connected long before a
paused server accepts it.

Source: docs/design.md "Seams"; N1, N5.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from lunalog.runtime import Address, ProtocolFactory
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.tasks import settle

if TYPE_CHECKING:
    from lunalog.testing.network import SimulatedNetwork
    from lunalog.testing.transport import SimulatedTransport

FIRST_RETRY_S = 1.0
ACTOR = 0


class Dial:
    """One attempt to connect, as the client's kernel makes it."""

    def __init__(
        self,
        network: SimulatedNetwork,
        loop: SimulatedLoop,
        factory: ProtocolFactory,
        here: Address,
        there: Address,
    ) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._network = network
        self._scheduler = network.scheduler
        self._loop = loop
        self._factory = factory
        self._here = here
        self._there = there
        self._link = network.link(here[0], there[0])
        self._back = network.link(there[0], here[0])
        self._deadline = self._scheduler.now + network.settings.connect_timeout_s
        self._retry_s = FIRST_RETRY_S
        self._transport: SimulatedTransport | None = None

    def start(self) -> None:
        """Send the first SYN."""
        self._send(None)

    def give_up(self) -> None:
        """The caller no longer wants the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, _: object) -> None:
        if self._scheduler.now >= self._deadline:
            error = TimeoutError(errno.ETIMEDOUT, f"no answer from {self._there[0]}")
            self._loop.call_soon_threadsafe(settle, self.done, None, error)
        elif not self.done.done() and not self._loop.is_dead:
            self._scheduler.after(self._link.delay(), ACTOR, self._syn_arrives)

    def _try_again(self) -> None:
        wait = min(self._retry_s, max(0.0, self._deadline - self._scheduler.now))
        self._retry_s *= 2
        self._scheduler.after(wait, ACTOR, self._send)

    def _syn_arrives(self, _: object) -> None:
        if not self._link.is_open or not self._back.is_open:
            self._try_again()
            return
        if self._loop.is_dead or self.done.done():
            return
        listener = self._network.host(self._there[0]).listeners.get(self._there[1])
        back = self._back.delay()
        refuse_rate = self._network.settings.refuse_rate
        if listener is None or (refuse_rate and self._network.draw().random() < refuse_rate):
            self._scheduler.after(back, ACTOR, self._refused)
            return
        ours, theirs = self._network.open_between(
            (self._loop, self._here), (listener.loop, self._there)
        )
        self._transport = ours
        listener.loop.call_soon_threadsafe(_begin, theirs, listener.factory)
        self._scheduler.after(back, ACTOR, self._accepted)

    def _refused(self, _: object) -> None:
        error = ConnectionRefusedError(errno.ECONNREFUSED, f"{self._there} refused")
        self._loop.call_soon_threadsafe(settle, self.done, None, error)

    def _accepted(self, _: object) -> None:
        self._loop.call_soon_threadsafe(self._begin_here)

    def _begin_here(self) -> None:
        if self._transport is not None and not self.done.done():
            _begin(self._transport, self._factory)
            settle(self.done, None, None)


def _begin(transport: SimulatedTransport, factory: ProtocolFactory) -> None:
    protocol = factory()
    transport.begin(protocol)
