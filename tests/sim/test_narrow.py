"""Trap 50: a network that is slow for what is sent is no reason to send it again to others, for ever."""

from __future__ import annotations

import asyncio

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.core import rolling
from lunalog.testing import sim
from lunalog.testing.cluster import Shape, SimulatedCluster, StreamShape
from lunalog.testing.history import History
from lunalog.testing.link import NetworkSettings
from lunalog.testing.simulation import Simulation

WINDOW_BYTES, ONE_WAY_S = 16 * 1024, 0.02
EVENT_BYTES, IN_FLIGHT = 100_000, 80
EVENTS_PER_S = WINDOW_BYTES / (2 * ONE_WAY_S) / EVENT_BYTES
"""What one connection carries: each event takes as long as the patience that a leader begins with."""
WARM_S, RUN_S = 15.0, 45.0


@pytest.fixture(autouse=True)
def quiet() -> None:
    sim.hush()


def flood(pair: tuple[int, int], spares: int) -> tuple[int, History]:
    """Keep many large events in flight; returns how many were acknowledged once it was warm."""
    settings = NetworkSettings(
        delay_s=(ONE_WAY_S, ONE_WAY_S), slow_rate=0.0, window_bytes=(WINDOW_BYTES, WINDOW_BYTES)
    )
    simulation = Simulation(1, settings=settings)
    shape = Shape((StreamShape("wide", *pair),), spares=spares, clients=1)
    cluster = SimulatedCluster(simulation, shape)
    acked = 0

    async def append(journal: SingleWriteJournal, _: str) -> None:
        async with journal.lead("wide") as writer, asyncio.TaskGroup() as group:

            async def one_by_one() -> None:
                nonlocal acked
                while True:
                    await writer.append(bytes(EVENT_BYTES))
                    acked += 1

            for _ in range(IN_FLIGHT):
                group.create_task(one_by_one())

    with simulation:
        cluster.start(append)
        simulation.run_until(WARM_S)
        before = acked
        simulation.run_until(WARM_S + RUN_S)
        count = acked - before
    return count, cluster.recorder.of(cluster.streams["wide"])


@pytest.mark.parametrize(
    ("pair", "spares"),
    [((3, 2), 0), ((3, 2), 3), ((3, 3), 3), ((5, 4), 1), ((5, 5), 1), ((2, 2), 2)],
)
def test_a_flood_over_a_slow_network_keeps_what_the_network_carries(
    pair: tuple[int, int], spares: int
) -> None:
    count, history = flood(pair, spares)
    assert count >= 0.9 * EVENTS_PER_S * RUN_S
    rolls = len({str(seen.head.open) for seen in history.heads if seen.head.open}) - 1
    assert rolls <= 4


def test_a_leader_that_never_becomes_patient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: it rolls to and fro."""
    monkeypatch.setattr(rolling, "PATIENCE_TICKS_MAX", rolling.STALL_TICKS)
    count, _ = flood((3, 2), spares=3)
    assert count < 0.9 * EVENTS_PER_S * RUN_S
