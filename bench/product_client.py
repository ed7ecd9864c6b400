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

from lunalog import SingleWriteJournal
from lunalog.client.writer import StreamWriter

LONE = 1000
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
    size, out = len(event), collections.deque()
    window = max(64, 10_000 * 100 // size)
    started = time.perf_counter()
    for _ in range(count):
        if len(out) >= window:
            await out.popleft()
        out.append(writer.append_soon(event))
    while out:
        await out.popleft()
    took = time.perf_counter() - started
    row(
        test=f"futures {size}B",
        events_s=round(count / took),
        mb_s=round(count * size / took / 1e6, 1),
    )


async def batches(writer: StreamWriter, event: bytes, count: int, many: int) -> None:
    """Keep 16 `append_many` in flight."""
    size, events, left = len(event), [event] * many, count // many

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await writer.append_many(events)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(worker())
    took = time.perf_counter() - started
    row(
        test=f"batches {size}B",
        events_s=round(count / took),
        mb_s=round(count * size / took / 1e6, 1),
    )


async def main() -> None:
    """Run all rows, then write what was appended where, for the reader to verify."""
    url, stream = sys.argv[1:3]
    async with SingleWriteJournal.connect(url, peer="bench-writer") as journal:
        await journal.create_stream(stream, exist_ok=True)
        async with journal.lead(stream) as writer:
            parts = []
            for size, run in [
                (1024, lambda e: lone(writer, e)),
                *((s, lambda e, n=n: futures(writer, e, n)) for s, n in FUTURES),
                *((s, lambda e, n=n, m=m: batches(writer, e, n, m)) for s, n, m in BATCHES),
            ]:
                event = os.urandom(size)
                first = writer.tail
                await run(event)
                parts.append((first, writer.tail, event.hex()))
    row(parts=parts)


def run(work: object) -> None:
    """Run on uvloop, as the yardstick does."""
    import uvloop

    uvloop.run(work)


if __name__ == "__main__":
    run(main())
