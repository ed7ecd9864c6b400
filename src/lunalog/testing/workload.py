"""What the simulated clients do: lead and append, read, ask for read points, truncate, hand over.

Everything goes through the public API and is written into the stream's `History` with the
simulation's time.  Appends and reads are spread over the streams of a run: more of them cost no more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lunalog.client.journal import SingleWriteJournal
from lunalog.client.writer import StreamWriter
from lunalog.errors import ConflictError, LunalogError, UsageError
from lunalog.testing.appending import Appender
from lunalog.testing.calling import called
from lunalog.testing.history import History
from lunalog.testing.watching import Watcher

OPERATION_S = 10.0
"""The default timeout of control operations."""
IDLE_PAUSE_S = 1.0
CALM_PAUSE_S = 0.1
CALM_TURN_S = 3.0
"""What a leader's turn lasts at least once all is healed: to be given up unused would stall a stream
that has just waited for a client that is walled off."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How one run's clients behave; drawn by seed."""

    payload_bytes_max: int = 200
    pause_s: float = 0.02
    turn_s: float = 3.0
    """About how long a leader stays before it resigns."""
    truncate_rate: float = 0.01
    transfer_rate: float = 0.02
    stranger_rate: float = 0.1
    """Of looks at a stream, how many are appends by who need not lead it."""
    burst_max: int = 8
    churn_gap_s: float = 0.0
    """About how long from the end of one passing stream to the next; 0: there are none."""

    @classmethod
    def draw(cls, chance: random.Random) -> Mix:
        """Draw a mix."""
        return cls(
            payload_bytes_max=chance.choice([20, 200, 2000]),
            pause_s=chance.choice([0.015, 0.04, 0.1]),
            turn_s=chance.choice([0.5, 3.0, 30.0]),
            truncate_rate=chance.choice([0.0, 0.02]),
            transfer_rate=chance.choice([0.0, 0.02]),
            stranger_rate=chance.choice([0.0, 0.1]),
            burst_max=chance.choice([1, 8, 30]),
            churn_gap_s=chance.choice([0.0, 0.0, 2.0]),
        )


class StreamWork:
    """What all clients of one run do with one stream.

    Attributes:
        history: Of this stream.
        is_idle: Whether it is hardly ever appended to.
    """

    def __init__(
        self,
        history: History,
        chance: random.Random,
        now: Callable[[], float],
        mix: Mix,
        *,
        pause_s: float,
        is_idle: bool = False,
    ) -> None:
        self.history = history
        self.is_idle = is_idle
        self.appender = Appender(history, chance, now, mix.payload_bytes_max)
        self.watcher = Watcher(history, chance, now)
        self._mix = mix
        self._chance = chance
        self._now = now
        self._pause_s = pause_s
        self.is_calm = False
        """Set when the storm is over: what then remains to be seen needs no hurry."""
        self._is_over = False
        self._appending: set[str] = set()
        self._resting: set[str] = set()

    @property
    def name(self) -> str:
        """Of the stream."""
        return self.history.name

    def stop(self) -> None:
        """Have the appends end."""
        self._is_over = True

    async def rests(self) -> None:
        """Return when a leader has flushed after `stop`, and leads on without appending."""
        while self._appending or not self._resting:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def begin(self, client: str) -> None:
        """A client's process starts: what the one before it was at is over, and nobody said so."""
        self._appending.discard(client)
        self._appending.discard(_stranger(client))
        self._resting.discard(client)

    # ------------------------------------------------------------ leading

    async def peer(self, journal: SingleWriteJournal, client: str) -> None:
        """Stand for election; while leading, append and now and then resign.  Never returns."""
        while True:
            try:
                async with journal.lead(self.name) as writer:
                    await self._turn(journal, writer, client)
            except LunalogError as error:
                if isinstance(error, UsageError) and not isinstance(error, ConflictError):
                    raise
            await self._pause()

    async def _turn(self, journal: SingleWriteJournal, writer: StreamWriter, client: str) -> None:
        until = self._now() + self._chance.expovariate(1 / self._mix.turn_s)
        until += CALM_TURN_S if self.is_calm else 0.0
        while self._is_over or self._now() < until:
            await self._busily(journal, writer, client)
            if self._is_over:
                await self._rest(writer, client)
                continue
            dice = self._chance.random()
            if dice < self._mix.truncate_rate and writer.committed > 10:
                await self._truncate(journal, writer)
            elif dice > 1 - self._mix.transfer_rate:
                await self._hand_over(journal, writer)
                return
            await self._pause(is_leading=True)

    async def _truncate(self, journal: SingleWriteJournal, writer: StreamWriter) -> None:
        before = self._chance.randrange(writer.committed)
        cut = writer.truncate(before=before)
        await called(self.history, self._now, journal, "truncate", OPERATION_S, cut)

    async def _hand_over(self, journal: SingleWriteJournal, writer: StreamWriter) -> None:
        """Give leadership to somebody, or only up."""
        if self._chance.random() < 0.3:
            await writer.resign()
            return
        to = self._chance.choice(["", f"client-{self._chance.randint(1, 3)}"])
        giving = journal.transfer(self.name, to=to)
        try:
            await called(self.history, self._now, journal, "transfer", OPERATION_S, giving)
        except UsageError:
            return  # nobody else stands, or not that one

    async def _busily(self, journal: SingleWriteJournal, writer: StreamWriter, client: str) -> None:
        self._appending.add(client)
        try:
            if self._is_over:
                await writer.flush()
            else:
                await self.appender.some(journal, writer, self._mix.burst_max)
        finally:
            self._appending.discard(client)

    async def _rest(self, writer: StreamWriter, client: str) -> None:
        self._resting.add(client)
        try:
            await asyncio.sleep(0.2)  # one that is resigning has a turn to be told so
            while writer.is_leading:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        finally:
            self._resting.discard(client)

    # ------------------------------------------------------------ looking

    async def look(self, journal: SingleWriteJournal, client: str, session: str) -> None:
        """Read in one of many ways, or try to append without leading."""
        if not self._is_over and self._chance.random() < self._mix.stranger_rate:
            await self._intrude(journal, client)
        else:
            await self.watcher.once(journal, self.name, session)

    async def _intrude(self, journal: SingleWriteJournal, client: str) -> None:
        self._appending.add(_stranger(client))
        try:
            await self.appender.as_stranger(journal, self.name)
        except LunalogError:
            return  # no writer could be opened
        finally:
            self._appending.discard(_stranger(client))

    async def _pause(self, *, is_leading: bool = False) -> None:
        pause_s = self._pause_s
        if self.is_calm:
            pause_s = max(pause_s, CALM_PAUSE_S)
        elif self.is_idle and is_leading:
            pause_s = IDLE_PAUSE_S
        await asyncio.sleep(self._chance.expovariate(1 / pause_s))


def _stranger(client: str) -> str:
    return f"{client} as a stranger"


class Workload:
    """The clients of one run, over its streams."""

    def __init__(
        self,
        histories: Mapping[str, History],
        idle: frozenset[str],
        chance: random.Random,
        now: Callable[[], float],
        mix: Mix,
    ) -> None:
        self.mix = mix
        self._chance = chance
        self.is_calm = False
        self._looks = 0
        pause_s = mix.pause_s * len(histories)
        self.streams = [
            StreamWork(history, chance, now, mix, pause_s=pause_s, is_idle=name in idle)
            for name, history in histories.items()
        ]

    async def client(self, journal: SingleWriteJournal, client: str) -> None:
        """Everything that one client process does, but for passing streams.  Never returns."""
        for work in self.streams:
            work.begin(client)
        async with asyncio.TaskGroup() as group:
            for work in self.streams:
                group.create_task(work.peer(journal, client))
            group.create_task(self._look(journal, client))
            group.create_task(self._ask(journal, client))

    async def _look(self, journal: SingleWriteJournal, client: str) -> None:
        """Look at one stream after another.  Never returns."""
        while True:
            self._looks += 1
            work = self._chance.choice(self.streams)
            await work.look(journal, client, f"{client}.{self._looks}")
            await self._pause()

    async def _ask(self, journal: SingleWriteJournal, client: str) -> None:
        """Ask for read points of one stream after another.  Never returns."""
        while True:
            work = self._chance.choice(self.streams)
            await work.watcher.ask(journal, work.name, client)
            await self._pause()

    async def _pause(self) -> None:
        pause_s = max(self.mix.pause_s, CALM_PAUSE_S) if self.is_calm else self.mix.pause_s
        await asyncio.sleep(self._chance.expovariate(1 / pause_s))
