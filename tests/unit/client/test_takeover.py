"""Asking the old replica set: who is asked again, who is not, and what is told of each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.misfits import misfit

from lunalog.client.takeover import OldSet
from lunalog.config import ClientConfig
from lunalog.core import effects
from lunalog.errors import (
    CorruptFrameError,
    FencedError,
    GoneError,
    LunalogError,
    ServerUnavailableError,
    WrongIncarnationError,
)
from lunalog.runtime import SystemRuntime, Tasks
from lunalog.types import Member, OpenSegment, Promise, SegmentId
from lunalog.wire import frames
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.messages import Fence, Fenced, Read

STREAM = b"s" * 16
ONE, TWO = Member("s1", 1), Member("s2", 4)
SEGMENT = OpenSegment(SegmentId(3, 0), 5, 0, (ONE, TWO), 2)
PROMISE = Promise(4, b"i" * 16)
AWAY = ServerUnavailableError("away", server="s1")
FENCED = Fenced(9, 77, 8, (), None)


class Leadership:
    """Notes what the machine is told."""

    promise = PROMISE

    def __init__(self) -> None:
        steps = ("fenced", "unfenced", "copied", "unread")
        self.machine = SimpleNamespace(
            head=SimpleNamespace(stream=STREAM), **{step: step for step in steps}
        )
        self.fed: list[tuple[Any, ...]] = []
        self.news = asyncio.Event()

    def feed(self, step: str, *args: Any, **fields: Any) -> None:
        self.fed.append((step, *args))
        self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(2):
            while not holds():
                self.news.clear()
                await self.news.wait()


class Links:
    """Each server gives its answers in turn; the last one again and again."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Fence | Read]] = []

    async def connection_to(self, server: str) -> SimpleNamespace:
        async def request(message: Fence | Read, timeout: float) -> Any:
            self.asked.append((server, message))
            left = self.answers[server]
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, LunalogError):
                raise answer
            return answer

        return SimpleNamespace(request=request)

    def pause_s(self, server: str) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lunalog.client.takeover.RETRY_S", 0)


def old_set(links: Links, leadership: Leadership) -> tuple[OldSet, Tasks]:
    runtime = SystemRuntime()
    tasks = Tasks(runtime)
    return OldSet(runtime, ClientConfig(), links, tasks, leadership), tasks  # type: ignore[arg-type]


async def test_every_member_is_fenced_and_one_that_is_away_until_it_answers() -> None:
    leadership, links = Leadership(), Links(s1=[AWAY, AWAY, FENCED], s2=[FENCED])
    old, _ = old_set(links, leadership)
    old.fence(effects.FenceSet(SEGMENT))
    await leadership.until(lambda: len(leadership.fed) == 4)
    told = [(entry[0], entry[1]) for entry in leadership.fed]
    assert sorted(told) == [("fenced", ONE), ("fenced", TWO), ("unfenced", ONE), ("unfenced", ONE)]
    answer = next(entry[2] for entry in leadership.fed if entry[0] == "fenced")
    assert (answer.end, answer.chain, answer.committed) == (9, 77, 8)
    fence = Fence(STREAM, SEGMENT.id, 5, PROMISE, 4)
    assert [message for server, message in links.asked if server == "s2"] == [fence]


@pytest.mark.parametrize(
    "error", [FencedError("9"), GoneError("dropped"), WrongIncarnationError("2")]
)
async def test_who_refuses_for_good_is_asked_once(error: LunalogError) -> None:
    leadership, links = Leadership(), Links(s1=[error], s2=[FENCED])
    old, tasks = old_set(links, leadership)
    old.fence(effects.FenceSet(SEGMENT))
    await leadership.until(lambda: len(leadership.fed) == 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert ("unfenced", ONE, error) in [entry[:3] for entry in leadership.fed]
    assert [server for server, _ in links.asked].count("s1") == 1
    await tasks.cancel()


async def test_when_enough_have_answered_nobody_is_asked_any_more() -> None:
    leadership, links = Leadership(), Links(s1=[AWAY], s2=[FENCED])
    old, _ = old_set(links, leadership)
    old.fence(effects.FenceSet(SEGMENT))
    await leadership.until(lambda: len(leadership.fed) >= 5)
    old.stop(effects.StopFencing())
    await asyncio.sleep(0)
    asked = len(links.asked)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(links.asked) == asked


FRAME = frames.build(STREAM, 5, 3, 1, [b"a", b"b"])
MISFIT = misfit(FRAME)
FOREIGN = frames.build(b"t" * 16, 5, 3, 1, [b"a"])


@pytest.mark.parametrize(
    ("answer", "step", "found"),
    [
        ((FramesHead(9, 8, 77, ReadStatus.HELD), FRAME), "copied", 1),
        ((FramesHead(9, 8, 77, ReadStatus.HELD), MISFIT), "copied", 1),
        ((FramesHead(9, 8, 77, ReadStatus.ABSENT), b""), "copied", 0),
        ((FramesHead(9, 8, 77, ReadStatus.HELD), FOREIGN), "unread", CorruptFrameError),
        (AWAY, "unread", ServerUnavailableError),
    ],
    ids=["held", "held, whatever its lengths say", "absent", "of another stream", "away"],
)
async def test_a_member_is_read_once_and_all_that_it_said_is_told(
    answer: Any, step: str, found: Any
) -> None:
    leadership, links = Leadership(), Links(s2=[answer])
    old, _ = old_set(links, leadership)
    old.read(effects.ReadFrom(SEGMENT, TWO, 5, 100))
    await leadership.until(lambda: bool(leadership.fed))
    ((told, member, start, *rest),) = leadership.fed
    assert (told, member, start) == (step, TWO, 5)
    if step == "copied":
        chain, copies, _ = rest
        assert (chain, len(copies)) == (77, found)
    else:
        assert isinstance(rest[0], found)
    ((_, message),) = links.asked
    assert isinstance(message, Read)
    assert (message.start, message.promise) == (5, PROMISE)
