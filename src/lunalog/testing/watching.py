"""How a simulated client reads: following, a part, to a linearizable end, or just asking for one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import (
    AvailabilityError,
    NotLeaderError,
    StreamNotFoundError,
    TruncatedError,
)
from lunalog.testing.calling import called
from lunalog.testing.history import Delivery, History, LinearRead, ReaderSession

POINT_TIMEOUT_S = 2.0
UNTIL_MOST = 30
PASSING = (AvailabilityError, NotLeaderError, StreamNotFoundError)
"""What a reader may be told while things are broken."""


class Watcher:
    """Reads of one stream."""

    def __init__(self, history: History, chance: random.Random, now: Callable[[], float]) -> None:
        self.history = history
        self._chance = chance
        self._now = now

    async def once(self, journal: SingleWriteJournal, name: str, session: str) -> None:
        """Read in one of the ways there are, for a while."""
        kind = self._chance.randrange(5)
        if kind < 3:
            seconds = self._chance.uniform(0.2, 5.0)
            await self._read(journal, name, session, seconds=seconds, follow=True)
        elif kind == 3:
            until = self._chance.randint(1, UNTIL_MOST)
            await self._read(journal, name, session, seconds=5.0, follow=False, until=until)
        else:
            await self._read_linearizably(journal, name, session)

    async def ask(self, journal: SingleWriteJournal, name: str, session: str) -> None:
        """Ask for a read point."""
        invoked = self._now()
        asking = journal.committed(name, timeout=POINT_TIMEOUT_S)
        try:
            committed = await called(
                self.history, self._now, journal, "committed", POINT_TIMEOUT_S, asking
            )
        except PASSING:
            return
        self.history.linear_reads.append(LinearRead(session, invoked, self._now(), committed))

    async def _read(
        self,
        journal: SingleWriteJournal,
        name: str,
        session: str,
        *,
        seconds: float,
        follow: bool,
        until: int = 1 << 30,
    ) -> None:
        """Read from some place on: for some time, or so many events."""
        start = self._place()
        noted = self._begin(session, start)
        try:
            async with asyncio.timeout(seconds):
                async for event in journal.read(name, start=start, follow=follow):
                    self._deliver(noted, event.sequence, event.epoch, event.payload, start)
                    if len(noted.deliveries) >= until:
                        return
        except TruncatedError as error:
            if not noted.deliveries:
                noted.start = error.start
        except (TimeoutError, *PASSING):
            return

    async def _read_linearizably(
        self, journal: SingleWriteJournal, name: str, session: str
    ) -> None:
        """Read to an end that covers all that was acknowledged before: it is an answer too (I8)."""
        start = self._place()
        noted = self._begin(f"{session}.linear", start)
        invoked = self._now()
        try:
            async with asyncio.timeout(5.0):
                reader = journal.read(name, start=start, linearizable=True)
                async for event in reader:
                    self._deliver(noted, event.sequence, event.epoch, event.payload, start)
        except (TimeoutError, TruncatedError, *PASSING):
            return
        end = reader.position
        if end is not None and noted.deliveries:
            found = LinearRead(noted.name, invoked, self._now(), end)
            self.history.linear_reads.append(found)

    def _place(self) -> int | None:
        """The beginning, a place that was read before, the first kept, or some way from the end."""
        kind = self._chance.randrange(5)
        if kind == 0:
            return None
        if kind == 1:
            return -self._chance.randint(1, UNTIL_MOST)
        if kind == 2 or not self.history.readers:
            return 0
        last = self._chance.choice(self.history.readers)
        return last.deliveries[-1].sequence if last.deliveries else last.start

    def _begin(self, session: str, start: int | None) -> ReaderSession:
        noted = ReaderSession(session, start if start is not None and start >= 0 else 0)
        self.history.readers.append(noted)
        return noted

    @staticmethod
    def _deliver(
        noted: ReaderSession, sequence: int, epoch: int, payload: bytes, start: int | None
    ) -> None:
        if not noted.deliveries and (start is None or start < 0):
            noted.start = sequence  # only the reader knew where that is
        noted.deliveries.append(Delivery(sequence, epoch, payload))
