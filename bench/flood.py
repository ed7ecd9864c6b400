"""Whether memory and disk stay flat: minutes of flood with truncation right behind it.

One line of JSON a sample; with `--verdict` exit 1 if the last third stands above the one before it by
more than a tenth and what one extent or segment is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from cluster import BenchCluster
from lunalog import SingleWriteJournal, StreamWriter

EVENT_BYTES = 1024
BATCH = 256
IN_FLIGHT = 8
KEPT_BYTES = 256 << 20
SAMPLE_S = 5.0
GROWTH = 1.1
MIB = 1 << 20
SLACK_MIB = {"server RSS": 16.0, "master RSS": 4.0, "disk": 256.0}


def disk_bytes(directory: Path) -> int:
    """What lies in a server's directory."""
    return sum(entry.stat().st_blocks * 512 for entry in directory.iterdir() if entry.is_file())


async def flood(writer: StreamWriter, until: float) -> None:
    """Append until then, truncating what lies `KEPT_BYTES` behind."""
    events = [os.urandom(EVENT_BYTES) for _ in range(BATCH)]

    async def one() -> None:
        while time.monotonic() < until:
            await writer.append_many(events)

    async def truncate() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(1.0)
            before = writer.committed - KEPT_BYTES // EVENT_BYTES
            if before > 0:
                await writer.truncate(before=before)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(one())
        group.create_task(truncate())


async def sample(cluster: BenchCluster, until: float) -> list[dict[str, float]]:
    """Look every `SAMPLE_S`."""
    found = []
    began = time.monotonic()
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE_S)
        row = {
            "s": round(time.monotonic() - began, 1),
            "server RSS": max(cluster.rss_kib(p) for p in cluster.servers.values()) / 1024,
            "master RSS": cluster.rss_kib(cluster.master) / 1024,
            "disk": max(disk_bytes(cluster.directory / name) for name in cluster.servers) / MIB,
        }
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


async def measure(minutes: float) -> tuple[int, list[dict[str, float]]]:
    """One stream, one leader; how many events, and the samples."""
    async with (
        BenchCluster() as cluster,
        SingleWriteJournal.connect(cluster.url, peer="bench-flood") as journal,
    ):
        await journal.create_stream("flood")
        async with journal.lead("flood") as writer:
            until = time.monotonic() + 60 * minutes
            samples, _ = await asyncio.gather(sample(cluster, until), flood(writer, until))
            return writer.committed, samples


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--verdict", action="store_true")
    wanted = parser.parse_args()
    events, samples = asyncio.run(measure(wanted.minutes))
    third = len(samples) // 3
    is_flat = third > 0
    for name, slack in SLACK_MIB.items():
        middle = max(row[name] for row in samples[third : 2 * third] or samples)
        last = max(row[name] for row in samples[2 * third :])
        is_flat &= last <= GROWTH * middle + slack
        print(f"{name}: at most {middle:.0f} MiB in the second third, {last:.0f} in the last")
    print(f"{events:,} events of {EVENT_BYTES} bytes; {'flat' if is_flat else 'NOT FLAT'}")
    return int(wanted.verdict and not is_flat)


if __name__ == "__main__":
    sys.exit(main())
