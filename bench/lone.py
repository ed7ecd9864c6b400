"""What does a lone append cost over the floor, on this disk and on slower ones?

The floor's replicas and a cluster stand side by side, and blocks of appends alternate between them, so
that a machine whose speed drifts does so for both.  `--slower-us` makes every sync of both take so much
longer (a library in front of libc's fdatasync, compiled with gcc), as a slower disk would: it costs no
processor time.  One line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from cluster import BenchCluster
from lunalog import SingleWriteJournal
from lunalog.client.writer import StreamWriter

sys.path.insert(0, str(Path(__file__).parent / "yardstick"))

from floor import replica

EVENT = bytes(1024)
QUORUM = 2
BLOCK = 100
WARM = 300
REST_MS = 5
SLOWER_US = "LUNALOG_BENCH_SLOWER_US"
SLOW_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    int found = real(fd);
    struct timespec more = {0, 1000 * atol(getenv("LUNALOG_BENCH_SLOWER_US"))};
    nanosleep(&more, NULL);
    return found;
}
"""


class Floor:
    """The client of the yardstick's floor: blocking sockets, two of three acks."""

    def __init__(self, ports: list[int]) -> None:
        self._poll = select.poll()
        self._sockets: dict[int, socket.socket] = {}
        self._owed: dict[int, int] = {}
        for port in ports:
            made = socket.create_connection(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[made.fileno()] = made
            self._owed[made.fileno()] = 0
            self._poll.register(made.fileno(), select.POLLIN)

    def append(self) -> None:
        """Send one event to all, and wait until a quorum has synced it."""
        for number, connection in self._sockets.items():
            connection.send(EVENT)
            self._owed[number] += 1
        acked: set[int] = set()
        while len(acked) < QUORUM:
            for number, _ in self._poll.poll():
                self._owed[number] -= len(self._sockets[number].recv(64))
                if self._owed[number] <= 0:
                    acked.add(number)

    def rest(self) -> None:
        """Let nothing be owed: a replica that reads two events at once answers both with one ack."""
        while ready := self._poll.poll(REST_MS):
            for number, _ in ready:
                self._sockets[number].recv(64)
        self._owed = dict.fromkeys(self._owed, 0)

    def close(self) -> None:
        """End the replicas with their connections, behind their last acks."""
        for connection in self._sockets.values():
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(64):
                pass
            connection.close()


def floor_block(floor: Floor, count: int) -> list[float]:
    """Microseconds of so many appends to the floor."""
    floor.rest()
    took = []
    for _ in range(count):
        began = time.perf_counter()
        floor.append()
        took.append((time.perf_counter() - began) * 1e6)
    return took


async def product_block(writer: StreamWriter, count: int) -> list[float]:
    """The same to the product."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await writer.append(EVENT)
        took.append((time.perf_counter() - began) * 1e6)
    return took


async def measure(floor: Floor, blocks: int) -> dict[str, object]:
    """Alternate; the ratio is the median of the blocks' ratios."""
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    async with BenchCluster() as cluster:
        async with SingleWriteJournal.connect(cluster.url, peer="bench") as journal:
            await journal.create_stream("lone")
            async with journal.lead("lone") as writer:
                await product_block(writer, WARM)
                floor_block(floor, WARM)
                for _ in range(blocks):
                    theirs.append(floor_block(floor, BLOCK))
                    await asyncio.sleep(0.002)  # what came meanwhile, heartbeats and such
                    ours.append(await product_block(writer, BLOCK))
    median = statistics.median
    ratios = [median(a) / median(b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "floor": quantiles(theirs),
        "product": quantiles(ours),
        "ratio": round(median(ratios), 2),
        "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def quantiles(blocks: list[list[float]]) -> dict[str, int]:
    """p50, p90 and p99 of all blocks, in microseconds."""
    found = statistics.quantiles([one for block in blocks for one in block], n=100)
    return {f"p{percent}_us": round(found[percent - 1]) for percent in (50, 90, 99)}


def with_floor(directory: str, work: Callable[[Floor], None]) -> None:
    """Run `work` while three replicas of the floor stand."""
    queue: multiprocessing.Queue[int] = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=replica, args=(queue, f"{directory}/r{n}"), daemon=True)
        for n in range(3)
    ]
    for process in processes:
        process.start()
    floor = Floor([queue.get() for _ in processes])
    try:
        work(floor)
    finally:
        floor.close()
        for process in processes:
            process.join(5.0)


def on_slower_disk(us: int) -> int:
    """Run this program again, with syncs that take `us` longer."""
    with tempfile.TemporaryDirectory(prefix="lunalog-lone-") as directory:
        source, library = Path(directory) / "slow.c", Path(directory) / "slow.so"
        source.write_text(SLOW_DISK)
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library), SLOWER_US: str(us)}
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=40, help="of 100 appends, of each")
    parser.add_argument("--slower-us", type=int, default=0, help="added to every sync")
    wanted = parser.parse_args()
    if wanted.slower_us and SLOWER_US not in os.environ:
        return on_slower_disk(wanted.slower_us)
    with tempfile.TemporaryDirectory(prefix="lunalog-lone-") as directory:
        with_floor(
            directory,
            lambda floor: print(
                json.dumps(
                    {"slower_us": wanted.slower_us} | uvloop.run(measure(floor, wanted.blocks))
                )
            ),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
