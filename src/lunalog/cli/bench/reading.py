"""`lunalog bench read`: catch up with what is there, then follow a leader that appends all it can."""

from __future__ import annotations

from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.following import Follower, send_and_follow
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import CATCH_UP, TAIL, Plan
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.sending import Sending, leading
from lunalog.cli.bench.verify import Written

FRAME_BYTES = 64 * 1024
FRAME_EVENTS_MAX = 1000


def frame_events(size: int) -> int:
    """Return how many events of a size make a frame that is worth its trip."""
    return max(1, min(FRAME_EVENTS_MAX, FRAME_BYTES // size))


class Reading:
    """Fill a stream, read it from its beginning, and read behind its leader.

    Reading is timed bare; the comparison of every byte comes when the run is over, as always.
    """

    name = "read"

    def __init__(self, which: tuple[str, ...]) -> None:
        self.parts: list[Part] = []
        self._which = which
        self._sendings: list[Sending] = []

    async def run(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        """Do one after the other."""
        if CATCH_UP in self._which:
            await self._catch_up(ground, plan, bodies)
        if TAIL in self._which:
            await self._tail(ground, plan, bodies)

    async def _catch_up(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        fill = Part("fill", size=plan.size, seconds=plan.time_s)
        self.parts.append(fill)
        stream = await ground.create(CATCH_UP, plan)
        leader = await ground.journal("bench-filler")
        async with leading(leader, stream, bodies, fill, plan, self._sendings) as sending:
            await sending.run()
        reader = await ground.journal("bench-reader")
        part = Part(CATCH_UP, size=plan.size)
        part.sent = fill.done
        self.parts.append(part)
        part.start(clock())
        async with reader.read(stream, start=sending.first) as events:
            async for batch in events.batches():
                part.note(clock(), len(batch))
        part.stop(clock())

    async def _tail(self, ground: Ground, plan: Plan, bodies: Bodies) -> None:
        append = Part("append", size=plan.size, seconds=plan.time_s)
        tail = Part(TAIL, size=plan.size, seconds=plan.time_s)
        self.parts += [append, tail]
        tail.extra["behind_max"] = 0
        stream = await ground.create(TAIL, plan)
        leader, reader = await ground.journal("bench-leader"), await ground.journal("bench-tailer")

        def on_events(now: float, count: int) -> None:
            tail.note(now, count)
            behind = append.done - tail.done
            tail.extra["behind_max"] = max(tail.extra["behind_max"], behind)

        follower = Follower(reader, stream, on_events)
        async with leading(leader, stream, bodies, append, plan, self._sendings) as sending:
            await send_and_follow(sending, follower, append, tail)
        tail.sent = sending.sent

    def written(self) -> list[Written]:
        """What was appended to both streams."""
        return [sending.written() for sending in self._sendings]
