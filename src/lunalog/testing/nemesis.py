"""What breaks a simulated cluster: a swarm-drawn choice of faults, at drawn rates, then the cure.

Each run draws its own subset of the fault kinds, so that some runs meet one kind often and others
many kinds at once.  Damage (what a disk had said was durable, and has lost) stays within a budget,
since beyond A-1 damaged members nobody promises anything.

Source: docs/design.md "Seams"; the fault codes beside each kind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lunalog.testing import diskharm, harm
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.metadata import SimulatedStore, StoreFaults
from lunalog.testing.simulation import Simulation

RESTART_S = 1.0
LASTING_S = 2.0


@dataclass(slots=True)
class Targets:
    """Whom to harm.

    Attributes:
        masters, servers, clients: Nodes by role; only servers' disks are harmed.
        store: The masters' metadata store.
        damages_most: How many servers may lose durable bytes in the whole run: A-1 at most.
        damaged: Called with a server before its durable bytes are harmed, and before each crash
            that may show the harm.
        position, reported: How far a server's log reaches, and how far the masters know it to reach.
            An image behind which nothing was reported yet cannot be told from the disk itself (R19).
    """

    simulation: Simulation
    servers: list[SimulatedNode]
    masters: list[SimulatedNode] = field(default_factory=list)
    clients: list[SimulatedNode] = field(default_factory=list)
    damages_most: int = 0
    store: SimulatedStore | None = None
    damaged: Callable[[SimulatedNode], None] = lambda node: None
    position: Callable[[SimulatedNode], int] = lambda node: 0
    reported: Callable[[SimulatedNode], int] = lambda node: 1

    @property
    def nodes(self) -> list[SimulatedNode]:
        """All of them."""
        return [*self.masters, *self.servers, *self.clients]


class Nemesis:
    """One run's faults.

    Example:
        nemesis = Nemesis.draw(Targets(simulation, servers, [master], clients, damages_most=1))
        simulation.run(nemesis.run(20.0))
        nemesis.heal()

    It also plays the supervisor: a process that failed or was crashed starts again after a while.

    Attributes:
        kinds: Weight of each fault kind in use.
        mean_gap_s: Mean time between two faults.
        story: What was done when, for people.
        damaged: Names of the servers whose durable bytes were harmed.
        lying: Servers on whose disks a sync may have lied since the last power cut.
    """

    def __init__(self, targets: Targets, kinds: dict[str, float], mean_gap_s: float) -> None:
        self.targets = targets
        self.simulation = targets.simulation
        self.kinds = kinds
        self.mean_gap_s = mean_gap_s
        self.story: list[str] = []
        self.damaged: set[str] = set()
        self.lying: set[str] = set()
        self.images: dict[str, Any] = {}
        self.chance: random.Random = self.simulation.stream("nemesis")
        self._cures: dict[int, Callable[[], None]] = {}
        self._cure_number = 0
        for node in targets.nodes:
            node.on_exit = self._exited

    @classmethod
    def draw(cls, targets: Targets) -> Nemesis:
        """Draw kinds, weights and rates; and how the network usually is in this run."""
        chance = targets.simulation.stream("swarm")
        targets.simulation.network.settings.redraw(chance)
        if targets.store is not None:
            targets.store.faults = _draw_store_faults(chance)
        known = all_kinds()
        share = chance.choice((0.1, 0.3, 0.6))
        kinds = {name: 10 ** chance.uniform(-1, 0) for name in known if chance.random() < share}
        if not kinds:
            kinds = {chance.choice(sorted(known)): 1.0}
        return cls(targets, kinds, 10 ** chance.uniform(-1, 0.6))

    # ------------------------------------------------------------ the storm and its end

    async def run(self, seconds: float) -> None:
        """Inject faults for a while; run it on the harness node."""
        known, names = all_kinds(), sorted(self.kinds)
        weights = [self.kinds[name] for name in names]
        end = self.simulation.now + seconds
        while True:
            gap = self.chance.expovariate(1 / self.mean_gap_s)
            if self.simulation.now + gap >= end:
                await asyncio.sleep(max(0.0, end - self.simulation.now))
                return
            await asyncio.sleep(gap)
            name = self.chance.choices(names, weights)[0]
            what = known[name](self)
            if what is not None:
                self.simulation.count(name)
                self._tell(f"{name}: {what}")

    def heal(self) -> None:
        """End every fault: links, clocks, disks, metadata, pauses; and start what does not run.

        Damage that is done stays done, and so do its effects.
        """
        while self._cures:
            self._due(next(iter(self._cures)))
        self.simulation.network.mend()
        if self.targets.store is not None:
            self.targets.store.heal()
        for node in self.targets.nodes:
            node.heal()
            self._start(node)
        self._tell("healed")

    # ------------------------------------------------------------ for the kinds

    def pick(self, nodes: list[SimulatedNode]) -> SimulatedNode | None:
        """Choose one node that runs, or None."""
        running = [node for node in nodes if node.is_running]
        return self.chance.choice(running) if running else None

    def lasting_s(self) -> float:
        """Draw how long a fault lasts: mostly short, now and then long."""
        return self.chance.expovariate(1 / LASTING_S) + 0.01

    def later(self, seconds: float, cure: Callable[[], None]) -> None:
        """Call `cure` after a while, or when all is healed."""
        self._cure_number += 1
        self._cures[self._cure_number] = cure
        self.simulation.scheduler.after(seconds, 0, self._due, self._cure_number)

    def _due(self, number: int) -> None:
        cure = self._cures.pop(number, None)
        if cure is not None:
            cure()

    def crash(self, node: SimulatedNode, *, power: bool = False) -> None:
        """Crash a node that will start again after a while."""
        if node.name in self.lying:
            self.targets.damaged(node)  # a sync has lied, and a power cut may show it only now
        node.crash(power=power)
        if power:
            self.lying.discard(node.name)
            for disk in node.disks.values():
                disk.faults.stop_lying()
        delay = self.chance.choice((0.05, RESTART_S, 5 * RESTART_S)) * self.chance.random()
        self.later(delay, lambda: self._start(node))

    def may_damage(self, node: SimulatedNode) -> bool:
        """Ask whether the budget lets this server lose durable bytes; a yes is counted."""
        if node.name not in self.damaged:
            if len(self.damaged) >= self.targets.damages_most:
                return False
            self.damaged.add(node.name)
        self.targets.damaged(node)
        return True

    def _start(self, node: SimulatedNode) -> None:
        if node.can_restart and not node.is_running:
            node.restart()

    def _exited(self, node: SimulatedNode) -> None:
        if node.failure is None:
            return  # it had done its work
        self._tell(f"{node.name} failed: {node.failure!r}")
        self.later(self.chance.random() * RESTART_S, lambda: self._start(node))

    def _tell(self, what: str) -> None:
        self.story.append(f"{self.simulation.now:10.6f} {what}")


def _draw_store_faults(chance: random.Random) -> StoreFaults:
    """Draw how a metadata store misbehaves in a run: often not at all (M2, M5)."""
    faults = StoreFaults(latency_s=chance.choice(((0.0, 0.0), (0.0, 0.002), (0.001, 0.1))))
    for name in ("unavailable", "lost_reply", "late", "never"):
        setattr(faults, name, chance.choice((0.0, 0.0, 0.0, 0.01, 0.1)))
    return faults


Kind = Callable[[Nemesis], str | None]


def all_kinds() -> dict[str, Kind]:
    """Every fault kind by name."""
    return {**harm.KINDS, **diskharm.KINDS}
