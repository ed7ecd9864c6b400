"""D9: a server loses its disk, and has its copies again without an operator (R19, R21)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.master.commands import Commands
from lunalog.master.servers import Server
from lunalog.testing import sim
from lunalog.testing.appending import Appender
from lunalog.testing.cluster import Shape, SimulatedCluster, StreamShape
from lunalog.testing.link import NetworkSettings
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.simulation import Simulation
from lunalog.wire.messages import SegmentFact

SEALED_BEFORE = 3
"""Segments; all their replicas have confirmed that they are complete when the first disk is lost."""
LONG_S = 20.0
"""Much longer than it takes to copy what there is."""


class World:
    """A cluster whose leader goes on; no master starts anew, which would ask for everything."""

    def __init__(self, spares: int) -> None:
        sim.hush()
        self.simulation = Simulation(1, settings=NetworkSettings(slow_rate=0.0))
        shape = Shape((StreamShape("orders", 3, 2, segment_bytes=2000),), clients=1, spares=spares)
        self.cluster = SimulatedCluster(self.simulation, shape)
        self.history = self.cluster.recorder.of(self.cluster.streams["orders"])

    async def append(self, journal: SingleWriteJournal, _: str) -> None:
        history, now = self.history, lambda: self.simulation.now
        appender = Appender(history, self.simulation.stream("workload"), now, 200)
        async with journal.lead("orders") as writer:
            while True:
                await appender.lone(journal, writer)
                await asyncio.sleep(0.01)

    async def sealed(self) -> None:
        while len(self.history.rows) < SEALED_BEFORE:
            await asyncio.sleep(0.1)
        await self.repaired()
        await asyncio.sleep(2.0)  # and the master has heard of it

    async def repaired(self) -> None:
        """Wait until more is acknowledged, and every listed server holds what is sealed."""
        goal = len(self.history.acked) + 50
        async with asyncio.timeout(LONG_S):
            while len(self.history.acked) < goal or self.cluster.incomplete():
                await asyncio.sleep(0.1)

    def wipe(self, node: SimulatedNode) -> None:
        node.crash()
        self.cluster.harmed(node)
        node.disk().wipe()
        node.restart()


@pytest.mark.parametrize("spares", [0, 1])
def test_i2_all_disks_may_be_lost_if_each_has_time_to_be_filled_again(spares: int) -> None:
    """In the end none of them was there for all that was acknowledged at first."""
    world = World(spares)

    async def wipe_all() -> tuple[list[bytes], list[bytes]]:
        await world.sealed()
        for node in world.cluster.server_nodes:
            world.wipe(node)
            await world.repaired()
        journal = await world.cluster.journal()
        acked = [append.payload for append in world.history.acked]
        read = [event.payload async for event in journal.read("orders", linearizable=True)]
        await journal.aclose()
        return acked, read

    with world.simulation:
        world.cluster.start(world.append)
        acked, read = world.simulation.run(wipe_all(), timeout_s=300.0)
    assert len(acked) >= 50 * (4 + spares)
    assert acked == [payload for payload in read if payload in set(acked)]


def test_canary_a_master_that_counts_on_what_was_confirmed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty disk names nothing that it lacks."""

    def take_facts_only(self: Commands, server: Server, facts: Iterable[SegmentFact]) -> None:
        duties = self._of(server.member.server)
        for told in (duties.ids, duties.sent, duties.trimmed):
            told.clear()
        self.facts(server, facts)

    monkeypatch.setattr(Commands, "registered", take_facts_only)
    world = World(0)

    async def wipe_one() -> None:
        await world.sealed()
        world.wipe(world.cluster.server_nodes[0])
        with pytest.raises(TimeoutError):
            await world.repaired()

    with world.simulation:
        world.cluster.start(world.append)
        world.simulation.run(wipe_one(), timeout_s=300.0)
    lacking = world.cluster.incomplete()
    assert lacking
    assert all("server-1#1" in what for what in lacking)
