"""The clients of a schedule: what they make of errors, and what they note of an append then."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.errors import (
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.testing.appending import Appender
from lunalog.testing.burial import _close
from lunalog.testing.churning import Churn
from lunalog.testing.history import History
from lunalog.testing.recording import Recorder
from lunalog.testing.workload import Mix, StreamWork
from lunalog.types import Peer

PEER = Peer("ann", b"i" * 16)
JOURNAL: Any = SimpleNamespace(peer=PEER)


class Refusing:
    """A writer each of whose verbs raises."""

    tail, epoch = 7, 3

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def append(self, payload: bytes, **_: Any) -> int:
        raise self.error

    async def append_many(self, payloads: list[bytes]) -> range:
        raise self.error

    def append_soon(self, payload: bytes) -> asyncio.Future[int]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OverloadedError("later"), "refused"),
        (NotLeaderError("over"), "refused"),
        (OutcomeUnknownError("who knows"), "unknown"),
        (asyncio.CancelledError(), "unknown"),
    ],
    ids=["overloaded", "not leader", "unknown", "cancelled"],
)
@pytest.mark.parametrize("way", ["lone", "_expected", "_together", "_burst"])
async def test_an_append_that_failed_is_noted_and_its_error_goes_on(
    way: str, error: BaseException, outcome: str
) -> None:
    history = History()
    appender = Appender(history, random.Random(1), lambda: 5.0, 100)
    more = (3,) if way in {"_together", "_burst"} else ()

    async def append() -> None:
        result = getattr(appender, way)(JOURNAL, Refusing(error), *more)
        if result is not None:
            await result

    with pytest.raises(type(error)):
        await append()
    assert {append.outcome for append in history.appends} == {outcome}
    assert len(history.appends) == (3 if way == "_together" else 1)


class Journal:
    """One whose verbs raise."""

    peer = PEER

    def __init__(self, error: LunalogError) -> None:
        self.error = error

    def lead(self, name: str) -> Any:
        raise self.error

    async def open_stream_writer(self, name: str) -> Any:
        raise self.error

    async def delete_stream(self, name: str, *, timeout: float) -> None:
        raise self.error


def work(**mix: Any) -> StreamWork:
    return StreamWork(History(), random.Random(1), lambda: 5.0, Mix(**mix), pause_s=0.0)


async def test_a_schedule_that_asks_for_nonsense_fails() -> None:
    with pytest.raises(UsageError):
        await work().peer(Journal(UsageError("nonsense")), "ann")  # type: ignore[arg-type]


async def test_a_stranger_who_gets_no_writer_has_appended_nothing() -> None:
    made = work(stranger_rate=1.0)
    await made.look(Journal(StreamNotFoundError("gone")), "ann", "s")  # type: ignore[arg-type]
    assert made.history.appends == []


@pytest.mark.parametrize(
    ("error", "is_gone"),
    [(StreamNotFoundError("gone"), True), (OutcomeUnknownError("who knows"), False)],
)
async def test_a_deletion_counts_when_the_stream_is_gone(
    error: LunalogError, is_gone: bool
) -> None:
    churn = Churn(Recorder(lambda: 5.0), random.Random(1), (2, 2), 1.0)
    assert await churn.delete(Journal(error), "passing-0") is is_gone  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [1, 100])
def test_a_dead_coroutine_is_closed_whatever_it_raises(times: int) -> None:
    """What awaits in its `finally` is closed again, and for ever by nobody."""
    asked = []

    class Stubborn:
        def close(self) -> None:
            asked.append(True)
            raise RuntimeError("coroutine ignored GeneratorExit") if times > 1 else ValueError

    _close(Stubborn())
    assert 1 <= len(asked) < 100
    assert (len(asked) == 1) == (times == 1)
