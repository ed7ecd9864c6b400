"""Slots, appends and acks of one server, from its own side of the wire."""

from __future__ import annotations

import asyncio
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
    Story,
    World,
    build_frame,
    chain_behind,
)

from lunalog import limits
from lunalog.errors import (
    CorruptFrameError,
    FencedError,
    InvariantError,
    NotActiveError,
    PeerError,
    ReplicaConflictError,
    SealedError,
    ServerUnavailableError,
    WrongClusterError,
    WrongIncarnationError,
)
from lunalog.types import Promise, SegmentId
from lunalog.wire import codec
from lunalog.wire.codec import Kind
from lunalog.wire.messages import (
    AskLeader,
    Certified,
    Certify,
    CloseSlot,
    DescribeServer,
    Done,
    Fence,
    GetStream,
    LeaderAsked,
    Opened,
    Ping,
)

Run = Callable[[Story], None]


def test_an_append_is_acknowledged_when_it_is_durable(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        assert await leader.open() == Opened(FIRST, CHAIN)
        world.node().disk().faults.stall(1.0)
        leader.append(3)
        await asyncio.sleep(0.9)
        assert leader.mail.acks == []
        await leader.acked(FIRST + 3)
        held = world.server.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.durable == FIRST + 3

    run(story)


def test_many_appends_get_few_cumulative_acks_that_only_grow(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(200):
            leader.append()
            if leader.end % 40 == 0:
                await asyncio.sleep(0.001)
        await leader.acked(FIRST + 200)
        ends = [end for _, end in leader.mail.acks]
        assert ends == sorted(set(ends))
        assert len(ends) < 50

    run(story)


def test_slots_of_one_connection_are_told_apart(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        await leader.open(stream=OTHER, slot=2)
        leader.send(build_frame(FIRST, 2), slot=1)
        leader.send(build_frame(FIRST, 5, stream=OTHER), slot=2)
        await leader.acked(FIRST + 2, slot=1)
        await leader.acked(FIRST + 5, slot=2)

    run(story)


def test_a_frame_sent_again_changes_nothing(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        frame = leader.append(2)
        leader.send(frame)
        leader.append()
        leader.send(frame)
        await leader.acked(FIRST + 3)
        head, found = await leader.read(FIRST, promise=Promise(1, ANN))
        assert (head.end, found) == (FIRST + 3, leader.frames)
        assert world.server.report().counters["appended_bytes"] == sum(map(len, leader.frames))

    run(story)


def test_a_leader_that_reconnects_learns_the_end_and_goes_on(run: Run) -> None:
    """Frames of both connections, in whatever order, leave one run without a gap."""

    async def story(world: World) -> None:
        one = await world.begin()
        await one.open()
        for _ in range(5):
            one.append()
        one.connection.flush()
        one.connection.abort()
        two = await world.dial()
        opened = await two.open()
        assert FIRST <= opened.end <= FIRST + 5
        assert opened.chain == chain_behind(one.frames[: opened.end - FIRST])
        while two.end < FIRST + 8:
            two.append()
        await two.acked(FIRST + 8)

    run(story)


def test_a_gap_and_a_conflict_are_refused_once_and_the_slot_rests(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append()
        leader.send(build_frame(FIRST + 2))
        leader.append()  # joins, but comes behind a refused one
        assert await leader.refused() == "gap"
        opened = await leader.open()
        assert opened.end == FIRST + 1
        leader.send(build_frame(FIRST, size=50))
        assert await leader.refused() == "replica_conflict"
        leader.mark(FIRST + 1)
        await asyncio.sleep(0.1)
        held = world.server.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert (held.end, held.committed) == (FIRST + 1, 0)
        assert not leader.mail.pushes
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 2)

    run(story)


def test_a_fence_ends_the_old_leader_at_the_very_end_that_it_tells(run: Run) -> None:
    """R5: nothing behind the fence, nothing before it lost."""

    async def story(world: World) -> None:
        old = await world.begin()
        await old.open()
        new = await world.dial()
        for _ in range(20):
            old.append()
        await old.acked(FIRST + 20)
        fencing = asyncio.get_running_loop().create_task(new.fence(2))
        while not fencing.done():
            old.append()
            await asyncio.sleep(0.00005)
        fenced = await fencing
        old.append()
        assert await old.refused() == "fenced"
        assert old.mail.acks[-1][1] <= fenced.end
        assert fenced.chain == chain_behind(old.frames[: fenced.end - FIRST])
        with pytest.raises(FencedError) as refused:
            await old.open()
        assert (refused.value.epoch, refused.value.incarnation) == (2, BOB)
        held = world.server.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.durable == fenced.end

    run(story)


def test_a_fence_is_answered_when_it_and_all_before_it_are_durable(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        world.node().disk().faults.stall(0.5)
        leader.append()
        waiting = asyncio.get_running_loop().create_task(leader.fence(2))
        await asyncio.sleep(0.4)
        assert not waiting.done()
        assert (await waiting).end == FIRST + 1
        assert world.server.replica.promises()[STREAM] == Promise(2, BOB)

    run(story)


@pytest.mark.parametrize("power", [False, True])
def test_a_restart_keeps_every_ack_and_every_promise(run: Run, power: bool) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(30):
            leader.append(size=300)
        await leader.acked(FIRST + 30)
        await leader.fence(4, stream=OTHER)
        leader = await world.again(power=power)
        opened = await leader.open()
        assert opened.end == FIRST + 30
        with pytest.raises(FencedError):
            await leader.open(SegmentId(3, 0), stream=OTHER)
        assert world.server.identity.boot == 2
        assert world.master.registrations[-1].boot == 2
        assert not world.master.registrations[-1].may_have_lost
        positions = [r.synced_position for r in world.master.registrations]
        assert positions == sorted(positions)

    run(story)


# ------------------------------------------------------------ who may say what


def test_nothing_is_served_before_the_master_has_admitted_this_boot(run: Run) -> None:
    """R19: an old disk image must not vote."""

    async def story(world: World) -> None:
        world.start()
        await world.until(lambda: "server" in world.servers)
        await asyncio.sleep(0.5)
        leader = await world.dial(cluster="")
        assert await leader.ask(Ping()) == Done()
        for refused in (leader.open(), leader.fence(2), leader.read(FIRST)):
            with pytest.raises(NotActiveError):
                await refused
        await world.master.listen(world.simulation)
        await world.ready()
        await leader.open()

    run(story)


def test_another_incarnation_is_refused(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        for refused in (leader.open(incarnation=2), leader.fence(2, incarnation=0)):
            with pytest.raises(WrongIncarnationError):
                await refused
        assert world.server.replica.streams == {}

    run(story)


def test_a_new_incarnation_of_a_living_server_ends_its_slots(run: Run) -> None:
    """R3: acks count for the (server, incarnation) that the set names."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 1)
        world.master.fresh = 2
        world.master.hang_up()
        await world.until(lambda: world.server.replica.incarnation == 2)
        leader.append()
        assert await leader.refused() == "wrong_incarnation"
        with pytest.raises(WrongIncarnationError):
            await leader.open()
        await leader.open(incarnation=2)

    run(story)


def test_another_cluster_is_refused_at_the_door(run: Run) -> None:
    async def story(world: World) -> None:
        await world.begin()
        with pytest.raises(WrongClusterError):
            await world.dial(cluster="d" * 32)
        unknowing = await world.dial(cluster="")
        assert await unknowing.ask(Ping()) == Done()

    run(story)


def test_no_more_connections_than_allowed(run: Run) -> None:
    async def story(world: World) -> None:
        one = await world.begin(connections_max=2)
        await world.dial()
        with pytest.raises(NotActiveError):
            await world.dial()
        one.connection.close()
        await asyncio.sleep(0.1)
        await world.dial()

    run(story)


@pytest.mark.parametrize("what", ["stream", "bits", "short", "huge", "request", "push", "rubbish"])
def test_who_breaks_the_protocol_is_cut_off_and_nobody_else(run: Run, what: str) -> None:
    async def story(world: World) -> None:
        leader, other = await world.begin(), await world.dial()
        await leader.open()
        await other.open(stream=OTHER)
        frame = bytearray(build_frame(FIRST))
        if what == "stream":
            leader.send(build_frame(FIRST, stream=OTHER))
        elif what == "bits":
            frame[70] ^= 1
            leader.send(bytes(frame))
        elif what == "short":
            leader.send(bytes(frame[:50]))
        elif what == "huge":
            size = limits.MESSAGE_BYTES_MAX + 1
            leader.connection.send(codec.ENVELOPE.pack(size, Kind.APPEND, 0, 0, 1))
        elif what == "request":
            leader.connection.send(codec.control(Kind.REQUEST, 7, GetStream("orders")))
        elif what == "push":
            leader.connection.push(Ping())
        else:
            leader.connection.send(b"\xff" * 64)
        error = await leader.closed()
        assert isinstance(error, PeerError | CorruptFrameError)
        other.send(build_frame(FIRST, stream=OTHER))
        await other.acked(FIRST + 1)
        held = world.server.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.end == FIRST

    run(story)


def test_frames_of_slots_that_are_not_open_are_left_aside(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.send(build_frame(FIRST), slot=9)
        leader.mark(FIRST, slot=9)
        leader.connection.push(CloseSlot(9))
        leader.connection.push(CloseSlot(1))
        leader.append()
        await asyncio.sleep(0.1)
        assert leader.mail.acks == []
        assert leader.mail.closed is None
        assert (await leader.open()).end == FIRST

    run(story)


def test_the_largest_frame_is_taken(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append(size=limits.FRAME_BYTES_MAX - 100)
        await leader.acked(FIRST + 1, timeout=20)
        head, found = await leader.read(FIRST, promise=Promise(1, ANN), timeout=20)
        assert (head.end, found) == (FIRST + 1, leader.frames)

    run(story)


def test_a_sealed_segment_takes_no_appends(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 1)
        sealed = world.certificate(leader.frames, promise=Promise(1, ANN))
        assert await leader.ask(Certify(sealed)) == Certified(True)
        leader.append()
        assert await leader.refused() == "sealed"
        with pytest.raises(SealedError):
            await leader.open()

    run(story)


def test_an_open_that_differs_is_a_conflict(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        with pytest.raises(ReplicaConflictError):
            await leader.open(first=FIRST + 1)

    run(story)


# ------------------------------------------------------------ bounds and the end


def test_what_waits_for_the_disk_is_bounded_and_a_fence_gets_through(run: Run) -> None:
    """R5: an appending leader is not read from while too much is queued."""

    async def story(world: World) -> None:
        bound = limits.MESSAGE_BYTES_MAX
        leader = await world.begin(wal_queue_bytes_max=bound)
        other = await world.dial()
        await leader.open()
        world.node().disk().faults.stall(2.0)
        most = 0
        for _ in range(60):
            leader.append(size=1 << 20)
            await asyncio.sleep(0.01)
            most = max(most, world.server.log.queued_bytes)
        assert bound < most <= bound + 4 * limits.MIB
        fenced = await other.ask(Fence(STREAM, SEGMENT, FIRST, Promise(2, BOB), 1), timeout=30)
        assert fenced.end <= FIRST + 24
        await leader.refused(timeout=30)
        assert leader.mail.acks[-1][1] <= fenced.end

    run(story)


def test_a_graceful_stop_finishes_what_is_queued(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        for _ in range(50):
            leader.append()
        leader.connection.flush()
        await asyncio.sleep(0.003)
        world.master.is_leaving = True
        error = await leader.closed()
        assert error.code in {"not_active", "server_unavailable", "peer"}
        await world.until(lambda: not world.node().is_running)
        assert world.node().has_finished
        acked = leader.mail.acks[-1][1]
        world.master.is_leaving = False
        again = await world.again(power=True)
        opened = await again.open()
        assert opened.end >= acked > FIRST

    run(story)


def test_a_server_whose_disk_fails_ends_and_acknowledges_nothing_more(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 1)
        world.node().disk().faults.fail_sync()
        leader.append()
        await leader.closed()
        assert leader.mail.acks == [(1, FIRST + 1)]
        assert not world.node().is_running
        leader = await world.again()
        assert (await leader.open()).end >= FIRST + 1

    run(story)


def test_a_server_says_what_it_holds(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append(3)
        await leader.acked(FIRST + 3)
        report = await leader.ask(DescribeServer())
        assert (report.name, report.incarnation, report.boot) == ("server", 1, 1)
        (fact,) = report.facts
        assert (fact.segment, fact.first, fact.end, fact.state) == (
            SEGMENT, FIRST, FIRST + 3, "open",
        )  # fmt: skip
        assert report.counters["connections"] == 1
        assert report.counters["queued_bytes"] == 0

    run(story)


def test_leaders_are_asked_over_their_own_connection(run: Run) -> None:
    """The pushes that carry R14's question; see test_reads for the answers."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        asker = await world.dial()
        waiting = asyncio.get_running_loop().create_task(asker.ask(AskLeader(STREAM, SEGMENT)))
        await leader.until(lambda: bool(leader.mail.pushes))
        token = leader.mail.pushes[0].token
        assert leader.mail.pushes == [LeaderAsked(token, STREAM, SEGMENT)]
        leader.connection.abort()
        with pytest.raises(ServerUnavailableError, match="went away"):
            await waiting

    run(story)


def test_r27_a_broken_rule_ends_the_server_and_is_no_answer(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await world.begin()
        node = world.node()
        node.expects_failure = lambda error: isinstance(error, InvariantError)

        def broken(*_: object) -> None:
            raise InvariantError("R5: of this very server")

        world.server.replica.fence = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(ServerUnavailableError):
            await leader.ask(Fence(STREAM, SEGMENT, FIRST, Promise(2, BOB), 1))
        assert isinstance(node.failure, InvariantError)

    run(story)
