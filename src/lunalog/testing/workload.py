"""What the simulated clients do: lead and append, follow, ask for read points, truncate, hand over.

Everything goes through the public API and is written into the `History` with the simulation's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lunalog.client.journal import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from lunalog.errors import (
    AvailabilityError,
    ConflictError,
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    StreamNotFoundError,
    TruncatedError,
    UsageError,
)
from lunalog.testing.history import Append, Delivery, History, LinearRead, ReaderSession

STREAM = "orders"


@dataclass(frozen=True, slots=True)
class Mix:
    """How one run's clients behave; drawn by seed."""

    payload_bytes_max: int = 200
    pause_s: float = 0.02
    turn_s: float = 3.0
    """About how long a leader stays before it resigns."""
    truncate_rate: float = 0.01
    transfer_rate: float = 0.02
    burst_max: int = 8

    @classmethod
    def draw(cls, chance: random.Random) -> Mix:
        """Draw a mix."""
        return cls(
            payload_bytes_max=chance.choice([20, 200, 2000]),
            pause_s=chance.choice([0.005, 0.02, 0.1]),
            turn_s=chance.choice([0.5, 3.0, 30.0]),
            truncate_rate=chance.choice([0.0, 0.02]),
            transfer_rate=chance.choice([0.0, 0.02]),
            burst_max=chance.choice([1, 8, 30]),
        )


class Workload:
    """The clients of one run, over one stream."""

    def __init__(
        self, history: History, chance: random.Random, now: Callable[[], float], mix: Mix
    ) -> None:
        self.history = history
        self.mix = mix
        self._chance = chance
        self._now = now
        self._count = 0
        self._is_over = False
        self._appending: set[str] = set()
        self._resting: set[str] = set()

    async def finish(self) -> None:
        """Have the appends end; return when a leader has flushed, and leads on without appending."""
        self._is_over = True
        while self._appending or not self._resting:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def peer(self, journal: SingleWriteJournal, name: str) -> None:
        """Stand for election; while leading, append and now and then resign.  Never returns."""
        self._appending.discard(name)  # a crash runs no `finally`
        self._resting.discard(name)
        while True:
            try:
                async with journal.lead(STREAM) as writer:
                    await self._turn(journal, writer, name)
            except LunalogError as error:
                if isinstance(error, UsageError) and not isinstance(error, ConflictError):
                    raise
            await self._pause()

    async def _turn(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> None:
        until = self._now() + self._chance.expovariate(1 / self.mix.turn_s)
        while self._is_over or self._now() < until:
            await self._busily(journal, writer, name)
            if self._is_over:
                await self._rest(writer, name)
                continue
            dice = self._chance.random()
            if dice < self.mix.truncate_rate and writer.committed > 10:
                await writer.truncate(before=self._chance.randrange(writer.committed))
            elif dice > 1 - self.mix.transfer_rate:
                with contextlib.suppress(UsageError):  # nobody else stands
                    await journal.transfer(STREAM)
                return
            await self._pause()

    async def _busily(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> None:
        self._appending.add(name)
        try:
            if self._is_over:
                await writer.flush()
            else:
                await self._some_appends(journal, writer, name)
        finally:
            self._appending.discard(name)

    async def _rest(self, writer: StreamWriter, name: str) -> None:
        self._resting.add(name)
        try:
            await asyncio.sleep(0.2)  # one that is resigning has a turn to be told so
            while writer.is_leading:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        finally:
            self._resting.discard(name)

    async def _some_appends(
        self, journal: SingleWriteJournal, writer: StreamWriter, name: str
    ) -> None:
        kind = self._chance.randrange(4)
        count = self._chance.randint(1, self.mix.burst_max)
        if kind == 0:
            await self._lone(journal, writer, name)
        elif kind == 1:
            await self._together(journal, writer, name, count)
        elif kind == 2:
            self._burst(journal, writer, name, count)
            if self._chance.random() < 0.5:
                await writer.flush()
        else:
            await self._expected(journal, writer, name)

    def _record(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> Append:
        self._count += 1
        padding = b"." * self._chance.randrange(self.mix.payload_bytes_max)
        payload = b"%s/%d/%s" % (name.encode(), self._count, padding)
        append = Append(payload, name, journal.incarnation, writer.epoch, self._now())
        self.history.appends.append(append)
        return append

    def _settle(self, append: Append, error: BaseException | None, sequence: int | None) -> None:
        if isinstance(error, GeneratorExit):
            return  # the run is over, and a dead process is cleared away
        append.done = self._now()
        if error is None:
            append.outcome, append.sequence = "acked", sequence
        elif (
            isinstance(error, OutcomeUnknownError)
            or (isinstance(error, LunalogError) and error.maybe_applied)
            or isinstance(error, asyncio.CancelledError)
        ):
            append.outcome = "unknown"
        else:
            append.outcome = "refused"

    async def _lone(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> None:
        append = self._record(journal, writer, name)
        try:
            self._settle(append, None, await writer.append(append.payload))
        except BaseException as error:
            self._settle(append, error, None)
            raise

    async def _expected(self, journal: SingleWriteJournal, writer: StreamWriter, name: str) -> None:
        """A conditional append, right or wrong about the tail."""
        is_right = self._chance.random() < 0.7
        append = self._record(journal, writer, name)
        try:
            expected = writer.tail + (0 if is_right else 1)
            self._settle(append, None, await writer.append(append.payload, expected=expected))
        except ConflictError as error:
            self._settle(append, error, None)
        except BaseException as error:
            self._settle(append, error, None)
            raise

    async def _together(
        self, journal: SingleWriteJournal, writer: StreamWriter, name: str, count: int
    ) -> None:
        batch = [self._record(journal, writer, name) for _ in range(count)]
        try:
            sequences = await writer.append_many([append.payload for append in batch])
        except BaseException as error:
            for append in batch:
                self._settle(append, error, None)
            raise
        for append, sequence in zip(batch, sequences, strict=True):
            self._settle(append, None, sequence)

    def _burst(
        self, journal: SingleWriteJournal, writer: StreamWriter, name: str, count: int
    ) -> None:
        for _ in range(count):
            append = self._record(journal, writer, name)
            try:
                pending = writer.append_soon(append.payload)
            except BaseException as error:
                self._settle(append, error, None)
                raise
            pending.add_done_callback(partial(self._settled, append))

    def _settled(self, append: Append, done: asyncio.Future[int]) -> None:
        if done.cancelled():
            self._settle(append, asyncio.CancelledError(), None)
        elif (error := done.exception()) is not None:
            self._settle(append, error, None)
        else:
            self._settle(append, None, done.result())

    async def reader(self, journal: SingleWriteJournal, name: str) -> None:
        """Follow the stream from random places, a while each.  Never returns."""
        count = 0
        while True:
            count += 1
            start = 0
            if self.history.readers and self._chance.random() < 0.5:
                last = self._chance.choice(self.history.readers)
                start = last.deliveries[-1].sequence if last.deliveries else last.start
            await self._read(journal, f"{name}.{count}", start, self._chance.uniform(0.2, 5.0))
            await self._pause()

    async def _read(
        self, journal: SingleWriteJournal, name: str, start: int, seconds: float
    ) -> None:
        session = ReaderSession(name, start)
        self.history.readers.append(session)
        try:
            async with asyncio.timeout(seconds):
                async for event in journal.read(STREAM, start=start, follow=True):
                    session.deliveries.append(Delivery(event.sequence, event.epoch, event.payload))
        except TruncatedError as error:
            if not session.deliveries:
                session.start = error.start
        except (TimeoutError, AvailabilityError, NotLeaderError, StreamNotFoundError):
            return

    async def linear_reader(self, journal: SingleWriteJournal, name: str) -> None:
        """Ask for read points.  Never returns."""
        while True:
            invoked = self._now()
            try:
                committed = await journal.committed(STREAM, timeout=2.0)
            except (AvailabilityError, NotLeaderError, StreamNotFoundError):
                await self._pause()
                continue
            self.history.linear_reads.append(LinearRead(name, invoked, self._now(), committed))
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.expovariate(1 / self.mix.pause_s))
