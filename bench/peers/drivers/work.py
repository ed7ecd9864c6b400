"""What the Python drivers share: their words, the sizes, the window, the clock and what they print."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

LONE = 1000
LONE_BYTES = 1024
SIZES = (100, 1024)


class Spans(NamedTuple):
    """Seconds that each figure is warmed up, and measured."""

    warm: float
    seconds: float


def words() -> tuple[str, str, Spans, list[str]]:
    """What every driver is started with: an address, where to append, spans, further words."""
    address, target, warm, seconds, *more = sys.argv[1:]
    return address, target, Spans(float(warm), float(seconds)), more


def event(size: int) -> bytes:
    """A payload that does not compress."""
    return random.Random(size).randbytes(size)


def window_of(size: int) -> int:
    """How many events are in flight at most; the same for every client that counts events."""
    return max(64, 10_000 * 100 // size)


def row(**fields: object) -> None:
    """Print one result."""
    print(json.dumps(fields), flush=True)


class Lone:
    """Times of single appends after a warm-up: `while lone.goes_on: append(); lone.done()`."""

    def __init__(self, spans: Spans) -> None:
        self.times: list[float] = []
        self.acked = 0
        self.started = time.perf_counter()
        self.counted = self.started + spans.warm
        self.end = self.counted + spans.seconds

    @property
    def goes_on(self) -> bool:
        return len(self.times) < LONE and self.started < self.end

    def done(self) -> None:
        now = time.perf_counter()
        if self.started >= self.counted:
            self.times.append(now - self.started)
        self.started = now
        self.acked += 1

    def show(self) -> int:
        times, n = sorted(self.times), len(self.times)
        if not n:
            raise SystemExit("not one append was acknowledged in time")
        p50, p99 = (round(times[int(n * q)] * 1e6) for q in (0.5, 0.99))
        row(test=f"lone {LONE_BYTES}B", p50_us=p50, p99_us=p99, appends=n)
        return self.acked


class Window:
    """The rate of acknowledgements between the warm-up and the end.

    Call `tick(acked)` now and then, while `goes_on`; `show()` when what was in flight is acknowledged.
    """

    def __init__(self, size: int, spans: Spans) -> None:
        self.size = size
        self.counted = time.perf_counter() + spans.warm
        self.end = self.counted + spans.seconds
        self.first: tuple[float, int] | None = None
        self.last = (0.0, 0)
        self.goes_on = True

    def tick(self, acked: int) -> None:
        now = time.perf_counter()
        if now >= self.counted and self.goes_on:
            self.first = self.first or (now, acked)
            self.last = (now, acked)
            self.goes_on = now < self.end

    def show(self) -> None:
        if self.first is None:
            raise SystemExit("not one look at the clock after the warm-up")
        took, events = self.last[0] - self.first[0], self.last[1] - self.first[1]
        row(test=f"window {self.size}B", events_s=round(events / took))


async def one_by_one(spans: Spans, append: Callable[[bytes], Awaitable[object]]) -> int:
    """Append one event after another: how many were acknowledged."""
    clock, payload = Lone(spans), event(LONE_BYTES)
    while clock.goes_on:
        await append(payload)
        clock.done()
    return clock.show()


async def by_workers(spans: Spans, workers: int, append: Callable[[bytes], Awaitable[int]]) -> int:
    """For each size, keep calls that append many events under way: how many were acknowledged."""
    acked = 0

    async def worker(payload: bytes, clock: Window) -> None:
        nonlocal acked
        while clock.goes_on:
            done = await append(payload)
            acked += done
            clock.tick(acked)

    for size in SIZES:
        clock = Window(size, spans)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker(event(size), clock))
        clock.show()
    return acked
