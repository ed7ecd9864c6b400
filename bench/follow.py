"""How late a follower is: from the call of a lone append to the event in another process.

Both processes read the machine's monotonic clock.  One line of JSON; with `--verdict` exit 1 if the
median is more than a millisecond behind the median of the appends themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import struct
import sys
import time

import uvloop

from cluster import BenchCluster
from lunalog import SingleWriteJournal

EVENTS = 3_000
WARM = 300
PAUSE_S = 0.002
EVENT_BYTES = 1024
BEHIND_US_MAX = 1000.0
STAMP = struct.Struct("<Q")


async def follow(url: str) -> None:
    """The follower: prints the microseconds since each event was given to `append`."""
    async with SingleWriteJournal.connect(url, peer="bench-follower") as journal:
        late = []
        async for event in journal.read("lone", follow=True):
            late.append((time.monotonic_ns() - STAMP.unpack_from(event.payload)[0]) / 1000)
            if len(late) == EVENTS:
                break
        print(json.dumps(late[WARM:]))


async def lead(url: str) -> list[float]:
    """The leader: one event at a time; microseconds of each append."""
    async with (
        SingleWriteJournal.connect(url, peer="bench-leader") as journal,
        journal.lead("lone") as writer,
    ):
        took = []
        for _ in range(EVENTS):
            began = time.monotonic_ns()
            await writer.append(STAMP.pack(began).ljust(EVENT_BYTES, b"."))
            took.append((time.monotonic_ns() - began) / 1000)
            await asyncio.sleep(PAUSE_S)
        return took[WARM:]


async def measure() -> dict[str, float]:
    """One cluster, a process that leads (this one) and one that follows."""
    async with BenchCluster() as cluster:
        async with SingleWriteJournal.connect(cluster.url, peer="bench") as journal:
            await journal.create_stream("lone")
        follower = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--follow", cluster.url, stdout=asyncio.subprocess.PIPE
        )
        took = await lead(cluster.url)
        out, _ = await follower.communicate()
        late = json.loads(out)
        return {
            "append p50 us": statistics.median(took),
            "follower p50 us": statistics.median(late),
            "follower p99 us": statistics.quantiles(late, n=100)[98],
            "behind us": statistics.median(late) - statistics.median(took),
        }


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--follow", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--verdict", action="store_true")
    wanted = parser.parse_args()
    if wanted.follow:
        uvloop.run(follow(wanted.follow))
        return 0
    found = uvloop.run(measure())
    print(json.dumps({name: round(value) for name, value in found.items()}))
    return int(wanted.verdict and found["behind us"] > BEHIND_US_MAX)


if __name__ == "__main__":
    sys.exit(main())
