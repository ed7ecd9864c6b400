"""Every call to the disk fails once: nothing that was told is lost, and no failed sync counts.

A failed write or sync ends the node (R16, D1, D2).  A full disk is no broken one: appends are refused
before it comes to that, what must be promised still finds room, and freed space is found (D3).
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest
from tests.unit.storage.conftest import CONFIG, OTHER, SEGMENT, STREAM, LogWorld, Owner, fill
from tests.unit.storage.workload import Workload

from lunalog.errors import DiskFullError, StorageError
from lunalog.testing.simulation import Simulation

STEPS = 60
TINY = replace(CONFIG, extent_bytes=6 << 10)


def lives_on(world: LogWorld, seed: int) -> None:
    """The next start finds all, and works."""
    world.disk.faults.heal()
    world.restart(power=seed % 2 == 0)
    assert not world.owner.log.may_have_lost, world.owner.log.damage
    world.live(lambda owner: Workload(owner, seed + 1, 20).run())
    world.restart(power=True)


@pytest.mark.slow
def test_a_read_that_fails_once_loses_nothing() -> None:
    """At the start it is read again; a server must not take a busy disk for damage."""
    for call in range(1, 25):
        with Simulation(call) as simulation:
            world = LogWorld(simulation, TINY)
            world.live(lambda owner: Workload(owner, 3, STEPS).run())
            world.disk.faults.fail_call(call, errno.EIO, "read")
            world.live(lambda owner: owner.check())
            assert world.node.failure is None or isinstance(world.node.failure, StorageError)
            lives_on(world, call)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_failed_sync_is_never_taken_for_one_that_succeeded_later(seed: int) -> None:
    """D2: the kernel forgets what it could not write, and the next sync says that all is well."""
    died = 0
    for number in range(1, 50):
        with Simulation(seed * 1000 + number) as simulation:
            world = LogWorld(simulation, TINY)
            if number == 1:
                world.disk.faults.fail_sync()
            else:
                world.disk.faults.trap(number - 1, world.disk.faults.fail_sync, "sync")
            world.live(lambda owner: Workload(owner, seed, STEPS).run())
            died += world.node.failure is not None
            world.disk.evict()
            lives_on(world, number)
    assert died > 35


def test_nothing_more_is_told_after_a_failure() -> None:
    with Simulation(1) as simulation:
        world = LogWorld(simulation)
        told: list[str] = []

        async def story(owner: Owner) -> None:
            held = await fill(owner, 2)
            world.disk.faults.fail_sync()
            owner.append(held, told=lambda: told.append("failed"))
            await asyncio.sleep(0)
            owner.append(held, told=lambda: told.append("behind it"))
            await owner.log.flush()
            told.append("flushed")

        world.live(story)
        assert isinstance(world.node.failure, StorageError)
        assert told == []


# ------------------------------------------------------------ a full disk


def small_disk(simulation: Simulation, capacity: int, reserve: int) -> LogWorld:
    config = replace(CONFIG, extent_bytes=64 << 10, reserve_bytes=reserve)
    world = LogWorld(simulation, config)
    world.disk.capacity_bytes = capacity
    return world


async def fill_up(owner: Owner) -> int:
    """Append until the log says that it is full; how many frames that took."""
    held = owner.open_segment()
    for number in range(2000):
        if owner.log.is_full:
            return number
        owner.append(held, size=2000)
        await owner.log.flush()
    raise AssertionError("it never filled up")


def test_a_disk_that_fills_up_keeps_room_for_promises() -> None:
    with Simulation(1) as simulation:
        world = small_disk(simulation, 1 << 20, 256 << 10)

        async def story(owner: Owner) -> None:
            assert await fill_up(owner) > 100
            for epoch in range(2, 100):
                owner.promise(OTHER, epoch)
                await owner.log.flush()
            await owner.check()

        world.live(story)
        assert world.node.failure is None
        world.restart(power=True)
        assert world.owner.log.is_full
        assert world.owner.replica.streams[OTHER].promise.epoch == 99


@pytest.mark.parametrize("count", [1, 7, 40])
def test_d3_what_is_queued_is_counted_before_more_is_taken(count: int) -> None:
    """A flood fills the disk faster than it is looked at; all that was let in finds room."""
    with Simulation(1) as simulation:
        world = small_disk(simulation, 1 << 20, 192 << 10)
        accepted = 0

        async def story(owner: Owner) -> None:
            nonlocal accepted
            held = owner.open_segment()
            for _ in range(2000):
                for _ in range(count):
                    if not owner.log.is_full:
                        owner.append(held, size=2000)
                        accepted += 1
                await asyncio.sleep(0)
            await owner.log.flush()
            owner.promise(OTHER, 2)
            await asyncio.sleep(1.0)  # all is attested: a start copies nothing
            await owner.check()

        world.live(story)
        assert world.node.failure is None
        assert accepted > 300
        assert world.memory.ends[STREAM, SEGMENT] == accepted
        world.restart(power=True)
        assert world.owner.log.is_full


@pytest.mark.parametrize("how", ["trim", "grow"])
def test_freed_space_is_found_without_a_restart(how: str) -> None:
    with Simulation(1) as simulation:
        world = small_disk(simulation, 1 << 20, 256 << 10)

        async def story(owner: Owner) -> None:
            await fill_up(owner)
            held = owner.replica.find(STREAM, SEGMENT)
            assert held is not None
            if how == "trim":
                owner.certify(held)
                owner.trim(held.end)
            else:
                world.disk.capacity_bytes = 1 << 24
            await asyncio.sleep(10.0)
            assert not owner.log.is_full
            await owner.check()

        world.live(story)
        world.restart(power=True)
        assert not world.owner.log.is_full


def test_a_checkpoint_that_finds_no_room_is_written_when_there_is() -> None:
    with Simulation(1) as simulation:
        world = small_disk(simulation, 1 << 24, 0)

        async def story(owner: Owner) -> None:
            await fill(owner, 5)
            world.disk.capacity_bytes = world.disk.directory.used_bytes()
            waiting = asyncio.get_running_loop().create_task(owner.log.checkpoint())
            await asyncio.sleep(5.0)
            assert not waiting.done()
            assert owner.log.is_full
            world.disk.capacity_bytes = 1 << 24
            await asyncio.sleep(5.0)
            assert waiting.done()
            assert not owner.log.is_full

        world.live(story)
        assert world.node.failure is None


def test_a_start_without_room_fails_and_changes_nothing() -> None:
    with Simulation(1) as simulation:
        world = small_disk(simulation, 1 << 24, 0)

        async def story(owner: Owner) -> None:
            await fill(owner, 5)

        world.live(story)
        world.disk.capacity_bytes = 100
        for _ in range(3):
            world.live(story)
            assert isinstance(world.node.failure, DiskFullError)
            world.disk.crash(power=False)
        world.disk.capacity_bytes = 1 << 24
        world.restart()


def test_a_growth_takes_smaller_steps_on_a_nearly_full_disk() -> None:
    """Sixteen megabytes are not to be had, and what is there is still used."""
    with Simulation(1) as simulation:
        world = LogWorld(simulation, replace(CONFIG, extent_bytes=8 << 20))
        world.disk.capacity_bytes = 700 << 10

        async def story(owner: Owner) -> None:
            held = owner.open_segment()
            for _ in range(200):
                owner.append(held, size=2000)
                await owner.log.flush()

        world.live(story)
        assert world.node.failure is None
        assert world.memory.ends[STREAM, SEGMENT] == 200
