"""Wrong bits: each is noticed, none is served, and a torn end is not taken for one (R17, R18).

After any single damage to what was durable, all that was told is there, or said to be unknown, or the
log says that it may have lost something, so that the server's incarnation ends.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.storage import conftest
from tests.unit.storage.conftest import (
    CONFIG,
    OTHER,
    SEGMENT,
    STREAM,
    LogWorld,
    Owner,
    build_frame,
    check_or_unknown,
    essence,
    fill,
    read_all,
)

from lunalog.errors import LunalogError, StorageError, UnknownDataError
from lunalog.storage.format import BATCH_HEAD_BYTES, RECORD_HEAD_BYTES
from lunalog.storage.records import BaseRecord, CertificateRecord, FrameRecord, TrimRecord
from lunalog.testing.simulation import Simulation
from lunalog.types import NO_PROMISE, Certificate, Member, Promise, SealedSegment, SegmentId
from lunalog.wire import frames

SMALL = replace(CONFIG, extent_bytes=4 << 10)


@pytest.fixture
def world() -> Iterator[LogWorld]:
    with Simulation(1) as simulation:
        yield LogWorld(simulation, SMALL)


def store_of(world: LogWorld) -> Any:
    """A directory with full extents, sidecars, two checkpoints and a tail, all attested."""

    async def story(owner: Owner) -> None:
        held = await fill(owner, 6, size=200)
        for _ in range(4):
            owner.append(held, size=300)
            await owner.log.flush()
        owner.certify(held)
        owner.promise(OTHER, 5)
        second = owner.open_segment(STREAM, SegmentId(1, 1), held.end, held.chain)
        for _ in range(8):
            owner.append(second, size=300)
            await owner.log.flush()
        await asyncio.sleep(0.2)
        owner.append(owner.open_segment(OTHER, SegmentId(5, 0)), OTHER)
        await owner.log.flush()
        await asyncio.sleep(0.2)

    world.live(story, close=False)
    world.node.crash(power=True)
    return world.disk.snapshot()


@pytest.mark.slow
def test_a_flipped_bit_found_by_a_read_is_reported(world: LogWorld) -> None:
    """The extents are full, so the start does not read them again."""
    image = store_of(world)
    flips = 0
    name = "extent-0000000001.wal"
    for offset in range(200, 3000, 60):
        world.disk.restore(image)

        async def story(owner: Owner, offset: int = offset) -> bool:
            assert owner.log.damage == []
            world.disk.flip(name, offset)
            unknown = await read_all(owner, (STREAM, SEGMENT))
            if unknown:
                assert [d.first for d in owner.log.damage] == sorted(unknown)
                assert {d.file for d in owner.log.damage} == {name}
            return bool(unknown)

        flips += world.live(story)
    assert flips > 20


@pytest.mark.parametrize("kind", ["sidecar", "sidecar lost", "checkpoint", "checkpoint lost"])
def test_one_bad_file_beside_the_extents_loses_nothing(world: LogWorld, kind: str) -> None:
    store_of(world)
    before = essence(world.owner.replica)
    names = sorted(world.disk.directory.names)
    name = max(n for n in names if ("index" if "sidecar" in kind else "checkpoint") in n)
    if "lost" in kind:
        world.disk.lose(name)
    else:
        world.disk.flip(name, 50)
    world.live(lambda owner: owner.check())
    assert essence(world.owner.replica) == before
    assert not world.owner.log.may_have_lost
    world.restart(power=True)


@pytest.mark.parametrize("which", ["first", "middle", "current"])
def test_a_lost_extent_is_unknown_data_or_a_lost_promise(world: LogWorld, which: str) -> None:
    store_of(world)
    extents = [n for n in sorted(world.disk.directory.names) if n.endswith(".wal")]
    written = [n for n in extents if world.disk.directory.find(n).durable.read(0, 4) == b"LLB1"]
    world.disk.lose({"first": written[0], "middle": written[1], "current": written[-1]}[which])
    world.live(check_or_unknown)
    log = world.owner.log
    assert [d.what for d in log.damage].count("file is lost") >= 1
    assert log.may_have_lost == (which == "current")


@pytest.mark.parametrize("was_read", [True, False], ids=["known blocks", "unknown blocks"])
def test_r18_an_extent_that_vanishes_under_a_running_server_is_unknown_data(
    world: LogWorld, was_read: bool
) -> None:
    """Its sidecar goes with it: where its frames lay is known only if they were read before."""
    store_of(world)
    world.config = replace(SMALL, tail_cache_bytes=0)
    first = "extent-0000000001"

    async def story(owner: Owner) -> None:
        at = owner.replica.streams[STREAM].segments[SEGMENT].first
        if was_read:
            assert await owner.log.read(STREAM, SEGMENT, at, 1)
        for name in [n for n in world.disk.directory.names if n.startswith(first)]:
            world.disk.lose(name)
        for _ in range(2):
            with pytest.raises(UnknownDataError):
                await owner.log.read(STREAM, SEGMENT, at, 1)
        (damage,) = owner.log.damage
        assert (damage.file, damage.first) == (f"{first}.wal", at)
        assert was_read or damage.last > at + 1  # all of it, where no place is known any more

    world.live(story)


def test_r18_a_frame_and_the_sidecar_that_knew_it_are_damaged(world: LogWorld) -> None:
    """Where frames lie is found in the extent then, in which one is missing (seed 1795750629969)."""
    image = store_of(world)
    world.config = replace(SMALL, tail_cache_bytes=0)
    name, sidecar = "extent-0000000001.wal", "extent-0000000001.index"
    data = world.disk.directory.find(name).durable.read(0, SMALL.extent_bytes)
    places = [at for at in range(len(data)) if data.startswith(b"LLF1", at)]
    unknown: set[int] = set()
    for at in places:
        world.disk.restore(image)

        async def story(owner: Owner, at: int = at) -> None:
            world.disk.flip(sidecar, 50)
            world.disk.flip(name, at + 70)
            missing = await read_all(owner, (STREAM, SEGMENT))
            assert len(missing) == 1
            assert [d.first for d in owner.log.damage] == sorted(missing)
            unknown.update(missing)
            before = [head.end for head, _ in await owner.log.read(STREAM, SEGMENT, 0, 1 << 20)]
            assert before[-1] in missing  # no reply leaves out what is unknown

        if at == places[0]:
            continue  # a run knows the place of its first frame
        world.live(story)
    assert len(unknown) == len(places) - 1 > 2


def test_r18_a_read_of_what_is_damaged_and_forgotten_meanwhile_gives_no_other_frame(
    world: LogWorld,
) -> None:
    store_of(world)
    world.config = replace(SMALL, tail_cache_bytes=0)
    name, sidecar = "extent-0000000001.wal", "extent-0000000001.index"
    data = world.disk.directory.find(name).durable.read(0, SMALL.extent_bytes)
    places = [at for at in range(len(data)) if data.startswith(b"LLF1", at)]

    async def story(owner: Owner) -> None:
        world.disk.flip(sidecar, 50)
        world.disk.flip(name, places[2] + 70)
        (missing,) = await read_all(owner, (STREAM, SEGMENT))
        reading = asyncio.ensure_future(owner.log.read(STREAM, SEGMENT, missing, 1))
        await asyncio.sleep(0)
        owner.log.forget(STREAM, SEGMENT)
        assert await reading == []

    world.live(story)


def test_frames_are_found_where_sidecar_and_batch_headers_are_damaged(world: LogWorld) -> None:
    """They are whole, and tell their places themselves."""
    store_of(world)
    world.config = replace(SMALL, tail_cache_bytes=0)
    name, sidecar = "extent-0000000001.wal", "extent-0000000001.index"
    data = world.disk.directory.find(name).durable.read(0, SMALL.extent_bytes)
    places = [at for at in range(0, len(data), 512) if data.startswith(b"LLB1", at)]

    async def story(owner: Owner) -> None:
        world.disk.flip(sidecar, 50)
        for at in places[1:]:
            world.disk.flip(name, at + 20)
        assert await read_all(owner, (STREAM, SEGMENT)) == set()
        assert owner.log.damage == []

    assert len(places) > 3
    world.live(story)


def test_a_place_that_cannot_be_looked_up_now_is_no_damage(world: LogWorld) -> None:
    """Too many open files, say: neither the sidecar nor the extent can be asked where a frame lies."""
    store_of(world)
    world.config = replace(SMALL, tail_cache_bytes=0)

    async def story(owner: Owner) -> None:
        at = owner.replica.streams[STREAM].segments[SEGMENT].first
        world.disk.faults.fail_call(1, errno.EMFILE, "open", times=2)
        with pytest.raises(StorageError, match=r"^cannot read .* now: ") as told:
            await owner.log.read(STREAM, SEGMENT, at, 1)
        assert not isinstance(told.value, UnknownDataError)
        assert owner.log.damage == []
        assert await read_all(owner, (STREAM, SEGMENT)) == set()

    world.live(story)


def test_a_file_that_cannot_be_opened_ends_the_start_and_the_next_one_finds_all(
    world: LogWorld,
) -> None:
    """Too many open files, say, at each open of a start; some files it can do without."""
    image = store_of(world)
    before = essence(world.owner.replica)
    failed = 0
    world.node.expects_failure = lambda error: isinstance(error, StorageError)
    for number in range(1, 13):
        world.disk.restore(image)
        world.disk.faults.fail_call(number, errno.EMFILE, "open")
        world.live(lambda owner: owner.check())
        failed += world.node.failure is not None
        world.disk.faults.heal()
        world.restart()
        assert essence(world.owner.replica) == before
    assert failed > 3


def test_both_checkpoints_lost_is_a_lost_promise_and_no_lost_frame(world: LogWorld) -> None:
    """What still lies in extents is a witness."""
    store_of(world)
    for name in [n for n in world.disk.directory.names if n.startswith("checkpoint")]:
        world.disk.flip(name, 10)

    async def story(owner: Owner) -> None:
        await check_or_unknown(owner)
        assert owner.log.may_have_lost
        for key in owner.memory.ends:
            assert await read_all(owner, key) == set()

    world.live(story)
    assert world.node.failure is None


@pytest.mark.parametrize("kind", ["flipped", "lost"])
def test_r29_one_bad_checkpoint_after_another_loses_nothing(world: LogWorld, kind: str) -> None:
    """Each start leaves two whole ones, whatever it found."""
    store_of(world)
    before = essence(world.owner.replica)
    for _ in range(3):
        name = max(n for n in world.disk.directory.names if n.startswith("checkpoint"))
        if kind == "lost":
            world.disk.lose(name)
        else:
            world.disk.flip(name, 50)
        world.live(lambda owner: owner.check(), close=False)
        assert not world.owner.log.may_have_lost
        assert essence(world.owner.replica) == before
        world.node.crash(power=True)


def test_what_was_lost_is_remembered_until_it_is_answered_for(world: LogWorld) -> None:
    """R18: a crash before the new incarnation is durable must not hide the loss."""
    store_of(world)
    for name in [n for n in world.disk.directory.names if n.startswith("checkpoint")]:
        world.disk.flip(name, 10)
    for _ in range(2):
        world.live(check_or_unknown, close=False)
        assert world.owner.log.may_have_lost
        world.node.crash(power=True)

    async def accept(owner: Owner) -> None:
        await owner.log.accept_loss()
        assert not owner.log.may_have_lost
        world.node.crash(power=True)
        await asyncio.sleep(10)

    world.live(accept)
    world.live(check_or_unknown_frames)
    assert not world.owner.log.may_have_lost


@pytest.mark.parametrize("at", ["first batch", "promise", "its header"])
def test_r18_the_only_promise_of_a_young_log_is_damaged_and_its_checkpoint_is_lost(
    world: LogWorld, at: str
) -> None:
    """Nothing can be read of it then: it is no log that was never used."""

    async def story(owner: Owner) -> None:
        owner.promise(OTHER, 5)
        await owner.log.flush()
        await asyncio.sleep(0.2)

    world.live(story, close=False)
    world.node.crash(power=True)
    name = "extent-0000000001.wal"
    data = world.disk.directory.find(name).durable.read(0, SMALL.extent_bytes)
    body = data.find(OTHER)
    places = {"first batch": 20, "promise": body, "its header": body - RECORD_HEAD_BYTES}
    world.disk.lose("checkpoint-0000000001")
    world.disk.flip(name, places[at])
    world.live(check_or_unknown)
    assert world.owner.log.damage
    assert world.owner.log.may_have_lost


async def check_or_unknown_frames(owner: Owner) -> None:
    for key in owner.memory.ends:
        assert await read_all(owner, key) == set()


def test_what_a_trim_let_a_pull_leave_out_is_no_damage(world: LogWorld) -> None:
    """R21: the frames that were kept came behind a jump, and the next start reads both."""

    async def story(owner: Owner) -> None:
        replica, chain = owner.replica, 0
        row = SealedSegment(SEGMENT, 0, 9, 1, (Member("s", 1),), 1, "ann", "size", 0)
        certificate = Certificate(STREAM, row, Promise(2, b"a" * 16))
        held, _ = replica.certify(certificate)
        owner.put([CertificateRecord(certificate)])
        for first, trim in ((0, 0), (4, 4)):
            if trim:
                replica.trim(STREAM, trim, 1)
                owner.put([TrimRecord(STREAM, trim, 1)])
            frame = build_frame(STREAM, first)
            head = frames.parse(memoryview(frame))
            replica.pulled(STREAM, held, chain, first, 1, head.crc)
            base = BaseRecord(STREAM, SEGMENT, first, chain)
            owner.put([base, FrameRecord(STREAM, SEGMENT, 0, held.chain, head, frame)])
            chain = 77
        await owner.log.flush()

    async def look(owner: Owner) -> None:
        held = owner.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert (held.end, held.unknown, owner.log.damage) == (5, (), [])

    world.live(story, close=False)
    world.node.crash(power=True)
    world.live(look)


# ------------------------------------------------------------ the end of the log


def tail_of(world: LogWorld) -> tuple[str, int, int]:
    """File and first byte of the last batch with a frame in it, and the end of that frame."""
    name = max(
        n
        for n, inode in world.disk.directory.names.items()
        if n.endswith(".wal") and inode.durable.read(0, 4) == b"LLB1"
    )
    data = world.disk.directory.find(name).cached.read(0, 1 << 20)
    start = data.rfind(b"LLB1", 0, data.rfind(b"LLF1"))
    return name, start, data.rfind(b"LLF1") + len(build_frame(STREAM, 3))


@pytest.mark.parametrize("attested", [False, True])
@pytest.mark.parametrize("at", [4, BATCH_HEAD_BYTES + 5, BATCH_HEAD_BYTES + RECORD_HEAD_BYTES + 70])
def test_bad_bytes_at_the_end_are_torn_unless_something_later_attests_them(
    attested: bool, at: int
) -> None:
    """D6: once the idle batch is down, the last record is no tail any more."""
    with Simulation(1) as simulation:
        world = LogWorld(simulation)

        async def story(owner: Owner) -> None:
            await fill(owner, 3)
            await asyncio.sleep(0.2)
            held = owner.replica.find(STREAM, SEGMENT)
            assert held is not None
            owner.append(held)
            await owner.log.flush()
            if attested:
                await asyncio.sleep(0.2)

        world.live(story, close=False)
        world.node.crash(power=True)
        name, start, _ = tail_of(world)
        world.disk.flip(name, start + at)
        world.live(check_or_unknown if attested else check_frames)
        held = world.owner.replica.find(STREAM, SEGMENT)
        assert held is not None
        log = world.owner.log
        if not attested:  # a few milliseconds old: a lost disk's worth, and no more (R17)
            assert (held.end, held.unknown, log.damage) == (3, (), [])
            assert not log.may_have_lost
        else:
            assert log.damage
            assert log.may_have_lost or held.unknown == ((3, 4),)


async def check_frames(owner: Owner) -> None:
    for first in range(3):
        found = await owner.log.read(STREAM, SEGMENT, first, 1)
        assert [data for _, data in found] == [owner.memory.frames[STREAM, SEGMENT][first]]


@pytest.mark.parametrize("cut", range(0, 600, 37))
def test_a_cut_off_end_is_forgotten_and_written_again(cut: int) -> None:
    """A record cut anywhere in a batch that was never synced goes as a whole, and another follows."""
    with Simulation(cut) as simulation:
        world = LogWorld(simulation)

        async def story(owner: Owner) -> None:
            held = await fill(owner, 3)
            world.disk.faults.tear_rate = 0.0
            world.disk.faults.trap(1, world.node.crash, "write")
            owner.append(held)
            await asyncio.sleep(10)

        world.live(story)
        name, start, end = tail_of(world)
        size = world.disk.directory.find(name).cached.size
        world.disk.overwrite(name, start + cut, bytes(size - start - cut))

        async def again(owner: Owner) -> None:
            held = owner.replica.find(STREAM, SEGMENT)
            assert held is not None
            assert held.end == (3 if start + cut < end else 4)
            assert owner.log.damage == []
            while held.end < 6:
                owner.append(held)
            await owner.log.flush()
            await owner.check()

        world.live(again)
        assert not world.owner.log.may_have_lost
        world.restart(power=True)


def test_bytes_of_another_log_or_place_are_never_taken(world: LogWorld) -> None:
    """D7: a misdirected write of whole, valid batches."""
    image = store_of(world)
    extents = [n for n in sorted(world.disk.directory.names) if n.endswith(".wal")]
    first = world.disk.directory.find(extents[0]).durable.read(0, 4096)
    for target in extents:
        for at in (0, 512, 1024):
            world.disk.restore(image)
            world.disk.overwrite(target, at, first[1024:1536])
            world.live(check_or_unknown)
            assert world.node.failure is None


def test_a_payload_that_looks_like_a_log_is_only_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client stores the bytes of a log in its events."""
    with Simulation(1) as simulation:
        world = LogWorld(simulation, replace(CONFIG, extent_bytes=64 << 10))

        async def story(owner: Owner) -> None:
            await fill(owner, 3)
            name = "extent-0000000001.wal"
            bytes_of_log = world.disk.directory.find(name).durable.read(0, 4096)
            held = owner.replica.find(STREAM, SEGMENT)
            assert held is not None
            monkeypatch.setattr(
                conftest,
                "build_frame",
                lambda stream, first, *_: frames.build(stream, first, 1, 0, [bytes_of_log]),
            )
            owner.append(held)
            owner.append(held)
            await owner.log.flush()

        world.live(story, close=False)
        world.restart(power=True)
        assert world.owner.log.damage == []


def test_a_disk_that_cannot_be_read_at_the_end_is_not_cut(world: LogWorld) -> None:
    """What the disk would not give may be what was acknowledged: start again, or be replaced."""
    store_of(world)
    world.disk.faults.fail_call(1, errno.EIO, "read", times=500)
    world.live(check_or_unknown)
    failure = world.node.failure
    assert failure is None or isinstance(failure, LunalogError)
    world.disk.faults.heal()
    world.node.crash()
    if failure is not None:
        world.restart()
        assert world.owner.replica.streams[OTHER].promise != NO_PROMISE
