"""Truncation, bases, repair between servers, and facts read back: what is kept stays whole."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest
from tests.unit.server.conftest import (
    ANN,
    BOB,
    CHAIN,
    FIRST,
    OTHER,
    SEGMENT,
    STREAM,
    Leader,
    Story,
    World,
    build_frame,
    chain_behind,
)

from lunalog import limits
from lunalog.core.replica import Replica
from lunalog.errors import InvariantError, StorageError, UnknownDataError
from lunalog.server import facts
from lunalog.storage.records import (
    BaseRecord,
    CertificateRecord,
    DropRecord,
    EndRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    Record,
    TombstoneRecord,
    TrimRecord,
    UnknownRecord,
)
from lunalog.types import Certificate, Promise, SealedSegment, SegmentId
from lunalog.wire.frames import FrameHead
from lunalog.wire.messages import (
    Certify,
    CertifyCommand,
    Command,
    DropSegment,
    TrimCommand,
)

Run = Callable[[Story], None]


async def filled(world: World, count: int, name: str = "server", *, each: int = 2) -> Leader:
    """A segment with `count` frames of `each` events."""
    if not world.master.connections:
        await world.master.listen(world.simulation)
    world.start(name)
    await world.ready(name)
    leader = await world.dial(name)
    await leader.open()
    for _ in range(count):
        leader.append(each, size=100)
    if count:
        await leader.acked(FIRST + each * count)
    return leader


async def order(world: World, *commands: Command, name: str = "server") -> None:
    world.master.commands[name] = list(commands)
    await world.until(lambda: {c.id for c in commands} <= world.master.confirmed)


def test_r22_a_trim_inside_a_segment_keeps_the_chain_of_what_is_left(run: Run) -> None:
    """A trim inside a frame counts as that frame's first; a recovery still learns the chain there."""

    async def story(world: World) -> None:
        leader = await filled(world, 10)
        made = leader.frames
        await order(world, TrimCommand(1, STREAM, FIRST + 7, 3))
        for _ in range(2):
            head, found = await leader.read(FIRST + 7, promise=Promise(1, ANN))
            assert (head.chain, found) == (chain_behind(made[:3]), made[3:])
            leader = await world.again(power=True)
        await leader.open()
        leader.end = FIRST + 20
        leader.append()
        await leader.acked(FIRST + 21)

    run(story)


def test_r22_a_trim_behind_damage_is_carried_out_and_vouches_for_no_chain(run: Run) -> None:
    """What is left is served; a recovery, which needs the chain before it, asks somebody else."""

    async def story(world: World) -> None:
        leader = await filled(world, 10)
        made = leader.frames
        leader = await world.again(tail_cache_bytes=0)
        await leader.open()
        leader.mark(FIRST + 20)
        disk = world.node().disk()
        name = next(n for n in disk.directory.names if n.endswith(".wal"))
        data = disk.directory.find(name).cached.read(0, 1 << 16)
        disk.flip(name, data.find(made[3]) + 70)
        await order(world, TrimCommand(1, STREAM, FIRST + 8, 3))
        with pytest.raises(UnknownDataError):
            await leader.read(FIRST + 8, promise=Promise(1, ANN))
        assert (await leader.read(FIRST + 8))[1] == made[4:]

    run(story)


def test_r22_damage_that_a_trim_runs_into_is_told(run: Run) -> None:
    """R18: it looks for the frame that is kept first, and finds it damaged."""

    async def story(world: World) -> None:
        leader = await filled(world, 10)
        made = leader.frames
        leader = await world.again(tail_cache_bytes=0)
        disk = world.node().disk()
        name = next(n for n in disk.directory.names if n.endswith(".wal"))
        data = disk.directory.find(name).cached.read(0, 1 << 16)
        disk.flip(name, data.find(made[3]) + 70)
        await order(world, TrimCommand(1, STREAM, FIRST + 7, 3))
        assert (await leader.fence(2)).unknown == ((FIRST + 7, FIRST + 8),)

    run(story)


@pytest.mark.parametrize("behind", [0, 3])
def test_r22_a_trim_at_or_behind_the_end_knows_the_chain_of_what_comes(
    run: Run, behind: int
) -> None:
    """A truncation of all that is committed, and one that a lagging replica hears of too early."""

    async def story(world: World) -> None:
        leader = await filled(world, 10)
        made, before = leader.frames, FIRST + 20 + behind
        await order(world, TrimCommand(1, STREAM, before, 3))
        for _ in range(4):
            leader.append(2)
        await leader.acked(FIRST + 28)
        first = 10 + behind // 2
        for _ in range(2):
            leader = await world.again(power=True)
            head, found = await leader.read(before, promise=Promise(1, ANN))
            assert (head.chain, found) == (chain_behind(made[:first]), made[first:])

    run(story)


def test_r22_a_checkpoint_in_the_middle_of_a_trim_loses_no_chain(run: Run) -> None:
    """The trim and the chain at it become true together: a crash leaves both or neither."""

    async def story(world: World) -> None:
        leader = await filled(world, 10)
        made = leader.frames
        server, done = world.server, []

        async def look_for_ever(*_: object) -> None:
            await server.log.checkpoint()
            done.append(True)
            await asyncio.get_running_loop().create_future()

        server.reads.base_at = look_for_ever  # type: ignore[method-assign,assignment]
        trim = TrimCommand(1, STREAM, FIRST + 6, 3)
        world.master.commands["server"] = [trim]
        await world.until(lambda: bool(done))
        leader = await world.again(power=True)
        await order(world, trim)
        head, found = await leader.read(FIRST + 6, promise=Promise(1, ANN))
        assert (head.chain, found) == (chain_behind(made[:3]), made[3:])

    run(story)


def test_r21_what_was_truncated_meanwhile_is_not_pulled(run: Run) -> None:
    """No peer has it any more; the laggard is complete without it, and after a restart still."""

    async def story(world: World) -> None:
        leader = await filled(world, 20)
        lagging = await filled(world, 3, "second")
        made, sealed = leader.frames, world.certificate(leader.frames)
        await leader.ask(Certify(sealed))
        trim = TrimCommand(1, STREAM, FIRST + 15, 3)
        await order(world, trim)
        world.master.confirmed.clear()
        certify = CertifyCommand(2, sealed, (world.source("server"),))
        await order(world, trim, certify, name="second")
        for _ in range(2):
            lagging = await world.again("second", power=True)
            _, found = await lagging.read(FIRST + 15)
            assert found == made[7:]
            held = world.servers["second"].replica.find(STREAM, SEGMENT)
            assert held is not None
            assert held.is_complete

    run(story)


def test_r22_a_trim_that_comes_again_is_not_confirmed_before_the_first_is_durable(run: Run) -> None:
    """A master that was away gives its orders new numbers."""

    async def story(world: World) -> None:
        await filled(world, 10)
        await world.again(tail_cache_bytes=0)
        disk = world.node().disk()
        world.master.commands["server"] = [TrimCommand(1, STREAM, FIRST + 7, 3)]
        disk.faults.stall(3.0)  # the chain at the trim is read before anything is written
        heard = len(world.master.beats)
        await world.until(lambda: len(world.master.beats) > heard)
        await asyncio.sleep(0.05)
        disk.faults.heal()
        world.master.commands["server"] = [TrimCommand(2, STREAM, FIRST + 7, 3)]
        heard = len(world.master.beats)
        await world.until(lambda: len(world.master.beats) > heard + 5)
        assert not world.master.confirmed
        await world.until(lambda: 2 in world.master.confirmed)
        await world.again(power=True)
        assert world.server.replica.streams[STREAM].trimmed_before == FIRST + 7

    run(story)


def test_r22_a_drop_while_pulling_stays_dropped(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 30)
        await filled(world, 0, "second")
        sealed = world.certificate(leader.frames)
        await leader.ask(Certify(sealed))
        disk = world.node("second").disk()
        certify = CertifyCommand(1, sealed, (world.source("server"),))
        world.master.commands["second"] = [certify]
        disk.faults.stall(1.0)
        await asyncio.sleep(0.5)
        drop = DropSegment(2, STREAM, SEGMENT, Promise(3, BOB), 5)
        world.master.commands["second"] = [drop]
        await world.until(lambda: 2 in world.master.confirmed)
        await asyncio.sleep(1.0)
        assert world.servers["second"].replica.find(STREAM, SEGMENT) is None
        await world.again("second", power=True)
        assert world.servers["second"].replica.find(STREAM, SEGMENT) is None

    run(story)


def test_a_throttled_leader_goes_on_when_what_is_queued_behind_it_was_pulled(run: Run) -> None:
    """L2: frames of a pull may be all that is left in the queue; nobody waits for ever."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(3):
            leader.append(size=15 << 20)
        await leader.acked(FIRST + 3, timeout=60)
        sealed = world.certificate(leader.frames)
        await leader.ask(Certify(sealed))
        world.start("second", wal_queue_bytes_max=limits.MESSAGE_BYTES_MAX)
        await world.ready("second")
        busy = await world.dial("second")
        await busy.open(stream=OTHER)
        certify = CertifyCommand(2, sealed, (world.source("server"),))
        world.master.commands["second"] = [certify]
        end = FIRST
        for _ in range(120):
            busy.send(build_frame(end, size=1 << 20, stream=OTHER))
            end += 1
            await asyncio.sleep(0.001)
        await busy.acked(end, timeout=60)
        await world.until(lambda: 2 in world.master.confirmed, timeout=60)

    run(story)


def test_a_file_that_cannot_be_opened_now_is_no_damage(run: Run) -> None:
    """Too many open files, say: the next try finds everything."""

    async def story(world: World) -> None:
        await filled(world, 5)
        leader = await world.again(tail_cache_bytes=0)
        world.node().disk().faults.fail_call(1, errno.EMFILE, "open")
        with pytest.raises(StorageError):
            await leader.read(FIRST, promise=Promise(1, ANN))
        assert len((await leader.read(FIRST, promise=Promise(1, ANN)))[1]) == 5
        assert world.server.log.damage == []

    run(story)


def test_frames_that_the_disk_will_not_give_now_are_neither_damaged_nor_absent(run: Run) -> None:
    async def story(world: World) -> None:
        await filled(world, 5)
        leader = await world.again(tail_cache_bytes=0)
        world.node().disk().faults.fail_call(1, errno.EIO, "read", times=20)
        with pytest.raises(StorageError):
            await leader.read(FIRST, promise=Promise(1, ANN))
        assert (await leader.fence(2)).unknown == ()
        world.node().disk().faults.heal()
        assert len((await leader.read(FIRST, promise=Promise(1, ANN)))[1]) == 5
        assert (await leader.fence(2)).unknown == ()

    run(story)


# ------------------------------------------------------------ facts


def records() -> list[Record]:
    """One of each kind, in the order of a life."""
    row = SealedSegment(SEGMENT, 100, 102, 9, (), 2, "ann", "age", 0, 2)
    head = FrameHead(STREAM, 100, 2, 1, 0, 8, 77)
    second = SegmentId(1, 1)
    return [
        PromiseRecord(STREAM, Promise(1, ANN)),
        OpenRecord(STREAM, SEGMENT, ANN, 100, CHAIN, 1),
        FrameRecord(STREAM, SEGMENT, 0, 9, head, b"frame"),
        MarkRecord(STREAM, SEGMENT, 101),
        MarkRecord(STREAM, SegmentId(8, 8), 101),
        CertificateRecord(Certificate(STREAM, row, Promise(2, BOB))),
        OpenRecord(STREAM, second, ANN, 102, 9, 1),
        EndRecord(STREAM, second, 102, 110, 11, 105),
        UnknownRecord(STREAM, second, 103, 104),
        BaseRecord(STREAM, second, 104, 10),
        DropRecord(STREAM, SegmentId(1, 2), Promise(2, BOB), 5),
        TrimRecord(STREAM, 101, 4),
        TombstoneRecord(OTHER, Promise(7, BOB)),
    ]


def read_back(found: list[Record]) -> Replica:
    replica = Replica(1)
    for record in found:
        facts.replay(replica, record, None)
    replica.settled()
    return replica


def test_every_kind_of_record_is_read_back() -> None:
    replica = read_back(records())
    state = replica.streams[STREAM]
    first, second = state.segments[SEGMENT], state.segments[SegmentId(1, 1)]
    assert state.promise == Promise(2, BOB)
    assert (state.trimmed_before, state.trim_version) == (101, 4)
    assert state.versions == {SegmentId(1, 2): 5}
    assert (first.end, first.committed, first.is_complete) == (102, 101, True)
    assert (second.end, second.chain, second.committed) == (110, 11, 105)
    assert (second.unknown, second.base) == (((103, 104),), (104, 10))
    assert replica.streams[OTHER].is_deleted
    assert facts.start_of(replica, STREAM, SEGMENT) == 101
    assert facts.start_of(replica, STREAM, SegmentId(1, 1)) == 102
    assert facts.start_of(replica, STREAM, SegmentId(1, 2)) is None


def test_reading_all_twice_or_a_snapshot_gives_the_same() -> None:
    """I9; the ends of segments come from the index of the log, not from the snapshot."""
    once = facts.snapshot(read_back(records()))
    assert facts.snapshot(read_back([*records(), *records()])) == once
    ends: list[Record] = [
        EndRecord(STREAM, SEGMENT, 100, 102, 9, 101),
        EndRecord(STREAM, SegmentId(1, 1), 102, 110, 11, 105),
    ]
    assert facts.snapshot(read_back([*once, *ends])) == once


def test_r22_what_came_before_a_deletion_and_is_read_after_it_changes_nothing() -> None:
    """A checkpoint tells the tombstone first; records of before it follow."""
    gone = TombstoneRecord(STREAM, Promise(7, BOB))
    replica = read_back([gone, *records()])
    assert replica.streams[STREAM].is_deleted
    assert replica.find(STREAM, SEGMENT) is None


def test_a_record_that_nobody_knows_ends_the_start() -> None:
    with pytest.raises(InvariantError):
        facts.replay(Replica(1), object(), None)  # type: ignore[arg-type]
