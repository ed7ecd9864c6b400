"""What many streams cost beside one: how fast they are made, and what a thousand append at once.

One line of JSON; with `--verdict` the bounds too, and exit 1 if one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from statistics import median

import uvloop

from cluster import BenchCluster
from lunalog import SingleWriteJournal, StreamWriter

MADE = 10_000
LED = 1_000
PARALLEL = 64
EVENT_BYTES = 100
SECONDS = 2.0
ROUNDS = 3
"""Of one stream and of all, in turn."""
RATIO = f"{LED} streams / one stream"
BOUNDS = {"streams created/s": (1000.0, "/s"), RATIO: (0.5, "x")}
"""At least, and in which unit."""


async def create(journal: SingleWriteJournal) -> float:
    """Make `MADE` streams, `PARALLEL` at a time; streams a second."""
    left = iter(range(MADE))

    async def worker() -> None:
        for n in left:
            await journal.create_stream(f"made/{n}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(worker())
    return MADE / (time.perf_counter() - began)


async def append(writers: list[StreamWriter], in_flight: int, batch: int) -> float:
    """Append batches to all of them for `SECONDS`, so many under way in all; bytes a second."""
    events = [os.urandom(EVENT_BYTES) for _ in range(batch)]
    until = time.perf_counter() + SECONDS
    batches = 0

    async def one(number: int) -> None:
        nonlocal batches
        at = number
        while time.perf_counter() < until:
            await writers[at % len(writers)].append_many(events)
            at += in_flight
            batches += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(one(number))
    return batches * batch * EVENT_BYTES / (time.perf_counter() - began)


async def measure(batch: int) -> dict[str, float]:
    """One cluster, one client process."""
    async with (
        BenchCluster() as cluster,
        SingleWriteJournal.connect(cluster.url, peer="bench-streams") as journal,
    ):
        created = await create(journal)
        leads = [journal.lead(f"made/{n}") for n in range(LED)]
        writers = []
        for at in range(0, LED, PARALLEL):
            part = leads[at : at + PARALLEL]
            writers += await asyncio.gather(*(lead.__aenter__() for lead in part))
        try:
            one, many = [], []
            for _ in range(ROUNDS):
                one.append(await append(writers[:1], LED, batch))
                many.append(await append(writers, LED, batch))
        finally:
            for at in range(0, LED, PARALLEL):
                part = leads[at : at + PARALLEL]
                await asyncio.gather(*(lead.__aexit__(None, None, None) for lead in part))
        return {
            "streams created/s": created,
            "one stream B/s": median(one),
            f"{LED} streams B/s": median(many),
            RATIO: median(many) / median(one),
        }


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=100, help="events in one append, of 100 bytes")
    parser.add_argument("--verdict", action="store_true")
    wanted = parser.parse_args()
    found = uvloop.run(measure(wanted.batch))
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))
    return int(wanted.verdict and any(found[name] < bound for name, (bound, _) in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
