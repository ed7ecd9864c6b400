"""A replicated counter, tried on a simulated cluster with faults: one is right, two have a planted bug.

    pytest examples/test_counter.py                        the right one passes with every seed
    COUNTER=BlindCounter pytest examples/test_counter.py   a bug is found, and the seed that shows it

Users ask for a count at a desk.  The leader takes the oldest request, appends it to the journal, and
tells the user that it is counted once `append` has returned.  Every replica counts the events it reads.
docs/simulating.md goes through it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count

import pytest

from lunalog import NotLeaderError, OutcomeUnknownError, SingleWriteJournal, StreamWriter
from lunalog.testing import Trial

STREAM = "counter"
PAUSE_S = 0.02


class Desk:
    """The users: the world outside, which no crash of a replica touches."""

    def __init__(self) -> None:
        self.numbers: Iterator[int] = count(1)
        self.waiting: bytes | None = None
        self.told: list[bytes] = []
        self.is_closed = False

    def next(self) -> bytes | None:
        """Return the request that nobody has confirmed yet, or a new one."""
        if self.waiting is None and not self.is_closed:
            self.waiting = b"request %d" % next(self.numbers)
        return self.waiting

    def confirm(self, request: bytes) -> None:
        """Hear that a request is counted, now and for ever."""
        if request == self.waiting:
            self.told.append(request)
            self.waiting = None


class Counter:
    """One replica.  A request may be appended twice, but counts once."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.value = 0
        self.applied = 0
        self.counted: set[bytes] = set()

    async def run(self, journal: SingleWriteJournal) -> None:
        """Live: follow the journal, and lead it whenever it is our turn."""
        await journal.create_stream(STREAM, exist_ok=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follow(journal))
            group.create_task(self.lead(journal))

    async def follow(self, journal: SingleWriteJournal) -> None:
        """Apply every event that is committed, for ever."""
        async for event in journal.read(STREAM, start=0, follow=True):
            self.apply(event.payload)
            self.applied = event.sequence + 1

    async def lead(self, journal: SingleWriteJournal) -> None:
        """Serve whenever we are elected."""
        while True:
            try:
                async with journal.lead(STREAM) as writer:
                    await self.serve(writer)
            except NotLeaderError:
                continue  # another replica goes on
            except OutcomeUnknownError:
                continue  # perhaps it is in the journal; the next leader appends it once more

    async def serve(self, writer: StreamWriter) -> None:
        """Take one request after the other."""
        while True:
            request = self.desk.next()
            if request is not None:
                await self.count(writer, request)
            await asyncio.sleep(PAUSE_S)

    async def count(self, writer: StreamWriter, request: bytes) -> None:
        """Append a request, then tell its user."""
        await writer.append(request)
        self.desk.confirm(request)

    def apply(self, request: bytes) -> None:
        """Count a request, once."""
        if request not in self.counted:
            self.counted.add(request)
            self.value += 1


class BlindCounter(Counter):
    """Planted bug: it forgets that an append whose outcome was unknown may have been kept."""

    def apply(self, request: bytes) -> None:
        """Count every event."""
        self.value += 1


class HastyCounter(Counter):
    """Planted bug: it tells the user before the event is in the journal."""

    async def count(self, writer: StreamWriter, request: bytes) -> None:
        """Tell the user, then append: a leader that dies in between has lied."""
        self.desk.confirm(request)
        await writer.append(request)


COUNTER: type[Counter] = globals()[os.environ.get("COUNTER", "Counter")]


FAULTS = ["kill", "kill_server", "partition", "isolate", "pause"]


@pytest.mark.lunalog(seeds=10, faults=FAULTS, gap=0.5)
def test_each_request_counts_once_on_every_replica(lunalog_trial: Trial) -> None:
    """What the users were told is counted, once each, whatever fails meanwhile."""
    trial, desk = lunalog_trial, Desk()
    replicas: dict[str, Counter] = {}

    async def program(journal: SingleWriteJournal) -> None:
        replica = replicas[journal.peer.name] = COUNTER(desk)  # a new process remembers nothing
        await replica.run(journal)

    def none_counts_too_much() -> None:
        for name, replica in replicas.items():
            assert replica.value <= len(desk.told) + 1, f"{name} counted a request twice"

    trial.always(none_counts_too_much)
    trial.start(program)
    trial.storm(20.0)

    desk.is_closed = True
    trial.converge(lambda: desk.waiting is None)
    end = trial.committed(STREAM)
    trial.converge(lambda: all(replica.applied >= end for replica in replicas.values()))
    assert {replica.value for replica in replicas.values()} == {len(desk.told)}


if __name__ == "__main__":
    raise SystemExit(f"it needs pytest, and no cluster: pytest {__file__}")
