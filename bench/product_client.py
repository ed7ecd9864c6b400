"""The yardstick's client work, through the public API: URL STREAM.  Prints the same JSON lines.

Same sizes, counts and windows as `yardstick/prototype_client.py`, so that rows compare.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

from lunalog import SingleWriteJournal
from lunalog.client.writer import StreamWriter

LONE = 1000
WINDOW_BYTES = 10_000 * 100
WORKERS = 16
FUTURES = ((100, 800_000), (1024, 150_000), (65536, 4_000))
BATCHES = ((100, 2_000_000, 1000), (1024, 300_000, 200))


def row(**fields: object) -> None:
    """Print one result."""
    print(json.dumps(fields), flush=True)


async def lone(writer: StreamWriter, event: bytes) -> None:
    """Time single appends, one after another."""
    times = []
    for _ in range(LONE):
        started = time.perf_counter()
        await writer.append(event)
        times.append(time.perf_counter() - started)
    times.sort()
    p50, p90, p99 = (round(times[int(LONE * q)] * 1e6) for q in (0.5, 0.9, 0.99))
    row(test="lone 1KiB", p50_us=p50, p90_us=p90, p99_us=p99)


async def futures(writer: StreamWriter, event: bytes, count: int) -> None:
    """Keep a window of single appends in flight."""
    out: collections.deque[asyncio.Future[int]] = collections.deque()
    window = max(64, WINDOW_BYTES // len(event))
    for _ in range(count):
        if len(out) >= window:
            await out.popleft()
        out.append(writer.append_soon(event))
    while out:
        await out.popleft()


async def batches(writer: StreamWriter, event: bytes, count: int, many: int) -> None:
    """Keep some `append_many` in flight."""
    events, left = [event] * many, count // many

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await writer.append_many(events)

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(worker())


async def timed(way: str, size: int, count: int, work: Awaitable[None]) -> None:
    """Print the rate at which so many events of a size were appended."""
    started = time.perf_counter()
    await work
    took = time.perf_counter() - started
    row(
        test=f"{way} {size}B",
        events_s=round(count / took),
        mb_s=round(count * size / took / 1e6, 1),
    )


async def main() -> None:
    """Run all rows, then write what was appended where, for the reader to verify."""
    url, stream = sys.argv[1:3]
    parts = []
    async with SingleWriteJournal.connect(url, peer="bench-writer") as journal:
        await journal.create_stream(stream, exist_ok=True)
        async with journal.lead(stream) as writer:

            async def take(size: int, run: Callable[[bytes], Awaitable[None]]) -> None:
                event, first = os.urandom(size), writer.tail
                await run(event)
                parts.append((first, writer.tail, event.hex()))

            await take(1024, lambda e: lone(writer, e))
            for size, count in FUTURES:
                await take(size, lambda e: timed("futures", size, count, futures(writer, e, count)))
            for size, count, many in BATCHES:
                await take(
                    size, lambda e: timed("batches", size, count, batches(writer, e, count, many))
                )
    row(parts=parts)


def run(work: object) -> None:
    """Run on uvloop, as the yardstick does."""
    import uvloop

    uvloop.run(work)


if __name__ == "__main__":
    run(main())
