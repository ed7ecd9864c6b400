"""L1: all servers of a set that is just being opened lose power, and come back at other addresses."""

from __future__ import annotations

import asyncio

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.client.leader import Leadership
from lunalog.core.effects import OpenSet
from lunalog.testing import sim
from lunalog.testing.appending import Appender
from lunalog.testing.cluster import Shape, SimulatedCluster, StreamShape
from lunalog.testing.link import NetworkSettings
from lunalog.testing.simulation import Simulation

DOWN_S = 1.0
SOON_S = 2.0
"""Much less than `leader_stall_ms`, after which the epoch is given away."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


@pytest.mark.parametrize("with_master", [False, True], ids=["servers", "servers and master"])
def test_l1_a_leader_finds_its_servers_where_they_are_now(
    monkeypatch: pytest.MonkeyPatch, with_master: bool
) -> None:
    """No segment lists them yet: only who proposed them can tell where they are."""
    simulation = Simulation(1, settings=NetworkSettings(slow_rate=0.0))
    cluster = SimulatedCluster(simulation, Shape((StreamShape("orders", 3, 2),), clients=1))
    history = cluster.recorder.of(cluster.streams["orders"])
    appender = Appender(history, simulation.stream("workload"), lambda: simulation.now, 200)
    opens: list[OpenSet] = []
    really_open = Leadership._open_set

    def open_set(self: Leadership, effect: OpenSet) -> None:
        opens.append(effect)
        really_open(self, effect)

    monkeypatch.setattr(Leadership, "_open_set", open_set)

    async def append(journal: SingleWriteJournal, _: str) -> None:
        async with journal.lead("orders") as writer:
            await appender.lone(journal, writer)

    async def cut_power() -> None:
        while not opens:
            await asyncio.sleep(0.0001)
        nodes = [*cluster.server_nodes, *([cluster.master_node] if with_master else [])]
        for node in nodes:
            node.crash(power=True)
        await asyncio.sleep(DOWN_S)
        for node in nodes:
            node.restart()
        async with asyncio.timeout(SOON_S):
            while not history.acked:
                await asyncio.sleep(0.01)

    with simulation:
        cluster.start(append)
        simulation.run(cut_power(), timeout_s=30.0)
    assert len(opens) == 1, "the same leader, in the same segment"
    assert history.heads[-1].head.epoch == 1
