"""How long nobody can append: planned hand-over, killed leader, frozen leader, killed server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from cluster import BenchCluster
from lunalog import SingleWriteJournal

SETTLE_S = 1.0
WAIT_S = 20.0


class Engine:
    """One appending process and what it printed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acks: list[float] = []
        self.sequences: list[int] = []
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def start(self, url: str, stream: str) -> None:
        """Start the process and wait until it stands for election."""
        here = os.path.dirname(os.path.abspath(__file__))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            f"{here}/engine.py",
            url,
            stream,
            self.name,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())
        await asyncio.wait_for(self.is_ready.wait(), WAIT_S)

    async def _read(self) -> None:
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                if "ready" in json.loads(line):
                    self.is_ready.set()
                continue
            at, sequence = line.split()
            self.acks.append(float(at))
            self.sequences.append(int(sequence))

    async def end(self) -> None:
        """Kill the process."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition on what the engines printed."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


def leader_of(engines: list[Engine]) -> Engine:
    """Who acked last."""
    return max(engines, key=lambda e: e.acks[-1] if e.acks else 0)


async def takeover(engines: list[Engine], act: Callable[[Engine], object]) -> float:
    """Do something to the leader; seconds from its last ack (or the deed) to another's first."""
    old = leader_of(engines)
    (new,) = (e for e in engines if e is not old)
    count, at = len(new.acks), time.monotonic()
    result = act(old)
    if asyncio.iscoroutine(result):
        await result
    await until(lambda: len(new.acks) > count)
    before = [t for t in old.acks if t <= new.acks[count]]
    return new.acks[count] - max([at, *before][-1], at - 1 if before else at)


async def one_round() -> dict[str, float]:
    """Measure each of the four once, on a fresh cluster; milliseconds."""
    found = {}
    async with BenchCluster() as cluster:
        async with SingleWriteJournal.connect(cluster.url, peer="bench-admin") as journal:
            stream = "failover"
            await journal.create_stream(stream)
            engines = [Engine("one"), Engine("two")]
            try:
                for engine in engines:
                    await engine.start(cluster.url, stream)
                await until(lambda: any(len(e.acks) > 50 for e in engines))
                await asyncio.sleep(SETTLE_S)
                other = next(e for e in engines if e is not leader_of(engines))
                found["handover"] = await takeover(
                    engines, lambda _: journal.transfer(stream, to=other.name)
                )
                await asyncio.sleep(SETTLE_S)
                old = leader_of(engines)
                found["killed leader"] = await takeover(engines, lambda e: e.signal(signal.SIGKILL))
                await old.end()
                engines[engines.index(old)] = fresh = Engine("three")
                await fresh.start(cluster.url, stream)
                await asyncio.sleep(SETTLE_S)
                found["killed server"] = await server_stall(cluster, journal, stream, engines)
                await asyncio.sleep(SETTLE_S)
                found["frozen leader"] = await takeover(engines, lambda e: e.signal(signal.SIGSTOP))
                await verify(journal, stream, engines)
            finally:
                for engine in engines:
                    await engine.end()
    return {name: seconds * 1000 for name, seconds in found.items()}


async def server_stall(
    cluster: BenchCluster, journal: SingleWriteJournal, stream: str, engines: list[Engine]
) -> float:
    """Kill a server of the open segment; the longest gap between two acks around it."""
    description = await journal.describe(stream)
    leader, at = leader_of(engines), time.monotonic()
    cluster.kill_server(description.head.open.members[0].server)
    await asyncio.sleep(3 * SETTLE_S)
    acks = [t for t in leader.acks if t > at - 0.1]
    return max(b - a for a, b in zip(acks, [*acks[1:], time.monotonic()], strict=True))


async def verify(journal: SingleWriteJournal, stream: str, engines: list[Engine]) -> None:
    """Every acknowledged sequence is there, once."""
    acked = [s for e in engines for s in e.sequences]
    if len(acked) != len(set(acked)):
        raise SystemExit("a sequence was acknowledged twice")
    held = {event.sequence async for event in journal.read(stream, start=0)}
    if missing := sorted(set(acked) - held):
        raise SystemExit(f"acknowledged and lost: {missing[:10]}")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(one_round())))
