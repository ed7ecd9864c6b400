"""Drives Redis by redis-py with hiredis: HOST:PORT STREAM WARM SECONDS."""

from __future__ import annotations

import asyncio
import sys

import work
from redis.asyncio import Redis

CONNECTIONS = 16
PER_ROUND = 200


async def append(redis: Redis, stream: str, payload: bytes, many: int) -> int:
    """Append in one pipeline, and wait until a replica has it all."""
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(many):
            pipeline.xadd(stream, {"e": payload})
        pipeline.wait(1, 0)
        replies = await pipeline.execute()
    if replies[-1] < 1:
        raise SystemExit("no replica has it")
    return many


async def main() -> None:
    (host, port), stream = sys.argv[1].split(":"), sys.argv[2]
    warm, seconds = map(float, sys.argv[3:5])
    async with Redis(host=host, port=int(port)) as redis:
        payload, lone = work.event(work.LONE_BYTES), work.Lone(warm, seconds)
        while lone.goes_on:
            await append(redis, stream, payload, 1)
            lone.done()
        acked = lone.show()

        async def worker(payload: bytes, window: work.Window) -> None:
            nonlocal acked
            while window.goes_on:
                done = await append(redis, stream, payload, PER_ROUND)
                acked += done
                window.tick(acked)

        for size in work.SIZES:
            window = work.Window(size, warm, seconds)
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(worker(work.event(size), window))
            window.show()
        work.row(test="kept", acked=acked, held=await redis.xlen(stream))


if __name__ == "__main__":
    asyncio.run(main())
