"""The master on a simulated machine: stalls, pauses, and a run that replays."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.master.conftest import Client, World

from lunalog.config import MasterConfig
from lunalog.master import Master
from lunalog.testing.metadata import SimulatedStore
from lunalog.testing.simulation import Simulation


class SimulatedWorld(World):
    """Clients on the harness's machine, the master on its own."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation.harness_runtime)
        self.simulation = simulation
        self.store = SimulatedStore(simulation.stream("metadata"))
        self.node = simulation.node("master")
        self.node.start(self.run)

    async def run(self, runtime: Any) -> None:
        self.master = Master(runtime, self.store, MasterConfig(host="master"))
        await self.master.start()
        await asyncio.get_running_loop().create_future()

    async def ready(self, name: str) -> Client:
        await asyncio.sleep(1.0)
        return await self.client(name)


def test_a_master_that_stood_still_expires_nobody() -> None:
    """Trap 49: heartbeats that waited in its sockets are read before leases are judged."""

    async def story(world: SimulatedWorld) -> None:
        one = await world.ready("one")
        two = await world.client("two")
        head = await one.create()
        await one.stand(head.stream)
        await one.led(head.stream)
        await two.stand(head.stream)
        world.node.pause()
        await asyncio.sleep(1.9)
        world.node.resume()
        await asyncio.sleep(3.0)
        assert (await two.head()).epoch == 1
        one.silence()
        await two.led(head.stream, timeout=5.0)

    with Simulation(3) as simulation:
        world = SimulatedWorld(simulation)
        simulation.run(story(world))


def test_a_run_replays() -> None:
    async def story(world: SimulatedWorld) -> None:
        one = await world.ready("one")
        members = await world.three()
        for name in ("a", "b", "c"):
            head = await one.create(name)
            await one.stand(head.stream)
            head = await one.led(head.stream)
            head = (await one.ask(one.opens(head, members))).head
            await one.ask(one.closes(head, end=1, chain=1))
        world.node.crash()
        world.node.restart()
        two = await world.ready("two")
        await two.stand(head.stream)
        await two.led(head.stream)

    traces = []
    for _ in range(2):
        with Simulation(5) as simulation:
            world = SimulatedWorld(simulation)
            simulation.run(story(world))
            traces.append(simulation.trace_hash)
    assert traces[0] == traces[1]
