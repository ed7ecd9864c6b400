"""Give one leader's machine its ticks: with the client's pulse while acks are due, else by a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from lunalog.client.pulse import Pulse
from lunalog.core.leadership import LeaderMachine
from lunalog.runtime import Runtime


class Ticks:
    """When a leader's machine ticks.

    Args:
        runtime: Whose clock the machine knows.
        machine: Tells when it wants its next tick, and whether acks are due.
        feed: Gives it that.
        pulse: Of the client.
    """

    def __init__(
        self,
        runtime: Runtime,
        machine: LeaderMachine,
        feed: Callable[..., None],
        pulse: Pulse,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._runtime = runtime
        self._machine = machine
        self._feed = feed
        self._pulse = pulse
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.servers: Set[str] = frozenset()
        """Names of those the leader writes to."""
        self.is_watched = False
        """True while the pulse looks for acks."""

    @property
    def is_steady(self) -> bool:
        """True while nothing but acks is waited for, and none for long."""
        return self._machine.is_steady

    def watch(self) -> None:
        """Acks are due from now on."""
        self.is_watched = True
        self._stop_timer()
        self._pulse.watch(self)

    def look(self, silent: Set[str] | None) -> bool:
        """Look whether acks have come, of `silent` or of all; true while some are still due."""
        self._feed(self._machine.tick, self._runtime.now(), silent)
        self.is_watched = self._machine.is_waiting
        if not self.is_watched:
            self.later()
        return self.is_watched

    def later(self) -> None:
        """See to it that the machine gets its next tick, while the pulse does not."""
        if self._machine.is_waiting:
            self.watch()
        elif self._machine.next_tick is not None:
            self._at(self._machine.next_tick)

    def _at(self, at: float) -> None:
        if self._timer is not None:
            if at >= self._timer_at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._runtime.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._feed(self._machine.tick, self._runtime.now())

    def end(self) -> None:
        """Tick no more."""
        self.is_watched = False
        self._stop_timer()
        self._pulse.forget(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
