"""Stock asyncio runs on simulated loops, and nothing of a crashed node runs on."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from lunalog.testing.machine import SimulatedNode
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.scheduler import BudgetExceededError, DeadlockError
from lunalog.testing.simulation import Simulation, ViolationError


async def forever(_: object = None) -> None:
    await asyncio.get_running_loop().create_future()


def test_time_passes_without_waiting() -> None:
    """An hour of sleep costs nothing and is an hour."""

    async def work() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - started

    with Simulation(1) as simulation:
        assert simulation.run(work()) == pytest.approx(3600, abs=1e-3)


def test_asyncio_s_own_tools_work() -> None:
    """Task groups, timeouts, queues, events, gather, wait, shield, wait_for, to_thread."""

    async def add(queue: asyncio.Queue[int], number: int) -> int:
        await asyncio.sleep(0.01 * number)
        await queue.put(number)
        return number

    async def work() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(add(queue, number))
            assert [await queue.get() for _ in range(3)] == [0, 1, 2]
        assert await asyncio.gather(*(add(asyncio.Queue(), n) for n in (2, 1))) == [2, 1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await forever()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        tasks = [asyncio.create_task(add(asyncio.Queue(), n)) for n in (1, 9)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [len(done), len(pending)] == [1, 1]
        await asyncio.shield(pending.pop())
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)

    with Simulation(1) as simulation:
        simulation.run(work())


def test_timers_come_in_the_order_of_their_time_also_when_many_are_cancelled() -> None:
    """A cancelled timer neither runs nor keeps its place."""
    ran: list[int] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        handles = [loop.call_later(1 + n / 1000, ran.append, n) for n in range(500)]
        for handle in handles[::2]:
            handle.cancel()
        await asyncio.sleep(2)

    with Simulation(1) as simulation:
        simulation.run(work())
    assert ran == list(range(1, 500, 2))


def test_a_crash_runs_no_finally_and_warns_of_nothing() -> None:
    """Neither at the crash nor for the rest of the run, garbage or not."""
    ran: list[str] = []

    async def holding(name: str) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ran.append(name)
            await asyncio.sleep(1)

    async def main(_: SimulatedRuntime) -> None:
        keep = asyncio.create_task(holding("task"))  # noqa: F841, RUF006
        await asyncio.gather(holding("main"), holding("other"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Simulation(1) as simulation:
            node = simulation.node("a")
            node.start(main)
            simulation.run_for(1)
            node.crash()
            gc.collect()
            simulation.run_for(200)
            assert ran == []
            assert simulation.violations == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_node_that_crashes_itself_does_nothing_more(waits: bool) -> None:
    """What the failing callback still does reaches nobody."""
    heard: list[str] = []

    async def main(runtime: SimulatedRuntime) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(heard.append, "soon")
        runtime.fail(OSError("disk"))
        loop.call_soon(heard.append, "later")
        late = loop.create_task(forever())  # noqa: F841, RUF006
        if waits:
            await asyncio.sleep(0)
            heard.append("on")

    with Simulation(1) as simulation:
        node = simulation.node("a")
        node.expects_failure = lambda error: isinstance(error, OSError)
        node.start(main)
        simulation.run_for(1)
        assert (heard, node.is_running, node.has_finished) == ([], False, False)
        assert isinstance(node.failure, OSError)
        assert simulation.noticed == {"process failed as it should": 1}


def test_an_interrupt_ends_the_run_and_is_nobodys_error() -> None:
    async def main(_: SimulatedRuntime) -> None:
        raise KeyboardInterrupt

    with Simulation(1) as simulation:
        simulation.node("a").start(main)
        with pytest.raises(KeyboardInterrupt):
            simulation.run_for(1)
        assert simulation.violations == []


@pytest.mark.parametrize("how", ["task", "callback", "main", "system exit"])
def test_an_error_nobody_handles_fails_the_run(how: str) -> None:
    """From wherever it comes; the first cause is chained."""

    async def failing() -> None:
        raise ZeroDivisionError

    async def main(_: SimulatedRuntime) -> None:
        loop = asyncio.get_running_loop()
        if how == "main":
            raise ZeroDivisionError
        if how == "task":
            task = loop.create_task(failing())  # noqa: F841, RUF006
        elif how == "callback":
            loop.call_soon(lambda: 1 // 0)
        else:
            raise SystemExit(3)
        del loop
        await asyncio.sleep(1)

    with Simulation(1) as simulation:
        simulation.node("a").start(main)
        with pytest.raises(ViolationError) as raised:
            simulation.run_for(10)
        assert isinstance(raised.value.__cause__, ZeroDivisionError | SystemExit)


def test_a_loop_that_never_waits_ends_at_the_budget() -> None:
    """A livelock is told as one."""

    async def spinning(_: SimulatedRuntime) -> None:
        while True:
            await asyncio.sleep(0)

    with Simulation(1, step_budget=2000) as simulation:
        simulation.node("a").start(spinning)
        with pytest.raises(BudgetExceededError, match="livelock"):
            simulation.run_for(1000)


def test_waiting_for_nothing_is_a_deadlock() -> None:
    with Simulation(1) as simulation, pytest.raises(DeadlockError):
        simulation.run(forever())


def test_waiting_too_long_is_told() -> None:
    with Simulation(1) as simulation, pytest.raises(TimeoutError, match="forever"):
        simulation.run(forever(), timeout_s=5)


def test_a_loop_refuses_calls_from_another_one() -> None:
    """In production they would be data races."""

    async def main(_: SimulatedRuntime) -> None:
        await forever()

    async def work(node: SimulatedNode) -> None:
        with pytest.raises(RuntimeError, match="threadsafe"):
            node.loop.call_soon(print)
        with pytest.raises(RuntimeError, match="threadsafe"):
            node.loop.call_later(1, print)
        node.loop.call_soon_threadsafe(lambda: None)

    with Simulation(1) as simulation:
        node = simulation.node("a")
        node.start(main)
        simulation.run(work(node))


def test_a_dropped_async_generator_is_closed_on_its_loop() -> None:
    """As on stock loops."""
    closed: list[object] = []

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.get_running_loop())

    async def work() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    with Simulation(1) as simulation:
        simulation.run(work())
        assert closed == [simulation.harness.loop]


def test_the_collector_is_off_inside_and_back_after() -> None:
    assert gc.isenabled()
    with Simulation(1):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_main_that_returns_ends_its_tasks_and_the_process() -> None:
    """As `asyncio.run` does: cancelled tasks run their `finally`, then all is over."""
    ran: list[str] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            ran.append("finally")

    async def main(_: SimulatedRuntime) -> str:
        task = asyncio.create_task(background())  # noqa: F841, RUF006
        await asyncio.sleep(0.1)
        return "done"

    with Simulation(1) as simulation:
        node = simulation.node("a")
        exited: list[SimulatedNode] = []
        node.on_exit = exited.append
        node.start(main)
        simulation.run_for(1)
        assert (node.result, ran, exited, node.is_running) == ("done", ["finally"], [node], False)
