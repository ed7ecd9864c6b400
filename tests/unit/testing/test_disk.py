"""The simulated disk loses what real disks lose, and nothing that was synced."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterator

import pytest

from lunalog.runtime import drive
from lunalog.storage.files import Disk, File
from lunalog.testing.disk import SimulatedDisk
from lunalog.testing.process import SimulatedRuntime
from lunalog.testing.simulation import Simulation

KEPT = b"k" * 1500


def make(seed: int = 1, **options: int) -> SimulatedDisk:
    return SimulatedDisk("d", random.Random(seed), **options)


def with_file(seed: int = 1) -> tuple[SimulatedDisk, File]:
    """A disk with one durable file that holds KEPT."""
    disk = make(seed)
    file = drive(disk.open("f", create=True))
    drive(file.write(0, [KEPT]))
    drive(file.sync())
    drive(disk.sync_directory())
    return disk, file


def content(disk: SimulatedDisk, name: str = "f") -> bytes:
    file = drive(disk.open(name))
    return drive(file.read(0, 1 << 20))


def test_it_is_a_disk() -> None:
    """Files behave as files while nothing fails."""
    disk: Disk = make()
    drive(disk.lock())
    with pytest.raises(BlockingIOError):
        drive(disk.lock())
    drive(disk.unlock())
    drive(disk.lock())
    file = drive(disk.open("b", create=True))
    drive(file.write(10, [b"abc", bytearray(b"def"), memoryview(b"g")]))
    drive(file.write(4094, [b"page border"]))
    assert drive(file.read(8, 10)) == b"\0\0abcdefg\0"
    assert drive(file.read(4094, 100)) == b"page border"
    assert drive(file.read(9000, 10)) == b""
    drive(file.allocate(100_000))
    drive(file.allocate(10))
    assert drive(file.size()) == 100_000
    assert drive(disk.free_bytes()) == (1 << 50) - 100_000
    with pytest.raises(FileNotFoundError):
        drive(disk.open("a"))
    drive(disk.rename("b", "a"))
    drive(disk.rename("a", "a"))
    drive(disk.open("c", create=True))
    assert drive(disk.names()) == ["a", "c"]
    drive(disk.remove("c"))
    drive(disk.remove("c"))
    drive(disk.open("a", create=True))
    assert drive(file.size()) == 0
    drive(file.close())
    drive(file.close())
    with pytest.raises(OSError, match="closed"):
        drive(file.write(0, [b"x"]))


def test_a_kill_keeps_the_page_cache_and_frees_the_lock() -> None:
    disk, file = with_file()
    drive(disk.lock())
    drive(file.write(1500, [b"unsynced"]))
    disk.crash(power=False)
    drive(disk.lock())
    with pytest.raises(OSError, match="died"):
        drive(file.read(0, 1))
    assert content(disk) == KEPT + b"unsynced"


def test_a_kill_then_a_power_cut_may_lose_what_only_the_cache_held() -> None:
    """Unless the next process syncs it (R16)."""
    lost = 0
    for seed in range(30):
        disk, file = with_file(seed)
        drive(file.write(1500, [b"unsynced"]))
        disk.crash(power=False)
        again = drive(disk.open("f"))
        if seed % 2:
            drive(again.sync())
        disk.crash(power=True)
        kept = content(disk)
        assert kept[:1500] == KEPT
        if seed % 2:
            assert kept == KEPT + b"unsynced"
        lost += kept != KEPT + b"unsynced"
    assert 5 < lost < 15


def test_a_power_cut_tears_what_was_not_synced_in_every_way() -> None:
    """Whole, short, torn, zeros, old bytes; what was synced stays."""
    seen = set()
    new = b"n" * 3000
    for seed in range(300):
        disk, file = with_file(seed)
        drive(file.write(1000, [new]))
        harmed = disk.crash(power=True)
        found = content(disk)
        assert found[:1000] == KEPT[:1000]
        assert set(found[1000:]) <= set(b"nk\0")
        if found[1000:] == new:
            seen.add("whole")
        elif found == KEPT:
            seen.add("nothing")
        else:
            seen.add("part")
        if b"nk" in found or b"n\0" in found:
            seen.add("torn")
        if found[1000:1500].count(0):
            seen.add("zeros over old bytes")
        if len(found) > 1500 and b"\0" in found[1500:]:
            seen.add("hole")
        if b"kn" in found[1001:] or b"\0n" in found:
            seen.add("later sector without an earlier one")
        seen.add("harmed" if harmed else "not harmed")
    assert len(seen) == 9, seen


def test_a_sector_keeps_the_synced_bytes_beside_torn_ones() -> None:
    """An append in the same sector harms nothing before it."""
    for seed in range(100):
        disk, file = with_file(seed)
        drive(file.write(1500, [b"n" * 20]))
        disk.crash(power=True)
        assert content(disk)[:1500] == KEPT


def test_names_not_synced_may_be_undone_each() -> None:
    """Creation, rename and removal, one without the other."""
    seen = set()
    for seed in range(300):
        disk, _ = with_file(seed)
        for name in ("a", "b"):
            file = drive(disk.open(name, create=True))
            drive(file.write(0, [name.encode()]))
            drive(file.sync())
        drive(disk.sync_directory())
        drive(disk.open("new", create=True))
        drive(disk.rename("a", "b"))
        drive(disk.remove("f"))
        disk.crash(power=True)
        names = drive(disk.names())
        seen.add(tuple(names))
        if "a" in names:
            assert content(disk, "b") == b"b"
        else:
            assert content(disk, "b") == b"a"
    assert len(seen) == 8


def test_a_truncated_file_never_shows_old_bytes_behind_new_ones() -> None:
    outcomes = set()
    for seed in range(200):
        disk, _ = with_file(seed)
        file = drive(disk.open("f", create=True))
        drive(file.write(0, [b"n" * 600]))
        disk.crash(power=True)
        found = content(disk)
        assert found == KEPT or (len(found) <= 600 and b"k" not in found)
        outcomes.add(found == KEPT)
    assert outcomes == {True, False}


def test_allocated_space_is_zeros_after_a_power_cut() -> None:
    """And its length may be lost, but never under what was synced."""
    sizes = set()
    for seed in range(50):
        disk, file = with_file(seed)
        drive(file.allocate(10_000))
        drive(file.write(100, [b"q"]))
        disk.crash(power=True)
        found = content(disk)
        assert len(found) in (1500, 10_000)
        assert not any(found[1500:])
        sizes.add(len(found))
    assert sizes == {1500, 10_000}


def test_a_failed_sync_loses_silently_what_it_did_not_write() -> None:
    """EIO once a descriptor; reads still show it; the next sync succeeds; it is gone (D2)."""
    disk, file = with_file()
    other = drive(disk.open("f"))
    drive(file.write(0, [b"new"]))
    disk.faults.fail_sync()
    with pytest.raises(OSError, match="writeback") as raised:
        drive(file.sync())
    assert raised.value.errno == errno.EIO
    drive(file.sync())
    with pytest.raises(OSError, match="writeback"):
        drive(other.sync())
    drive(other.sync())
    drive(drive(disk.open("f")).sync())
    assert content(disk)[:3] == b"new"
    assert disk.faults.bites == 2
    disk.crash(power=True)
    assert content(disk) == KEPT


def test_a_failed_sync_loses_at_least_one_write_of_many() -> None:
    """And clean pages may be dropped without a power cut."""
    for seed in range(30):
        disk, file = with_file(seed)
        for at in range(4):
            drive(file.write(at, [b"n"]))
        disk.faults.fail_sync()
        with pytest.raises(OSError, match="writeback"):
            drive(file.sync())
        drive(file.write(1499, [b"u"]))
        disk.evict()
        assert content(disk)[:4] != b"nnnn"
        assert content(disk)[-1:] == b"u"


def test_a_lying_sync_loses_without_a_word() -> None:
    disk, file = with_file()
    drive(file.write(0, [b"new"]))
    disk.faults.lie_sync()
    drive(file.sync())
    disk.crash(power=True)
    assert content(disk) == KEPT


def test_the_disk_may_be_full() -> None:
    """For writes and allocations that grow; overwriting goes on."""
    disk = make(capacity_bytes=1000)
    file = drive(disk.open("f", create=True))
    drive(file.write(0, [bytes(900)]))
    for grow in (file.write(850, [bytes(200)]), file.allocate(1001)):
        with pytest.raises(OSError, match="full") as raised:
            drive(grow)
        assert raised.value.errno == errno.ENOSPC
    drive(file.write(0, [b"x" * 900]))
    assert drive(disk.free_bytes()) == 100
    assert disk.faults.bites == 2


def test_the_n_th_call_fails_as_planned() -> None:
    """Counted over all calls or over some kinds, once or several times."""
    disk, file = with_file()
    disk.faults.fail_call(2, errno.EACCES)
    drive(file.read(0, 1))
    with pytest.raises(PermissionError):
        drive(disk.names())
    disk.faults.fail_call(2, errno.EIO, "write", "sync", times=2)
    drive(file.sync())
    drive(file.read(0, 1))
    for work in (file.write(0, [b"x"]), file.sync()):
        with pytest.raises(OSError, match="injected") as raised:
            drive(work)
        assert raised.value.errno == errno.EIO
    drive(file.sync())
    assert content(disk) == KEPT


def test_damage_is_done_to_what_reads_find_and_is_listed() -> None:
    disk, file = with_file()
    disk.flip("f", 7, 0b100)
    assert content(disk)[6:9] == b"kok"
    drive(file.write(6, [b"abc"]))
    assert content(disk)[6:9] == b"abc"
    drive(file.sync())
    disk.overwrite("f", 100, b"misdirected")
    disk.crash(power=True)
    assert content(disk)[99:112] == b"kmisdirectedk"
    flips = disk.flip_some(3)
    assert [d.kind for d in disk.damage] == ["flip", "overwrite", "flip", "flip", "flip"]
    assert all(d.before != d.after for d in flips)
    disk.lose("f")
    with pytest.raises(FileNotFoundError):
        content(disk)
    disk.wipe()
    assert drive(disk.names()) == []
    assert disk.flip_some(1) == []


def test_an_old_image_comes_back_whole() -> None:
    """With what was unsynced then; and again, as images are not used up."""
    disk, file = with_file()
    drive(file.write(1500, [b"unsynced"]))
    image = disk.snapshot()
    drive(file.write(0, [b"newer"]))
    drive(file.sync())
    for _ in range(2):
        disk.restore(image)
        assert content(disk) == KEPT + b"unsynced"
        again = drive(disk.open("f"))
        drive(again.write(0, [b"other"]))
        drive(again.sync())


def test_recorded_operations_make_the_same_disk_again() -> None:
    disk = make()
    disk.recorded = []
    file = drive(disk.open("a", create=True))
    drive(file.allocate(600))
    drive(file.write(0, [b"one", b"two"]))
    drive(file.sync())
    drive(disk.open("b", create=True))
    drive(disk.rename("a", "c"))
    drive(disk.remove("b"))
    drive(disk.sync_directory())
    drive(file.write(600, [b"three"]))
    assert [o.kind for o in disk.recorded] == [
        "create", "size", "write", "sync", "create", "rename", "remove", "sync_directory", "write",
    ]  # fmt: skip
    again = make()
    again.replay(disk.recorded)
    assert drive(again.names()) == ["c"]
    assert content(again, "c") == content(disk, "c")
    again.replay([])
    again.directory.cut_power(random.Random(1))
    assert content(again, "c")[:600] == content(disk, "c")[:600]


# ---------------------------------------------------------------- on simulated time


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(9) as made:
        yield made


def test_calls_take_time_and_a_slow_disk_more(simulation: Simulation) -> None:
    disk = simulation.node("a").disk(capacity_bytes=1 << 20)
    took: list[float] = []

    async def main(_: SimulatedRuntime) -> None:
        file = await disk.open("f", create=True)
        for _ in range(3):
            started = simulation.now
            await file.write(0, [b"x"])
            await file.sync()
            took.append(simulation.now - started)
            disk.faults.slowdown = 100
            if len(took) == 2:
                disk.faults.heal()
                disk.faults.stall(30)
        await asyncio.sleep(1)

    simulation.node("a").start(main)
    simulation.run_for(70)
    assert 50e-6 < took[0] < 0.002
    assert took[1] > 0.005
    assert took[2] > 30


def test_a_crash_lands_between_the_parts_of_a_write(simulation: Simulation) -> None:
    """And between a write and its sync; the caller never learns."""
    disk = simulation.node("a").disk()
    seen = set()

    async def main(_: SimulatedRuntime) -> None:
        file = await disk.open("f", create=True)
        while True:
            await file.write(0, [b"a" * 100])
            await file.sync()
            await file.write(0, [b"b" * 100])

    node = simulation.node("a")
    disk.faults.tear_rate = 0.8
    chance = simulation.stream("crashes")
    for _ in range(300):
        node.start(main)
        simulation.run_for(chance.uniform(0, 0.002))
        node.crash()
        inode = disk.directory.names.get("f")
        found = b"" if inode is None else inode.read(0, 100)
        seen.add("torn" if len(set(found)) > 1 or 0 < len(found) < 100 else found[:1].decode())
    assert seen == {"", "a", "b", "torn"}


def test_a_trap_springs_between_an_effect_and_its_reply(simulation: Simulation) -> None:
    """A crash there leaves what was synced, and the caller never learns."""
    node, disk, told = simulation.node("a"), simulation.node("a").disk(), []

    async def main(_: SimulatedRuntime) -> None:
        file = await disk.open("f", create=True)
        await disk.sync_directory()
        for number in range(9):
            await file.write(number, [b"x"])
            await file.sync()
            told.append(number)

    disk.faults.trap(3, lambda: node.crash(power=True), "sync")
    node.start(main)
    simulation.run_for(1)
    assert told == [0, 1]
    assert disk.directory.names["f"].read(0, 9) == b"xxx"


def test_a_cancelled_write_still_happens(simulation: Simulation) -> None:
    """As on the thread that does it in production."""
    disk = simulation.node("a").disk()
    disk.faults.tear_rate = 0

    async def main(_: SimulatedRuntime) -> bytes:
        file = await disk.open("f", create=True)
        disk.faults.slowdown = 1000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await file.write(0, [b"x"])
        await asyncio.sleep(1)
        return await file.read(0, 1)

    node = simulation.node("a")
    node.start(main)
    simulation.run_for(5)
    assert node.result == b"x"


def test_an_error_that_was_injected_may_fail_the_node(simulation: Simulation) -> None:
    """The same death without one is a violation; the disk's lock is free in both cases."""
    disk = simulation.node("a").disk()

    async def main(runtime: SimulatedRuntime) -> None:
        await disk.lock()
        file = await disk.open("f", create=True)
        try:
            await file.sync()
        except OSError as error:
            runtime.fail(error)
        await asyncio.sleep(1)

    node = simulation.node("a")
    disk.faults.fail_call(1, errno.EIO, "sync")
    node.start(main)
    simulation.run_for(0.5)
    assert not node.is_running
    assert isinstance(node.failure, OSError)
    node.start(main)
    simulation.run_for(2)
    assert simulation.violations == []
