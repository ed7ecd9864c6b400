"""Drives etcd by aetcd: HOST:PORT,HOST:PORT,HOST:PORT PREFIX WARM SECONDS.

An event is a key of its own; many go into one transaction, many transactions are in flight.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import aetcd
import work

BATCH = 100
WORKERS = 32


async def main() -> None:
    (host, port), prefix = sys.argv[1].split(",")[0].split(":"), sys.argv[2]
    warm, seconds = map(float, sys.argv[3:5])
    keys = (b"%s/%016d" % (prefix.encode(), n) for n in itertools.count(1))
    # It has no call for a count: all keys come in one answer, which may be as long as it is.
    options = {"grpc.max_receive_message_length": -1}
    async with aetcd.Client(host=host, port=int(port), options=options) as client:
        await client.put(next(keys), b"first")  # waits for an election
        payload, lone = work.event(work.LONE_BYTES), work.Lone(warm, seconds)
        while lone.goes_on:
            await client.put(next(keys), payload)
            lone.done()
        acked = 1 + lone.show()

        async def worker(payload: bytes, window: work.Window) -> None:
            nonlocal acked
            put = client.transactions.put
            while window.goes_on:
                puts = [put(next(keys), payload) for _ in range(BATCH)]
                succeeded, _ = await client.transaction(compare=[], success=puts, failure=[])
                if not succeeded:
                    raise SystemExit("a transaction without a condition was refused")
                acked += BATCH
                window.tick(acked)

        for size in work.SIZES:
            window = work.Window(size, warm, seconds)
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(worker(work.event(size), window))
            window.show()
        held = await client.get_prefix(f"{prefix}/".encode(), keys_only=True)
        work.row(test="kept", acked=acked, held=held.count)


if __name__ == "__main__":
    asyncio.run(main())
