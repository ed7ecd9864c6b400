"""What does a server's log reach alone, without a network, beside bare writes to the same disk?

Lone: one frame of 1 KiB at a time, until it is durable; beside it `pwrite` and `fdatasync` of as many
bytes, in blocks that alternate.  Flood: frames of 104 KB, 2 MiB of them queued; beside it 1 MiB at a time,
each synced.  Both write into files whose space was allocated before.  One line of JSON each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from lunalog.config import ServerConfig
from lunalog.core.chain import extend
from lunalog.runtime import SystemRuntime
from lunalog.storage.files import SystemDisk
from lunalog.storage.log import Log
from lunalog.storage.records import FrameRecord
from lunalog.types import SegmentId
from lunalog.wire import frames

STREAM, SEGMENT = bytes(16), SegmentId(1, 0)
BLOCKS, BLOCK, WARM = 20, 100, 200
LONE_BYTES = 1536
"""What a batch of one such frame takes in the log."""
FLOOD_ROUNDS, FLOOD_BYTES, QUEUED_BYTES = 5, 300_000_000, 2 << 20
MIB = 1 << 20


class Bare:
    """A file, written and synced by nothing else."""

    def __init__(self, path: Path, size: int) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY)
        self._size = size
        self._at = 0
        os.posix_fallocate(self._fd, 0, size)

    def write(self, data: bytes) -> None:
        """Write behind what is there, from the beginning again at the end; sync."""
        if self._at + len(data) > self._size:
            self._at = 0
        os.pwrite(self._fd, data, self._at)
        os.fdatasync(self._fd)
        self._at += len(data)


class Appends:
    """Frames of one segment, one behind another, into a log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._end = 0
        self._chain = 0
        self.loop = asyncio.get_running_loop()

    def make(self, payloads: list[bytes], count: int) -> list[FrameRecord]:
        """The next frames, before anything is timed."""
        made = []
        for _ in range(count):
            frame = bytes(frames.build(STREAM, self._end, 1, 0, payloads))
            head = frames.parse(frame)
            self._end, self._chain = head.end, extend(self._chain, head.first, head.count, head.crc)
            made.append(FrameRecord(STREAM, SEGMENT, 0, self._chain, head, frame))
        return made

    def put(self, record: FrameRecord) -> asyncio.Future[None]:
        """Queue one frame; the future ends when it is durable."""
        durable: asyncio.Future[None] = self.loop.create_future()
        self._log.put([record], synced=lambda: durable.set_result(None), is_last=True)
        return durable


@contextlib.asynccontextmanager
async def appends(home: Path) -> AsyncIterator[Appends]:
    """A log in an empty directory."""
    disk = SystemDisk(home)
    await disk.lock()
    log = await Log.open(
        disk,
        SystemRuntime(),
        ServerConfig(),
        boot=1,
        replay=lambda record, damage: None,
        snapshot=list,
        start_of=lambda stream, segment: 0,
    )
    try:
        yield Appends(log)
    finally:
        await log.close()
        await disk.unlock()


async def lone(log: Appends, bare: Bare) -> dict[str, float]:
    """Microseconds until one frame is durable."""
    ours, theirs = [], []
    event, block = [bytes(1024)], bytes(LONE_BYTES)
    for record in log.make(event, WARM):
        await log.put(record)
        bare.write(block)
    for _ in range(BLOCKS):
        for record in log.make(event, BLOCK):
            began = time.perf_counter()
            await log.put(record)
            ours.append(time.perf_counter() - began)
        for _ in range(BLOCK):
            began = time.perf_counter()
            bare.write(block)
            theirs.append(time.perf_counter() - began)
    return summary(
        {
            "log p50 us": statistics.median(ours) * 1e6,
            "bare p50 us": statistics.median(theirs) * 1e6,
        }
    )


async def flood(log: Appends, bare: Bare) -> dict[str, float]:
    """Megabytes a second, each synced."""
    payloads, chunk = [os.urandom(100) for _ in range(1000)], os.urandom(MIB)
    size = sum(map(len, payloads)) + 4 * len(payloads)
    ours, theirs = [], []
    for _ in range(FLOOD_ROUNDS):
        waiting: deque[asyncio.Future[None]] = deque()
        made = log.make(payloads, FLOOD_BYTES // size)
        began = time.perf_counter()
        for record in made:
            waiting.append(log.put(record))
            if len(waiting) * size > QUEUED_BYTES:
                await waiting.popleft()
        await asyncio.gather(*waiting)
        ours.append(FLOOD_BYTES / (time.perf_counter() - began) / 1e6)
        began = time.perf_counter()
        for _ in range(FLOOD_BYTES // MIB):
            bare.write(chunk)
        theirs.append(FLOOD_BYTES / (time.perf_counter() - began) / 1e6)
    return summary({"log MB/s": statistics.median(ours), "bare MB/s": statistics.median(theirs)})


def summary(found: dict[str, float]) -> dict[str, float]:
    """The two figures, and the first over the second."""
    ours, theirs = found.values()
    return {
        **{name: round(value, 1) for name, value in found.items()},
        "ratio": round(ours / theirs, 2),
    }


async def measure() -> None:
    """One log, one file."""
    with tempfile.TemporaryDirectory(prefix="lunalog-wal-") as home:
        bare = Bare(Path(home) / "bare", 256 * MIB)
        async with appends(Path(home) / "log") as log:
            print(json.dumps({"wal": "lone 1KiB", **await lone(log, bare)}), flush=True)
            print(json.dumps({"wal": "flood of 104 KB", **await flood(log, bare)}), flush=True)


if __name__ == "__main__":
    sys.exit(uvloop.run(measure()))
