"""Starts over files that are short, bad in one place, or unreadable in one (R17, R18, D4, D5, D8)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.unit.storage.conftest import CONFIG, SEGMENT, STREAM, LogWorld, Owner, fill

from lunalog.errors import StorageError, UnknownDataError
from lunalog.storage import replay
from lunalog.storage.format import BATCH_HEAD_BYTES
from lunalog.testing.file import SimulatedFile
from lunalog.testing.simulation import Simulation

LARGE = replace(CONFIG, extent_bytes=8 << 20)
"""Extents too full to be carried over as a whole at a start."""
FRAMES = 30


@pytest.fixture
def world() -> Iterator[LogWorld]:
    with Simulation(1) as simulation:
        made = LogWorld(simulation, LARGE)
        made.node.expects_failure = lambda error: isinstance(error, StorageError)
        yield made


Bad = Callable[[str, int, int], None]


@pytest.fixture
def bad_blocks(monkeypatch: pytest.MonkeyPatch) -> Bad:
    """Give a part of a file that the disk does not read any more."""
    ranges: list[tuple[str, int, int]] = []
    read = SimulatedFile.read

    async def failing(file: SimulatedFile, offset: int, size: int) -> bytes:
        for name, first, end in ranges:
            if file._name == name and offset < end and offset + size > first:
                raise OSError(errno.EIO, "unreadable", name)
        return await read(file, offset, size)

    monkeypatch.setattr(SimulatedFile, "read", failing)
    return lambda name, first, end: ranges.append((name, first, end))


def build(world: LogWorld, *, lives: int = 1) -> list[int]:
    """One extent with batches of one large frame, attested; the offsets of the batches."""

    async def story(owner: Owner) -> None:
        held = await fill(owner, 1)
        for _ in range(FRAMES):
            owner.append(held, size=50_000)
            await owner.log.flush()
        await asyncio.sleep(0.2)

    for _ in range(lives):
        world.live(story, close=False)
        world.node.crash(power=True)
    name = newest(world)
    data = world.disk.directory.find(name).cached.read(0, 8 << 20)
    found, at = [], data.find(b"LLB1")
    while at >= 0:
        found.append(at)
        at = data.find(b"LLB1", at + 1)
    return found


def newest(world: LogWorld) -> str:
    names = [n for n, i in world.disk.directory.names.items() if n.endswith(".wal")]
    return max(n for n in names if world.disk.directory.find(n).cached.read(0, 4) == b"LLB1")


async def unknown_frames(owner: Owner) -> set[int]:
    """Frames that cannot be read; all others are what they were."""
    unknown = set()
    for first, frame in sorted(owner.memory.frames[STREAM, SEGMENT].items()):
        try:
            found = await owner.log.read(STREAM, SEGMENT, first, 1)
        except UnknownDataError:
            unknown.add(first)
        else:
            assert [data for _, data in found] == [frame]
    return unknown


async def nothing(owner: Owner) -> None:
    """A start is enough."""


def start(world: LogWorld) -> set[int]:
    found: set[int] = world.live(unknown_frames)
    assert world.node.failure is None
    return found


def test_a_frame_that_is_damaged_is_the_only_one_unknown(world: LogWorld) -> None:
    batches = build(world)
    world.disk.flip(newest(world), batches[10] + 30_000)
    (lost,) = start(world)
    log = world.owner.log
    assert not log.may_have_lost
    assert log.damage[0].what == "frame is damaged"
    assert {(d.first, d.last) for d in log.damage} == {(lost, lost + 1)}
    held = world.owner.replica.find(STREAM, SEGMENT)
    assert held is not None
    assert held.unknown == ((lost, lost + 1),)
    assert start(world) == {lost}  # and still after the next start
    assert world.owner.replica.find(STREAM, SEGMENT).unknown == ((lost, lost + 1),)  # type: ignore[union-attr]


def test_damaged_padding_loses_nothing_and_is_told(world: LogWorld) -> None:
    batches = build(world)
    world.disk.flip(newest(world), batches[11] - 1)
    assert start(world) == set()
    assert [d.what for d in world.owner.log.damage] == ["padding is not zeros"]
    assert not world.owner.log.may_have_lost


def test_a_damaged_batch_header_gives_its_frames_back(world: LogWorld) -> None:
    """What else it carried may have been a promise, so the incarnation ends."""
    batches = build(world)
    world.disk.flip(newest(world), batches[10] + 30)
    assert start(world) == set()
    assert [d.what for d in world.owner.log.damage] == ["batch header is damaged"]
    assert world.owner.log.may_have_lost


@pytest.mark.parametrize("which", [slice(10, 13), slice(None)], ids=["some", "all"])
def test_damaged_batch_headers_one_behind_another_give_their_frames_back(
    world: LogWorld, which: slice
) -> None:
    """Also where no header of the extent is left: it is no blank one, and stays as a witness."""
    batches = build(world)
    name = newest(world)
    for at in batches[which]:
        world.disk.flip(name, at + 30)
    assert start(world) == set()
    assert [d.what for d in world.owner.log.damage] == ["batch header is damaged"]
    assert world.owner.log.may_have_lost
    assert start(world) == set()


def test_a_damaged_record_header_may_hide_a_promise(world: LogWorld) -> None:
    batches = build(world)
    world.disk.flip(newest(world), batches[10] + BATCH_HEAD_BYTES + 20)
    lost = start(world)
    assert len(lost) == 1
    assert "records are damaged" in [d.what for d in world.owner.log.damage]
    assert world.owner.log.may_have_lost


def test_blocks_that_cannot_be_read_in_the_middle_are_damage(
    world: LogWorld, bad_blocks: Bad
) -> None:
    batches = build(world)
    bad_blocks(newest(world), batches[10] + 8192, batches[10] + 8193)
    assert len(start(world)) == 1
    assert world.owner.log.damage


def test_an_end_that_cannot_be_read_is_not_cut(world: LogWorld, bad_blocks: Bad) -> None:
    """What the disk would not give may be what was acknowledged: nothing is changed."""
    batches = build(world)
    image = world.disk.snapshot()
    bad_blocks(newest(world), batches[-1] - 1000, 8 << 20)
    for _ in range(2):
        world.live(unknown_frames)
        assert isinstance(world.node.failure, StorageError)
        world.disk.crash(power=False)
    for name, inode in image.names.items():
        assert world.disk.directory.find(name).durable.read(0, 9 << 20) == inode.durable.read(
            0, 9 << 20
        )


def test_an_extent_whose_beginning_cannot_be_read_is_no_blank_one(
    world: LogWorld, bad_blocks: Bad
) -> None:
    build(world, lives=2)
    world.node.crash()
    bad_blocks(newest(world), 0, 8 << 20)
    world.live(unknown_frames)
    assert isinstance(world.node.failure, StorageError)


@pytest.mark.parametrize("keep", [0, 100, 512, 100_000, 1_000_000])
def test_a_file_that_became_too_short_is_damage(world: LogWorld, keep: int) -> None:
    """D8: a full extent, whose length the checkpoint knows."""
    build(world)
    world.live(unknown_frames)  # from now on the extent is a full one
    name = "extent-0000000001.wal"
    inode = world.disk.directory.find(name)
    inode.durable.truncate(keep)
    inode.cached.truncate(keep)
    assert start(world)
    assert "file is too short" in [d.what for d in world.owner.log.damage]


def test_the_current_extent_cut_below_what_a_checkpoint_saw_synced_is_damage(
    world: LogWorld,
) -> None:
    async def story(owner: Owner) -> None:
        held = await fill(owner, 1)
        for _ in range(FRAMES):
            owner.append(held, size=50_000)
            await owner.log.flush()
        await owner.log.checkpoint()

    world.live(story, close=False)
    world.node.crash(power=True)
    inode = world.disk.directory.find(newest(world))
    for image in (inode.durable, inode.cached):
        image.truncate(300_000)
    lost = start(world)
    assert lost == set(range(6, FRAMES + 1))
    assert world.owner.log.may_have_lost
    held = world.owner.replica.find(STREAM, SEGMENT)
    assert held is not None
    assert held.unknown == ((6, FRAMES + 1),)


def test_nothing_is_left_of_the_current_extent(world: LogWorld) -> None:
    """Zeros where a checkpoint saw synced bytes: a file system that lost its blocks."""
    build(world)
    world.live(unknown_frames, close=False)
    world.node.crash(power=True)
    name = newest(world)
    size = world.disk.directory.find(name).durable.size
    world.disk.overwrite(name, 0, bytes(size))
    world.live(unknown_frames)
    assert world.owner.log.may_have_lost
    assert "nothing is left of it" in [d.what for d in world.owner.log.damage]


def test_r18_a_log_of_which_zeros_are_left_was_used_if_a_later_header_counts_its_batches(
    world: LogWorld,
) -> None:
    """Without a checkpoint; what answers for it is that a first start writes two batches."""
    build(world)
    world.live(unknown_frames, close=False)
    world.node.crash(power=True)
    for name in [n for n in world.disk.directory.names if n.startswith("checkpoint")]:
        world.disk.lose(name)
    first = "extent-0000000001.wal"
    size = world.disk.directory.find(first).durable.size
    world.disk.overwrite(first, 1024, bytes(size - 1024))
    world.live(nothing)
    assert world.owner.log.may_have_lost
    assert "batch header is damaged" in [d.what for d in world.owner.log.damage]


def test_the_extent_behind_a_last_mark_is_lost(world: LogWorld) -> None:
    world.config = replace(LARGE, extent_bytes=1 << 20)

    async def story(owner: Owner) -> None:
        held = await fill(owner, 1)
        while len([n for n in await owner.disk.names() if n.endswith(".wal")]) < 2:
            owner.append(held, size=50_000)
            await owner.log.flush()
        for _ in range(15):
            owner.append(held, size=50_000)
            await owner.log.flush()
        world.node.crash(power=True)
        await asyncio.sleep(10)

    world.live(story)
    name = newest(world)
    assert name == "extent-0000000002.wal"
    before = world.disk.snapshot()
    for number in (1, 2):  # with the newest checkpoint, and with none
        world.disk.restore(before)
        world.disk.lose(name)
        if number == 2:
            for lost in [n for n in world.disk.directory.names if n.startswith("checkpoint")]:
                world.disk.lose(lost)

        async def look(owner: Owner) -> None:
            assert owner.log.may_have_lost
            assert "file is lost" in [d.what for d in owner.log.damage]

        world.live(look)
        assert world.node.failure is None


def test_a_start_after_damage_keeps_the_extent_as_a_witness() -> None:
    """It is not carried over, however small; the frames behind the damage stay where they are."""
    with Simulation(2) as simulation:
        small = LogWorld(simulation)

        async def story(owner: Owner) -> None:
            held = await fill(owner, 1)
            for _ in range(5):
                owner.append(held, size=300)
                await owner.log.flush()
            await asyncio.sleep(0.2)

        small.live(story, close=False)
        small.node.crash(power=True)
        name = newest(small)
        data = small.disk.directory.find(name).cached.read(0, 1 << 20)
        second = data.find(b"LLF1", data.find(b"LLF1") + 1)
        small.disk.flip(name, second + 100)
        for _ in range(3):
            assert small.live(unknown_frames) == {1}
            assert name in small.disk.directory.names


def test_a_segment_that_was_cut_and_trimmed_stays_away(
    world: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R21, R22: frames behind its end outlive the certificate that cut them, in files and index."""
    monkeypatch.setattr(replay, "COLLAPSE_BYTES", 0)

    async def story(owner: Owner) -> None:
        held = await fill(owner, 5)
        owner.certify(held, 4)
        owner.trim(4)
        await owner.log.flush()
        await asyncio.sleep(0.2)

    world.live(story, close=False)
    for _ in range(3):
        assert world.restart().replica.find(STREAM, SEGMENT) is None
