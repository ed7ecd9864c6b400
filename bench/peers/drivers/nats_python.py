"""Drives JetStream by nats-py: URL STREAM WARM SECONDS."""

from __future__ import annotations

import asyncio

import nats
import work
from nats.js.api import StorageType, StreamConfig


async def main() -> None:
    url, stream, spans, _ = work.words()
    nc = await nats.connect(url)
    js = nc.jetstream(timeout=5)
    subject = f"{stream}.events"
    config = StreamConfig(name=stream, subjects=[subject], num_replicas=3, storage=StorageType.FILE)
    for tries in range(101):  # the servers need a moment to elect who places a stream
        try:
            await js.add_stream(config)
            break
        except nats.errors.Error:
            if tries == 100:
                raise
            await asyncio.sleep(0.2)
    acked = await work.one_by_one(spans, lambda payload: js.publish(subject, payload))

    def count(future: asyncio.Future) -> None:
        nonlocal acked
        future.result()  # raises what the server has said
        acked += 1

    for size in work.SIZES:
        js = nc.jetstream(publish_async_max_pending=work.window_of(size))
        payload, window = work.event(size), work.Window(size, spans)
        while window.goes_on:
            for _ in range(20):
                (await js.publish_async(subject, payload)).add_done_callback(count)
            window.tick(acked)
        await asyncio.wait_for(js.publish_async_completed(), 60)
        await asyncio.sleep(0)
        window.show()
    info = await js.stream_info(stream)
    work.row(test="kept", acked=acked, held=info.state.messages)
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main())
