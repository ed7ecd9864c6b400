"""Drives etcd by aetcd: HOST:PORT,HOST:PORT,HOST:PORT PREFIX WARM SECONDS.

An event is a key of its own; many go into one transaction, many transactions are in flight.
"""

from __future__ import annotations

import asyncio
import itertools

import aetcd
import work

BATCH = 100
WORKERS = 32


async def main() -> None:
    addresses, prefix, spans, _ = work.words()
    host, port = addresses.split(",")[0].split(":")
    keys = (b"%s/%016d" % (prefix.encode(), n) for n in itertools.count(1))
    # It has no call for a count: all keys come in one answer, which may be as long as it is.
    options = {"grpc.max_receive_message_length": -1}
    async with aetcd.Client(host=host, port=int(port), options=options) as client:

        async def batch(payload: bytes) -> int:
            puts = [client.transactions.put(next(keys), payload) for _ in range(BATCH)]
            succeeded, _ = await client.transaction(compare=[], success=puts, failure=[])
            if not succeeded:
                raise SystemExit("a transaction without a condition was refused")
            return BATCH

        await client.put(next(keys), b"first")  # waits for an election
        acked = 1 + await work.one_by_one(spans, lambda payload: client.put(next(keys), payload))
        acked += await work.by_workers(spans, WORKERS, batch)
        held = await client.get_prefix(f"{prefix}/".encode(), keys_only=True)
        work.row(test="kept", acked=acked, held=held.count)


if __name__ == "__main__":
    asyncio.run(main())
