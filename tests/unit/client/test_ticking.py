"""When a leader's machine gets its ticks: with its client's pulse, or by a timer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from lunalog.client.pulse import Pulse
from lunalog.client.ticking import Ticks
from lunalog.testing.simulation import Simulation

BEAT_S = 0.0625


class Story:
    """A machine by hand, and when it ticked for whom."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.silent: set[str] = set()
        self.ticked: list[tuple[float, Any]] = []
        self.machine: Any = SimpleNamespace(
            next_tick=None, is_waiting=False, is_steady=True, tick="tick"
        )
        runtime: Any = SimpleNamespace(now=self.now)
        self.failures: list[BaseException] = []
        pulse = Pulse(BEAT_S, lambda: self.silent, self.failures.append)
        self.ticks = Ticks(runtime, self.machine, self._feed, pulse)
        self.ticks.servers = {"a", "b"}

    def now(self) -> float:
        return self.loop.time() - self.began

    def _feed(self, step: Any, now: float, silent: Any = None) -> None:
        assert step == "tick"
        self.ticked.append((round(now, 4), silent))

    def want(self, at: float | None, *, is_waiting: bool = False) -> None:
        self.machine.next_tick, self.machine.is_waiting = at, is_waiting
        self.ticks.later()


def play(story: Callable[[Story], Coroutine[Any, Any, None]]) -> None:
    with Simulation(1) as simulation:

        async def run() -> None:
            found = Story()
            await story(found)
            assert found.failures == []

        simulation.run(run(), timeout_s=60.0)


def test_an_idle_machine_ticks_when_it_asked_to_and_earlier_if_it_asks_again() -> None:
    async def story(found: Story) -> None:
        found.want(None)
        found.want(0.5)
        found.want(0.75)  # an earlier tick is coming
        found.want(0.25)
        await asyncio.sleep(1.0)
        assert found.ticked == [(0.25, None)]

    play(story)


def test_while_acks_are_due_the_pulse_ticks_and_the_timer_does_not() -> None:
    async def story(found: Story) -> None:
        found.want(0.1)
        found.want(0.1, is_waiting=True)
        assert found.ticks.is_watched
        found.silent = {"b"}
        await asyncio.sleep(2.5 * BEAT_S)
        assert found.ticked == [(BEAT_S, None), (2 * BEAT_S, {"b"})]
        found.machine.is_waiting = False
        found.machine.next_tick = 1.0
        await asyncio.sleep(BEAT_S)
        assert not found.ticks.is_watched
        await asyncio.sleep(1.0)
        assert [now for now, _ in found.ticked[2:]] == [3 * BEAT_S, 1.0]

    play(story)


def test_who_has_ended_ticks_no_more() -> None:
    async def story(found: Story) -> None:
        found.want(0.1)
        found.ticks.end()
        found.ticks.watch()
        found.ticks.end()
        await asyncio.sleep(1.0)
        assert found.ticked == []

    play(story)
