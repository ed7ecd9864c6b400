"""A metadata store with the faults of a remote one: slow, unreachable, late, silent, deadly.

It outlives its masters; the test holds it.  A transaction whose reply is lost either was applied, or
lands after some later calls, or never.  All chance comes from the given stream.

Source: docs/design.md "Seams"; R28, M1, M2, M5.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lunalog.errors import MasterUnavailableError, OutcomeUnknownError
from lunalog.master.memory import MemoryStore
from lunalog.master.store import Record
from lunalog.testing.transitions import transition


@dataclass(slots=True)
class StoreFaults:
    """How often what goes wrong, each 0.0 to 1.0, and how long a call takes."""

    latency_s: tuple[float, float] = (0.0, 0.0)
    unavailable: float = 0.0
    """The call does nothing and says so."""
    lost_reply: float = 0.0
    """The transaction is applied, its caller hears nothing."""
    late: float = 0.0
    """Its caller hears nothing, and the transaction lands after up to `late_calls` others."""
    never: float = 0.0
    """Its caller hears nothing, and the transaction is gone."""
    late_calls: int = 8

    @classmethod
    def draw(cls, chance: random.Random) -> Self:
        """Draw how a store misbehaves in a run: often not at all (M2, M5)."""
        latency_s = chance.choice(((0.0, 0.0), (0.0, 0.002), (0.001, 0.1)))
        unavailable, lost_reply, late, never = (
            chance.choice((0.0, 0.0, 0.0, 0.01, 0.1)) for _ in range(4)
        )
        return cls(latency_s, unavailable, lost_reply, late, never)


@dataclass(slots=True)
class _Late:
    compares: dict[str, int]
    puts: dict[str, bytes]
    deletes: tuple[str, ...]
    calls_left: int


class SimulatedStore(MemoryStore):
    """A `MetadataStore` for tests and simulations.

    Attributes:
        faults: Change them at any time; none at first.
        transactions: How many were asked for, so far.
        injected: How often each fault struck.
        on_commit: Called with (puts, deletes) after each transaction that was applied.
        doomed: Reply that the next transactions lose: "lost_reply", "late" or "never" each.
        seen: How often each transition was applied, by name (see `transitions`).
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        super().__init__()
        self.chance = chance or random.Random(0)
        self.faults = StoreFaults()
        self.transactions = 0
        self.injected: Counter[str] = Counter()
        self.on_commit: Callable[[Mapping[str, bytes], Sequence[str]], None] | None = None
        self.doomed: list[str] = []
        self.seen: Counter[str] = Counter()
        self._late: list[_Late] = []
        self._crashes: list[tuple[int | str, str, Callable[[], None]]] = []

    def crash_at(self, transaction: int | str, when: str, crash: Callable[[], None]) -> None:
        """Call `crash` before or after (`when`) a transaction, whose caller is never answered.

        Args:
            transaction: The n-th, counted from 1 overall; or the next of this name (`transitions`).
            when: "before" or "after".
            crash: Ends the master that asked, once; others that are planned go on waiting.
        """
        if when not in ("before", "after"):
            raise ValueError(f"when must be before or after, not {when!r}")
        self._crashes.append((transaction, when, crash))

    def heal(self) -> None:
        """End all faults; what is late is gone."""
        self.faults = StoreFaults()
        self.doomed.clear()
        self._late.clear()
        self._crashes.clear()

    async def get(self, key: str) -> Record | None:
        """Read one key."""
        await self._travel()
        return await super().get(key)

    async def scan(self, prefix: str) -> list[tuple[str, Record]]:
        """Read all keys that begin with `prefix`, in order."""
        await self._travel()
        return await super().scan(prefix)

    async def transact(
        self,
        compares: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> int | None:
        """Write all or nothing, or something worse."""
        self.transactions += 1
        number = self.transactions
        await self._travel()
        name = transition(self._value, puts, deletes)
        await self._die((number, name), "before")
        faults = self.faults
        doom = self.doomed.pop() if self.doomed else ""
        if self._strikes("never", faults.never, doom):
            raise OutcomeUnknownError("no answer from the metadata store")
        if self._strikes("late", faults.late, doom):
            calls = self.chance.randint(1, faults.late_calls)
            self._late.append(_Late(dict(compares), dict(puts), tuple(deletes), calls))
            raise OutcomeUnknownError("no answer from the metadata store")
        version = self.apply(compares, puts, deletes)
        await self._die((number, name), "after")
        if self._strikes("lost_reply", faults.lost_reply, doom):
            raise OutcomeUnknownError("no answer from the metadata store")
        return version

    def apply(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str]
    ) -> int | None:
        """Compare and write, and tell who listens."""
        name = transition(self._value, puts, deletes)
        version = super().apply(compares, puts, deletes)
        if version is not None:
            self.seen[name] += 1
            if self.on_commit is not None:
                self.on_commit(puts, deletes)
        return version

    def _value(self, key: str) -> bytes | None:
        found = self._records.get(key)
        return found.value if found is not None else None

    async def _travel(self) -> None:
        shortest, longest = self.faults.latency_s
        if longest > 0.0:
            await asyncio.sleep(self.chance.uniform(shortest, longest))
        self._land()
        if self._strikes("unavailable", self.faults.unavailable):
            raise MasterUnavailableError("the metadata store cannot be reached")

    def _land(self) -> None:
        waiting, self._late = self._late, []
        for late in waiting:
            late.calls_left -= 1
            if late.calls_left > 0:
                self._late.append(late)
            else:
                self.apply(late.compares, late.puts, late.deletes)

    def _strikes(self, name: str, rate: float, doom: str = "") -> bool:
        if doom != name and (rate <= 0.0 or self.chance.random() >= rate):
            return False
        self.injected[name] += 1
        return True

    async def _die(self, which: tuple[int, str], when: str) -> None:
        for planned in self._crashes:
            if planned[0] in which and planned[1] == when:
                self._crashes.remove(planned)
                planned[2]()
                await asyncio.get_running_loop().create_future()  # nobody is left to be answered
