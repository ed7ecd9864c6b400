"""Pauses, wedges and clocks of simulated nodes; workers and mailboxes."""

from __future__ import annotations

import asyncio

import pytest

from lunalog.testing.machine import SimulatedNode
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation, ViolationError


class Ticker:
    """A node that notes each second of its clock, on a main loop and on a second one."""

    def __init__(self, simulation: Simulation) -> None:
        self.main: list[float] = []
        self.beside: list[float] = []
        self.simulation = simulation

    async def run(self, runtime: SimulatedRuntime) -> None:
        runtime.start_loop("beside", lambda: self.tick(self.beside))
        await self.tick(self.main)

    async def tick(self, ticks: list[float]) -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(self.simulation.now)


@pytest.fixture
def simulation():  # type: ignore[no-untyped-def]
    with Simulation(3) as made:
        yield made


def test_a_pause_takes_all_loops_and_a_wedge_one(simulation: Simulation) -> None:
    node, ticker = simulation.node("a"), Ticker(simulation)
    node.start(ticker.run)
    simulation.run_for(3.5)
    node.pause()
    simulation.run_for(10)
    assert (len(ticker.main), len(ticker.beside)) == (3, 3)
    node.resume()
    simulation.run_for(0.1)
    assert (len(ticker.main), len(ticker.beside)) == (4, 4)
    node.wedge()
    simulation.run_for(3)
    assert (len(ticker.main), len(ticker.beside)) == (4, 7)
    node.pause()
    node.unwedge()
    simulation.run_for(5)
    assert (len(ticker.main), len(ticker.beside)) == (4, 7)
    node.resume()
    simulation.run_for(0.1)
    assert (len(ticker.main), len(ticker.beside)) == (5, 8)
    assert node.loop_names == ["main", "beside"]


def test_a_fast_clock_makes_timers_come_early(simulation: Simulation) -> None:
    """Also a timer that waits already; `now` runs with it."""
    node, ticker = simulation.node("a"), Ticker(simulation)
    runtime = node.start(ticker.run)
    simulation.run_for(0.5)
    before = runtime.now()
    node.set_clock_rate(2.0)
    simulation.run_for(10)
    assert runtime.now() - before == pytest.approx(20)
    assert len(ticker.main) == 20
    assert ticker.main[0] == pytest.approx(0.75, abs=1e-3)
    node.set_clock_rate(0.5)
    simulation.run_for(10)
    assert len(ticker.main) == 25


def test_a_suspend_stops_the_loop_s_clock_but_not_boot_time(simulation: Simulation) -> None:
    """What CLOCK_MONOTONIC and CLOCK_BOOTTIME do."""
    node, ticker = simulation.node("a"), Ticker(simulation)
    runtime = node.start(ticker.run)
    simulation.run_for(0.5)
    boot, loop = runtime.now(), node.loop.time()
    node.pause(suspend=True)
    simulation.run_for(100)
    assert node.loop.time() == loop
    node.resume()
    assert runtime.now() - boot == pytest.approx(100)
    assert node.loop.time() - loop == pytest.approx(0)
    simulation.run_for(0.6)
    assert len(ticker.main) == 1


def test_wall_time_jumps_and_nothing_else_does(simulation: Simulation) -> None:
    node = simulation.node("a")
    runtime = node.start(Ticker(simulation).run)
    now, wall = runtime.now(), runtime.wall_us()
    node.clock.jump_wall(-3600)
    assert runtime.now() == now
    assert runtime.wall_us() - wall == pytest.approx(-3600e6)


def test_boot_time_starts_anew_with_power_only(simulation: Simulation) -> None:
    node = simulation.node("a")
    node.start(Ticker(simulation).run)
    simulation.run_for(1)
    before = node.clock.boot()
    runtime = node.restart()
    assert runtime.now() == before
    node.crash(power=True)
    assert node.restart().now() < 100
    with pytest.raises(ValueError, match="advance"):
        node.clock.set_rate(0)


def test_a_worker_takes_what_waits_and_ends_when_closed(simulation: Simulation) -> None:
    """Items put from the main loop; `join` waits for the end."""
    batches: list[list[int]] = []

    async def main(runtime: SimulatedRuntime) -> str:
        mailbox = runtime.mailbox()

        async def work() -> None:
            while batch := await mailbox.take_all():
                batches.append(batch)

        worker = runtime.start_worker("wal", work)
        mailbox.put(1)
        mailbox.put(2)
        await asyncio.sleep(0.1)
        mailbox.put(3)
        mailbox.close()
        mailbox.put(4)
        await worker.join()
        await worker.join()
        return "joined"

    node = simulation.node("a")
    node.start(main)
    simulation.run_for(1)
    assert batches == [[1, 2], [3]]
    assert node.result == "joined"


def test_a_worker_that_raises_fails_its_node(simulation: Simulation) -> None:
    async def bad() -> None:
        raise ZeroDivisionError

    async def main(runtime: SimulatedRuntime) -> None:
        await runtime.start_worker("bad", bad).join()
        await asyncio.sleep(10)

    node = simulation.node("a")
    node.start(main)
    with pytest.raises(ViolationError, match="ZeroDivisionError"):
        simulation.run_for(1)
    assert not node.is_running


def test_offloaded_work_goes_on_when_its_caller_is_cancelled(simulation: Simulation) -> None:
    """A thread would go on as well."""
    done: list[int] = []

    async def slow() -> int:
        await asyncio.sleep(1)
        done.append(1)
        return 5

    async def main(runtime: SimulatedRuntime) -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await runtime.offload(slow())
        return await runtime.offload(slow())

    node = simulation.node("a")
    node.start(main)
    simulation.run_for(3)
    assert (done, node.result) == ([1, 1], 5)


def test_fail_of_a_former_process_does_not_touch_the_next(simulation: Simulation) -> None:
    node, ticker = simulation.node("a"), Ticker(simulation)
    old = node.start(ticker.run)
    node.restart()
    old.fail(ValueError("late"))
    simulation.run_for(1)
    assert node.is_running
    assert old.random_bytes(8) != old.random_bytes(8)


def test_starting_twice_and_restarting_nothing_raise(simulation: Simulation) -> None:
    node: SimulatedNode = simulation.node("a")
    with pytest.raises(RuntimeError, match="never started"):
        node.restart()
    node.start(Ticker(simulation).run)
    with pytest.raises(RuntimeError, match="runs already"):
        node.start(Ticker(simulation).run)
    assert simulation.nodes == [node]


def test_heal_undoes_what_slows_a_node(simulation: Simulation) -> None:
    node, ticker = simulation.node("a"), Ticker(simulation)
    disk = node.disk()
    node.start(ticker.run)
    node.pause()
    node.wedge("beside")
    node.set_clock_rate(0.9)
    disk.faults.slowdown = 100
    disk.faults.fail_sync()
    node.heal()
    simulation.run_for(2.5)
    assert (len(ticker.main), len(ticker.beside)) == (2, 2)
    assert disk.faults.slowdown == 1
    assert disk.faults.sync_outcome() == "keep"
