"""The clocks of one simulated host.

Source: docs/design.md "Seams"; C1, C2: no clock decides anything about safety, so each may be wrong.
"""

from __future__ import annotations

from lunalog.testing.scheduler import Scheduler

WALL_START_S = 1_800_000_000.0


class NodeClock:
    """What one host believes about time.

    `monotonic` and `boot` run at `rate` and never step back; a suspended host's `monotonic` stands
    still meanwhile and its `boot` does not, as with Linux's CLOCK_MONOTONIC and CLOCK_BOOTTIME.
    `wall_us` has its own error and may jump.
    """

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self._scheduler = scheduler
        self._random = scheduler.stream(f"clock {name}")
        self._suspended_at: float | None = None
        self.anchor = scheduler.now
        self.rate = 1.0
        self.wall_error_s = self._random.uniform(-0.1, 0.1)
        self.boot_at_anchor = self.monotonic_at_anchor = self._random.uniform(1.0, 1e6)

    def monotonic(self) -> float:
        """Seconds on the clock of the event loops."""
        if self._suspended_at is not None:
            return self._suspended_at
        return self.monotonic_at_anchor + (self._scheduler.now - self.anchor) * self.rate

    def boot(self) -> float:
        """Seconds since boot, suspended time included."""
        return self.boot_at_anchor + (self._scheduler.now - self.anchor) * self.rate

    def wall_us(self) -> int:
        """Microseconds since 1970, with this host's error."""
        return int((WALL_START_S + self._scheduler.now + self.wall_error_s) * 1e6)

    def when(self, monotonic: float) -> float:
        """Virtual time of the run at which `monotonic()` will reach a value, at today's rate."""
        return self.anchor + (monotonic - self.monotonic_at_anchor) / self.rate

    def set_rate(self, rate: float) -> None:
        """Run at `rate` from now on (1.0 is true time); loops must look at their timers again."""
        if rate <= 0:
            raise ValueError(f"a clock must advance: rate {rate}")
        self._move_anchor()
        self.rate = rate

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock, back or forth."""
        self.wall_error_s += seconds

    def suspend(self) -> None:
        """Stop `monotonic` until `wake`."""
        if self._suspended_at is None:
            self._suspended_at = self.monotonic()

    def wake(self) -> None:
        """Let `monotonic` go on from where it stopped."""
        if self._suspended_at is not None:
            kept, self._suspended_at = self._suspended_at, None
            self._move_anchor()
            self.monotonic_at_anchor = kept

    def reboot(self) -> None:
        """Start `boot` and `monotonic` anew, as after a power cut."""
        self._suspended_at = None
        self.anchor = self._scheduler.now
        self.boot_at_anchor = self.monotonic_at_anchor = self._random.uniform(1.0, 60.0)

    def _move_anchor(self) -> None:
        monotonic, boot = self.monotonic(), self.boot()
        self.anchor = self._scheduler.now
        self.monotonic_at_anchor, self.boot_at_anchor = monotonic, boot
