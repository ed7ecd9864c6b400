"""A schedule of its own for L3: one leader appends steadily, and one member becomes slow, not dead.

Everything else is as it should be, on a network without a tail of its own, so that what is measured
is the gray server's doing.

Source: docs/protocol.md L3; D11, N3.
"""

from __future__ import annotations

import asyncio

from lunalog.client.journal import SingleWriteJournal
from lunalog.testing.appending import Appender
from lunalog.testing.checkers.liveness import GRAY_AFTER_S
from lunalog.testing.cluster import Shape, SimulatedCluster, StreamShape
from lunalog.testing.history import GraySpell, History
from lunalog.testing.link import NetworkSettings
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.simulation import Simulation

STREAM = "steady"
QUIET_S, GRAY_S = 6.0, GRAY_AFTER_S + 5.0
APPEND_GAP_S = 0.01
TIMEOUT_S = 60.0


class GraySchedule:
    """One run in the making.

    Args:
        seed: Of the run.
        pair: N and A of the stream; there is one server more.
        what: Becomes slow: `disk` or `link`.
        slowdown: How many times slower.
    """

    def __init__(self, seed: int, pair: tuple[int, int], what: str, slowdown: float) -> None:
        self._what = what
        self._slowdown = slowdown
        settings = NetworkSettings(slow_rate=0.0)
        self._simulation = simulation = Simulation(seed, settings=settings)
        self._cluster = SimulatedCluster(
            simulation, Shape((StreamShape(STREAM, *pair),), spares=1, clients=1)
        )
        self.history: History = self._cluster.recorder.of(self._cluster.streams[STREAM])
        self._appender = Appender(
            self.history, simulation.stream("workload"), lambda: simulation.now, 200
        )

    def run(self) -> History:
        """Run it to its end; the history has one gray spell."""
        with self._simulation:
            self._cluster.start(self._append)
            self._simulation.run(self._spell(), timeout_s=TIMEOUT_S)
        return self.history

    async def _append(self, journal: SingleWriteJournal, _: str) -> None:
        async with journal.lead(STREAM) as writer:
            while True:
                await self._appender.lone(journal, writer)
                await asyncio.sleep(APPEND_GAP_S)

    async def _spell(self) -> None:
        while not self.history.acked:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(QUIET_S)
        opened = self.history.heads[-1].head.open
        if opened is None:
            raise RuntimeError("the leader has gone, though nothing was done to it")
        gray = self._simulation.node(opened.members[0].server)
        first = self._simulation.now
        self._slow(gray)
        await asyncio.sleep(GRAY_S)
        self.history.gray_spells.append(GraySpell(gray.name, first, self._simulation.now))

    def _slow(self, gray: SimulatedNode) -> None:
        if self._what == "disk":
            for disk in gray.disks.values():
                disk.faults.slowdown = self._slowdown
            return
        network = self._simulation.network
        for node in self._simulation.nodes:
            if node is not gray:
                network.link(node.name, gray.name).slowdown = self._slowdown
                network.link(gray.name, node.name).slowdown = self._slowdown
