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

from lunalog.errors import MasterUnavailableError, OutcomeUnknownError
from lunalog.master.memory import MemoryStore
from lunalog.master.store import Record


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
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        super().__init__()
        self.chance = chance or random.Random(0)
        self.faults = StoreFaults()
        self.transactions = 0
        self.injected: Counter[str] = Counter()
        self.on_commit: Callable[[Mapping[str, bytes], Sequence[str]], None] | None = None
        self._late: list[_Late] = []
        self._crash: tuple[int, str, Callable[[], None]] | None = None

    def crash_at(self, transaction: int, when: str, crash: Callable[[], None]) -> None:
        """Call `crash` before or after (`when`) the n-th transaction, counted from 1 overall.

        Its caller is never answered.
        """
        if when not in ("before", "after"):
            raise ValueError(f"when must be before or after, not {when!r}")
        self._crash = (transaction, when, crash)

    def heal(self) -> None:
        """End all faults; what is late is gone."""
        self.faults = StoreFaults()
        self._late.clear()
        self._crash = None

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
        await self._die(number, "before")
        faults = self.faults
        if self._strikes("never", faults.never):
            raise OutcomeUnknownError("no answer from the metadata store")
        if self._strikes("late", faults.late):
            calls = self.chance.randint(1, faults.late_calls)
            self._late.append(_Late(dict(compares), dict(puts), tuple(deletes), calls))
            raise OutcomeUnknownError("no answer from the metadata store")
        version = self.apply(compares, puts, deletes)
        await self._die(number, "after")
        if self._strikes("lost_reply", faults.lost_reply):
            raise OutcomeUnknownError("no answer from the metadata store")
        return version

    def apply(
        self, compares: Mapping[str, int], puts: Mapping[str, bytes], deletes: Sequence[str]
    ) -> int | None:
        """Compare and write, and tell who listens."""
        version = super().apply(compares, puts, deletes)
        if version is not None and self.on_commit is not None:
            self.on_commit(puts, deletes)
        return version

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

    def _strikes(self, name: str, rate: float) -> bool:
        if rate <= 0.0 or self.chance.random() >= rate:
            return False
        self.injected[name] += 1
        return True

    async def _die(self, number: int, when: str) -> None:
        if self._crash is None or self._crash[:2] != (number, when):
            return
        crash, self._crash = self._crash[2], None
        crash()
        await asyncio.get_running_loop().create_future()  # nobody is left to be answered
