"""What one part of a run has measured so far.

It can be looked at at any moment: whatever ends a run, a full disk or Ctrl-C, what was measured until
then stands here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from lunalog.cli.bench.histogram import Latencies

POINT_S_MIN: Final = 0.1
POINTS: Final = 100
"""A run of a known length is told in about so many points."""
POINT_DIGITS: Final = 2

Clock = Callable[[], float]
clock: Clock = time.perf_counter
"""CLOCK_MONOTONIC: the same for all processes of a machine, finer than a loop's own clock."""


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of a run."""

    at_s: float
    """Its end, since the part began."""
    seconds: float
    events: int
    p50_us: int
    p99_us: int
    max_us: int


class Timeline:
    """The run cut into intervals of one width."""

    def __init__(self, width_s: float) -> None:
        self.width_s = width_s
        self.points: list[Point] = []
        self._began = 0.0
        self._from = 0.0
        self._events = 0
        self._latencies = Latencies(POINT_DIGITS)

    def start(self, at: float) -> None:
        """Begin."""
        self._began = self._from = at

    def note(self, at: float, count: int, latency_s: float | None) -> None:
        """Add events; intervals that are over are closed first, empty ones too."""
        self.advance(at)
        self._events += count
        if latency_s is not None:
            self._latencies.note(latency_s, count)

    def advance(self, at: float) -> None:
        """Close what is over by `at`."""
        while at - self._from >= self.width_s:
            self._close(self._from + self.width_s)

    def finish(self, at: float) -> None:
        """Close the last interval, which may be short."""
        self.advance(at)
        if self._events and at > self._from:
            self._close(at)

    def _close(self, end: float) -> None:
        found = self._latencies.percentiles_us((50, 99, 100))
        self.points.append(
            Point(
                round(end - self._began, 3),
                round(end - self._from, 3),
                self._events,
                found[50],
                found[99],
                found[100],
            )
        )
        self._from = end
        self._events = 0
        if self._latencies.count:
            self._latencies = Latencies(POINT_DIGITS)


class Part:
    """One thing that is measured: how many, how fast, how late."""

    def __init__(
        self, name: str, *, size: int = 0, seconds: float | None = None, is_sampled: bool = False
    ) -> None:
        self.name = name
        self.size = size
        """Bytes of an event; 0: they have none."""
        self.time_s = seconds
        """How long it is to run; none: until it is done."""
        self.is_sampled = is_sampled
        """A few single measurements: how many there are a second means nothing."""
        self.latencies = Latencies()
        self.timeline = Timeline(max(POINT_S_MIN, (seconds or 0) / POINTS))
        self.sent = 0
        """Events handed to the journal."""
        self.done = 0
        """Events acknowledged, or read: whatever this part is about."""
        self.unanswered = 0
        """Events whose latency is a lower bound: the run ended before their answer."""
        self.late: Latencies | None = None
        """How late events left, in an open loop."""
        self.is_closed_loop = False
        self.began: float | None = None
        self.ended: float | None = None
        self.longest_pause_s = 0.0
        self.extra: dict[str, Any] = {}
        """Further fields of the result."""
        self._last = 0.0
        self._in_time = 0
        """Of what is done, how much before the clock stopped."""

    def start(self, at: float) -> None:
        """The clock of this part starts."""
        self.began = self._last = at
        self.timeline.start(at)

    def note(self, at: float, count: int = 1, latency_s: float | None = None) -> None:
        """Events got their answer at `at`, each after `latency_s`."""
        self._pause(at)
        self.done += count
        self._in_time += count
        if latency_s is not None:
            self.latencies.note(latency_s, count)
        self.timeline.note(at, count, latency_s)

    def note_unanswered(self, waited_s: float, count: int = 1) -> None:
        """Events have waited so long in vain when the run ended: the least that they can count for."""
        self.unanswered += count
        self.latencies.note(waited_s, count)

    def settle(self, done: int) -> None:
        """So many were acknowledged in the end, some of them after the clock had stopped."""
        self.done = max(self.done, done)

    def stop(self, at: float) -> None:
        """The clock of this part stops.  Idempotent."""
        if self.began is not None and self.ended is None:
            self.ended = at
            self._pause(at)
            self.timeline.finish(at)

    def _pause(self, at: float) -> None:
        self.longest_pause_s = max(self.longest_pause_s, at - self._last)
        self._last = at

    def seconds(self, now: float) -> float:
        """Return how long it ran, or has run."""
        return 0.0 if self.began is None else (self.ended or now) - self.began

    def rate(self, now: float) -> float:
        """Return events a second."""
        seconds = self.seconds(now)
        return self._in_time / seconds if seconds > 0 else 0.0

    def row(self, now: float) -> dict[str, Any]:
        """Return the fields of a result (docs/cli.md "bench")."""
        rate = self.rate(now)
        found: dict[str, Any] = {
            "name": self.name,
            "seconds": round(self.seconds(now), 3),
            "sent": self.sent,
            "done": self.done,
            "unanswered": self.unanswered,
            "per_s": None if self.is_sampled else round(rate, 1),
            "bytes_per_s": round(rate * self.size) if self.size else None,
            "longest_pause_ms": (
                None if self.is_sampled else round(self.longest_pause_s * 1000, 3)
            ),
            "latency_us": self.latencies.summary(),
            "late_us": self.late.summary() if self.late is not None else None,
            "corrected_us": None,
            "corrected_interval_us": None,
            "percentiles_us": self.latencies.curve(),
            "timeline": [asdict(point) for point in self.timeline.points],
            **self.extra,
        }
        if self.is_closed_loop and self.latencies.count:
            corrected, interval = self.latencies.corrected()
            found["corrected_us"] = corrected.summary()
            found["corrected_interval_us"] = interval
        return found


class Origins:
    """When events left, in order, until each has its answer."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._waiting: deque[list[float]] = deque()
        """[moment that counts, events]"""

    def left(self, at: float, count: int) -> None:
        """Events left, or were meant to."""
        self._waiting.append([at, count])

    def answered(self, now: float, count: int) -> None:
        """The oldest ones have their answer, each as long after it left."""
        while count:
            at, events = self._waiting[0]
            some = min(count, int(events))
            self._part.note(now, some, now - at)
            count -= some
            if some == events:
                self._waiting.popleft()
            else:
                self._waiting[0][1] -= some

    def close(self, now: float) -> None:
        """What has no answer counts with the time that it has waited."""
        for at, count in self._waiting:
            self._part.note_unanswered(now - at, int(count))
        self._waiting.clear()
