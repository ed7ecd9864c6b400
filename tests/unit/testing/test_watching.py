"""The readers of a schedule: what they note of what they were given, and of what they were told."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.errors import (
    MasterUnavailableError,
    NotLeaderError,
    StreamNotFoundError,
    TruncatedError,
    UsageError,
)
from lunalog.testing.history import Delivery, History, LinearRead, ReaderSession
from lunalog.testing.watching import PASSING, POINT_TIMEOUT_S, UNTIL_MOST, Watcher
from lunalog.types import Peer

PASSES = [
    MasterUnavailableError("nobody there"),
    NotLeaderError("over"),
    StreamNotFoundError("gone"),
]
FOLLOWS, PART, LINEAR = 0, 3, 4


class Dice(random.Random):
    """Throws what the test says; of a range the most."""

    def __init__(self, *throws: int) -> None:
        super().__init__()
        self.throws = list(throws)

    def randrange(self, *bounds: Any) -> int:
        return self.throws.pop(0)

    def randint(self, low: int, high: int) -> int:
        return high


class Reader:
    """Gives events from some sequence on, and then raises, waits for ever, or ends."""

    def __init__(self, first: int, count: int, last: BaseException | str | None) -> None:
        self.first, self.count, self.last = first, count, last
        self.position: int | None = first

    async def __aiter__(self) -> Any:
        for sequence in range(self.first, self.first + self.count):
            self.position = sequence + 1
            yield SimpleNamespace(sequence=sequence, epoch=2, payload=b"%d" % sequence)
        if self.last == "waits":
            await asyncio.get_running_loop().create_future()
        if isinstance(self.last, BaseException):
            raise self.last


class Journal:
    """One stream's events from 10 on, or an error in their place."""

    peer = Peer("ann", b"i" * 16)

    def __init__(self, count: int = 3, last: BaseException | str | None = None) -> None:
        self.count, self.last = count, last
        self.asked: list[dict[str, Any]] = []

    def read(self, name: str, **options: Any) -> Reader:
        self.asked.append(options)
        return Reader(10, self.count, self.last)

    async def committed(self, name: str, *, timeout: float) -> int:
        assert timeout == POINT_TIMEOUT_S
        if isinstance(self.last, BaseException):
            raise self.last
        return 10 + self.count


def watcher(*throws: int) -> Watcher:
    return Watcher(History(), Dice(*throws), lambda: 5.0)


async def once(watching: Watcher, journal: Journal) -> ReaderSession:
    await watching.once(journal, "orders", "ann")  # type: ignore[arg-type]
    return watching.history.readers[-1]


def test_only_these_are_passed_over() -> None:
    assert all(isinstance(error, PASSING) for error in PASSES)
    assert not isinstance(UsageError("nonsense"), PASSING)


async def test_what_a_reader_was_given_is_noted_until_it_has_enough() -> None:
    watching = watcher(PART, 2)
    noted = await once(watching, Journal(count=99))
    assert noted.deliveries[0] == Delivery(10, 2, b"10")
    assert len(noted.deliveries) == UNTIL_MOST
    assert noted.start == 0


@pytest.mark.parametrize(("place", "start"), [(0, None), (1, -UNTIL_MOST)])
async def test_a_reader_that_names_no_place_notes_where_it_began(
    place: int, start: int | None
) -> None:
    journal = Journal()
    noted = await once(watcher(PART, place), journal)
    assert journal.asked == [{"start": start, "follow": False}]
    assert noted.start == 10


async def test_a_reader_may_go_on_where_another_was() -> None:
    watching = watcher(PART, 2, PART, 3, PART, 3)
    first = await once(watching, Journal(count=2))
    journal = Journal()
    second = await once(watching, journal)
    assert journal.asked[0]["start"] == first.deliveries[-1].sequence == second.start == 11
    watching.history.readers[:] = [ReaderSession("bob", 4)]
    journal = Journal()
    assert (await once(watching, journal)).start == journal.asked[0]["start"] == 4


async def test_a_following_reader_ends_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watching = watcher(FOLLOWS, 2)
    monkeypatch.setattr(watching._chance, "uniform", lambda low, high: 0.0)
    noted = await once(watching, Journal(last="waits"))
    assert [delivery.sequence for delivery in noted.deliveries] == [10, 11, 12]


@pytest.mark.parametrize("error", PASSES, ids=lambda error: error.code)
@pytest.mark.parametrize("kind", [FOLLOWS, PART, LINEAR])
async def test_an_error_of_a_storm_ends_a_read_and_what_came_before_stays(
    kind: int, error: BaseException
) -> None:
    watching = watcher(kind, 2)
    noted = await once(watching, Journal(count=1, last=error))
    assert noted.deliveries == [Delivery(10, 2, b"10")]
    assert watching.history.linear_reads == []


@pytest.mark.parametrize("kind", [PART, LINEAR])
async def test_any_other_error_ends_the_run(kind: int) -> None:
    with pytest.raises(UsageError):
        await once(watcher(kind, 2), Journal(last=UsageError("nonsense")))


@pytest.mark.parametrize(("count", "start"), [(0, 7), (1, 0)])
async def test_a_reader_that_finds_its_place_cut_off_began_behind_the_cut(
    count: int, start: int
) -> None:
    """I8: what lies below was never its to read; with events in hand it had begun before."""
    watching = watcher(PART, 2)
    noted = await once(watching, Journal(count, TruncatedError("cut off", start=7)))
    assert (noted.start, len(noted.deliveries)) == (start, count)


@pytest.mark.parametrize("count", [0, 3])
async def test_a_linearizable_read_that_gave_something_answers_with_its_end(count: int) -> None:
    watching = watcher(LINEAR, 2)
    journal = Journal(count)
    await once(watching, journal)
    assert journal.asked == [{"start": 0, "linearizable": True}]
    answer = LinearRead("ann.linear", 5.0, 5.0, 13)
    assert watching.history.linear_reads == ([answer] if count else [])


async def test_a_linearizable_read_that_was_cut_off_answers_nothing() -> None:
    watching = watcher(LINEAR, 2)
    noted = await once(watching, Journal(1, TruncatedError("cut off", start=11)))
    assert [delivery.sequence for delivery in noted.deliveries] == [10]
    assert watching.history.linear_reads == []


async def test_a_read_point_is_noted_with_when_it_was_asked_for() -> None:
    watching = watcher()
    await watching.ask(Journal(), "orders", "ann")  # type: ignore[arg-type]
    assert watching.history.linear_reads == [LinearRead("ann", 5.0, 5.0, 13)]


@pytest.mark.parametrize("error", PASSES, ids=lambda error: error.code)
async def test_a_read_point_that_was_refused_is_no_answer_but_a_call_that_ended(
    error: BaseException,
) -> None:
    watching = watcher()
    await watching.ask(Journal(last=error), "orders", "ann")  # type: ignore[arg-type]
    assert watching.history.linear_reads == []
    (call,) = watching.history.calls
    assert (call.what, call.limit_s, call.done) == ("committed", POINT_TIMEOUT_S, 5.0)
