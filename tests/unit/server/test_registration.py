"""A server and its master: identity, heartbeats, orders, and completing what was sealed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.server.conftest import (
    ANN,
    BOB,
    CHAIN,
    CLUSTER,
    CONFIG,
    FIRST,
    OTHER,
    SEGMENT,
    STREAM,
    FakeMaster,
    Leader,
    Story,
    World,
    chain_behind,
)

from lunalog import limits
from lunalog.errors import (
    BadNameError,
    CorruptRecordError,
    DirectoryLockedError,
    DiskFullError,
    FencedError,
    GoneError,
    InvariantError,
    MasterUnavailableError,
    NotActiveError,
    ReplicaConflictError,
    StorageError,
    UsageError,
    WrongClusterError,
)
from lunalog.server.process import JournalServer
from lunalog.server.pull import Puller
from lunalog.server.registration import FACTS_MAX, FACTS_PER_BEAT
from lunalog.types import Promise, SegmentId
from lunalog.wire import codec
from lunalog.wire.messages import (
    Certified,
    Certify,
    CertifyCommand,
    Command,
    DropSegment,
    DropStream,
    RegisterServer,
    SegmentFact,
    TrimCommand,
)

Run = Callable[[Story], None]


async def filled(world: World, count: int = 5, name: str = "server") -> Leader:
    """A segment with `count` frames, acknowledged by one more server."""
    if not world.master.connections:
        await world.master.listen(world.simulation)
    if name not in world.servers:
        world.start(name)
    await world.ready(name)
    leader = await world.dial(name)
    await leader.open()
    for _ in range(count):
        leader.append()
    if count:
        await leader.acked(FIRST + count)
    return leader


async def order(world: World, *commands: Command, name: str = "server") -> None:
    """Give orders and wait until all are confirmed."""
    world.master.commands[name] = list(commands)
    await world.until(lambda: {c.id for c in commands} <= world.master.confirmed)


# ------------------------------------------------------------ identity


def test_an_empty_directory_gets_an_incarnation_and_keeps_it(run: Run) -> None:
    async def story(world: World) -> None:
        world.master.incarnation = 5
        await world.begin(name="", labels=("rack=7",))
        (first,) = world.master.registrations
        assert (first.incarnation, first.boot, first.may_have_lost) == (0, 1, False)
        assert first.name.startswith("server-")
        assert (first.host, first.port, first.labels) == ("server", 7700, ("rack=7",))
        await world.again(power=True)
        second = world.master.registrations[-1]
        assert (second.name, second.incarnation, second.boot) == (first.name, 5, 2)
        identity = world.server.identity
        assert (identity.cluster, identity.incarnation) == (CLUSTER, 5)

    run(story)


def test_a_wiped_disk_is_a_new_incarnation(run: Run) -> None:
    """R19, D9: it must not vote as the one that knew more."""

    async def story(world: World) -> None:
        leader = await filled(world)
        world.node().crash(power=True)
        world.node().disk().wipe()
        world.master.incarnation = 2
        world.servers.pop("server")
        world.start()
        await world.ready()
        assert world.master.registrations[-1].incarnation == 0
        assert world.master.registrations[-1].facts == ()
        leader = await world.dial()
        assert (await leader.open(incarnation=2)).end == FIRST

    run(story)


def test_a_crash_while_the_incarnation_is_written_serves_under_none(run: Run) -> None:
    async def story(world: World) -> None:
        disk = world.node().disk()
        await world.master.listen(world.simulation)
        for call in range(1, 30, 2):
            disk.wipe()
            disk.faults.heal()
            world.master.registrations.clear()
            disk.faults.trap(call, lambda: world.node().crash(power=True))
            world.start()
            await asyncio.sleep(1.0)
            if not world.node().is_running:
                world.servers.pop("server", None)
                world.start()
            server = await world.ready()
            assert server.identity.incarnation == server.replica.incarnation == 1
            assert server.identity.boot == world.master.registrations[-1].boot
            world.node().crash()
            world.servers.pop("server")

    run(story)


def test_a_loss_is_told_and_forgotten_once_it_was_answered_for(run: Run) -> None:
    """R18: damage that may hide a promise costs the incarnation, once."""

    async def story(world: World) -> None:
        await filled(world)
        world.node().crash()
        disk = world.node().disk()
        for name in [n for n in disk.directory.names if n.startswith("checkpoint")]:
            disk.lose(name)
        world.servers.pop("server")
        world.master.fresh = 2
        world.start()
        await world.ready()
        assert world.master.registrations[-1].may_have_lost
        assert world.server.identity.incarnation == 2
        assert not world.server.log.may_have_lost
        leader = await world.dial()
        _, found = await leader.read(FIRST, promise=Promise(1, ANN))  # a witness still
        assert len(found) == 5
        world.master.fresh = None
        await world.again(power=True)
        assert not world.master.registrations[-1].may_have_lost
        assert world.master.registrations[-1].incarnation == 2

    run(story)


@pytest.mark.parametrize("kind", ["locked", "damaged", "name", "bad name", "full"])
def test_a_directory_that_is_not_ours_ends_the_start(run: Run, kind: str) -> None:
    expected: dict[str, type[Exception]] = {
        "locked": DirectoryLockedError,
        "damaged": CorruptRecordError,
        "name": UsageError,
        "bad name": BadNameError,
        "full": DiskFullError,
    }

    async def story(world: World) -> None:
        disk = world.node().disk()
        await filled(world)
        world.node().crash()
        world.node().expects_failure = lambda error: True
        changes: dict[str, Any] = {}
        if kind == "locked":
            await disk.lock()
        elif kind == "damaged":
            disk.flip("identity", 20)
        elif kind == "name":
            changes = {"name": "another"}
        elif kind == "bad name":
            disk.wipe()
            changes = {"name": "no name"}
        else:
            disk.capacity_bytes = 10
        world.start(**changes)
        await world.until(lambda: not world.node().is_running)
        assert isinstance(world.node().failure, expected[kind])

    run(story)


def test_a_failed_start_gives_the_directory_back(run: Run) -> None:
    async def story(world: World) -> None:
        disk = world.node().disk()
        world.node().expects_failure = lambda error: True
        disk.faults.fail_call(1, errno.EIO, "sync_directory")
        await world.master.listen(world.simulation)
        world.start()
        await world.until(lambda: not world.node().is_running)
        assert isinstance(world.node().failure, StorageError)
        await disk.lock()
        await disk.unlock()
        world.start()
        await world.ready()

    run(story)


def test_a_disk_that_does_not_tell_its_space_ends_the_start(run: Run) -> None:
    async def story(world: World) -> None:
        disk = world.node().disk()

        async def broken() -> int:
            raise OSError(errno.EIO, "no statfs")

        disk.total_bytes = broken  # type: ignore[method-assign]
        world.node().expects_failure = lambda error: isinstance(error, StorageError)
        await world.master.listen(world.simulation)
        world.start()
        await world.until(lambda: not world.node().is_running)
        assert "cannot look at" in str(world.node().failure)
        assert not world.master.registrations

    run(story)


def test_before_it_listens_a_server_has_no_address_and_may_be_stopped(run: Run) -> None:
    async def story(world: World) -> None:
        runtime, disk = world.simulation.harness_runtime, world.node().disk()
        server = JournalServer(runtime, disk, world.masters, CONFIG)
        with pytest.raises(NotActiveError):
            _ = server.address
        await server.stop()
        await disk.lock()  # it holds nothing

    run(story)


def test_another_masters_cluster_ends_the_server(run: Run) -> None:
    """O4: a wrong directory, or a wrong master; nothing of it is served."""

    async def story(world: World) -> None:
        await filled(world)
        world.master.cluster = "d" * 32
        world.node().expects_failure = lambda error: True
        world.master.hang_up()
        await world.until(lambda: not world.node().is_running)
        assert "cluster" in str(world.node().failure)

    run(story)


def test_a_master_that_takes_it_for_anothers_server_ends_it(run: Run) -> None:
    async def story(world: World) -> None:
        await filled(world)

        world.master.turns_away = WrongClusterError("this is another cluster")
        world.node().expects_failure = lambda error: isinstance(error, WrongClusterError)
        world.master.hang_up()
        await world.until(lambda: not world.node().is_running)
        assert "this is another cluster" in str(world.node().failure)

    run(story)


# ------------------------------------------------------------ heartbeats


def test_a_server_finds_the_master_that_answers(run: Run) -> None:
    async def story(world: World) -> None:
        world.masters = [("harness", 7601), ("nobody", 7600), ("harness", 7600)]
        world.start()
        await asyncio.sleep(1.0)
        await world.master.listen(world.simulation)
        await world.ready()
        other = FakeMaster()
        await other.listen(world.simulation, ("harness", 7601))
        world.master.refusal = MasterUnavailableError("not the active one")
        world.master.hang_up()
        await world.until(lambda: bool(other.beats))
        assert world.server.is_registered

    run(story)


def test_the_data_path_does_not_need_the_master(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        world.master.deaf = True
        world.master.refusal = MasterUnavailableError("gone")
        world.master.hang_up()
        await asyncio.sleep(5.0)
        leader.append()
        await leader.acked(FIRST + 6)

    run(story)


def test_beats_tell_what_changed_and_again_until_it_was_heard(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 0)
        await world.until(lambda: (STREAM, SEGMENT) in world.master.facts())
        beats = world.master.beats
        await asyncio.sleep(0.5)
        assert not beats[-1].facts
        world.master.deaf = True
        await leader.fence(4)
        await world.until(lambda: bool(beats[-1].facts), timeout=20)
        heard = len(beats)
        world.master.deaf = False
        await world.until(lambda: len(beats) > heard + 1, timeout=20)
        fact = world.master.facts()[STREAM, SEGMENT]
        assert fact.promise_epoch == 4
        beat = beats[-1]
        assert (beat.incarnation, beat.boot, beat.trouble) == (1, 1, "")
        assert beat.synced_position > 0
        assert beat.free_bytes > 0

    run(story)


def test_registration_tells_everything(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        leader.mark(FIRST + 3)
        await leader.open(SegmentId(1, 1), slot=2, first=FIRST + 5)
        await leader.ask(Certify(world.certificate(leader.frames)))
        world.master.hang_up()
        await world.until(lambda: len(world.master.registrations) > 1)
        told = {f.segment: f for f in world.master.registrations[-1].facts}
        sealed, opened = told[SEGMENT], told[SegmentId(1, 1)]
        assert (sealed.end, sealed.committed, sealed.state) == (FIRST + 5, FIRST + 3, "complete")
        assert (opened.first, opened.end, opened.state) == (FIRST + 5, FIRST + 5, "open")
        assert sealed.promise_epoch == opened.promise_epoch == 2

    run(story)


# ------------------------------------------------------------ orders


def test_r21_a_certificate_that_is_ordered_is_confirmed_when_complete(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        await order(world, CertifyCommand(11, world.certificate(leader.frames[:4]), ()))
        fact = world.master.facts()[STREAM, SEGMENT]
        assert (fact.end, fact.state) == (FIRST + 4, "complete")
        leader = await world.again(power=True)
        held = world.server.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.is_complete

    run(story)


def test_r22_an_ordered_trim_is_durable_before_it_is_confirmed(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        await order(world, CertifyCommand(1, world.certificate(leader.frames), ()))
        await order(world, TrimCommand(2, STREAM, FIRST + 5, 3))
        await world.until(lambda: world.master.facts()[STREAM, SEGMENT].state == "dropped")
        await order(world, TrimCommand(3, STREAM, FIRST + 5, 3), TrimCommand(4, OTHER, 9, 1))
        await world.again(power=True)
        assert world.server.replica.streams[STREAM].trimmed_before == FIRST + 5
        assert world.server.replica.find(STREAM, SEGMENT) is None

    run(story)


def test_r22_an_ordered_drop_forgets_and_fences(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        await order(world, DropSegment(5, STREAM, SEGMENT, Promise(3, BOB), 4))
        assert world.master.facts()[STREAM, SEGMENT].state == "dropped"
        leader.append()
        assert await leader.refused() == "fenced"
        await order(world, DropSegment(6, STREAM, SEGMENT, Promise(2, BOB), 3))
        leader = await world.again(power=True)
        with pytest.raises(FencedError):
            await leader.open()
        with pytest.raises(GoneError):
            await leader.fence(3)

    run(story)


def test_r22_a_deleted_stream_stays_deleted(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        await order(
            world, DropStream(8, STREAM, Promise(3, BOB)), DropStream(9, OTHER, Promise(3, BOB))
        )
        for _ in range(2):
            for stream in (STREAM, OTHER):
                with pytest.raises(GoneError):
                    await leader.open(SegmentId(9, 0), stream=stream)
            await order(world, DropStream(10, STREAM, Promise(3, BOB)))
            leader = await world.again(power=True)

    run(story)


def test_an_order_is_not_confirmed_before_its_record_is_durable(run: Run) -> None:
    async def story(world: World) -> None:
        await filled(world)
        disk = world.node().disk()
        commands: list[Command] = [
            TrimCommand(2, STREAM, FIRST + 2, 3),
            DropSegment(5, OTHER, SEGMENT, Promise(3, BOB), 4),
            DropStream(6, b"u" * 16, Promise(3, BOB)),
        ]
        world.master.commands["server"] = commands
        heard = len(world.master.beats)
        disk.faults.stall(2.0)
        await world.until(lambda: len(world.master.beats) > heard + 4)
        assert not world.master.confirmed
        await world.until(lambda: len(world.master.confirmed) == 3)

    run(story)


def test_a_refused_order_is_not_confirmed_and_harms_nothing(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world)
        wrong = world.certificate(leader.frames, chain=99)
        world.master.commands["server"] = [
            CertifyCommand(1, wrong, ()), TrimCommand(2, OTHER, 5, 1),
        ]  # fmt: skip
        await world.until(lambda: 2 in world.master.confirmed)
        assert 1 not in world.master.confirmed
        with pytest.raises(ReplicaConflictError):
            await leader.ask(Certify(wrong))
        world.master.commands.clear()
        leader.append()
        await leader.acked(FIRST + 6)
        right = world.certificate(leader.frames)
        await order(world, CertifyCommand(3, right, ()))
        assert 1 not in world.master.confirmed

    run(story)


@pytest.mark.parametrize(
    ("decision", "command"),
    [
        ("trim", TrimCommand(2, STREAM, FIRST + 1, 1)),
        ("drop", DropSegment(2, STREAM, SEGMENT, Promise(3, BOB), 4)),
    ],
)
def test_r27_an_order_that_shows_a_broken_rule_ends_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch, decision: str, command: Command
) -> None:
    async def story(world: World) -> None:
        await filled(world)

        def broken(*_: object, **__: object) -> None:
            raise InvariantError("R22: broken")

        monkeypatch.setattr(world.server.replica, decision, broken)
        world.node().expects_failure = lambda error: isinstance(error, InvariantError)
        world.master.commands["server"] = [command]
        await world.until(lambda: not world.node().is_running)
        assert "R22: broken" in str(world.node().failure)

    run(story)


# ------------------------------------------------------------ completing: R20, R21


async def two_servers(world: World, count: int, other: int) -> tuple[Leader, Leader]:
    """The same segment on two servers, one of which lags."""
    leader = await filled(world, count)
    lagging = await filled(world, other, "second")
    return leader, lagging


def test_r27_a_pull_that_shows_a_broken_rule_ends_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        leader, _ = await two_servers(world, 40, 3)
        sealed = world.certificate(leader.frames[:35])
        await leader.ask(Certify(sealed))

        async def broken(*_: object) -> None:
            raise InvariantError("I7: broken")

        monkeypatch.setattr(Puller, "_pull_from", broken)
        node = world.simulation.node("second")
        node.expects_failure = lambda error: isinstance(error, InvariantError)
        world.master.commands["second"] = [CertifyCommand(4, sealed, (world.source("server"),))]
        await world.until(lambda: not node.is_running)
        assert "I7: broken" in str(node.failure)

    run(story)


def test_r21_a_laggard_pulls_what_it_lacks_from_a_peer(run: Run) -> None:
    async def story(world: World) -> None:
        leader, lagging = await two_servers(world, 40, 3)
        sealed = world.certificate(leader.frames[:35])
        await leader.ask(Certify(sealed))
        command = CertifyCommand(4, sealed, (world.source("nobody"), world.source("server")))
        await order(world, command, name="second")
        assert world.servers["second"].replica.find(STREAM, SEGMENT) is not None
        await lagging.fence(3)
        head, found = await lagging.read(FIRST, promise=Promise(3, BOB))
        assert (head.end, head.chain, found) == (FIRST + 35, CHAIN, leader.frames[:35])
        again = await world.again("second", power=True)
        assert (await again.read(FIRST + 30))[1] == leader.frames[30:35]

    run(story)


def test_r21_a_server_that_is_only_listed_pulls_all_and_is_a_source_after_a_restart(
    run: Run,
) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 30)
        sealed = world.certificate(leader.frames)
        await leader.ask(Certify(sealed))
        for name, source in (("second", "server"), ("third", "second")):
            world.start(name)
            await world.ready(name)
            await order(
                world, CertifyCommand(len(name), sealed, (world.source(source),)), name=name
            )
            reader = await world.again(name, power=True)
            assert (await reader.read(FIRST))[1] == leader.frames
            held = world.servers[name].replica.find(STREAM, SEGMENT)
            assert held is not None
            assert (held.is_complete, held.start_chain) == (True, CHAIN)
            assert held.chain == chain_behind(leader.frames)

    run(story)


def test_r21_a_crash_while_pulling_goes_on_where_it_was(run: Run) -> None:
    async def story(world: World) -> None:
        leader, _ = await two_servers(world, 60, 0)
        sealed = world.certificate(leader.frames)
        await leader.ask(Certify(sealed))
        world.master.commands["second"] = [CertifyCommand(4, sealed, (world.source("server"),))]
        for power in (False, True):
            disk = world.node("second").disk()
            syncs = 1 if power else 2
            disk.faults.trap(syncs, lambda p=power: world.node("second").crash(power=p), "sync")
            await world.until(lambda: not world.node("second").is_running)
            disk.faults.heal()
            world.servers.pop("second")
            world.start("second")
            if not power:
                await world.ready("second")
        await world.until(lambda: 4 in world.master.confirmed)
        reader = await world.dial("second")
        assert (await reader.read(FIRST))[1] == leader.frames

    run(story)


def test_r20_bytes_that_are_not_the_sealed_ones_are_not_taken_for_them(run: Run) -> None:
    """The peer holds frames with right checksums that another leader wrote."""

    async def story(world: World) -> None:
        leader = await filled(world, 5)
        sealed = world.certificate(leader.frames)
        world.start("second")
        await world.ready("second")
        liar = await world.dial("second")
        await liar.open(leader=ANN)
        for _ in range(5):
            liar.append(size=50, committed=FIRST + 5)
        await liar.acked(FIRST + 5)
        liar.mark(FIRST + 5)
        world.start("third")
        await world.ready("third")
        world.master.commands["third"] = [
            CertifyCommand(4, sealed, (world.source("second"),)),
        ]  # fmt: skip
        await asyncio.sleep(3.0)
        assert 4 not in world.master.confirmed
        held = world.servers["third"].replica.find(STREAM, SEGMENT)
        assert held is not None
        assert not held.is_complete

    run(story)


def test_a_certify_from_a_leader_says_whether_more_is_needed(run: Run) -> None:
    async def story(world: World) -> None:
        leader, lagging = await two_servers(world, 10, 3)
        sealed = world.certificate(leader.frames)
        assert await leader.ask(Certify(sealed)) == Certified(True)
        assert await lagging.ask(Certify(sealed)) == Certified(False)
        asked = Certify(sealed, (world.source("server"),))
        assert await lagging.ask(asked) == Certified(False)
        await asyncio.sleep(1.0)
        assert await lagging.ask(asked) == Certified(True)

    run(story)


# ------------------------------------------------------------ a full disk


def test_d3_a_full_disk_refuses_appends_and_still_promises_and_reads(run: Run) -> None:
    async def story(world: World) -> None:
        reserve = 48 * limits.MIB
        disk = world.node().disk()
        leader = await world.begin(reserve_bytes=reserve)
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 1)
        disk.capacity_bytes = disk.directory.used_bytes() + reserve + limits.MIB
        while not world.server.log.is_full:
            leader.append(size=limits.MIB)
            await leader.acked(leader.end)
        leader.append()
        assert await leader.refused() == "disk_full"
        with pytest.raises(DiskFullError):
            await leader.open(SegmentId(1, 1), slot=2)
        opened = await leader.open()  # one that is here may be found again
        leader.mark(FIRST + 1)
        assert (await leader.read(FIRST))[1] == leader.frames[:1]
        assert (await leader.fence(2)).end == opened.end
        await world.until(lambda: world.master.beats[-1].trouble == "disk_full")
        disk.capacity_bytes = 1 << 40
        await world.until(lambda: world.master.beats[-1].trouble == "")
        await leader.open(SegmentId(2, 0), BOB, slot=3, first=opened.end)

    run(story)


# ------------------------------------------------------------ many segments


def test_a_server_with_more_segments_than_a_message_holds_tells_the_rest_with_its_beats(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its registration was past the limit of a message, and refused for ever."""
    monkeypatch.setattr("lunalog.server.registration.FACTS_MAX", 2)
    monkeypatch.setattr("lunalog.server.registration.FACTS_PER_BEAT", 2)
    segments = {(STREAM, SegmentId(1, n)) for n in range(7)}

    async def story(world: World) -> None:
        leader = await filled(world, 0)
        for _, segment in sorted(segments):
            await leader.open(segment)
        await world.until(lambda: world.master.facts().keys() >= segments)
        world.master.beats.clear()
        await world.again(power=True)
        assert len(world.master.registrations[-1].facts) == 2
        await world.until(lambda: world.master.facts().keys() >= segments)
        assert max(len(beat.facts) for beat in world.master.beats) <= 2
        assert len(world.server.report().facts) == 2

    run(story)


def test_the_facts_of_one_message_fit_into_it_whatever_they_say() -> None:
    largest = (1 << 63) - 1
    fact = SegmentFact(
        STREAM, SegmentId(largest, largest), largest, largest, largest, largest, "complete", largest
    )
    request = RegisterServer(
        "x" * 64, 1, 1, 1, False, "h" * 255, 65535, ("l" * 255,) * 32, (fact,) * FACTS_MAX, 1 << 22
    )
    assert len(codec.control(codec.Kind.REQUEST, 1, request)) < limits.CONTROL_BYTES_MAX
    assert FACTS_PER_BEAT <= FACTS_MAX


def test_r19_starts_that_no_master_admitted_do_not_make_up_for_what_an_old_image_lacks(
    run: Run,
) -> None:
    """Each start writes batches of its own: they are none that the disk had when it was lost."""

    async def story(world: World) -> None:
        leader = await world.begin()
        await leader.open()
        leader.append()
        await leader.acked(FIRST + 1)
        await asyncio.sleep(1)
        disk = world.node().disk()
        image, at_image = disk.snapshot(), world.server.log.synced_position
        for n in range(3):
            leader.append()
            await leader.acked(FIRST + 2 + n)
        await world.until(lambda: world.master.beats[-1].synced_position >= at_image + 3)
        reported = world.master.beats[-1].synced_position
        world.master.turns_away = MasterUnavailableError("not now")
        world.node().crash()
        disk.restore(image)
        for _ in range(6):
            world.servers.clear()
            world.start()
            await world.until(lambda: hasattr(world.servers.get("server"), "registration"))
            await asyncio.sleep(0.5)
            world.node().crash()
        world.master.turns_away = None
        world.start()
        await world.ready()
        assert world.master.registrations[-1].synced_position == at_image < reported

    run(story)
