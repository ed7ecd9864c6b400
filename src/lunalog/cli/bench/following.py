"""`lunalog bench e2e`: from append to a follower, over two connections of one process and one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Origins, Part, clock
from lunalog.cli.bench.sending import Sending, first_of, leading
from lunalog.cli.bench.verify import Written

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal


class Follower:
    """Reads behind a leader, and can be waited for."""

    def __init__(
        self,
        journal: SingleWriteJournal,
        stream: str,
        on_events: Callable[[float, int], None],
    ) -> None:
        self.position = 0
        """Everything below has been read."""
        self._journal = journal
        self._stream = stream
        self._on_events = on_events
        self._wanted = 0
        self._is_there = asyncio.Event()

    async def run(self, start: int) -> None:
        """Read from `start`, until this is cancelled."""
        self.position = start
        async with self._journal.read(self._stream, start=start, follow=True) as reader:
            async for events in reader.batches():
                self._on_events(clock(), len(events))
                self.position = events[-1].sequence + 1
                if self.position >= self._wanted:
                    self._is_there.set()

    async def until(self, sequence: int) -> None:
        """Wait until everything below `sequence` has been read; one may wait at a time."""
        self._wanted = sequence
        while self.position < sequence:
            self._is_there.clear()
            await self._is_there.wait()


class Following:
    """A leader appends, a follower reads: one event at a time, in a window, or at a rate."""

    name = "e2e"

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._sendings: list[Sending] = []

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Append and follow until it is over."""
        append = Part("append", size=plan.size, seconds=plan.time_s)
        follow = Part("append to follower", size=plan.size, seconds=plan.time_s)
        follow.is_closed_loop = plan.rate is None
        self.parts += [append, follow]
        origins = Origins(follow)

        def on_sent(at: float, count: int) -> None:
            origins.left(at, count)
            follow.sent += count

        stream = await ground.create("e2e", plan)
        leader, reader = await ground.journal("bench-leader"), await ground.journal("bench-reader")
        follower = Follower(reader, stream, origins.answered)
        try:
            async with leading(
                leader,
                stream,
                bodies,
                append,
                plan,
                self._sendings,
                on_sent=on_sent,
                after_each=lambda sequence: follower.until(sequence + 1),
            ) as sending:
                await send_and_follow(sending, follower, append, follow)
        finally:
            origins.close(clock())

    def written(self) -> list[Written]:
        """What was appended."""
        return [sending.written() for sending in self._sendings]


async def send_and_follow(sending: Sending, follower: Follower, append: Part, follow: Part) -> None:
    """Send all, and wait until the follower has read all; their parts stop with them."""
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(follower.run(sending.first))
            follow.start(clock())
            try:
                await sending.run()
                append.stop(clock())
                await follower.until(sending.first + sending.sent)
            finally:
                now = clock()
                append.stop(now)
                follow.stop(now)
            reading.cancel()
    except BaseExceptionGroup as group_of:
        raise first_of(group_of) from None
