"""Streams that come and go in a schedule: each is made, used, deleted, whatever a call of it meets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lunalog.errors import LunalogError, MasterUnavailableError, NotLeaderError
from lunalog.testing import churning
from lunalog.testing.churning import Churn
from lunalog.testing.history import ACKED
from lunalog.testing.recording import Recorder
from lunalog.types import Peer, Policy, StreamHead


class Dice(random.Random):
    """Of every choice the first, of every range the least; deletes if `throw` is below 0.7."""

    def __init__(self, throw: float = 0.0) -> None:
        super().__init__()
        self.throw = throw

    def random(self) -> float:
        return self.throw

    def randrange(self, *bounds: Any) -> int:
        return 0

    def randint(self, low: int, high: int) -> int:
        return low

    def expovariate(self, lambd: float = 1.0) -> float:
        return 0.0


class Writer:
    """Acknowledges what it is given."""

    epoch = 1

    def __init__(self) -> None:
        self.tail = 0

    async def append(self, payload: bytes) -> int:
        self.tail += 1
        return self.tail - 1


class Journal:
    """Notes what is called, and raises what `errors` says for it."""

    peer = Peer("ann", b"i" * 16)

    def __init__(self, **errors: LunalogError) -> None:
        self.errors = errors
        self.streams: dict[str, StreamHead] = {}
        self.called: list[str] = []
        self.blocks: asyncio.Event | None = None

    def _call(self, verb: str) -> None:
        self.called.append(verb)
        if verb in self.errors:
            raise self.errors[verb]

    async def create_stream(self, name: str, **policy: Any) -> StreamHead:
        self._call("create")
        assert policy == {"replicas": 3, "ack_quorum": 2, "exist_ok": True}
        number = len(self.called).to_bytes(16, "big")
        return self.streams.setdefault(name, StreamHead(name, number, Policy()))

    @asynccontextmanager
    async def lead(self, name: str) -> AsyncIterator[Writer]:
        self._call("lead")
        if self.blocks is not None:
            await self.blocks.wait()
        yield Writer()

    async def read(self, name: str, **_: Any) -> AsyncIterator[Any]:
        self._call("read")
        return
        yield

    async def delete_stream(self, name: str, *, timeout: float) -> None:
        self._call("delete")
        self.streams.pop(name, None)

    async def list_streams(self, prefix: str) -> AsyncIterator[StreamHead]:
        for head in list(self.streams.values()):
            assert head.name.startswith(prefix)
            yield head


def churn(throw: float = 0.0) -> Churn:
    return Churn(Recorder(lambda: 5.0), Dice(throw), (3, 2), 1.0)


async def test_a_stream_is_made_appended_to_read_and_deleted() -> None:
    made, journal = churn(), Journal()
    await made._once(journal)  # type: ignore[arg-type]
    assert journal.called == ["create", "lead", "read", "delete"]
    (history,) = made._recorder.histories.values()
    assert [append.outcome for append in history.appends] == [ACKED]
    assert len(history.readers) == 1


async def test_a_stream_that_stays_is_used_on_with_payloads_of_its_own() -> None:
    made, journal = churn(throw=0.8), Journal()
    for _ in range(2):
        await made._once(journal)  # type: ignore[arg-type]
    assert "delete" not in journal.called
    (history,) = made._recorder.histories.values()
    assert len({append.payload for append in history.appends}) == len(history.appends) == 2


@pytest.mark.parametrize(
    ("verb", "error"),
    [("create", MasterUnavailableError("nobody there")), ("lead", NotLeaderError("over"))],
)
async def test_what_could_not_be_used_is_deleted_all_the_same(
    verb: str, error: LunalogError
) -> None:
    made, journal = churn(), Journal(**{verb: error})
    await made._once(journal)  # type: ignore[arg-type]
    assert journal.called[-2:] == [verb, "delete"]
    assert [a for history in made._recorder.histories.values() for a in history.appends] == []


async def test_nobody_waits_long_for_leadership(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(churning, "USE_S", 0.0)
    made, journal = churn(), Journal()
    journal.blocks = asyncio.Event()
    await made._once(journal)  # type: ignore[arg-type]
    assert journal.called[-1] == "delete"


async def test_at_the_end_no_new_one_is_made_and_what_is_left_is_deleted() -> None:
    """It waits for the one that is under way, and asks again until the list is empty."""
    made, journal = churn(throw=0.8), Journal()
    journal.blocks = asyncio.Event()
    running = asyncio.get_running_loop().create_task(made.run(journal))  # type: ignore[arg-type]
    while "lead" not in journal.called:
        await asyncio.sleep(0)
    clearing = asyncio.get_running_loop().create_task(made.clear(journal))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert "delete" not in journal.called
    journal.blocks.set()
    await clearing
    assert not journal.streams
    called = list(journal.called)
    assert called == ["create", "lead", "read", "delete"]
    for _ in range(10):
        await asyncio.sleep(0)
    assert journal.called == called
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
