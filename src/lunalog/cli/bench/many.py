"""`lunalog bench streams`: many streams appended to at once, by one leader process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.ground import PARALLEL, Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.sending import Sending, first_of
from lunalog.cli.bench.verify import Written

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal

DIGITS: Final = 5
"""Of a stream's number in its name."""


class Streams:
    """Make streams, lead them all, append to all of them at once."""

    name = "streams"

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._sendings: list[Sending] = []
        self._sending = 0
        """Streams that are being appended to."""

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Create, lead, append; leaving them is not measured."""
        create = Part("create")
        lead = Part("lead")
        append = Part("append", size=plan.size, seconds=plan.time_s)
        self.parts += [create, lead, append]
        names: list[str] = []
        try:
            await self._create(ground, plan, create, names)
            await self._append(await ground.journal("bench-leader"), plan, bodies, names)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            append.settle(sum(sending.acknowledged for sending in self._sendings))

    async def _create(self, ground: Ground, plan: Plan, part: Part, names: list[str]) -> None:
        part.start(clock())
        numbers = iter(range(plan.streams))

        async def worker() -> None:
            for number in numbers:
                at = clock()
                part.sent += 1
                label = f"{number:0{DIGITS}}"
                names.append(await ground.create(label, plan))
                now = clock()
                part.note(now, 1, now - at)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL, plan.streams)):
                group.create_task(worker())
        part.stop(clock())

    async def _append(
        self, journal: SingleWriteJournal, plan: Plan, bodies: Bodies, names: list[str]
    ) -> None:
        """Lead all; when the last one is led, all begin to append, at a rate in turns."""
        _, lead, append = self.parts
        share, all_led, began = plan.share(), asyncio.Event(), clock()
        lead.start(began)
        self._sending = len(names)

        async def one(number: int, name: str) -> None:
            lead.sent += 1
            async with journal.lead(name) as writer:
                now = clock()
                lead.note(now, 1, now - began)
                if lead.done == len(names):
                    lead.stop(now)
                    append.start(now)
                    all_led.set()
                await all_led.wait()
                phase_s = plan.phase_s(number)
                sending = Sending(writer, name, bodies, append, share, phase_s=phase_s)
                self._sendings.append(sending)
                try:
                    await sending.run()
                finally:
                    self._sending -= 1
                    if self._sending == 0:
                        append.stop(clock())

        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(names):
                group.create_task(one(number, name))

    def written(self) -> list[Written]:
        """What was appended to each stream."""
        return [sending.written() for sending in self._sendings]
