"""What readers, recoveries and followers get from one server (R6, R12, R13, R14, R18)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.misfits import misfit
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

from lunalog.errors import (
    ConflictError,
    FencedError,
    GoneError,
    NotOpenError,
    OverloadedError,
    SealedError,
    ServerUnavailableError,
    UnknownDataError,
)
from lunalog.server.process import JournalServer
from lunalog.types import Promise, SegmentId
from lunalog.wire import codec
from lunalog.wire.codec import ReadStatus
from lunalog.wire.messages import (
    AskLeader,
    Certified,
    Certify,
    CertifyCommand,
    Check,
    CloseSlot,
    Done,
    DropSegment,
    DropStream,
    LeaderAnswer,
    LeaderAsked,
    Ping,
    Read,
    ReadPoint,
    TrimCommand,
)

Run = Callable[[Story], None]


def begin(work: Any) -> Any:
    return asyncio.get_running_loop().create_task(work)


async def filled(world: World, count: int = 5, *, committed: int = 0, **changes: Any) -> Leader:
    """A segment with `count` frames of two events, acknowledged."""
    leader = await world.begin(**changes)
    await leader.open()
    for _ in range(count):
        leader.append(2, committed=committed)
    await leader.acked(FIRST + 2 * count)
    return leader


# ------------------------------------------------------------ followers


def test_r12_readers_get_whole_frames_below_what_is_committed(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        assert (await leader.read(FIRST))[0].status is ReadStatus.NOTHING_YET
        leader.mark(FIRST + 6)
        head, found = await leader.read(FIRST)
        assert (head.status, head.end, head.committed) == (ReadStatus.HELD, FIRST + 10, FIRST + 6)
        assert (head.chain, found) == (CHAIN, leader.frames[:3])
        assert (await leader.read(FIRST + 3))[1] == leader.frames[1:3]
        assert (await leader.read(FIRST, bytes_max=1))[1] == leader.frames[:1]
        assert (await leader.read(FIRST + 6))[0].status is ReadStatus.NOTHING_YET

    run(story)


def test_r12_a_commit_mark_survives_a_restart(run: Run) -> None:
    """What was readable stays readable, whoever told of it: an append or an idle mark."""

    async def story(world: World) -> None:
        leader = await filled(world)
        leader.append(2, committed=FIRST + 4)
        await leader.acked(FIRST + 12)
        leader = await world.again(power=True)
        assert (await leader.read(FIRST))[0].committed == FIRST + 4
        await leader.open()
        leader.mark(FIRST + 8)
        await asyncio.sleep(0.2)
        leader = await world.again(power=True)
        assert (await leader.read(FIRST))[0].committed == FIRST + 8

    run(story)


def test_r13_only_a_certificate_ends_a_segment(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        leader.mark(FIRST + 10)
        assert (await leader.read(FIRST + 10))[0].status is ReadStatus.NOTHING_YET
        assert (await leader.read(FIRST + 99))[0].status is ReadStatus.NOTHING_YET
        assert await leader.ask(Certify(world.certificate(leader.frames[:4]))) == Certified(True)
        assert (await leader.read(FIRST + 8))[0].status is ReadStatus.END_OF_SEGMENT
        head, found = await leader.read(FIRST + 6)
        assert (head.status, found) == (ReadStatus.HELD, leader.frames[3:4])

    run(story)


def test_what_is_not_here_is_said_so(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        for refused in (
            leader.read(FIRST, stream=OTHER),
            leader.read(FIRST, segment=SegmentId(9, 9)),
            leader.read(FIRST - 1),
        ):
            with pytest.raises(NotOpenError):
                await refused

    run(story)


def test_a_long_poll_is_answered_by_a_commit_mark(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        reader = await world.dial()
        waiting = begin(reader.read(FIRST, wait_ms=10_000, timeout=20))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        leader.mark(FIRST + 2)
        head, found = await waiting
        assert (head.committed, found) == (FIRST + 2, leader.frames[:1])

    run(story)


def test_a_long_poll_is_answered_by_an_append_that_was_committed_ahead(run: Run) -> None:
    """This replica is the slow one: its own durable end is what readers wait for."""

    async def story(world: World) -> None:
        leader = await filled(world, committed=FIRST)
        reader = await world.dial()
        waiting = begin(reader.read(FIRST + 10, wait_ms=10_000, timeout=20))
        await asyncio.sleep(0.1)
        world.node().disk().faults.stall(0.5)
        leader.append(2, committed=FIRST + 12)
        await asyncio.sleep(0.4)
        assert not waiting.done()
        assert (await waiting)[1] == leader.frames[5:]

    run(story)


def test_a_long_poll_ends_in_time_with_nothing(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        before = world.simulation.now
        head, _ = await leader.read(FIRST, wait_ms=700)
        assert head.status is ReadStatus.NOTHING_YET
        assert 0.6 < world.simulation.now - before < 0.9

    run(story)


@pytest.mark.parametrize("how", ["certify", "drop", "delete"])
def test_a_long_poll_hears_of_the_end(run: Run, how: str) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        leader.mark(FIRST + 10)
        reader = await world.dial()
        waiting = begin(reader.read(FIRST + 10, wait_ms=30_000, timeout=40))
        await asyncio.sleep(0.1)
        promise = Promise(2, BOB)
        if how == "certify":
            await leader.ask(Certify(world.certificate(leader.frames)))
            assert (await waiting)[0].status is ReadStatus.END_OF_SEGMENT
            return
        world.master.commands["server"] = [
            DropSegment(7, STREAM, SEGMENT, promise, 1)
            if how == "drop"
            else DropStream(7, STREAM, promise)
        ]
        with pytest.raises(NotOpenError if how == "drop" else GoneError):
            await waiting

    run(story)


def test_readers_that_go_leave_nothing_behind(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        stays = await world.dial()
        goes = await world.dial()
        waiting = [
            begin(who.read(FIRST, wait_ms=30_000, timeout=40)) for who in (stays, goes, goes)
        ]
        await asyncio.sleep(0.1)
        goes.connection.abort()
        for gone in waiting[1:]:
            with pytest.raises(ServerUnavailableError):
                await gone
        await asyncio.sleep(0.1)
        leader.mark(FIRST + 2)
        assert (await waiting[0])[1] == leader.frames[:1]
        assert world.server.reads._count == 0
        assert world.server.reads._waiting == {}

    run(story)


def test_a_reply_holds_no_more_than_one_message(run: Run) -> None:
    """Frames of many megabytes, and a reader that wants them all."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(6):
            leader.append(size=6 << 20)
        await leader.acked(FIRST + 6, timeout=30)
        leader.mark(FIRST + 6)
        reader = await world.dial()
        found: list[bytes] = []
        while len(found) < 6:
            _, some = await reader.read(FIRST + len(found), bytes_max=1 << 30, timeout=30)
            assert 1 <= len(some) <= 2
            found += some
        assert found == leader.frames

    run(story)


def test_old_frames_are_read_from_the_disk(run: Run) -> None:
    """The cache is too small for them, after a restart it is empty; many readers at once."""

    async def story(world: World) -> None:
        leader = await filled(world, 100, tail_cache_bytes=1000)
        made = leader.frames
        leader.mark(FIRST + 200)
        for _ in range(2):
            reads = [begin(leader.read(FIRST + 2 * n, bytes_max=500)) for n in range(0, 100, 3)]
            for n, reading in zip(range(0, 100, 3), reads, strict=True):
                _, found = await reading
                assert found == made[n : n + len(found)]
                assert found
            await asyncio.sleep(0.1)
            leader = await world.again()

    run(story)


# ------------------------------------------------------------ recovery


def test_r6_a_recovery_read_gets_all_that_is_durable_with_the_chain_before_it(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        new = await world.dial()
        await new.fence(2)
        head, found = await new.read(FIRST + 5, promise=Promise(2, BOB))
        assert (head.status, head.end, found) == (ReadStatus.HELD, FIRST + 10, leader.frames[2:])
        assert head.chain == chain_behind(leader.frames[:2])
        head, found = await new.read(FIRST, promise=Promise(2, BOB), bytes_max=1)
        assert (head.chain, found) == (CHAIN, leader.frames[:1])

    run(story)


def test_a_frame_whose_lengths_do_not_add_up_is_kept_as_it_came(run: Run) -> None:
    """Servers look at no event: it stops neither them, nor a restart, nor a recovery (R26)."""

    async def story(world: World) -> None:
        leader = await filled(world, 1)
        bad = misfit(build_frame(leader.end, 2))
        leader.send(bad, committed=FIRST + 2)
        leader.frames.append(bad)
        leader.end += 2
        leader.append(2, committed=FIRST + 4)
        await leader.acked(FIRST + 6)
        made = leader.frames
        leader.mark(FIRST + 6)
        assert (await leader.read(FIRST))[1] == made
        leader = await world.again(power=True, tail_cache_bytes=0)
        fenced = await leader.fence(2)
        assert (fenced.end, fenced.chain, fenced.unknown) == (FIRST + 6, chain_behind(made), ())
        head, found = await leader.read(FIRST, promise=Promise(2, BOB))
        assert (head.status, found) == (ReadStatus.HELD, made)

    run(story)


def test_i13_only_who_promised_may_say_that_there_is_nothing(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        mine = Promise(2, BOB)
        for segment, start in ((SEGMENT, FIRST + 10), (SegmentId(1, 1), FIRST)):
            with pytest.raises(NotOpenError, match="fence it first"):
                await leader.read(start, segment=segment, promise=mine)
        with pytest.raises(NotOpenError, match="fence it first"):
            await leader.read(FIRST, stream=OTHER, promise=mine)
        await leader.fence(2)
        for segment, start in ((SEGMENT, FIRST + 10), (SegmentId(1, 1), FIRST)):
            head, found = await leader.read(start, segment=segment, promise=mine)
            assert (head.status, found) == (ReadStatus.ABSENT, [])
        await leader.fence(3, ANN)
        with pytest.raises(FencedError):
            await leader.read(FIRST + 10, promise=mine)
        _, found = await leader.read(FIRST, promise=mine)  # a copy is a copy
        assert found == leader.frames

    run(story)


def test_i13_a_promise_to_the_segments_own_epoch_denies_nothing(run: Run) -> None:
    """A peer that completes itself after a roll asks under it, while frames are still on their way."""

    async def story(world: World) -> None:
        leader = await filled(world)
        own = Promise(SEGMENT.epoch, ANN)
        for segment, start in ((SEGMENT, FIRST + 10), (SegmentId(SEGMENT.epoch, 1), FIRST)):
            head, found = await leader.read(start, segment=segment, promise=own)
            assert (head.status, found) == (ReadStatus.NOTHING_YET, [])

    run(story)


def test_i13_a_promise_that_is_not_durable_yet_vouches_for_nothing(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        world.node().disk().faults.stall(1.0)
        fencing = begin(leader.fence(2))
        await asyncio.sleep(0.5)
        with pytest.raises(NotOpenError, match="fence it first"):
            await leader.read(FIRST + 10, promise=Promise(2, BOB))
        await fencing
        head, _ = await leader.read(FIRST + 10, promise=Promise(2, BOB))
        assert head.status is ReadStatus.ABSENT

    run(story)


def test_r18_damage_is_neither_present_nor_absent(run: Run) -> None:
    """Found by a read, told to the reader, to the master, to the next fence; never served."""

    async def story(world: World) -> None:
        leader = await filled(world, 20, tail_cache_bytes=0)
        leader.mark(FIRST + 40)
        disk = world.node().disk()
        name = next(n for n in disk.directory.names if n.endswith(".wal"))
        data = disk.directory.find(name).cached.read(0, 1 << 16)
        disk.flip(name, data.find(leader.frames[3]) + 70)
        _, found = await leader.read(FIRST)
        assert found == leader.frames[:3]
        for promise in (None, Promise(1, ANN)):
            with pytest.raises(UnknownDataError):
                await leader.read(FIRST + 6, promise=promise)
        _, found = await leader.read(FIRST + 8)
        assert found == leader.frames[4:]
        fenced = await leader.fence(2)
        assert fenced.unknown == ((FIRST + 6, FIRST + 8),)
        with pytest.raises(UnknownDataError):
            await leader.read(FIRST + 6, promise=Promise(2, BOB))
        with pytest.raises(UnknownDataError):  # its chain needs the frame before it
            await leader.read(FIRST + 8, promise=Promise(2, BOB), bytes_max=1)
        assert world.server.report().counters["damaged_ranges"] == 1

    run(story)


def test_r18_a_witness_that_lost_where_its_segment_begins_vouches_for_no_more(run: Run) -> None:
    """Its OPEN record and its first frame are damaged: it is not complete, and knows no chain there."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(5):
            leader.append(2)
            await leader.acked(leader.end)
        await asyncio.sleep(0.2)
        made, disk = leader.frames, world.node().disk()
        name = next(n for n in disk.directory.names if n.endswith(".wal"))
        data = disk.directory.find(name).cached.read(0, 1 << 16)
        disk.flip(name, data.find(STREAM))
        disk.flip(name, data.find(made[0]) - 8)
        world.master.fresh = 2
        leader = await world.again(power=True, tail_cache_bytes=0)
        assert world.master.registrations[-1].may_have_lost
        start, promise = FIRST + 2, Promise(1, ANN)
        with pytest.raises(UnknownDataError):  # nobody has told it the chain before its first frame
            await leader.read(start, promise=promise)
        head, found = await leader.read(start + 2, promise=promise)
        assert (head.chain, found) == (chain_behind(made[:2]), made[2:])
        world.master.commands["server"] = [CertifyCommand(1, world.certificate(made), ())]
        for _ in range(3):  # as it was told, from its record, from a checkpoint
            await world.until(lambda: world.master.facts()[STREAM, SEGMENT].state == "sealed")
            world.master.commands.clear()
            assert (await leader.read(start))[1] == made[1:]
            for asks in (None, promise):
                with pytest.raises(UnknownDataError):
                    await leader.read(FIRST, promise=asks)
            leader = await world.again(power=True)
        assert not world.master.confirmed

    run(story)


# ------------------------------------------------------------ checks and questions


def test_r14_a_check_is_answered_by_the_promise_and_the_segment(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        mine = Check(STREAM, SEGMENT, Promise(1, ANN), 1)
        assert await leader.ask(mine) == Done()
        with pytest.raises(NotOpenError):
            await leader.ask(Check(STREAM, SegmentId(1, 7), Promise(1, ANN), 1))
        await leader.ask(Certify(world.certificate(leader.frames, promise=Promise(1, ANN))))
        with pytest.raises(SealedError):
            await leader.ask(mine)
        await leader.fence(2)
        with pytest.raises(FencedError):
            await leader.ask(mine)

    run(story)


def test_r14_a_followers_question_goes_to_the_leader_and_back(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        asker = await world.dial()
        one = begin(asker.ask(AskLeader(STREAM, SEGMENT)))
        two = begin(asker.ask(AskLeader(STREAM, SEGMENT)))
        await leader.until(lambda: len(leader.mail.pushes) == 2)
        first = leader.mail.pushes[0].token
        assert leader.mail.pushes == [
            LeaderAsked(first, STREAM, SEGMENT), LeaderAsked(first + 1, STREAM, SEGMENT),
        ]  # fmt: skip
        failure = codec.failure_of(ConflictError("not now"))
        leader.connection.push(LeaderAnswer(first + 1, 0, failure))
        leader.connection.push(LeaderAnswer(first, FIRST + 4))
        leader.connection.push(LeaderAnswer(first, FIRST + 9))
        leader.connection.push(LeaderAnswer(77, FIRST + 9))
        assert await one == ReadPoint(FIRST + 4)
        with pytest.raises(ConflictError):
            await two

    run(story)


def test_n8_only_whom_a_server_asked_answers_and_only_this_question(run: Run) -> None:
    """Bytes of a dead connection that arrive on a new one must not tell an old read point."""

    async def story(world: World) -> None:
        leader = await filled(world)
        asker, other = await world.dial(), await world.dial()
        waiting = begin(asker.ask(AskLeader(STREAM, SEGMENT)))
        await leader.until(lambda: bool(leader.mail.pushes))
        token = leader.mail.pushes[0].token
        other.connection.push(LeaderAnswer(token, FIRST))
        await other.ask(Ping())  # by now it has been taken
        assert not waiting.done()
        leader.connection.push(LeaderAnswer(token, FIRST + 4))
        assert await waiting == ReadPoint(FIRST + 4)

        again = await world.again()
        await again.open()
        asked = begin((await world.dial()).ask(AskLeader(STREAM, SEGMENT)))
        await again.until(lambda: bool(again.mail.pushes))
        assert again.mail.pushes[0].token != token

        again.connection.push(LeaderAnswer(token, FIRST))
        again.connection.push(LeaderAnswer(again.mail.pushes[0].token, FIRST + 4))
        assert await asked == ReadPoint(FIRST + 4)

    run(story)


def test_r14_without_a_leader_there_is_no_read_point(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        asker = await world.dial()
        with pytest.raises(ServerUnavailableError, match="no leader"):
            await asker.ask(AskLeader(OTHER, SEGMENT))
        leader.connection.abort()
        await asyncio.sleep(0.1)
        with pytest.raises(ServerUnavailableError, match="no leader"):
            await asker.ask(AskLeader(STREAM, SEGMENT))

    run(story)


def test_a_leader_that_closed_its_slots_before_it_went_leaves_no_question_open(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        asker = await world.dial()
        waiting = begin(asker.ask(AskLeader(STREAM, SEGMENT), timeout=30))
        await leader.until(lambda: bool(leader.mail.pushes))
        leader.connection.push(CloseSlot(1))
        leader.connection.close()
        with pytest.raises(ServerUnavailableError, match="went away"):
            await waiting

    run(story)


def test_r22_below_the_trim_everything_is_gone(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        leader.mark(FIRST + 10)
        world.master.commands["server"] = [TrimCommand(3, STREAM, FIRST + 5, 2)]
        await world.until(lambda: 3 in world.master.confirmed)
        with pytest.raises(GoneError):
            await leader.read(FIRST + 4)
        assert (await leader.read(FIRST + 5))[1] == leader.frames[2:]
        leader = await world.again(power=True)
        with pytest.raises(GoneError):
            await leader.read(FIRST + 4, promise=Promise(1, ANN))
        assert (await leader.read(FIRST + 5))[0].end == FIRST + 10

    run(story)


# ------------------------------------------------------------ many reads at once


class Counted:
    """Reads of the log, each of which takes a while; how many were under way together at most."""

    def __init__(self, server: JournalServer) -> None:
        self._read = server.log.read
        self.now = self.most = self.all = 0
        server.log.read = self  # type: ignore[method-assign]

    async def __call__(self, *arguments: Any) -> Any:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        self.now -= 1
        return await self._read(*arguments)


def test_r22_what_a_trim_takes_while_it_is_asked_for_is_gone(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, tail_cache_bytes=0)
        leader.mark(FIRST + 10)
        Counted(world.server)
        reading = begin(leader.read(FIRST))
        await asyncio.sleep(0.01)
        world.server.log.forget(STREAM, SEGMENT, FIRST + 5)
        with pytest.raises(GoneError, match="not here any more"):
            await reading

    run(story)


def test_one_connection_reads_old_events_one_after_another_and_others_beside(run: Run) -> None:
    """Z1: what is read for a peer that takes nothing is bounded, however much it asks for."""

    async def story(world: World) -> None:
        leader = await filled(world)
        await leader.fence(2, BOB)
        other = await world.dial()
        counted = Counted(world.server)
        promise = Promise(2, BOB)
        reads = [begin(leader.read(FIRST, promise=promise)) for _ in range(9)]
        found = await asyncio.gather(*reads)
        assert all(status.status is ReadStatus.HELD for status, _ in found)
        assert counted.most == 1
        both = (leader, other, leader, other)
        await asyncio.gather(*(at.read(FIRST, promise=promise) for at in both))
        assert counted.most == 2

    run(story)


def test_connections_take_turns_at_the_disk_however_much_one_of_them_asks_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2: who asks once waits for one read of each other connection, not for all of theirs."""
    monkeypatch.setattr("lunalog.server.reads.DISK_READS_MAX", 1)

    async def story(world: World) -> None:
        flooding = await filled(world, tail_cache_bytes=0)
        flooding.mark(FIRST + 10)
        others = [await world.dial() for _ in range(3)]
        counted = Counted(world.server)
        flood = [begin(flooding.read(FIRST)) for _ in range(50)]
        await asyncio.sleep(0.01)
        for _ in range(2):
            before = counted.all
            found = await asyncio.gather(*(other.read(FIRST) for other in others))
            assert [made for _, made in found] == [flooding.frames] * 3
            assert counted.most == 1
            assert counted.all - before <= 3 + 2  # its own, and the flood's turns between
        await asyncio.gather(*flood)

    run(story)


def test_a_recovery_waits_for_no_followers_of_its_own_client(run: Run) -> None:
    """Who takes a stream over may be far behind with others that it follows (R5, R6)."""

    async def story(world: World) -> None:
        leader = await filled(world, tail_cache_bytes=0)
        leader.mark(FIRST + 10)
        await leader.fence(2, BOB)
        counted = Counted(world.server)
        following = [begin(leader.read(FIRST)) for _ in range(50)]
        await asyncio.sleep(0.01)
        _, found = await leader.read(FIRST, promise=Promise(2, BOB))
        assert found == leader.frames
        assert counted.most == 2
        assert sum(reading.done() for reading in following) <= 2
        assert [made for _, made in await asyncio.gather(*following)] == [leader.frames] * 50

    run(story)


def test_reads_of_a_connection_that_is_gone_are_not_done(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        await leader.fence(2, BOB)
        other = await world.dial()
        counted = Counted(world.server)
        for request in range(9):
            message = Read(STREAM, SEGMENT, FIRST, 1, 0, Promise(2, BOB))
            other.connection.send(codec.control(codec.Kind.REQUEST, request, message))
        await asyncio.sleep(0.06)
        other.connection.abort()
        await asyncio.sleep(2)
        assert 0 < counted.all < 4
        assert (await leader.read(FIRST, promise=Promise(2, BOB)))[0].status is ReadStatus.HELD

    run(story)


def test_a_connection_has_a_bounded_number_of_reads_under_way(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lunalog.server.reads.READS_PER_CONNECTION_MAX", 5)

    async def story(world: World) -> None:
        leader = await filled(world)
        await leader.fence(2, BOB)
        reads = [begin(leader.read(FIRST, promise=Promise(2, BOB))) for _ in range(8)]
        found = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(result) for result in found].count(OverloadedError) == 3
        assert (await leader.read(FIRST, promise=Promise(2, BOB)))[0].status is ReadStatus.HELD

    run(story)


def test_questions_that_no_leader_answers_are_bounded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lunalog.server.serving.QUESTIONS_MAX", 3)

    async def story(world: World) -> None:
        leader = await filled(world)
        asker = await world.dial()
        asked = [begin(asker.ask(AskLeader(STREAM, SEGMENT), 60)) for _ in range(3)]
        await leader.until(lambda: len(leader.mail.pushes) == 3)
        with pytest.raises(OverloadedError, match="ask another"):
            await leader.ask(AskLeader(STREAM, SEGMENT))
        asker.connection.abort()
        await asyncio.gather(*asked, return_exceptions=True)
        later = begin(leader.ask(AskLeader(STREAM, SEGMENT)))
        await leader.until(lambda: len(leader.mail.pushes) == 4)
        asked_last = leader.mail.pushes[-1]
        assert isinstance(asked_last, LeaderAsked)
        leader.connection.push(LeaderAnswer(asked_last.token, FIRST))
        assert await later == ReadPoint(FIRST)

    run(story)


def test_slots_of_one_connection_are_bounded_and_one_that_is_there_opens_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lunalog.server.serving.SLOTS_PER_CONNECTION_MAX", 2)

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        await leader.open(slot=2, stream=OTHER)
        with pytest.raises(OverloadedError, match="slots"):
            await leader.open(slot=3)
        await leader.open(slot=2, stream=OTHER)
        leader.connection.push(CloseSlot(2))
        await leader.open(slot=3)

    run(story)
