"""A loop that waits in place for its disk: time passes for everybody else, and a crash ends it there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from lunalog.testing.file import SimulatedFile
from lunalog.testing.machine import SimulatedNode
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(3, is_blocking=True) as made:
        yield made


class Blocker:
    """A node that writes and syncs within one callback, over and over, once a second."""

    def __init__(self, simulation: Simulation, name: str = "blocker") -> None:
        self.simulation = simulation
        self.node = simulation.node(name)
        self.disk = self.node.disk()
        self.disk.faults.tear_rate = 0
        self.synced: list[float] = []
        self.cleaned: list[str] = []
        self.beside: list[float] = []
        self.ticks: list[float] = []
        self.errors: list[OSError] = []

    def start(self) -> None:
        self.node.start(self.run)

    async def run(self, runtime: SimulatedRuntime) -> None:
        file = await self.disk.open("f", create=True)
        await self.disk.sync_directory()
        runtime.start_loop("beside", self.tick_beside)
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, self.tick)
        while True:
            await asyncio.sleep(1)
            self.block(runtime, file)

    def block(self, runtime: SimulatedRuntime, file: SimulatedFile) -> None:
        """Task and loop are the same before and behind it."""
        before = asyncio.current_task(), asyncio.get_running_loop()
        try:
            runtime.drive(self.write(file))
        except OSError as error:
            self.errors.append(error)
            return
        assert (asyncio.current_task(), asyncio.get_running_loop()) == before
        self.synced.append(self.simulation.now)

    async def write(self, file: SimulatedFile) -> None:
        await file.write(0, [b"x" * 600])
        await file.sync()

    def tick(self) -> None:
        self.ticks.append(self.simulation.now)
        asyncio.get_running_loop().call_later(0.05, self.tick)

    async def tick_beside(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.beside.append(self.simulation.now)

    def longest_gap(self, ticks: list[float]) -> float:
        return max(b - a for a, b in itertools.pairwise(ticks))


def test_others_go_on_while_a_loop_stands_still(simulation: Simulation) -> None:
    blocker = Blocker(simulation)
    blocker.disk.faults.stall(0)
    blocker.start()
    simulation.run_for(0.5)
    blocker.disk.faults.slowdown = 1000  # a sync takes 50 to 800 ms
    simulation.run_for(10)
    assert len(blocker.synced) > 4
    assert blocker.longest_gap(blocker.ticks) > 0.1
    assert blocker.longest_gap(blocker.beside) < 0.06


def test_two_that_block_at_once_both_come_to_an_end(simulation: Simulation) -> None:
    first, second = Blocker(simulation, "a"), Blocker(simulation, "b")
    for blocker in (first, second):
        blocker.disk.faults.slowdown = 500
        blocker.start()
    simulation.run_for(20)
    assert len(first.synced) > 8
    assert len(second.synced) > 8


def test_nobody_is_to_block_beside_one_that_blocks(simulation: Simulation) -> None:
    """Its wait would be over with the other's, though its disk is slower, or its process paused."""
    blocker, seen = Blocker(simulation), dict[float, bool]()

    async def look(runtime: SimulatedRuntime) -> None:
        while True:
            seen[simulation.now] = runtime.is_blocking
            await asyncio.sleep(0.05)

    blocker.start()
    simulation.node("other").start(look)
    simulation.run_for(0.9)
    blocker.disk.faults.stall(0.5)
    simulation.run_for(2)
    (synced, *_) = blocker.synced
    assert {is_free for at, is_free in seen.items() if 1.01 < at < synced} == {False}
    assert {is_free for at, is_free in seen.items() if synced < at < synced + 0.5} == {True}


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_meanwhile_ends_the_callback_before_its_effect(
    simulation: Simulation, power: bool
) -> None:
    blocker = Blocker(simulation)
    blocker.start()
    simulation.run_for(0.9)
    blocker.disk.faults.stall(5)

    async def crash() -> None:
        await asyncio.sleep(1)
        blocker.node.crash(power=power)

    simulation.run(crash())
    simulation.run_for(10)
    assert not blocker.node.is_running
    assert blocker.synced == []
    assert blocker.disk.directory.names["f"].read(0, 600) == b""
    assert blocker.node.failure is None


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_crash_right_behind_an_effect_is_not_told_to_the_caller(
    simulation: Simulation, kind: str
) -> None:
    blocker = Blocker(simulation)
    blocker.disk.faults.trap(2, lambda: blocker.node.crash(power=True), kind)
    blocker.start()
    simulation.run_for(5)
    assert len(blocker.synced) == 1
    assert blocker.node.failure is None
    assert not blocker.node.is_running


def test_who_was_started_again_meanwhile_lives_on(simulation: Simulation) -> None:
    """The callback of the old process ends in the middle of the new one's life."""
    blocker = Blocker(simulation)
    blocker.start()
    simulation.run_for(0.9)
    blocker.disk.faults.stall(3)

    async def restart() -> None:
        await asyncio.sleep(1)
        blocker.node.restart()

    simulation.run(restart())
    simulation.run_for(20)
    assert blocker.node.is_running
    assert len(blocker.synced) > 10
    assert simulation.violations == []


def test_a_pause_of_who_blocks_lasts_until_it_is_resumed(simulation: Simulation) -> None:
    blocker = Blocker(simulation)
    blocker.start()
    simulation.run_for(0.9)
    blocker.disk.faults.stall(0.5)

    async def pause(node: SimulatedNode) -> None:
        await asyncio.sleep(0.3)
        node.pause()
        await asyncio.sleep(4)
        assert blocker.synced == []
        node.resume()
        await asyncio.sleep(0.1)

    simulation.run(pause(blocker.node))
    assert len(blocker.synced) == 1
    assert blocker.synced[0] > 4.9
    simulation.run_for(3)
    assert len(blocker.synced) > 3


def test_an_error_of_the_disk_comes_where_it_is_awaited(simulation: Simulation) -> None:
    blocker = Blocker(simulation)
    blocker.disk.faults.fail_call(2, 5, "sync")
    blocker.start()
    simulation.run_for(5)
    assert [error.errno for error in blocker.errors] == [5]
    assert len(blocker.synced) >= 3


def test_the_end_of_a_run_does_not_wait_for_who_blocks(simulation: Simulation) -> None:
    blocker = Blocker(simulation)
    blocker.start()
    simulation.run_for(0.9)
    blocker.disk.faults.stall(100)
    simulation.run_for(1)
    assert simulation.now == pytest.approx(1.9)


def test_equal_seeds_give_equal_runs() -> None:
    traces = []
    for _ in range(2):
        with Simulation(8, is_blocking=True) as simulation:
            for name in "abc":
                Blocker(simulation, name).start()
            simulation.run_for(5)
            traces.append(simulation.trace_hash)
    assert traces[0] == traces[1]
