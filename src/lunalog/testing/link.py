"""What lies between two simulated hosts: delay, clogs and cuts, for each direction by itself.

Source: docs/design.md "Seams"; N1, N2, N3.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from lunalog.testing.scheduler import Scheduler

NEVER = float("inf")


@dataclass(slots=True)
class NetworkSettings:
    """How a run's network behaves while no fault is injected.  A run may draw its own.

    Attributes:
        delay_s: Least and most of the usual one-way delay.
        slow_rate: Share of chunks that take an exponential `slow_s` longer.
        loss_rate: Share of chunks that TCP must send again: a delay of `retransmit_s`, doubled
            for each further loss, for all that stands behind it.
        fragment_rate: Share of reads that get only part of what is there.
        window_bytes: Least and most of what the kernels hold of one direction of a connection.
        write_high_bytes: Where a transport asks its protocol to pause, at the latest.
        user_timeout_s: A connection whose bytes are not acknowledged for so long breaks (N5).
        connect_timeout_s: A dial that gets no answer fails after so long.
        refuse_rate: Share of dials refused for no reason (a full backlog).
    """

    delay_s: tuple[float, float] = (50e-6, 500e-6)
    slow_rate: float = 0.01
    slow_s: float = 0.005
    loss_rate: float = 0.0
    retransmit_s: float = 0.2
    fragment_rate: float = 0.05
    window_bytes: tuple[int, int] = (64 * 1024, 512 * 1024)
    write_high_bytes: int = 64 * 1024
    user_timeout_s: float = 10.0
    connect_timeout_s: float = 10.0
    refuse_rate: float = 0.0

    def redraw(self, chance: random.Random) -> None:
        """Draw this run's usual network: fast or slow, clean or lossy, wide or narrow."""
        delay = 10 ** chance.uniform(-4.3, -2.0)
        self.delay_s = (delay / chance.choice((1.5, 3, 10)), delay)
        self.slow_rate = chance.choice((0.0, 0.01, 0.1))
        self.slow_s = 10 ** chance.uniform(-3, -0.5)
        self.loss_rate = chance.choice((0.0, 0.0, 0.001, 0.02, 0.1))
        self.fragment_rate = chance.choice((0.0, 0.05, 0.5))
        self.window_bytes = chance.choice(((1024, 64 * 1024), (64 * 1024, 512 * 1024)))
        self.refuse_rate = chance.choice((0.0, 0.0, 0.05))
        self.write_high_bytes = chance.choice((4 * 1024, 64 * 1024, 64 * 1024))

    def suit(self, lease_s: float) -> None:
        """Bound the delays so that heartbeats usually come within a lease: nobody could lead else."""
        self.slow_s = min(self.slow_s, lease_s / 20)
        self.retransmit_s = min(self.retransmit_s, lease_s / 10)
        self.loss_rate = min(self.loss_rate, 0.02)


class Link:
    """One direction between two hosts."""

    def __init__(self, scheduler: Scheduler, settings: NetworkSettings, actor: int) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._actor = actor
        self._chance = scheduler.stream("network delay")
        self._waiting: dict[Callable[[], None], None] = {}
        self._clogged_until = 0.0
        self._is_cut = False
        self._is_target_down = False
        self.is_open = True
        """Whether what arrives now gets through."""
        self.slowdown = 1.0

    def delay(self) -> float:
        """Draw how long a chunk sent now would take if nothing is in its way."""
        settings, chance = self._settings, self._chance
        low, high = settings.delay_s
        delay = low + chance.random() * (high - low)
        if settings.slow_rate and chance.random() < settings.slow_rate:
            delay += chance.expovariate(1.0 / settings.slow_s)
        if settings.loss_rate:
            again = settings.retransmit_s
            while chance.random() < settings.loss_rate and again < 10.0:
                delay += again
                again *= 2
        return delay * self.slowdown

    def wait(self, again: Callable[[], None]) -> None:
        """Call `again` once the link is open, after TCP would have tried again."""
        self._waiting[again] = None

    def cut(self) -> None:
        """Let nothing through until `mend`; what is on its way waits."""
        self._is_cut = True
        self.is_open = False

    def mend(self) -> None:
        """Let all through again."""
        self._is_cut = False
        self._clogged_until = 0.0
        self._look_again()

    def set_target_down(self, is_down: bool) -> None:
        """Note whether the host at the far end has power."""
        self._is_target_down = is_down
        self._look_again()

    def clog(self, seconds: float) -> None:
        """Hold back everything for a while."""
        until = self._scheduler.now + seconds
        if until > self._clogged_until:
            self._clogged_until = until
            self.is_open = False
            self._scheduler.at(until, self._actor, self._look_again)

    def _look_again(self, _: object = None) -> None:
        is_clogged = self._scheduler.now < self._clogged_until
        self.is_open = not (self._is_cut or self._is_target_down or is_clogged)
        if self.is_open:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        longest = self._settings.retransmit_s
        for again in waiting:
            delay = self._chance.random() * longest
            self._scheduler.after(delay, self._actor, _call, again)


def _call(action: Callable[[], None]) -> None:
    action()


def spread(chance: random.Random, low: int, high: int) -> int:
    """Draw a size between two bounds, small and large ones alike (even on a logarithmic scale)."""
    if low >= high:
        return low
    return min(high, int(low * (high / low) ** chance.random()))
