"""What breaks a simulated cluster: faults that were drawn beforehand strike one by one, then the cure.

Each run draws its own subset of the fault kinds, so that some runs meet one kind often and others
many kinds at once.  Each fault has a number and a stream of chance of its own: leaving one out
changes no choice of the others.  Damage (what a disk had said was durable, and has lost) stays within
a budget, since beyond A-1 damaged members nobody promises anything.

Source: docs/design.md "Seams"; the fault codes beside each kind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from lunalog.testing import clockharm, diskharm, focus, harm, netharm
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.metadata import SimulatedStore, StoreFaults
from lunalog.testing.simulation import Simulation
from lunalog.testing.tempo import USUAL_LEASE_MS
from lunalog.types import StreamHead

RESTART_S = 1.0
LASTING_S, LASTING_S_MAX = 2.0, 8.0


@dataclass(slots=True)
class Targets:
    """Whom to harm.

    Attributes:
        masters, servers, clients: Nodes by role; only servers' disks are harmed.
        store: The masters' metadata store.
        damages_most: How many servers may lose durable bytes in the whole run: A-1 at most.
        pace: Factor on how long faults last and how soon who died comes back.
        allows_walls: Whether links may be cut for good; then not everybody converges.
        damaged: Called with a server before its durable bytes are harmed, and before each crash
            that may show the harm.
        position, reported: How far a server's log reaches, and how far the masters know it to reach.
            An image behind which nothing was reported yet cannot be told from the disk itself (R19).
        leader: The client that the metadata names as a leader, if any.
    """

    simulation: Simulation
    servers: list[SimulatedNode]
    masters: list[SimulatedNode] = field(default_factory=list)
    clients: list[SimulatedNode] = field(default_factory=list)
    damages_most: int = 0
    pace: float = 1.0
    allows_walls: bool = False
    store: SimulatedStore | None = None
    damaged: Callable[[SimulatedNode], None] = lambda node: None
    position: Callable[[SimulatedNode], int] = lambda node: 0
    reported: Callable[[SimulatedNode], int] = lambda node: 1
    leader: Callable[[], SimulatedNode | None] = lambda: None

    @property
    def nodes(self) -> list[SimulatedNode]:
        """All of them."""
        return [*self.masters, *self.servers, *self.clients]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan: `kind` strikes `at` seconds after the storm began."""

    number: int
    at: float
    kind: str


class Nemesis:
    """One run's faults.

    Example:
        nemesis = Nemesis.draw(Targets(simulation, servers, [master], clients, damages_most=1))
        simulation.run(nemesis.run(20.0))
        nemesis.heal()

    It also plays the supervisor: a process that failed or was crashed starts again after a while.

    Attributes:
        kinds: Weight of each fault kind that `run` draws from.
        mean_gap_s: Mean time between two faults of `run`.
        story: What was done when, for people.
        damaged: Names of the servers whose durable bytes were harmed.
        lying: Servers on whose disks a sync may have lied since the last power cut.
        images: Old images of disks, and how far the log reached in them.
        walled: The client that some links are cut from for good, if any.
        when_granted: Called with each epoch's new head while a fault wants to know.
    """

    def __init__(
        self, targets: Targets, kinds: dict[str, float] | None = None, mean_gap_s: float = 1.0
    ) -> None:
        self.targets = targets
        self.simulation = targets.simulation
        self.kinds = kinds or {}
        self.mean_gap_s = mean_gap_s
        self.story: list[str] = []
        self.damaged: set[str] = set()
        self.lying: set[str] = set()
        self.images: dict[str, Any] = {}
        self.walled: str = ""
        self.walls: list[tuple[str, str]] = []
        self.when_granted: dict[int, Callable[[StreamHead], None]] = {}
        self._cures: dict[int, Callable[[], None]] = {}
        self._cure_number = 0
        self._exits = self._drawn = 0
        for node in targets.nodes:
            node.on_exit = self._exited

    @classmethod
    def draw(cls, targets: Targets) -> Self:
        """Draw kinds, weights and rates; and how network and store usually are in this run."""
        chance = targets.simulation.stream("swarm")
        targets.simulation.network.settings.redraw(chance)
        if targets.store is not None:
            targets.store.faults = StoreFaults.draw(chance)
        return cls(targets, draw_kinds(chance), 10 ** chance.uniform(-1, 0.6))

    # ------------------------------------------------------------ the storm and its end

    async def run(self, seconds: float) -> None:
        """Draw faults and let them strike for a while; run it on the harness node."""
        chance = self.simulation.stream("nemesis")
        faults = draw_faults(chance, self.kinds, self.mean_gap_s, seconds, after=self._drawn)
        self._drawn += len(faults)
        await self.play(faults, seconds)

    async def play(self, faults: Iterable[Fault], seconds: float) -> None:
        """Let faults strike when their time comes, and return after `seconds`."""
        began = self.simulation.now
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at - self.simulation.now))
            self.strike(fault)
        await asyncio.sleep(max(0.0, began + seconds - self.simulation.now))

    def strike(self, fault: Fault) -> None:
        """Let one fault strike now."""
        what = all_kinds()[fault.kind](Strike(self, fault.number))
        if what is not None:
            self.simulation.count(fault.kind)
            self.tell(f"{fault.number} {fault.kind}: {what}")

    def granted(self, head: StreamHead) -> None:
        """Note that the master has granted an epoch."""
        for hook in list(self.when_granted.values()):
            hook(head)

    def heal(self) -> None:
        """End every fault: links, clocks, disks, metadata, pauses; and start what does not run.

        Damage that is done stays done, and so do its effects; and so do walls, which are there to
        see that all goes on around them.
        """
        self.when_granted.clear()
        while self._cures:
            self._due(next(iter(self._cures)))
        self.simulation.network.mend()
        for source, target in self.walls:
            self.simulation.network.cut(source, target)
        if self.targets.store is not None:
            self.targets.store.heal()
        for node in self.targets.nodes:
            node.heal()
            self.start(node)
        self.tell("healed")

    # ------------------------------------------------------------ for strikes

    def later(self, seconds: float, cure: Callable[[], None]) -> None:
        """Call `cure` after a while, or when all is healed."""
        self._cure_number += 1
        self._cures[self._cure_number] = cure
        self.simulation.scheduler.after(seconds, 0, self._due, self._cure_number)

    def _due(self, number: int) -> None:
        cure = self._cures.pop(number, None)
        if cure is not None:
            cure()

    def start(self, node: SimulatedNode) -> None:
        """Start a node that does not run, unless it came to its end."""
        if node.can_restart and not node.is_running:
            node.restart()

    def _exited(self, node: SimulatedNode) -> None:
        if node.failure is None:
            return  # it had done its work
        self.tell(f"{node.name} failed: {node.failure!r}")
        self._exits += 1
        chance = random.Random(f"{self.simulation.seed}/exit {node.name} {self._exits}")
        self.later(chance.random() * RESTART_S * self.targets.pace, lambda: self.start(node))

    def tell(self, what: str) -> None:
        """Write a line of the story."""
        self.story.append(f"{self.simulation.now:10.6f} {what}")


class Strike:
    """One fault as it strikes: the nemesis, with chance that nobody else draws from."""

    def __init__(self, nemesis: Nemesis, number: int) -> None:
        self.nemesis = nemesis
        self.number = number
        self.targets = nemesis.targets
        self.simulation = nemesis.simulation
        self.network = nemesis.simulation.network
        self.pace = nemesis.targets.pace
        self.chance = random.Random(f"{nemesis.simulation.seed}/fault {number}")

    def pick(self, nodes: list[SimulatedNode]) -> SimulatedNode | None:
        """Choose one node that runs, or None."""
        running = [node for node in nodes if node.is_running]
        return self.chance.choice(running) if running else None

    def leader(self) -> SimulatedNode | None:
        """The client that leads as far as the metadata knows, or None if it does not run."""
        node = self.targets.leader()
        return node if node is not None and node.is_running else None

    @property
    def lease_s(self) -> float:
        """How long a lease is in this run."""
        return USUAL_LEASE_MS / 1000 * self.pace

    def lasting_s(self) -> float:
        """Draw how long a fault lasts: mostly short, now and then long."""
        return min(self.chance.expovariate(1 / LASTING_S) + 0.01, LASTING_S_MAX) * self.pace

    def later(self, seconds: float, cure: Callable[[], None]) -> None:
        """Call `cure` after a while, or when all is healed."""
        self.nemesis.later(seconds, cure)

    def tell(self, what: str) -> None:
        """Write a line of the story."""
        self.nemesis.tell(f"{self.number} {what}")

    def crash(
        self, node: SimulatedNode, *, power: bool = False, back_s: float | None = None
    ) -> None:
        """Crash a node that will start again after a while, or after `back_s`."""
        nemesis = self.nemesis
        if node.name in nemesis.lying:
            self.targets.damaged(node)  # a sync has lied, and a power cut may show it only now
        if power:
            for disk in node.disks.values():
                diskharm.spare_tail(disk)
        node.crash(power=power)
        if power:
            nemesis.lying.discard(node.name)
            for disk in node.disks.values():
                disk.faults.stop_lying()
        if back_s is None:
            longest = self.chance.choice((0.05, RESTART_S, 5 * RESTART_S))
            back_s = longest * self.chance.random() * self.pace
        self.later(back_s, lambda: nemesis.start(node))

    def may_damage(self, node: SimulatedNode) -> bool:
        """Ask whether the budget lets this server lose durable bytes; a yes is counted."""
        nemesis = self.nemesis
        if node.name not in nemesis.damaged:
            if len(nemesis.damaged) >= self.targets.damages_most:
                return False
            nemesis.damaged.add(node.name)
        self.targets.damaged(node)
        return True


def draw_kinds(chance: random.Random) -> dict[str, float]:
    """Draw a swarm's subset of the kinds, each with a weight."""
    known = all_kinds()
    share = chance.choice((0.05, 0.2, 0.5))
    kinds = {name: 10 ** chance.uniform(-1, 0) for name in known if chance.random() < share}
    return kinds or {chance.choice(sorted(known)): 1.0}


def draw_faults(
    chance: random.Random,
    kinds: dict[str, float],
    mean_gap_s: float,
    seconds: float,
    after: int = 0,
) -> list[Fault]:
    """Draw which kind strikes when, until `seconds` are over; numbered from behind `after`."""
    names = sorted(kinds)
    weights = [kinds[name] for name in names]
    faults: list[Fault] = []
    at = chance.expovariate(1 / mean_gap_s)
    while names and at < seconds:
        kind = chance.choices(names, weights)[0]
        faults.append(Fault(after + len(faults) + 1, round(at, 6), kind))
        at += chance.expovariate(1 / mean_gap_s)
    return faults


Kind = Callable[[Strike], str | None]


def all_kinds() -> dict[str, Kind]:
    """Every fault kind by name."""
    return {**harm.KINDS, **netharm.KINDS, **clockharm.KINDS, **diskharm.KINDS, **focus.KINDS}
