"""The log: durable in order, together, and the same after every restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.unit.storage.conftest import (
    CONFIG,
    OTHER,
    SEGMENT,
    STREAM,
    LogWorld,
    Memory,
    Owner,
    essence,
    fill,
    replay_all,
)

from lunalog.errors import ClosedError, InvariantError
from lunalog.storage.records import MarkRecord, PromiseRecord
from lunalog.testing.simulation import Simulation
from lunalog.types import Promise, SegmentId


@pytest.fixture
def world() -> Iterator[LogWorld]:
    with Simulation(1) as simulation:
        yield LogWorld(simulation)


@pytest.fixture
def large() -> Iterator[LogWorld]:
    """The same with extents that do not fill up."""
    with Simulation(1) as simulation:
        yield LogWorld(simulation, replace(CONFIG, extent_bytes=1 << 20))


def count_calls(world: LogWorld, kind: str) -> list[str]:
    """A list that grows with each call of `kind` from now on."""
    seen: list[str] = []

    def note() -> None:
        seen.append(kind)
        world.disk.faults.trap(1, note, kind)

    world.disk.faults.trap(1, note, kind)
    return seen


# ------------------------------------------------------------ puts


def test_what_was_put_is_read_back(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        sizes = (0, 1, 300, 5000, 20)
        for size in sizes:
            owner.append(held, size=size, count=1 + size % 3)
        assert owner.log.queued_bytes > 5000
        await owner.log.flush()
        assert owner.log.queued_bytes == 0
        await owner.check()

    world.live(story)
    world.restart()


def test_acknowledgements_come_in_the_order_of_puts(world: LogWorld) -> None:
    async def story(owner: Owner) -> list[int]:
        told: list[int] = []
        held = owner.open_segment()
        for n in range(40):
            owner.append(held, size=n * 40, told=lambda n=n: told.append(n))
            if n % 7 == 0:
                await asyncio.sleep(0.0002)
        await owner.log.flush()
        return told

    assert world.live(story) == list(range(40))


def test_nothing_is_told_before_its_sync(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        await owner.log.flush()
        owner.disk.faults.stall(1.0)
        owner.append(held)
        await asyncio.sleep(0.9)
        assert owner.memory.ends[STREAM, SEGMENT] == 0
        await asyncio.sleep(0.2)
        assert owner.memory.ends[STREAM, SEGMENT] == 1

    world.live(story)


def test_who_appended_is_told_first_then_who_reads(world: LogWorld) -> None:
    """The former waits for the sync alone; the latter for what makes the frame found."""

    async def story(owner: Owner) -> list[tuple[str, bool]]:
        log, told = owner.log, []
        held = owner.open_segment()
        await log.flush()

        def note(what: str) -> None:
            found = log.cached(STREAM, SEGMENT, 0, 1)
            told.append((what, bool(found)))

        log.batch_synced = lambda: note("batch synced")
        log.batch_told = lambda: note("batch told")
        owner.append(held, told=lambda: note("synced"))
        log.put([], lambda: note("done"))
        await log.flush()
        return told[:4]  # an idle batch follows

    assert world.live(story) == [
        ("synced", False),
        ("batch synced", False),
        ("done", True),
        ("batch told", True),
    ]


def test_many_puts_share_one_sync(large: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        await owner.log.flush()
        syncs = count_calls(large, "sync")
        for _ in range(50):
            owner.append(held)
        await owner.log.flush()
        assert len(syncs) == 1
        # What comes while a sync is under way goes together with the next one.
        owner.disk.faults.stall(0.01)
        owner.append(held)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(50):
            owner.append(held)
            await asyncio.sleep(0)
        await owner.log.flush()
        assert len(syncs) == 3

    large.live(story)


def test_a_put_is_one_batch_or_nothing(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        with pytest.raises(InvariantError, match="does not fit"):
            owner.log.put([PromiseRecord(STREAM, Promise(1, b""))] * 100)
        owner.log.put([])
        await owner.log.flush()

    world.live(story)


def test_flush_waits_for_an_empty_put_behind_a_full_one(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        told: list[str] = []
        owner.append(held, told=lambda: told.append("frame"))
        owner.log.put([], lambda: told.append("nothing"))
        await owner.log.flush()
        assert told == ["frame", "nothing"]
        await owner.log.flush()

    world.live(story)


# ------------------------------------------------------------ idle


def test_an_idle_log_attests_its_last_batch_once(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        await fill(owner, 3)
        syncs = count_calls(world, "sync")
        before = owner.log.synced_position
        await asyncio.sleep(0.2)
        assert len(syncs) == 1
        assert owner.log.synced_position == before + 1
        await asyncio.sleep(2.0)
        assert len(syncs) == 1

    world.live(story)


def test_an_idle_batch_records_the_marks_that_moved(world: LogWorld) -> None:
    """R12: a restart hides nothing that was readable."""

    async def story(owner: Owner) -> None:
        held = await fill(owner, 5)
        owner.mark(held, 2)
        owner.mark(held, 4)
        owner.mark(held, 3)
        await asyncio.sleep(0.1)

    world.live(story, close=False)
    owner = world.restart()
    assert [r for r in owner.heard if isinstance(r, MarkRecord)] == [MarkRecord(STREAM, SEGMENT, 4)]
    held = owner.replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.committed, held.readable) == (4, 4)


def test_a_busy_log_is_not_attested_in_between(large: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        await owner.log.flush()
        syncs = count_calls(large, "sync")
        for _ in range(20):
            owner.append(held)
            await asyncio.sleep(0.005)
        assert len(syncs) == 20

    large.live(story)


# ------------------------------------------------------------ restarts


def test_a_new_log_is_empty_and_has_lost_nothing(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        assert owner.heard == []
        assert owner.log.damage == []
        assert not owner.log.may_have_lost
        assert not owner.log.is_full

    world.live(story)
    world.live(story)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_a_restart_is_the_state_before(world: LogWorld, power: bool, close: bool) -> None:
    async def story(owner: Owner) -> None:
        held = await fill(owner, 30, size=700)
        other = owner.open_segment(OTHER, SegmentId(3, 1), 50, 7)
        owner.append(other, OTHER, count=4)
        owner.promise(OTHER, 8)
        owner.certify(held, 20)
        second = owner.open_segment(STREAM, SegmentId(1, 1), 20, held.chain)
        owner.append(second)
        owner.mark(second, 21)
        await owner.log.flush()
        await asyncio.sleep(0.1)

    world.live(story, close=close)
    before = essence(world.owner.replica)
    for _ in range(3):
        owner = world.restart(power=power)
        assert essence(owner.replica) == before
        assert not owner.log.may_have_lost
        assert owner.log.damage == []


def test_what_a_checkpoint_and_its_tail_say_is_what_all_records_say(world: LogWorld) -> None:
    records = []

    async def story(owner: Owner) -> None:
        for n in range(8):
            held = owner.open_segment(STREAM, SegmentId(n + 1, 0), n * 10)
            for _ in range(10):
                owner.append(held, size=300)
            owner.mark(held, n * 10 + 5)
            owner.append(owner.open_segment(OTHER, SegmentId(1, n)), OTHER, size=500)
            owner.certify(held)
            await owner.log.flush()
            if n == 3:
                await owner.log.checkpoint()
                owner.trim(15)
                owner.drop(SegmentId(3, 0), version=2)
                owner.drop(SegmentId(1, 2), OTHER)
            if n == 5:
                owner.delete(OTHER)
                break
        await owner.log.flush()

    world.live(story)
    records += world.owner.records
    expected = essence(replay_all(records))
    assert expected == essence(world.owner.replica)
    owner = world.restart()
    assert essence(owner.replica) == expected
    assert len(owner.heard) < len(records)


def test_the_log_grows_over_restarts_by_number_and_position(world: LogWorld) -> None:
    """R19: an older image of the disk ends below what was reported."""

    async def story(owner: Owner) -> int:
        await fill(owner, 3)
        return owner.log.synced_position

    position = 0
    for _ in range(4):
        found = world.live(story, close=False)
        assert found > position
        position = found


def test_a_killed_process_leaves_only_the_page_cache_and_the_next_one_syncs_it(
    world: LogWorld,
) -> None:
    """R16: replayed, synced, and only then replied; a power cut after it loses nothing."""

    async def story(owner: Owner) -> None:
        held = await fill(owner, 2)
        world.disk.faults.trap(1, world.node.crash, "write", "write_rest")
        world.disk.faults.tear_rate = 0.0
        owner.append(held)
        await asyncio.sleep(10)

    world.live(story)
    assert world.memory.ends[STREAM, SEGMENT] == 2

    async def look(owner: Owner) -> None:
        held = owner.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.durable == 3
        world.memory.ends[STREAM, SEGMENT] = 3  # it may be told from now on
        world.node.crash(power=True)
        await asyncio.sleep(10)

    world.live(look)
    world.restart()


# ------------------------------------------------------------ extents and checkpoints


def extents_of(world: LogWorld) -> list[int]:
    return [int(n[7:17]) for n in sorted(world.disk.directory.names) if n.endswith(".wal")]


def test_full_extents_are_left_and_read_through_their_sidecars(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        await fill(owner, 3)
        for _ in range(12):
            await fill(owner, 10, size=300)
        await asyncio.sleep(0.5)
        assert len(extents_of(world)) > 2
        await owner.check()

    world.live(story)
    world.restart()


def test_an_extent_is_given_back_when_all_its_segments_are_forgotten(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        for n in range(6):
            held = owner.open_segment(STREAM, SegmentId(n + 1, 0), n * 40)
            for _ in range(40):
                owner.append(held, size=500)
                if held.end % 8 == 0:
                    await owner.log.flush()
            owner.certify(held)
            await owner.log.flush()
        await asyncio.sleep(2.0)
        held_before = extents_of(world)
        assert len(held_before) >= 6
        owner.trim(200)
        await owner.log.flush()
        await asyncio.sleep(5.0)
        assert len(extents_of(world)) <= len(held_before) // 2
        await owner.check()

    world.live(story)
    world.restart()
    world.restart(power=True)


def test_extents_that_died_before_a_restart_are_given_back_after_it(world: LogWorld) -> None:
    """The trim is replayed, and frees what it would have freed without the crash."""

    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        for _ in range(12):
            for _ in range(8):
                owner.append(held, size=500)
            await owner.log.flush()
        await asyncio.sleep(2.0)
        owner.certify(held)
        owner.trim(held.end)
        world.disk.faults.trap(1, world.node.crash, "sync")
        await asyncio.sleep(10)

    world.live(story)
    before = extents_of(world)
    assert len(before) >= 4

    async def wait(owner: Owner) -> None:
        assert owner.replica.find(STREAM, SEGMENT) is None
        await asyncio.sleep(5.0)

    world.live(wait)
    assert len(extents_of(world)) <= 2


def test_promises_and_certificates_outlive_the_extent_that_carried_them(world: LogWorld) -> None:
    """R29: the checkpoint holds them before the extent goes."""

    async def story(owner: Owner) -> None:
        owner.promise(OTHER, 17)
        for n in range(5):
            held = owner.open_segment(STREAM, SegmentId(n + 1, 0), n * 40)
            for _ in range(40):
                owner.append(held, size=500)
                if held.end % 8 == 0:
                    await owner.log.flush()
            owner.certify(held)
            await owner.log.flush()
            owner.trim(n * 40 + 40)
            await owner.log.flush()
            await asyncio.sleep(3.0)
        assert 1 not in extents_of(world)

    world.live(story)
    owner = world.restart(power=True)
    assert owner.replica.streams[OTHER].promise.epoch == 17
    assert owner.replica.streams[STREAM].trimmed_before == 200


def test_reading_while_frames_are_forgotten_ends_in_nothing_or_in_frames(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        for n in range(3):
            held = owner.open_segment(STREAM, SegmentId(n + 1, 0), n * 40)
            for _ in range(40):
                owner.append(held, size=500)
                if held.end % 8 == 0:
                    await owner.log.flush()
            owner.certify(held)
            await owner.log.flush()
        await asyncio.sleep(2.0)
        reads = [owner.log.read(STREAM, SegmentId(1, 0), at, 3000) for at in range(40)]
        gathered = asyncio.gather(*reads)
        await asyncio.sleep(0)
        owner.trim(40)
        found = await gathered
        assert all(not part or part[0][0].first == at for at, part in enumerate(found))
        await asyncio.sleep(3.0)
        assert await owner.log.read(STREAM, SegmentId(1, 0), 5, 3000) == []

    world.live(story)


# ------------------------------------------------------------ the end


def test_close_makes_all_durable_and_attested_then_refuses(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        owner.append(held)
        owner.mark(held, 1)
        await owner.log.close()
        assert owner.memory.ends[STREAM, SEGMENT] == 1
        with pytest.raises(ClosedError):
            owner.append(held)
        await owner.log.flush()
        await owner.log.close()
        await owner.disk.unlock()

    world.live(story, close=False)
    owner = world.restart(power=True)
    held = owner.replica.find(STREAM, SEGMENT)
    assert held is not None
    assert held.committed == 1


def test_an_owner_that_fails_to_acknowledge_ends_the_node(world: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        owner.log.put([], fail)
        await asyncio.sleep(1.0)
        raise AssertionError("the node lives on")

    world.node.expects_failure = lambda error: isinstance(error, ZeroDivisionError)
    world.live(story)
    assert isinstance(world.node.failure, ZeroDivisionError)


def test_a_read_gives_whole_frames_within_its_bounds(large: LogWorld) -> None:
    async def story(owner: Owner) -> None:
        held = owner.open_segment()
        for _ in range(10):
            owner.append(held, count=3, size=100)
        await owner.log.flush()

        async def firsts(start: int, bytes_max: int, end: int = 30) -> list[int]:
            found = await owner.log.read(STREAM, SEGMENT, start, bytes_max, end)
            return [head.first for head, _ in found]

        size = len(owner.memory.frames[STREAM, SEGMENT][0])
        assert await firsts(0, 1 << 20) == list(range(0, 30, 3))
        assert await firsts(4, 2 * size) == [3, 6]
        assert await firsts(5, 1) == [3]
        assert await firsts(9, 1 << 20, 16) == [9, 12, 15]
        assert await firsts(29, 1 << 20) == [27]
        assert await firsts(30, 1 << 20) == []
        assert await owner.log.read(STREAM, SegmentId(7, 7), 0, 100) == []
        assert await owner.log.read(OTHER, SEGMENT, 0, 100) == []
        assert owner.log.cached(STREAM, SEGMENT, 30, 100) is None
        for bound in (3, 15, 30):
            assert await owner.log.chain_at(STREAM, SEGMENT, bound) is not None
        for bound in (1, 29, 31, 500):
            assert await owner.log.chain_at(STREAM, SEGMENT, bound) is None

    large.live(story)
    large.config = replace(large.config, tail_cache_bytes=0)
    large.memory = Memory()
    large.disk.wipe()
    large.live(story)
