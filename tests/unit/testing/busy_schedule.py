"""A schedule with everything that might depend on addresses or hashes; prints its trace by seed."""

from __future__ import annotations

import asyncio
import sys

from lunalog.testing.link import NetworkSettings
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation

SETTINGS = NetworkSettings(loss_rate=0.02, fragment_rate=0.2)


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Counting(Echo):
    def __init__(self, queue: asyncio.Queue[int]) -> None:
        self.queue = queue

    def data_received(self, data: bytes) -> None:
        self.queue.put_nowait(len(data))


async def serve(runtime: SimulatedRuntime) -> None:
    disk = runtime.node.disk()
    await runtime.network.listen(Echo, ("", 1))
    mailbox = runtime.mailbox()

    async def write() -> None:
        file = await disk.open("wal", create=True)
        at = 0
        while batch := await mailbox.take_all():
            await file.write(at, batch)
            await file.sync()
            at += sum(map(len, batch))

    runtime.start_worker("wal", write)
    while True:
        mailbox.put(runtime.random_bytes(100))
        await asyncio.sleep(runtime.random.random() / 100)


async def ask(runtime: SimulatedRuntime, server: str) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue()
    peer = Counting(queue)
    await runtime.network.connect(lambda: peer, (server, 1))
    got = 0
    for _ in range(20):
        peer.transport.write(b"x" * 100)
        got += await queue.get()
    return got


async def work(simulation: Simulation) -> int:
    total = 0
    for _ in range(10):
        tasks = {
            asyncio.create_task(ask(simulation.harness_runtime, f"s{n % 3}")) for n in range(6)
        }
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=3)
            if not done:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                break
            for task in done:
                if task.exception() is None:
                    total += task.result()
                    await asyncio.sleep(0.001 * (total % 7))
        chance = simulation.stream("faults")
        node = chance.choice(simulation.nodes)
        node.crash(power=chance.random() < 0.5)
        node.restart()
        await asyncio.sleep(0.1)
    return total


def main(seed: int) -> None:
    with Simulation(seed, settings=SETTINGS) as simulation:
        for number in range(3):
            simulation.node(f"s{number}").start(serve)
        total = simulation.run(work(simulation))
        print(seed, f"{simulation.trace_hash:08x}", simulation.scheduler.steps, total)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(int(argument))
