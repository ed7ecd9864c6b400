"""The soak: faults for some minutes, then everything healed, converged, read back and checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chaos import nodes
from chaos.faults import FAULTS, Fault, NoPreyError, memory_of
from chaos.workload import squeezed
from chaos.world import STREAM, World
from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import AvailabilityError, LunalogError
from lunalog.testing.history import Delivery

T = TypeVar("T")
AT_ONCE: Final = 2
GAP_S: Final = (0.3, 2.0)
CUT_S: Final = 4.0
CONVERGE_S: Final = 150.0
LAST_ACKS: Final = 20
READ_BACK: Final = 2000
MEMORY_BYTES_MAX: Final = 400 << 20
"""Of the harness itself: a soak of any length stays below."""


class NotConvergedError(Exception):
    """Something did not happen although nothing is wrong any more (L1, L2)."""


@dataclass
class Soak:
    """One run in the making.

    Attributes:
        missed: How often a fault found nobody to be done to, or did not bite.
        memory: The most that the harness and any process of the cluster have held.
    """

    world: World
    names: list[str]
    report_s: float = 5.0
    missed: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=lambda: [0, 0])

    def say(self, text: str) -> None:
        """Print a line, at once."""
        print(text, flush=True)

    async def storm(self, seconds: float) -> None:
        """Break things until the time is over or a violation is found."""
        world = self.world
        until = time.monotonic() + seconds
        hands = [asyncio.create_task(self._nemesis(hand)) for hand in range(AT_ONCE)]
        reporting = asyncio.create_task(self._report())
        cutting = asyncio.create_task(self._cut())
        work = [*hands, reporting, cutting]
        try:
            while time.monotonic() < until and not world.monitor.violations:
                await asyncio.sleep(0.2)
                for task in work:
                    if task.done():
                        task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _nemesis(self, hand: int) -> None:
        """Go through all faults in an order drawn anew each time."""
        chance = random.Random(f"nemesis {self.world.seed} {hand}")
        while True:
            deck = [FAULTS[name] for name in self.names]
            chance.shuffle(deck)
            for fault in deck:
                await asyncio.sleep(chance.uniform(*GAP_S))
                await self._inflict(fault, random.Random(chance.random()))

    async def _inflict(self, fault: Fault, chance: random.Random) -> None:
        try:
            has_bitten = await fault.inflict(self.world, chance)
        except NoPreyError:
            has_bitten = False
        (self.world.faults if has_bitten else self.missed)[fault.name] += 1

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(CUT_S)
            self.world.monitor.cut()

    async def _report(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(self.report_s)
            mine, theirs = self._weigh()
            world, counts = self.world, self.world.monitor.counts
            running = sum(node.is_running for node in world.nodes.values())
            self.say(
                f"{time.monotonic() - began:6.0f} s  acks {counts['acked']:7}  "
                f"read {counts['delivered']:8}  points {counts['points']:6}  "
                f"faults {world.faults.total():4}  elections {world.monitor.epochs:4}  "
                f"starts {world.restarts:4}  up {running}/{len(world.nodes)}  "
                f"held {world.monitor.held:6}  MB {mine >> 20} {theirs >> 20}"
            )

    def _weigh(self) -> tuple[int, int]:
        """What the harness holds, and the largest process of the cluster."""
        held, largest = nodes.resident_bytes(os.getpid()), memory_of(self.world)
        self.memory = [max(self.memory[0], held), max(self.memory[1], largest)]
        if held > MEMORY_BYTES_MAX:
            self.world.monitor.violate(f"the soak itself holds {held >> 20} MiB: it is not bounded")
        return held, largest

    # ------------------------------------------------------------------ the end

    async def converge(self) -> None:
        """With all healed: progress, an end, everything read again, everything checked."""
        world, monitor = self.world, self.world.monitor
        before = monitor.counts.copy()
        for node in world.nodes.values():
            node.is_wanted = True
        await self._until("have all servers alive", self._all_alive)
        await self._until(
            "append", lambda: monitor.counts["acked"] >= before["acked"] + LAST_ACKS, is_plain=True
        )
        for what in ("points", "delivered", "heads"):
            await self._until(
                f"get {what}",
                lambda what=what: monitor.counts[what] > before[what],  # type: ignore[misc]
                is_plain=True,
            )
        for client in world.clients:
            client.is_wanted = False
            code = await asyncio.to_thread(client.end)
            if code not in (0, -signal.SIGTERM):  # by the signal itself: it had not begun
                monitor.violate(f"{client.name} was told to end and ended with {code}")
        async with asyncio.timeout(CONVERGE_S):
            committed = await self._committed()
        await self._until(
            f"read up to {committed}", lambda: monitor.log.end >= committed, is_plain=True
        )
        await self._read_back(committed)
        monitor.cut()
        monitor.cut(is_last=True)
        world.read_logs()

    async def _until(self, what: str, holds: object, *, is_plain: bool = False) -> None:
        deadline = time.monotonic() + CONVERGE_S
        while True:
            found = holds() if is_plain else await holds()  # type: ignore[operator]
            if found:
                return
            if time.monotonic() > deadline:
                raise NotConvergedError(f"L1: nobody could {what} within {CONVERGE_S:g} s of calm")
            await asyncio.sleep(0.1)

    async def _all_alive(self) -> bool:
        return await self.world.alive() == self.world.size.servers

    async def _committed(self) -> int:
        """A linearizable read point, from the master where nobody leads any more (R31)."""
        if self.world.journal is None:
            raise RuntimeError("the world is not up")
        while True:
            try:
                return await self.world.journal.committed(STREAM, timeout=20)
            except AvailabilityError:
                await asyncio.sleep(0.2)

    async def _read_back(self, committed: int) -> None:
        """Read the whole log again, by a client of its own."""
        world, monitor = self.world, self.world.monitor
        async with SingleWriteJournal.connect(world.url, peer="reading-back") as journal:
            description = await journal.describe(STREAM)
            at = description.head.truncated_before
            async with asyncio.timeout(CONVERGE_S + committed / 2000):
                part: list[Delivery] = []
                while at < committed:
                    async for event in journal.read(STREAM, start=at, follow=True):
                        part.append(Delivery(event.sequence, event.epoch, squeezed(event.payload)))
                        at = event.sequence + 1
                        if at >= committed or len(part) >= READ_BACK:
                            break
                    if part:
                        monitor.read_back(part)
                        part = []

    def summary(self) -> None:
        """Print what happened."""
        world, counts = self.world, self.world.monitor.counts
        self._weigh()
        self.say(f"\nfaults inflicted: {world.faults.total()}")
        for name in sorted(self.names):
            self.say(f"  {name:15} {world.faults[name]:4}   without effect {self.missed[name]}")
        self.say("seen:")
        for name, count in sorted(counts.items()):
            self.say(f"  {name:16} {count}")
        self.say("facts checked:")
        for name, count in sorted(world.monitor.checked.items()):
            self.say(f"  {name:4} {count}")
        self.say(
            f"memory: harness {self.memory[0] >> 20} MB, largest node {self.memory[1] >> 20} MB"
        )


async def guarded(work: Awaitable[T], seconds: float, what: str) -> T:
    """Bound a step of the harness itself, so that a run that hangs says where."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await work
    raise NotConvergedError(f"L2: {what} took longer than {seconds:g} s")


async def run(world: World, names: list[str], seconds: float) -> Soak:
    """Start, storm, converge; what is wrong is in `world.monitor.violations`."""
    soak = Soak(world, names)
    try:
        await guarded(world.up(), 240, "the start")
        soak.say(f"up: {len(world.nodes)} processes in {world.home}")
        await soak.storm(seconds)
        if not world.monitor.violations:
            soak.say("calm: all is healed and must converge")
            await guarded(soak.converge(), 6 * CONVERGE_S, "convergence")
    except (NotConvergedError, LunalogError, TimeoutError) as error:
        world.monitor.violate(f"{type(error).__name__}: {error}")
    return soak
