"""The clients of a schedule: what they make of errors, and what they note of an append then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.errors import (
    ConflictError,
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


class Giving(Journal):
    """One that leads, and may have nobody to hand over to."""

    def __init__(self, error: LunalogError | None) -> None:
        self.error = error  # type: ignore[assignment]
        self.gave: list[str] = []

    async def transfer(self, name: str, *, to: str) -> None:
        self.gave.append(to)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, UsageError("nobody else stands")])
async def test_a_hand_over_may_find_nobody_and_ends_in_either_case(
    monkeypatch: pytest.MonkeyPatch, error: LunalogError | None
) -> None:
    made, journal = work(), Giving(error)
    monkeypatch.setattr(made._chance, "random", lambda: 0.9)
    await made._hand_over(journal, SimpleNamespace())  # type: ignore[arg-type]
    assert journal.gave[0] in {"", "client-1", "client-2", "client-3"}
    assert [(call.what, call.done) for call in made.history.calls] == [("transfer", 5.0)]


async def test_any_other_error_of_a_hand_over_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = work()
    monkeypatch.setattr(made._chance, "random", lambda: 0.9)
    with pytest.raises(NotLeaderError):
        await made._hand_over(Giving(NotLeaderError("over")), SimpleNamespace())  # type: ignore[arg-type]
    assert [call.done for call in made.history.calls] == [5.0]


class Appending:
    """A writer that acknowledges all, sooner or later."""

    tail, epoch = 7, 3

    def __init__(self) -> None:
        self.flushed = 0

    async def append(self, payload: bytes, *, expected: int | None = None) -> int:
        if expected not in {None, self.tail}:
            raise ConflictError("another tail")
        return self.tail

    async def append_many(self, payloads: list[bytes]) -> range:
        return range(self.tail, self.tail + len(payloads))

    def append_soon(self, payload: bytes) -> asyncio.Future[int]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(self.tail)
        return done

    async def flush(self) -> None:
        self.flushed += 1
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("throw", [0.1, 0.9])
async def test_an_append_of_each_kind_is_noted_as_it_ended(
    monkeypatch: pytest.MonkeyPatch, kind: int, throw: float
) -> None:
    """One that names another tail than there is, is refused; what is not awaited ends later."""
    history, chance = History(), random.Random(1)
    appender = Appender(history, chance, lambda: 5.0, 100)
    monkeypatch.setattr(chance, "randrange", lambda *_: kind)
    monkeypatch.setattr(chance, "randint", lambda low, high: high)
    monkeypatch.setattr(chance, "random", lambda: throw)
    writer = Appending()
    await appender.some(JOURNAL, writer, 3)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    outcome = "refused" if kind == 3 and throw > 0.5 else "acked"
    assert {append.outcome for append in history.appends} == {outcome}
    assert len(history.appends) == (3 if kind in {1, 2} else 1)
    assert writer.flushed == (kind == 2 and throw < 0.5)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [(NotLeaderError("over"), "refused"), (asyncio.CancelledError(), "unknown")],
    ids=["fenced", "cancelled"],
)
async def test_an_append_that_nobody_awaits_is_noted_when_it_fails(
    result: BaseException, outcome: str
) -> None:
    history = History()
    appender = Appender(history, random.Random(1), lambda: 5.0, 100)
    pending = asyncio.get_running_loop().create_future()
    appender._burst(JOURNAL, SimpleNamespace(epoch=3, append_soon=lambda _: pending), 1)  # type: ignore[arg-type]
    if isinstance(result, asyncio.CancelledError):
        pending.cancel()
    else:
        pending.set_exception(result)
    await asyncio.sleep(0)
    (append,) = history.appends
    assert (append.outcome, append.done) == (outcome, 5.0)


@pytest.mark.parametrize("throw", [0.1, 0.9])
@pytest.mark.parametrize("error", [None, NotLeaderError("not you")])
async def test_a_stranger_is_refused_or_leads_after_all(
    monkeypatch: pytest.MonkeyPatch, throw: float, error: LunalogError | None
) -> None:
    writer: Any = Appending() if error is None else Refusing(error)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield writer

    async def open_stream_writer(name: str) -> Any:
        return opened()

    history, chance = History(), random.Random(1)
    monkeypatch.setattr(chance, "random", lambda: throw)
    journal: Any = SimpleNamespace(peer=PEER, open_stream_writer=open_stream_writer)
    await Appender(history, chance, lambda: 5.0, 100).as_stranger(journal, "orders")
    (append,) = history.appends
    assert (append.outcome, append.sequence) == (
        ("acked", 7) if error is None else ("refused", None)
    )
