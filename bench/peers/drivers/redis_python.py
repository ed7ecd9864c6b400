"""Drives Redis by redis-py with hiredis: HOST:PORT STREAM WARM SECONDS."""

from __future__ import annotations

import asyncio

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
    address, stream, spans, _ = work.words()
    host, port = address.split(":")
    async with Redis(host=host, port=int(port)) as redis:
        acked = await work.one_by_one(spans, lambda payload: append(redis, stream, payload, 1))
        acked += await work.by_workers(
            spans, CONNECTIONS, lambda payload: append(redis, stream, payload, PER_ROUND)
        )
        work.row(test="kept", acked=acked, held=await redis.xlen(stream))


if __name__ == "__main__":
    asyncio.run(main())
