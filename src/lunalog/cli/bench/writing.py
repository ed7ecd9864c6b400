"""`lunalog bench write`: append to one stream."""

from __future__ import annotations

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.sending import Sending, leading
from lunalog.cli.bench.verify import Written


class Writing:
    """One leader appends; open loop, closed loop or one at a time."""

    name = "write"

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._sendings: list[Sending] = []

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Append until it is over."""
        part = Part("append", size=plan.size, seconds=plan.time_s)
        self.parts.append(part)
        stream = await ground.create("write", plan)
        journal = await ground.journal("bench-leader")
        async with leading(journal, stream, bodies, part, plan, self._sendings) as sending:
            await sending.run()

    def written(self) -> list[Written]:
        """What was appended."""
        return [sending.written() for sending in self._sendings]
