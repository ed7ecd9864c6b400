"""What every workload has, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.verify import Written


class Workload(Protocol):
    """One kind of run.  What it has measured can be looked at at any time."""

    name: str
    parts: list[Part]
    """In the order in which they are told."""

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Make streams, measure, and leave them without a leader.  Cancelled, it ends early."""
        ...

    def written(self) -> list[Written]:
        """What must be there now."""
        ...


def progress_of(parts: list[Part]) -> int:
    """Return a number that grows as long as a run gets on."""
    return sum(part.done for part in parts)


def running(parts: list[Part]) -> Iterator[Part]:
    """Yield the parts that have begun and are not over."""
    return (
        part
        for part in parts
        if part.began is not None and part.ended is None and not part.is_sampled
    )
