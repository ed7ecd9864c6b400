"""The cluster of a schedule: what a server does whose disk was damaged, and what it says of itself."""

from __future__ import annotations

import asyncio

import pytest

from lunalog.errors import CorruptRecordError
from lunalog.testing import sim
from lunalog.testing.plan import Plan
from lunalog.testing.recording import WatchedServer
from lunalog.testing.schedule import Schedule, run_schedule

SERVER = "server-1"


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


@pytest.mark.parametrize("is_harmed", [True, False])
def test_a_start_that_finds_damage_ends_the_run_unless_somebody_did_the_damage(
    monkeypatch: pytest.MonkeyPatch, is_harmed: bool
) -> None:
    """A harmed disk is wiped, and its server comes back under a new incarnation (R17, R19)."""
    found: list[int] = []
    incarnations: list[int] = []
    start = WatchedServer.start

    async def damaged(server: WatchedServer) -> None:
        if server.name == SERVER and found == [0]:
            found.append(1)
            raise CorruptRecordError("a record is damaged", file="log", offset=7)
        await start(server)

    monkeypatch.setattr(WatchedServer, "start", damaged)

    async def storm(schedule: Schedule) -> None:
        cluster = schedule.cluster
        while SERVER not in cluster.servers or not cluster.servers[SERVER].is_registered:
            await asyncio.sleep(0.1)
        incarnations.append(cluster.servers[SERVER].replica.incarnation)
        node = schedule.simulation.node(SERVER)
        if is_harmed:
            cluster.harmed(node)
        found.append(0)
        node.restart()
        await asyncio.sleep(1)

    monkeypatch.setattr(Schedule, "storm", storm)
    converge = Schedule.converge

    async def then(schedule: Schedule) -> None:
        await converge(schedule)
        incarnations.append(schedule.cluster.servers[SERVER].replica.incarnation)

    monkeypatch.setattr(Schedule, "converge", then)
    result = run_schedule(Plan(1, storm_s=0.5))
    assert found == [0, 1]
    if is_harmed:
        assert result.violations == []
        assert incarnations[1] > incarnations[0]
    else:
        assert "CorruptRecordError" in result.violations[0]


def test_a_run_that_is_stuck_shows_what_everybody_believes(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[list[str]] = []

    async def stuck(schedule: Schedule) -> None:
        while schedule.cluster.leader() is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        pictures.append(schedule.cluster.picture())

    monkeypatch.setattr(Schedule, "storm", stuck)
    assert run_schedule(Plan(1, storm_s=0.5)).violations == []
    (lines,) = pictures
    text = "\n".join(lines)
    for part in (
        f"{SERVER}: running=True registered=True",
        "head: StreamHead(",
        "client-1: running=",
    ):
        assert part in text
