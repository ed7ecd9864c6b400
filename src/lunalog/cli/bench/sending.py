"""How events are sent: one after another, a window in flight, or at a fixed rate.

Each way measures for itself.  A closed loop counts from the moment it sent; an open loop from the moment
at which the event was meant to leave, also when it could leave only later, or not at all before the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

from lunalog.cli.bench.chain import Bodies, Chain
from lunalog.cli.bench.histogram import Latencies
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Origins, Part, clock
from lunalog.cli.bench.schedule import Schedule
from lunalog.cli.bench.verify import Written
from lunalog.errors import OverloadedError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal
    from lunalog.client.writer import StreamWriter

LEAD_S: Final = 10.0
"""Leadership of a stream of its own must come within this."""
FRAMES_OPEN_MAX: Final = 256
"""An open loop of frames has at most so many in flight; what is due beyond waits, and counts so."""


pause = asyncio.sleep
OnSent = Callable[[float, int], None]
AfterEach = Callable[[int], Awaitable[None]]


class Sending:
    """One writer's part of a run, from its first event to its last ack."""

    def __init__(
        self,
        writer: StreamWriter,
        stream: str,
        bodies: Bodies,
        part: Part,
        plan: Plan,
        *,
        phase_s: float = 0.0,
        on_sent: OnSent = lambda at, count: None,
        after_each: AfterEach | None = None,
    ) -> None:
        self.first = writer.tail
        self._writer = writer
        self._stream = stream
        self._bodies = bodies
        self._chain = Chain(bodies)
        self._part = part
        self._plan = plan
        self._phase_s = phase_s
        """An open loop begins so much later: others have the moments between."""
        self._sent = 0
        self._ready: list[bytes] = []
        """Made, in reverse order, and not sent: there was no room."""
        self._pending: deque[asyncio.Future[int]] = deque()
        self._origins = Origins(part)
        """Of what is pending."""
        self._end: float | None = None
        self._moved = asyncio.Event()
        self._has_sent_all = False
        self._on_sent = on_sent
        """Told of all that leaves: the moment that counts, and how many."""
        self._after_each = after_each
        """One at a time: what to wait for behind each, by its sequence."""

    def written(self) -> Written:
        """What the stream must hold."""
        return Written(self._stream, self._bodies, self.first, self.acknowledged, self._sent)

    @property
    def sent(self) -> int:
        """Events handed to the writer."""
        return self._sent

    @property
    def acknowledged(self) -> int:
        """Events on an ack quorum, also those that were told after the run had ended."""
        return self._writer.committed - self.first

    async def run(self) -> None:
        """Send until the time or the events are over and all are acknowledged.

        Raises what an append raises.  However it ends, what is then still in flight has been counted
        with the time that it has waited.
        """
        plan, part = self._plan, self._part
        began = clock()
        if part.began is None:
            part.start(began)
        self._end = None if plan.time_s is None else began + plan.time_s
        try:
            if plan.rate is not None:
                await self._open_loop(plan.rate)
            elif plan.batch > 1:
                await self._frames_in_window()
            elif plan.in_flight == 1:
                await self._lone()
            else:
                await self._events_in_window()
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """What has no answer counts with the time that it has waited."""
        self._collect()
        self._origins.close(clock())
        for future in self._pending:
            future.add_done_callback(_seen)

    # ------------------------------------------------------------------ closed loops

    def _is_over(self) -> bool:
        return self._left(1) == 0 or (self._end is not None and clock() >= self._end)

    def _left(self, count: int) -> int:
        """Return how many of `count` events may still be sent."""
        events = self._plan.events
        return count if events is None else min(count, events - self._sent)

    async def _lone(self) -> None:
        """One after another."""
        self._part.is_closed_loop = True
        append, origins = self._writer.append, self._origins
        while not self._is_over():
            (payload,) = self._make(1)
            at = clock()
            origins.left(at, 1)
            self._on_sent(at, 1)
            sequence = await append(payload)
            origins.answered(clock(), 1)
            if self._after_each is not None:
                await self._after_each(sequence)

    async def _events_in_window(self) -> None:
        """A window of single appends: as many leave as were acknowledged."""
        self._part.is_closed_loop = True
        window, pending = self._plan.in_flight, self._pending
        while True:
            room = self._left(window - len(pending))
            if self._end is not None and clock() >= self._end:
                room = 0
            if room > 0:
                self._push(room, clock())
            if not pending:
                return
            await self._next_answer()

    async def _frames_in_window(self) -> None:
        """A window of frames, each sent when one before it is acknowledged."""
        self._part.is_closed_loop = True

        async def worker() -> None:
            while not self._is_over():
                await self._frame(clock())

        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.in_flight):
                group.create_task(worker())

    async def _frame(self, origin: float) -> None:
        """Append one frame, the last one perhaps a short one."""
        count, is_answered = self._left(self._plan.batch), False
        self._on_sent(origin, count)
        try:
            await self._writer.append_many(self._make(count))
            is_answered = True
        finally:
            now = clock()
            self._moved.set()
            if is_answered:
                self._part.note(now, count, now - origin)
            else:
                self._part.note_unanswered(now - origin, count)

    # ------------------------------------------------------------------ open loop

    async def _open_loop(self, rate: float) -> None:
        """Send what is due, whatever became of what was sent before."""
        plan, part = self._plan, self._part
        if part.late is None:  # many streams share one
            part.late = Latencies()
        schedule = Schedule(rate / plan.batch, clock() + self._phase_s, plan.units_max)
        async with asyncio.TaskGroup() as group:
            if plan.batch > 1:
                await self._frames_on_time(schedule, group)
                return
            collecting = group.create_task(self._collect_until_over())
            await self._events_on_time(schedule)
            self._has_sent_all = True
            self._moved.set()
            await collecting

    async def _events_on_time(self, schedule: Schedule) -> None:
        while True:
            now = clock()
            due = schedule.due(now)
            while self._sent < due:
                origin = schedule.intended(self._sent)
                if not self._push(1, origin):
                    break
                self._note_late(now - origin)
            self._moved.set()
            if schedule.is_over(self._sent):
                return
            if self._sent == due:
                await pause(max(0.0, schedule.intended(due) - clock()))
            elif self._is_past_end():
                self._give_up(schedule, self._sent, due, 1)
                return
            else:
                await self._writer.drain()

    async def _frames_on_time(self, schedule: Schedule, group: asyncio.TaskGroup) -> None:
        batch, frames = self._plan.batch, 0
        flying: set[asyncio.Task[None]] = set()
        while not schedule.is_over(frames):
            now = clock()
            due = schedule.due(now)
            while frames < due and len(flying) < FRAMES_OPEN_MAX:
                origin = schedule.intended(frames)
                self._note_late(now - origin)
                task = group.create_task(self._frame(origin))
                flying.add(task)
                task.add_done_callback(flying.discard)
                frames += 1
            if frames == due:
                await pause(max(0.0, schedule.intended(due) - clock()))
            elif self._is_past_end():
                self._give_up(schedule, frames, due, batch)
                return
            else:
                self._moved.clear()
                await self._moved.wait()

    def _is_past_end(self) -> bool:
        return self._end is not None and clock() >= self._end

    def _note_late(self, seconds: float) -> None:
        if self._part.late is not None:
            self._part.late.note(seconds)

    def _give_up(self, schedule: Schedule, sent: int, due: int, batch: int) -> None:
        """The time is over, and some that were due could not leave."""
        now, events, part = clock(), self._plan.events, self._part
        for number in range(sent, due):
            count = batch if events is None else min(batch, events - number * batch)
            part.note_unanswered(now - schedule.intended(number), count)
            part.extra["unsent"] = part.extra.get("unsent", 0) + count

    async def _collect_until_over(self) -> None:
        """Note acks as they come, while others are sent."""
        while not self._has_sent_all or self._pending:
            if self._pending:
                await self._next_answer()
            else:
                self._moved.clear()
                await self._moved.wait()

    # ------------------------------------------------------------------ one event

    def _make(self, count: int) -> list[bytes]:
        self._sent += count
        self._part.sent += count
        return self._chain.take(count)

    def _push(self, count: int, origin: float) -> int:
        """Queue up to `count` appends whose latency counts from `origin`; returns how many."""
        ready, pending, append_soon = self._ready, self._pending, self._writer.append_soon
        if not ready:
            ready.extend(reversed(self._chain.take(count)))
        before = len(pending)
        try:
            for _ in range(min(count, len(ready))):
                pending.append(append_soon(ready[-1]))
                ready.pop()
        except OverloadedError:
            pass
        queued = len(pending) - before
        if queued:
            self._origins.left(origin, queued)
            self._on_sent(origin, queued)
            self._sent += queued
            self._part.sent += queued
        return queued

    async def _next_answer(self) -> None:
        """Wait for the oldest that is in flight, and note all that came; raises what refused it."""
        _ = await self._pending[0]
        self._collect()

    def _collect(self) -> None:
        """Note what was acknowledged, up to the first that is not, or was refused."""
        pending, count = self._pending, 0
        while pending and pending[0].done():
            if pending[0].cancelled() or pending[0].exception() is not None:
                break
            _ = pending.popleft()
            count += 1
        self._origins.answered(clock(), count)


@contextlib.asynccontextmanager
async def leading(
    journal: SingleWriteJournal,
    stream: str,
    bodies: Bodies,
    part: Part,
    plan: Plan,
    sendings: list[Sending],
    *,
    on_sent: OnSent = lambda at, count: None,
    after_each: AfterEach | None = None,
) -> AsyncIterator[Sending]:
    """Lead a stream for the time of the body, which sends; `sendings` keeps what was sent for later.

    What is in flight when the body ends is told while the stream is left, and then counted.
    """
    sending: Sending | None = None
    try:
        async with journal.lead(stream, timeout=LEAD_S) as writer:
            sending = Sending(
                writer, stream, bodies, part, plan, on_sent=on_sent, after_each=after_each
            )
            sendings.append(sending)
            try:
                yield sending
            finally:
                part.stop(clock())
    finally:
        if sending is not None:
            part.settle(sending.acknowledged)


def _seen(future: asyncio.Future[int]) -> None:
    """Its error is told elsewhere: the loop must not complain."""
    if not future.cancelled():
        future.exception()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
