"""How a simulated client appends: alone, in batches, without waiting, on a condition; all noted.

An append is noted before it is called, and its outcome when its caller is told: `acked`, `refused`
(by its error it was never applied) or `unknown`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from lunalog.client.journal import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from lunalog.errors import ConflictError, LunalogError, NotLeaderError, OutcomeUnknownError
from lunalog.testing.history import ACKED, REFUSED, UNKNOWN, Append, History


class Appender:
    """Appends to one stream, each payload its own."""

    def __init__(
        self,
        history: History,
        chance: random.Random,
        now: Callable[[], float],
        payload_bytes_max: int,
    ) -> None:
        self.history = history
        self._chance = chance
        self._now = now
        self._payload_bytes_max = payload_bytes_max
        self._count = 0

    async def some(self, journal: SingleWriteJournal, writer: StreamWriter, most: int) -> None:
        """Append up to `most` events in one of the ways there are; raises what the API does."""
        kind = self._chance.randrange(4)
        count = self._chance.randint(1, most)
        if kind == 0:
            await self.lone(journal, writer)
        elif kind == 1:
            await self._together(journal, writer, count)
        elif kind == 2:
            self._burst(journal, writer, count)
            if self._chance.random() < 0.5:
                await writer.flush()
        else:
            await self._expected(journal, writer)

    async def lone(self, journal: SingleWriteJournal, writer: StreamWriter) -> None:
        """Append one event and wait for it."""
        append = self._record(journal, writer)
        try:
            self._settle(append, None, await writer.append(append.payload))
        except BaseException as error:
            self._settle(append, error, None)
            raise

    async def as_stranger(self, journal: SingleWriteJournal, name: str) -> None:
        """Append through a writer that this client may well not be the leader for.

        It must be refused, and change nothing; if this client leads after all, it may succeed.
        """
        async with await journal.open_stream_writer(name) as writer:
            append = self._record(journal, writer)
            try:
                if self._chance.random() < 0.5:
                    sequence = await writer.append(append.payload)
                else:
                    sequence = (await writer.append_many([append.payload])).start
            except LunalogError as error:
                self._settle(append, error, None)
            else:
                append.epoch = writer.epoch
                self._settle(append, None, sequence)

    async def _expected(self, journal: SingleWriteJournal, writer: StreamWriter) -> None:
        """A conditional append, right or wrong about the tail."""
        is_right = self._chance.random() < 0.7
        append = self._record(journal, writer)
        try:
            expected = writer.tail + (0 if is_right else 1)
            self._settle(append, None, await writer.append(append.payload, expected=expected))
        except ConflictError as error:
            self._settle(append, error, None)
        except BaseException as error:
            self._settle(append, error, None)
            raise

    async def _together(
        self, journal: SingleWriteJournal, writer: StreamWriter, count: int
    ) -> None:
        """A batch, or a few at once, which share frames."""
        batches = self._chance.choice((1, 1, 3))
        outcomes = await asyncio.gather(
            *(self._batch(journal, writer, count) for _ in range(batches)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _batch(self, journal: SingleWriteJournal, writer: StreamWriter, count: int) -> None:
        batch = [self._record(journal, writer) for _ in range(count)]
        try:
            sequences = await writer.append_many([append.payload for append in batch])
        except BaseException as error:
            for append in batch:
                self._settle(append, error, None)
            raise
        for append, sequence in zip(batch, sequences, strict=True):
            self._settle(append, None, sequence)

    def _burst(self, journal: SingleWriteJournal, writer: StreamWriter, count: int) -> None:
        for _ in range(count):
            append = self._record(journal, writer)
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

    def _record(self, journal: SingleWriteJournal, writer: StreamWriter) -> Append:
        self._count += 1
        peer = journal.peer
        padding = b"." * self._chance.randrange(self._payload_bytes_max)
        payload = b"%s/%d/%s" % (peer.name.encode(), self._count, padding)
        append = Append(payload, peer.name, peer.incarnation, epoch_of(writer), self._now())
        self.history.appends.append(append)
        return append

    def _settle(self, append: Append, error: BaseException | None, sequence: int | None) -> None:
        if isinstance(error, GeneratorExit):
            return  # the run is over, and a dead process is cleared away
        append.done = self._now()
        if error is None:
            append.outcome, append.sequence = ACKED, sequence
        elif (
            isinstance(error, OutcomeUnknownError)
            or (isinstance(error, LunalogError) and error.maybe_applied)
            or isinstance(error, asyncio.CancelledError)
        ):
            append.outcome = UNKNOWN
        else:
            append.outcome = REFUSED


def epoch_of(writer: StreamWriter) -> int:
    """The epoch that a writer is bound to; 0: none yet."""
    try:
        return writer.epoch
    except NotLeaderError:
        return 0
