"""Which leaders look for acks at which beat of their client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lunalog.client.pulse import WHOLE_BEATS, Pulse
from lunalog.testing.simulation import Simulation

BEAT_S = 0.0625


class Leader:
    """Acks are due to it for as long as the test says."""

    def __init__(self, story: Story, *servers: str) -> None:
        self.servers = frozenset(servers)
        self.is_due = self.is_steady = True
        self.looked: list[tuple[int, set[str] | None]] = []
        """At which beat of the story, and at whose acks; none: at everybody's."""
        self._story = story

    def look(self, silent: Any) -> bool:
        self.looked.append((self._story.beat, silent if silent is None else set(silent)))
        return self.is_due


class Story:
    """A pulse, and who is silent."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.asked = 0
        self.failures: list[BaseException] = []
        self.pulse = Pulse(BEAT_S, self._asked, self.failures.append)
        self.beat = 0

    def _asked(self) -> set[str]:
        self.asked += 1
        return self.silent

    async def beats(self, count: int) -> None:
        for _ in range(count):
            self.beat += 1
            await asyncio.sleep(BEAT_S)


def play(story: Callable[[Story], Coroutine[Any, Any, None]]) -> None:
    with Simulation(1) as simulation:

        async def run() -> None:
            found = Story()
            await asyncio.sleep(BEAT_S / 2)  # beats fall between the story's
            await story(found)
            assert found.failures == []

        simulation.run(run(), timeout_s=60.0)


def test_r11_while_all_servers_acknowledge_something_a_leader_looks_at_every_fourth_beat() -> None:
    async def story(found: Story) -> None:
        leader = Leader(found, "a", "b", "c")
        found.pulse.watch(leader)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(2 * WHOLE_BEATS + 1)
        assert leader.looked == [(beat, None) for beat in (1, 1 + WHOLE_BEATS, 1 + 2 * WHOLE_BEATS)]

    play(story)


def test_r11_who_writes_to_a_silent_server_looks_at_every_beat_and_nobody_else_does() -> None:
    async def story(found: Story) -> None:
        there, elsewhere = Leader(found, "a", "b"), Leader(found, "c")
        found.pulse.watch(there)
        found.pulse.watch(elsewhere)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(1)
        found.silent = {"b"}
        await found.beats(3)
        assert there.looked == [(1, None), (2, {"b"}), (3, {"b"}), (4, {"b"})]
        assert elsewhere.looked == [(2, None)]

    play(story)


def test_r11_of_an_interval_in_which_it_began_to_wait_a_leader_concludes_nothing() -> None:
    async def story(found: Story) -> None:
        first, second = Leader(found, "a"), Leader(found, "a")
        found.silent = {"a"}
        found.pulse.watch(first)
        found.pulse.watch(second)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(2)
        assert [beat for beat, _ in first.looked] == [1, 2]
        assert [beat for beat, _ in second.looked] == [2]

    play(story)


def test_leaders_look_in_turn_and_not_all_at_the_same_beat() -> None:
    async def story(found: Story) -> None:
        leaders = [Leader(found, "a") for _ in range(2 * WHOLE_BEATS + 1)]
        for leader in leaders:
            found.pulse.watch(leader)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(1 + WHOLE_BEATS)
        looked = [beat for leader in leaders[1:] for beat, _ in leader.looked]
        assert sorted(looked) == [2, 2, 3, 3, 4, 4, 5, 5]

    play(story)


def test_a_client_to_which_nothing_is_due_has_no_timer() -> None:
    async def story(found: Story) -> None:
        leader, ended, new = (Leader(found, "a") for _ in range(3))
        found.silent = {"a"}
        for each in (leader, ended, new):
            found.pulse.watch(each)
        found.pulse.forget(new)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(1)
        found.pulse.forget(ended)
        found.pulse.forget(ended)  # it may have said so itself
        leader.is_due = False
        await found.beats(1)
        asked = found.asked
        await found.beats(3)
        assert (len(leader.looked), ended.looked, new.looked) == (2, [], [])
        assert found.asked == asked
        leader.is_due = True
        found.pulse.watch(leader)
        await found.beats(2)
        assert len(leader.looked) == 4

    play(story)


def test_a_leader_that_waits_for_more_than_acks_looks_at_every_beat() -> None:
    async def story(found: Story) -> None:
        leader = Leader(found, "a")
        found.pulse.watch(leader)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(2)
        leader.is_steady = False
        await found.beats(2)
        leader.is_steady = True
        await found.beats(WHOLE_BEATS)
        assert leader.looked == [(1, None), (3, set()), (4, set()), (5, None)]

    play(story)


def test_where_beats_are_long_every_one_counts_for_all() -> None:
    """Who lets acks take seconds still hears within one beat of everything else that time brings."""

    async def story(found: Story) -> None:
        pulse = Pulse(10 * BEAT_S, lambda: set(), found.failures.append)
        leader = Leader(found, "a")
        pulse.watch(leader)
        await asyncio.sleep(31 * BEAT_S)
        assert len(leader.looked) == 3

    play(story)


def test_a_client_that_lets_acks_take_no_time_looks_all_the_time() -> None:
    async def story(found: Story) -> None:
        pulse = Pulse(0.0, lambda: set(), found.failures.append)
        leader = Leader(found, "a")
        pulse.watch(leader)
        await asyncio.sleep(0.001)
        assert leader.looked
        pulse.forget(leader)

    play(story)


def test_after_a_ctrl_c_at_a_beat_the_next_one_comes() -> None:
    async def story(found: Story) -> None:
        class Interrupted(Leader):
            def look(self, silent: Any) -> bool:
                super().look(silent)
                if len(self.looked) == 1:
                    raise KeyboardInterrupt
                return True

        leader = Interrupted(found, "a")
        found.pulse.watch(leader)
        with pytest.raises(KeyboardInterrupt):
            found.pulse._beat()
        await found.beats(2 * WHOLE_BEATS)
        assert len(leader.looked) > 1

    play(story)


def test_r27_an_error_at_a_beat_is_told_and_the_others_go_on() -> None:
    async def story(found: Story) -> None:
        class Failing(Leader):
            def look(self, silent: Any) -> bool:
                raise MemoryError

        failing, new, leader = Failing(found, "a"), Leader(found, "a"), Leader(found, "a")
        found.pulse.watch(failing)
        found.pulse.watch(new)
        found.pulse.watch(leader)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(1)
        assert [type(failure) for failure in found.failures] == [MemoryError]
        await found.beats(2 + WHOLE_BEATS)
        assert new.looked
        assert leader.looked
        assert len(found.failures) == 2
        found.failures.clear()

    play(story)


class Ending(Leader):
    """Another one ends when it looks."""

    other: Leader

    def look(self, silent: Any) -> bool:
        self._story.pulse.forget(self.other)
        return super().look(silent)


def test_a_leader_that_ends_when_another_one_looks_does_not_look_itself() -> None:
    async def story(found: Story) -> None:
        ending = Ending(found, "a")
        ending.other = Leader(found, "a")
        found.pulse.watch(ending)
        found.pulse.watch(ending.other)
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(1)
        found.silent = {"a"}
        await found.beats(3)
        assert (len(ending.looked), ending.other.looked) == (4, [])

    play(story)


def test_who_begins_to_wait_when_the_last_one_ends_is_looked_at_by_one_timer() -> None:
    async def story(found: Story) -> None:
        new = Leader(found, "a")

        class Last(Leader):
            def look(self, silent: Any) -> bool:
                found.pulse.forget(self)
                found.pulse.watch(new)
                return False

        found.pulse.watch(Last(found, "a"))
        found.silent = {"a"}
        await asyncio.sleep(BEAT_S / 2)
        await found.beats(4)
        assert [beat for beat, _ in new.looked] == [2, 3, 4]

    play(story)


def test_when_all_have_ended_nothing_is_left_on_the_loop() -> None:
    async def story(found: Story) -> None:
        leader = Leader(found, "a")
        found.pulse.watch(leader)
        found.pulse.forget(leader)
        found.pulse.forget(leader)  # it may have said so itself
        asked = found.asked
        await found.beats(3)
        assert (leader.looked, found.asked) == ([], asked)

    play(story)
