"""When the replicas are told what is committed: by the next append, at once, or a little later."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lunalog.client.marks import PACED_S, Marks
from lunalog.core.leader_state import LeaderState
from lunalog.testing.simulation import Simulation

DELAY_S = 0.005


class Machine(SimpleNamespace):
    """As much of a leader's machine as `Marks` looks at."""

    boundary = LeaderState.boundary


class Story:
    """A leader's appends and acks by hand, and what it told when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.machine: Any = Machine(tail=0, committed=0, next=None)
        self.told: list[tuple[float, int]] = []
        self.marks = Marks(self.machine, DELAY_S, self._tell)

    def _tell(self) -> None:
        self.told.append((self.loop.time(), self.machine.committed))

    def append(self) -> None:
        self.machine.tail += 1
        self.marks.appended(self.loop.time())

    def roll(self) -> None:
        """From here on appends go ahead into the next segment, whose opening is not known yet."""
        self.machine.next = SimpleNamespace(first=self.machine.tail)

    def commit(self) -> None:
        self.machine.committed = self.machine.boundary
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


def test_who_appends_what_answers_a_follower_is_told_for_at_once() -> None:
    """The follower took a fraction of a millisecond: it must not be `DELAY_S` the next time."""

    async def story(leader: Story) -> None:
        await asyncio.sleep(0.01)
        for _ in range(5):
            leader.append()
            await asyncio.sleep(0.0003)
            leader.commit()
            assert leader.told.pop()[1] == leader.machine.committed
            await asyncio.sleep(0.0003)

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


def test_r11_the_old_set_is_told_at_once_of_the_last_that_it_will_hold() -> None:
    """While rolling appends go elsewhere, so none of them tells the old set, however many there are."""

    async def story(leader: Story) -> None:
        for _ in range(3):  # as fast as acks come
            leader.append()
        leader.roll()
        leader.append()
        before = leader.loop.time()
        leader.commit()
        assert leader.told == [(pytest.approx(before, abs=1e-4), 3)]

    play(story)


def test_r11_appends_that_go_ahead_put_nothing_off_for_the_old_set() -> None:
    async def story(leader: Story) -> None:
        for _ in range(3):
            leader.append()
        leader.machine.committed = 2
        leader.marks.moved(leader.loop.time())
        leader.marks.committed()
        leader.roll()
        rolled = leader.loop.time()
        for _ in range(100):  # the master takes long, and the third ack does not come
            await asyncio.sleep(0.001)
            leader.append()
        ((at, committed),) = leader.told
        assert committed == 2
        assert at <= rolled + DELAY_S + 0.001

    play(story)


def test_nothing_is_told_after_the_end() -> None:
    async def story(leader: Story) -> None:
        leader.marks.later()
        leader.marks.end()
        leader.marks.end()
        await asyncio.sleep(3 * DELAY_S)
        assert leader.told == []

    play(story)
