"""Everything about a run that is chosen before it starts, as data: drawn by seed, kept, or cut down.

A plan has no chance in it that is not its seed's, so a run is a function of its plan.  Faults are
listed one by one, each with a number that is its own stream of chance: what is left out of a plan
changes nobody else's choices, which is what makes a failing plan easy to shrink.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

import msgspec

from lunalog.testing.cluster import Shape
from lunalog.testing.link import NetworkSettings
from lunalog.testing.metadata import StoreFaults
from lunalog.testing.nemesis import Fault, all_kinds, draw_faults, draw_kinds
from lunalog.testing.tempo import Tempo
from lunalog.testing.workload import Mix

SHORT_S, MIDDLE_S, LONG_S = (0.6, 1.8), (1.8, 6.0), (10.0, 16.0)
"""How long storms last; most are short, since most bugs need few steps, and few need many."""
LENGTHS = (SHORT_S,) * 32 + (MIDDLE_S,) * 5 + (LONG_S,)
USUAL_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        storm_s: How long faults strike; then all is healed, but for what is meant to stay.
        network: How the network is when nothing is wrong with it.
        store: How the masters' metadata store is.
        faults: What strikes when.
    """

    seed: int
    shape: Shape = field(default_factory=Shape)
    mix: Mix = field(default_factory=Mix)
    tempo: Tempo = field(default_factory=Tempo)
    storm_s: float = 3.0
    network: NetworkSettings = field(default_factory=NetworkSettings)
    store: StoreFaults = field(default_factory=StoreFaults)
    faults: tuple[Fault, ...] = ()

    @classmethod
    def draw(cls, seed: int) -> Self:
        """Draw the plan of a seed: its own subset of the faults, sizes, speeds and mix of work."""
        chance = random.Random(f"{seed}/plan")
        shape, mix, tempo = Shape.draw(chance), Mix.draw(chance), Tempo.draw(chance)
        network = NetworkSettings()
        network.redraw(chance)
        storm_s = chance.uniform(*chance.choice(LENGTHS))
        count = 10 ** chance.uniform(0.7, 1.75) * (storm_s / SHORT_S[1]) ** 0.5
        storm_s *= (mix.pause_s / USUAL_PAUSE_S) ** 0.3  # the busier, the shorter
        storm_s = round(storm_s, 3)
        faults = draw_faults(chance, draw_kinds(chance), storm_s / count, storm_s)
        store = StoreFaults.draw(chance)
        return cls(seed, shape, mix, tempo, storm_s, network, store, tuple(faults))

    def only(self, numbers: Iterable[int]) -> Self:
        """Return the same plan with no other faults than these."""
        wanted = set(numbers)
        return replace(self, faults=tuple(f for f in self.faults if f.number in wanted))

    def calm(self) -> Self:
        """Return the same plan on a good network and metadata store."""
        return replace(self, network=NetworkSettings(), store=StoreFaults())

    @property
    def numbers(self) -> list[int]:
        """Of its faults."""
        return [fault.number for fault in self.faults]

    def check(self) -> None:
        """Raise `ValueError` if it names faults that nobody knows (any more)."""
        unknown = {fault.kind for fault in self.faults} - set(all_kinds())
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")

    def encode(self) -> bytes:
        """Return it as JSON, a line a field."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` returned; fields that are not there have their defaults.

        Raises `ValueError` for anything else.
        """
        try:
            plan = msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a plan: {error}") from error
        plan.check()
        return plan
