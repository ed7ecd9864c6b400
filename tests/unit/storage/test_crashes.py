"""A crash behind every single call to the disk: what was told to be durable is there afterwards.

Each run ends its process right after the n-th call was done and before its caller heard of it, by a
kill or a power cut that tears, drops or reorders what was not synced.  Recovery is crashed as well.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.storage.conftest import CONFIG, LogWorld, Owner, essence
from tests.unit.storage.workload import Workload

from lunalog.testing.simulation import Simulation

STEPS = 60
TINY = replace(CONFIG, extent_bytes=6 << 10)
"""A roll every few steps."""


def calls_of(seed: int) -> int:
    """How many calls one life makes, opening and closing included."""
    with Simulation(seed) as simulation:
        world = LogWorld(simulation, TINY)
        world.live(lambda owner: Workload(owner, seed, STEPS).run())
        world.restart()
        return world.disk.faults.calls


def crash_after(world: LogWorld, call: int, *, power: bool) -> None:
    world.disk.faults.trap(call, lambda: world.node.crash(power=power))


def check_twice(world: LogWorld, seed: int) -> None:
    """Restart, crash the restart somewhere, restart for good, and live on."""
    chance = world.simulation.stream("recovery")
    if world.node.is_running:
        world.node.crash(power=True)
    crash_after(world, chance.randrange(1, 60), power=chance.random() < 0.7)
    world.live(lambda owner: owner.check())
    world.disk.faults.heal()
    world.restart(power=chance.random() < 0.7)
    assert not world.owner.log.may_have_lost, world.owner.log.damage
    before = essence(world.owner.replica)
    world.live(lambda owner: Workload(owner, seed + 1, 10).run(), close=False)
    world.restart(power=True)
    assert before.keys() - essence(world.owner.replica).keys() <= world.memory.going


def crashed(seed: int, call: int, *, power: bool) -> bool:
    """One life that ends behind its `call`-th call; false if it was over before."""
    with Simulation(seed * 10_000 + call) as simulation:
        world = LogWorld(simulation, TINY)
        crash_after(world, call, power=power)
        world.live(lambda owner: Workload(owner, seed, STEPS).run())
        has_crashed = world.node.result is None and not world.node.has_finished
        check_twice(world, seed)
    return has_crashed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("power", [False, True])
def test_nothing_told_is_lost_by_a_crash_behind_any_call(seed: int, power: bool) -> None:
    calls = calls_of(seed)
    assert calls > 150
    met = sum(crashed(seed, call, power=power) for call in range(1, calls, 2 - power))
    assert met > calls // 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_nothing_told_is_lost_by_crash_upon_crash(seed: int) -> None:
    """Kills, then power cuts: what only the page cache held was synced before it was built upon."""
    with Simulation(seed) as simulation:
        world = LogWorld(simulation, TINY)
        chance = simulation.stream("crashes")
        for life in range(12):
            crash_after(world, chance.randrange(1, 90), power=chance.random() < 0.4)
            world.live(lambda owner, life=life: Workload(owner, seed + life, 40).run())
            world.disk.faults.heal()
        world.restart(power=True)
        assert not world.owner.log.may_have_lost
        assert world.memory.told > 5


def test_a_first_start_may_be_crashed_behind_any_call() -> None:
    """An empty directory that was never used is not one that has lost something."""
    for power in (False, True):
        for call in range(1, 40):
            with Simulation(call) as simulation:
                world = LogWorld(simulation)
                crash_after(world, call, power=power)

                async def story(owner: Owner) -> None:
                    assert not owner.log.may_have_lost

                world.live(story)
                world.disk.faults.heal()
                world.live(story)
                assert world.owner.log.damage == []
