"""Clocks and chance that code asks the standard library for come from the simulation."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid

import pytest

from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.scheduler import SimulationError
from lunalog.testing.simulation import Simulation
from lunalog.testing.standins import StandIns


def told(seed: int) -> list[object]:
    """What a program sees on a simulated node whose wall clock has jumped."""
    seen: list[object] = []

    async def program(_: SimulatedRuntime) -> None:
        before = time.monotonic(), time.time(), time.perf_counter_ns()
        await asyncio.sleep(1.5)
        seen.extend(
            [
                round(time.monotonic() - before[0], 3),
                round(time.time() - before[1], 3),
                round((time.perf_counter_ns() - before[2]) / 1e9, 3),
                time.time_ns() // 1000 == round(time.time() * 1e6),
                time.monotonic_ns() == int(time.monotonic() * 1e9),
                round(time.perf_counter() - time.monotonic(), 3),
                time.time(),
                random.random(),
                os.urandom(4),
                uuid.uuid4(),
            ]
        )

    stand_ins = StandIns(seed)
    stand_ins.install()
    try:
        with Simulation(seed) as simulation:
            node = simulation.node("node-1")
            node.clock.jump_wall(3600.0)
            node.start(program)
            simulation.run_for(3.0)
    finally:
        stand_ins.remove()
    return seen


def test_a_program_sees_its_nodes_clocks_and_the_seeds_chance() -> None:
    seen = told(1)
    assert seen[:6] == [1.5, 1.5, 1.5, True, True, 0.0]
    assert told(1) == seen
    assert told(2)[7:] != seen[7:]


def test_code_that_is_not_simulated_keeps_the_real_ones() -> None:
    """Before, meanwhile, in other threads, and afterwards."""
    real = time.time, time.monotonic, time.sleep, os.urandom
    state = random.getstate()
    stand_ins = StandIns(1)
    stand_ins.install()
    try:
        assert abs(time.time() - real[0]()) < 3600
        assert time.monotonic() >= 0
        assert len({os.urandom(16) for _ in range(2)}) == 2
        heard: list[float] = []
        thread = threading.Thread(target=lambda: heard.append(time.time()))
        thread.start()
        thread.join()
        assert abs(heard[0] - real[0]()) < 3600
    finally:
        stand_ins.remove()
    assert (time.time, time.monotonic, time.sleep, os.urandom) == real
    assert random.getstate() == state


def test_a_program_that_blocks_its_loop_is_told_so() -> None:
    caught: list[BaseException] = []

    async def program(_: SimulatedRuntime) -> None:
        block = time.sleep
        with pytest.raises(SimulationError, match=r"await asyncio\.sleep") as refused:
            block(3)
        caught.append(refused.value)

    stand_ins = StandIns(1)
    stand_ins.install()
    try:
        with Simulation(1) as simulation:
            simulation.node("node-1").start(program)
            simulation.run_for(1.0)
    finally:
        stand_ins.remove()
    assert caught
