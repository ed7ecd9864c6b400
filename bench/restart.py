"""How long a journal server with a large log is away: kill -9, start, registered again.

The log holds `--gib` of events that nobody has truncated, in one stream with one copy.  One line of
JSON a start; with `--verdict` exit 1 if the median is over the bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time

from cluster import BenchCluster
from lunalog import SingleWriteJournal

EVENT_BYTES = 64 << 10
BATCH = 32
IN_FLIGHT = 8
GIB = 10
BOUND_S = 3.0
STARTS = 3
WAIT_S = 120.0


async def fill(journal: SingleWriteJournal, size: int) -> None:
    """Append `size` bytes."""
    events = [os.urandom(EVENT_BYTES) for _ in range(BATCH)]
    await journal.create_stream("big", replicas=1, ack_quorum=1, exist_ok=True)
    async with journal.lead("big") as writer:
        left = iter(range(0, size, EVENT_BYTES * BATCH))

        async def one() -> None:
            for _ in left:
                await writer.append_many(events)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(one())


async def restart(cluster: BenchCluster) -> float:
    """Kill the server and start it on the same directory; seconds until it has registered."""
    cluster.kill_server("s1")
    cluster.servers["s1"].wait()
    log = cluster.directory / "s1.log"
    before = log.read_text().count('"server_registered"')
    began = time.perf_counter()
    cluster.start_server("s1")
    async with asyncio.timeout(WAIT_S):
        while log.read_text().count('"server_registered"') == before:
            await asyncio.sleep(0.005)
    return time.perf_counter() - began


async def measure(gib: float) -> list[float]:
    """One server on a fresh directory; seconds of each start."""
    async with (
        BenchCluster(servers=1) as cluster,
        SingleWriteJournal.connect(cluster.url, peer="bench-restart") as journal,
    ):
        empty = await restart(cluster)
        await fill(journal, int(gib * (1 << 30)))
        found = []
        for _ in range(STARTS):
            found.append(await restart(cluster))
            print(json.dumps({"gib": gib, "s": round(found[-1], 2), "empty s": round(empty, 2)}))
        async with asyncio.timeout(WAIT_S):
            head = await anext(aiter(journal.read("big")))
        if len(head.payload) != EVENT_BYTES:
            raise RuntimeError("what was written is not what is read")
        return found


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=GIB)
    parser.add_argument("--verdict", action="store_true")
    wanted = parser.parse_args()
    found = asyncio.run(measure(wanted.gib))
    return int(wanted.verdict and statistics.median(found) > BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
