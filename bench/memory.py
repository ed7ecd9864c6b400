"""What an idle server and an idle stream cost: RSS after start, and its growth over many streams."""

from __future__ import annotations

import asyncio
import json
import sys

from cluster import BenchCluster
from lunalog import SingleWriteJournal

PARALLEL = 32


async def measure(streams: int) -> dict[str, float]:
    """Create `streams` streams with one event and no leader each; bytes a stream, MiB a server."""
    async with BenchCluster() as cluster:
        before = {name: cluster.rss_kib(p) for name, p in cluster.servers.items()}
        master = cluster.rss_kib(cluster.master)
        async with SingleWriteJournal.connect(cluster.url, peer="bench-memory") as journal:
            left = iter(range(streams))

            async def worker() -> None:
                for n in left:
                    await journal.create_stream(f"idle/{n}")
                    async with journal.lead(f"idle/{n}") as writer:
                        await writer.append(b"one event")

            async with asyncio.TaskGroup() as group:
                for _ in range(PARALLEL):
                    group.create_task(worker())
        await asyncio.sleep(2)
        grown = max(cluster.rss_kib(p) - before[name] for name, p in cluster.servers.items())
        return {
            "idle server MiB": max(before.values()) / 1024,
            "stream at server B": grown * 1024 / streams,
            "stream at master B": (cluster.rss_kib(cluster.master) - master) * 1024 / streams,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))))
