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
from lunalog.testing.nemesis import Fault
from lunalog.testing.plan import Plan
from lunalog.testing.schedule import ScheduleResult, run_schedule
from lunalog.testing.simulation import Simulation
from lunalog.testing.tempo import Tempo
from lunalog.testing.workload import Mix
from lunalog.wire.messages import SegmentFact

WIPED_AT_S = 3.0
"""Some segments are sealed by then, and all their replicas have confirmed that they are complete."""
SEEDS = (4, 5, 6, 7)
"""In one of them the wiped server may have had nothing to lose; hardly in all."""


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


def run_with_one_wipe(seed: int) -> ScheduleResult:
    """Nothing else goes wrong; no master starts anew, which would ask everybody for everything."""
    shape = Shape((StreamShape("stream-1", 3, 2, segment_bytes=2000),))
    faults = (Fault(1, WIPED_AT_S, "wipe"),)
    return run_schedule(Plan(seed, shape, Mix(), Tempo(), WIPED_AT_S + 1.0, faults=faults))


@pytest.mark.parametrize("seed", SEEDS)
def test_r19_a_wiped_server_gets_back_what_it_had_confirmed(seed: int) -> None:
    result = run_with_one_wipe(seed)
    assert not result.violations
    assert result.faults["wipe"] == 1


def test_canary_a_master_that_counts_on_what_was_confirmed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take_facts_only(self: Commands, server: Server, facts: Iterable[SegmentFact]) -> None:
        duties = self._of(server.member.server)
        for told in (duties.ids, duties.sent, duties.trimmed):
            told.clear()
        self.facts(server, facts)

    monkeypatch.setattr(Commands, "registered", take_facts_only)
    violations = [violation for seed in SEEDS for violation in run_with_one_wipe(seed).violations]
    assert violations
    assert all("nobody could complete every replica" in violation for violation in violations)


@pytest.mark.parametrize("spares", [0, 1])
def test_i2_all_disks_may_be_lost_if_each_has_time_to_be_filled_again(spares: int) -> None:
    """Only the last one that is wiped was there for all that was acknowledged at first."""
    simulation = Simulation(1, settings=NetworkSettings(slow_rate=0.0))
    cluster = SimulatedCluster(
        simulation,
        Shape((StreamShape("orders", 3, 2, segment_bytes=2000),), clients=1, spares=spares),
    )
    history = cluster.recorder.of(cluster.streams["orders"])
    appender = Appender(history, simulation.stream("workload"), lambda: simulation.now, 200)

    async def append(journal: SingleWriteJournal, _: str) -> None:
        async with journal.lead("orders") as writer:
            while True:
                await appender.lone(journal, writer)
                await asyncio.sleep(0.01)

    async def until_repaired() -> None:
        goal = len(history.acked) + 50
        while len(history.acked) < goal or cluster.incomplete():
            await asyncio.sleep(0.1)

    async def wipe_all() -> tuple[list[bytes], list[bytes]]:
        await until_repaired()
        for node in cluster.server_nodes:
            node.crash()
            cluster.harmed(node)
            node.disk().wipe()
            node.restart()
            await until_repaired()
        journal = await cluster.journal()
        acked = [append.payload for append in history.acked]
        read = [event.payload async for event in journal.read("orders", linearizable=True)]
        await journal.aclose()
        return acked, read

    with simulation:
        cluster.start(append)
        acked, read = simulation.run(wipe_all(), timeout_s=120.0)
    assert len(acked) >= 50 * (4 + spares)
    assert acked == [payload for payload in read if payload in set(acked)]
