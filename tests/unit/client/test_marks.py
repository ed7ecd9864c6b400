"""When the replicas are told what is committed: by the next append, at once, or a little later."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.client.marks import PACED_S, Marks
from lunalog.testing.simulation import Simulation

DELAY_S = 0.005


class Story:
    """A leader's appends and acks by hand, and what it told when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.machine: Any = SimpleNamespace(tail=0, committed=0)
        self.told: list[tuple[float, int]] = []
        self.marks = Marks(self.machine, DELAY_S, self._tell)

    def _tell(self) -> None:
        self.told.append((self.loop.time(), self.machine.committed))

    def append(self) -> None:
        self.machine.tail += 1
        self.marks.appended(self.loop.time())

    def commit(self) -> None:
        self.machine.committed = self.machine.tail
        self.marks.moved(self.loop.time())
        self.marks.committed()


def play(story: Any) -> None:
    with Simulation(1) as simulation:

        async def run() -> None:
            await story(Story())

        simulation.run(run(), timeout_s=60.0)


def test_who_pauses_between_appends_is_told_for_at_once() -> None:
    async def story(leader: Story) -> None:
        for _ in range(5):
            await asyncio.sleep(2 * PACED_S)
            leader.append()
            await asyncio.sleep(0.0003)
            before = leader.loop.time()
            leader.commit()
            assert leader.told.pop() == (pytest.approx(before, abs=1e-4), leader.machine.committed)
        await asyncio.sleep(3 * DELAY_S)
        assert leader.told == []

    play(story)


def test_the_next_append_carries_it_when_it_comes_at_once_and_the_last_is_told_of_later() -> None:
    async def story(leader: Story) -> None:
        await asyncio.sleep(2 * PACED_S)
        for _ in range(50):
            leader.append()
            await asyncio.sleep(0.0003)
            leader.commit()
        assert [committed for _, committed in leader.told] == [1]  # nobody knew yet how it goes on
        quiet = leader.loop.time()
        await asyncio.sleep(3 * DELAY_S)
        ((at, committed),) = leader.told[1:]
        assert committed == 50
        assert at <= quiet + DELAY_S + 0.001

    play(story)


def test_nothing_is_told_at_once_while_more_is_in_flight() -> None:
    async def story(leader: Story) -> None:
        await asyncio.sleep(2 * PACED_S)
        leader.append()
        leader.machine.committed = 1
        leader.machine.tail = 2
        leader.marks.moved(leader.loop.time())
        leader.marks.committed()
        assert leader.told == []
        await asyncio.sleep(2 * DELAY_S)
        assert [committed for _, committed in leader.told] == [1]

    play(story)


def test_nothing_is_told_after_the_end() -> None:
    async def story(leader: Story) -> None:
        leader.marks.later()
        leader.marks.end()
        leader.marks.end()
        await asyncio.sleep(3 * DELAY_S)
        assert leader.told == []

    play(story)
