"""When a simulated disk's calls fail, and how long they take.

Source: docs/design.md "Seams"; D1, D2, D3, D11.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from lunalog.testing.scheduler import Scheduler

BYTES_PER_S = 500e6
LATENCY_S = {
    "write": (5e-6, 60e-6),
    "write_rest": (5e-6, 60e-6),
    "sync": (50e-6, 800e-6),
    "sync_directory": (50e-6, 800e-6),
    "read": (5e-6, 150e-6),
}
OTHER_LATENCY_S = (2e-6, 50e-6)


class Damage(NamedTuple):
    """What was done to durable bytes, so that a test can say what should have been noticed."""

    kind: str
    name: str
    offset: int
    before: bytes
    after: bytes


@dataclass(slots=True)
class PlannedError:
    """An error waiting for its call: the `countdown`-th of `kinds` (all if empty) from now."""

    code: int
    countdown: int
    kinds: tuple[str, ...]
    times: int


@dataclass(slots=True)
class Trap:
    """Something to do right after the `countdown`-th call of `kinds` (all if empty) from now."""

    action: Callable[[], None]
    countdown: int
    kinds: tuple[str, ...]


@dataclass(slots=True)
class DiskFaults:
    """The errors and delays of one disk; change the fields, or plan errors by the methods.

    Attributes:
        slowdown: Factor on all latencies (a gray disk).
        tear_rate: Share of writes that reach the page cache in two steps, with a gap between.
        calls: How many calls there were.
        bites: Errors that the process has seen; a node that fails afterwards does right.
    """

    chance: random.Random
    scheduler: Scheduler | None
    slowdown: float = 1.0
    tear_rate: float = 0.1
    calls: int = 0
    bites: int = 0
    _planned: list[PlannedError] = field(default_factory=list)
    _traps: list[Trap] = field(default_factory=list)
    _failing_syncs: int = 0
    _lying_syncs: int = 0
    _straying_syncs: int = 0
    _lying_directories: int = 0
    _stalled_until: float = 0.0

    def fail_call(self, number: int, code: int, *kinds: str, times: int = 1) -> None:
        """Let the `number`-th call from now (1: the next) raise `OSError(code)`.

        Args:
            number: Counted among `kinds` only, when there are any ("write", "sync", "read",
                "allocate", "create", "open", "rename", "remove", "sync_directory", "names", "lock").
            code: From `errno`.
            kinds: Which calls count.
            times: How many such calls in a row fail.
        """
        self._planned.append(PlannedError(code, number, kinds, times))

    def trap(self, number: int, action: Callable[[], None], *kinds: str) -> None:
        """Call `action` when the `number`-th call from now is done and its caller not told yet.

        With a node's `crash` as the action this is a crash between a write or sync and its reply.
        """
        self._traps.append(Trap(action, number, kinds))

    def fail_sync(self, times: int = 1) -> None:
        """Let the next file syncs lose part of their data and raise EIO, once a descriptor.

        A sync after that succeeds, but what was lost stays lost (D2).
        """
        self._failing_syncs += times

    def lie_sync(self, times: int = 1) -> None:
        """Let the next file syncs lose part of their data and say nothing (D7)."""
        self._lying_syncs += times

    def stray_sync(self, times: int = 1) -> None:
        """Let the next file syncs put part of their data where it does not belong (D7)."""
        self._straying_syncs += times

    def lie_directory(self, times: int = 1) -> None:
        """Let the next syncs of the directory do nothing and say nothing (D8)."""
        self._lying_directories += times

    def stop_lying(self) -> None:
        """Let every sync be true again."""
        self._lying_syncs = self._straying_syncs = self._lying_directories = 0

    def stall(self, seconds: float) -> None:
        """Answer nothing for a while."""
        if self.scheduler is not None:
            self._stalled_until = max(self._stalled_until, self.scheduler.now + seconds)

    def heal(self) -> None:
        """Forget all planned faults and delays; damage that is done stays."""
        self._planned.clear()
        self._traps.clear()
        self._failing_syncs = 0
        self.stop_lying()
        self._stalled_until = 0.0
        self.slowdown = 1.0

    # ------------------------------------------------------------ for the disk

    def next_call(self, kind: str, size: int) -> tuple[OSError | None, float | None]:
        """Count one call; return its error and its delay (None: none at all)."""
        self.calls += 1
        error = self._planned_error(kind) if self._planned else None
        return error, self._delay(kind, size)

    def spring_traps(self, kind: str) -> None:
        """Count one call that is done, and do what waits for it."""
        for trap in list(self._traps):
            if not trap.kinds or kind in trap.kinds:
                trap.countdown -= 1
                if trap.countdown <= 0 and trap in self._traps:
                    self._traps.remove(trap)
                    trap.action()

    def tear(self, size: int) -> int:
        """Return where to cut a write in two, or 0."""
        if self.scheduler is None or size < 2 or self.chance.random() >= self.tear_rate:
            return 0
        return self.chance.randrange(1, size)

    def sync_outcome(self) -> str:
        """Return "keep", or "fail", "lie" or "stray" if the data is to be lost."""
        if self._failing_syncs:
            self._failing_syncs -= 1
            return "fail"
        if self._lying_syncs:
            self._lying_syncs -= 1
            return "lie"
        if self._straying_syncs:
            self._straying_syncs -= 1
            return "stray"
        return "keep"

    def directory_is_kept(self) -> bool:
        """Whether a sync of the directory does what it says."""
        if self._lying_directories:
            self._lying_directories -= 1
            return False
        return True

    def bite(self, error: OSError) -> OSError:
        """Note an error that the process is about to see."""
        self.bites += 1
        return error

    def _planned_error(self, kind: str) -> OSError | None:
        for planned in self._planned:
            if planned.kinds and kind not in planned.kinds:
                continue
            planned.countdown -= 1
            if planned.countdown <= 0:
                planned.times -= 1
                if planned.times <= 0:
                    self._planned.remove(planned)
                return self.bite(OSError(planned.code, f"injected into {kind}"))
        return None

    def _delay(self, kind: str, size: int) -> float | None:
        if self.scheduler is None:
            return None
        low, high = LATENCY_S.get(kind, OTHER_LATENCY_S)
        delay = (low + self.chance.random() * (high - low) + size / BYTES_PER_S) * self.slowdown
        if self._stalled_until > self.scheduler.now:
            delay += self._stalled_until - self.scheduler.now
        return delay
