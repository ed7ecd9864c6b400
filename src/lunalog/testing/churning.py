"""How a simulated client makes streams, uses them for a moment, and deletes them."""

from __future__ import annotations

import asyncio
import random

from lunalog.client.journal import SingleWriteJournal
from lunalog.errors import LunalogError, OutcomeUnknownError, StreamNotFoundError
from lunalog.testing.appending import Appender
from lunalog.testing.calling import called
from lunalog.testing.recording import Recorder
from lunalog.testing.watching import Watcher
from lunalog.types import StreamHead

PREFIX = "passing/"
OPERATION_S = 10.0
USE_S = 3.0


class Churn:
    """Streams that come and go, one at a time and always under few names, so that names return."""

    def __init__(
        self,
        recorder: Recorder,
        chance: random.Random,
        policy: tuple[int, int],
        mean_gap_s: float,
    ) -> None:
        self._recorder = recorder
        self._chance = chance
        self._policy = policy
        self._mean_gap_s = mean_gap_s
        self._appenders: dict[bytes, Appender] = {}
        self._is_over = False
        self._is_at_it = False

    async def run(self, journal: SingleWriteJournal) -> None:
        """Make, use and delete streams until it is over.  Never returns."""
        self._is_at_it = False  # a crash runs no `finally`
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / self._mean_gap_s))
            if not self._is_over:
                self._is_at_it = True
                try:
                    await self._once(journal)
                finally:
                    self._is_at_it = False

    async def _once(self, journal: SingleWriteJournal) -> None:
        name = f"{PREFIX}{self._chance.randrange(2)}"
        replicas, ack_quorum = self._policy
        try:
            head = await journal.create_stream(
                name, replicas=replicas, ack_quorum=ack_quorum, exist_ok=True
            )
            async with asyncio.timeout(USE_S):
                await self._use(journal, head)
        except (TimeoutError, LunalogError):
            pass  # used or not: the next thing is its end
        if self._chance.random() < 0.7:
            await self.delete(journal, name)

    async def _use(self, journal: SingleWriteJournal, head: StreamHead) -> None:
        history, now = self._recorder.of(head.stream), self._recorder.now
        appender = self._appenders.get(head.stream)
        if appender is None:
            appender = Appender(history, self._chance, now, 100)
            self._appenders[head.stream] = appender
        async with journal.lead(head.name) as writer:
            for _ in range(self._chance.randint(1, 3)):
                await appender.some(journal, writer, 3)
            await Watcher(history, self._chance, now).once(journal, head.name, journal.peer.name)

    async def delete(self, journal: SingleWriteJournal, name: str) -> bool:
        """Delete a stream; false: it may still be there."""
        history = self._recorder.named(name)
        try:
            await called(
                history,
                self._recorder.now,
                journal,
                "delete_stream",
                OPERATION_S,
                journal.delete_stream(name, timeout=OPERATION_S),
            )
        except StreamNotFoundError:
            return True
        except (LunalogError, OutcomeUnknownError):
            return False
        return True

    async def clear(self, journal: SingleWriteJournal) -> None:
        """With all healed: delete what is left."""
        self._is_over = True
        while self._is_at_it:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        while left := [head.name async for head in journal.list_streams(PREFIX)]:
            for name in left:
                await self.delete(journal, name)
