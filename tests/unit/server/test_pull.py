"""A server that completes a segment (R21): from whom it takes what, and what it makes of a bad peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.server.conftest import (
    BOB,
    CHAIN,
    CLUSTER,
    FIRST,
    OTHER,
    PORT,
    SEGMENT,
    STREAM,
    Leader,
    Story,
    World,
    build_frame,
)

from lunalog import limits
from lunalog.errors import UnknownDataError
from lunalog.types import Member, ServerAddress
from lunalog.wire import codec
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import acceptor
from lunalog.wire.messages import (
    CertifyCommand,
    Hello,
    Message,
    Read,
    Welcome,
)

Run = Callable[[Story], None]


class Peer(Handler):
    """A server that answers every read with the same frames, under the chain before the first."""

    address = ServerAddress(Member("peer", 1), "harness", PORT)

    def __init__(self, made: list[bytes]) -> None:
        self.frames = made
        self.asked: list[Read] = []
        self.callers: list[str] = []

    async def listen(self, world: World) -> None:
        runtime = world.simulation.harness_runtime
        await runtime.network.listen(acceptor(runtime, self._welcome), ("harness", PORT))

    def _welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        self.callers.append(hello.name)
        return Welcome(codec.VERSION_MAX, CLUSTER, "server", "peer"), self

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        assert isinstance(message, Read)
        self.asked.append(message)
        head = FramesHead(FIRST + 99, FIRST + 99, CHAIN, ReadStatus.HELD)
        connection.reply_frames(request, head, [*self.frames])


async def filled(world: World, count: int, name: str = "server") -> Leader:
    """A segment with `count` frames of one event."""
    if not world.master.connections:
        await world.master.listen(world.simulation)
    world.start(name)
    await world.ready(name)
    leader = await world.dial(name)
    await leader.open()
    for _ in range(count):
        leader.append()
    if count:
        await leader.acked(FIRST + count)
    return leader


async def completed(world: World, command: CertifyCommand, name: str = "second") -> list[bytes]:
    """Order a certificate, wait until it is confirmed; what is held then."""
    world.master.commands[name] = [command]
    await world.until(lambda: command.id in world.master.confirmed)
    reader = await world.dial(name)
    return (await reader.read(FIRST))[1]


def test_of_a_peer_that_holds_more_nothing_behind_the_end_is_taken(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 9)
        await filled(world, 2, "second")
        sealed = world.certificate(leader.frames[:5])
        command = CertifyCommand(1, sealed, (world.source("server"),))
        assert await completed(world, command) == leader.frames[:5]

    run(story)


def test_a_peer_that_promised_and_holds_nothing_is_passed_over(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 5)
        await filled(world, 2, "second")
        world.start("third")
        await world.ready("third")
        await (await world.dial("third")).fence(2, BOB)
        sealed = world.certificate(leader.frames)
        sources = (world.source("third"), world.source("server"))
        assert await completed(world, CertifyCommand(1, sealed, sources)) == leader.frames

    run(story)


def test_a_peer_that_sends_frames_of_another_stream_is_passed_over(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 5)
        await filled(world, 2, "second")
        peer = Peer([build_frame(FIRST + 2, stream=OTHER)])
        await peer.listen(world)
        sealed = world.certificate(leader.frames)
        sources = (peer.address, world.source("server"))
        assert await completed(world, CertifyCommand(1, sealed, sources)) == leader.frames
        assert peer.asked

    run(story)


def test_what_a_peer_sends_from_before_the_question_is_left_aside(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 5)
        await filled(world, 2, "second")
        peer = Peer(leader.frames)
        await peer.listen(world)
        command = CertifyCommand(1, world.certificate(leader.frames), (peer.address,))
        assert await completed(world, command) == leader.frames
        assert [message.start for message in peer.asked] == [FIRST + 2]

    run(story)


def test_r20_a_replica_that_is_damaged_in_the_middle_asks_nobody_in_vain(run: Run) -> None:
    """It is ordered to be complete with every beat, and cannot say so."""

    async def story(world: World) -> None:
        leader = await filled(world, 9)
        sealed, disk = world.certificate(leader.frames), world.node().disk()
        peer = Peer(leader.frames)
        await peer.listen(world)
        leader = await world.again(tail_cache_bytes=0)
        name = next(n for n in disk.directory.names if n.endswith(".wal"))
        data = disk.directory.find(name).cached.read(0, 1 << 16)
        disk.flip(name, data.find(peer.frames[4]) + 70)
        world.master.commands["server"] = [CertifyCommand(1, sealed, (peer.address,))]
        await world.until(lambda: 1 in world.master.confirmed)
        with pytest.raises(UnknownDataError):
            await leader.read(FIRST + 4)
        world.master.commands["server"] = [CertifyCommand(2, sealed, (peer.address,))]
        await world.until(lambda: world.master.facts()[STREAM, SEGMENT].state == "sealed")
        beats = len(world.master.beats)
        await world.until(lambda: len(world.master.beats) > beats + 5)
        assert peer.callers == []
        assert 2 not in world.master.confirmed

    run(story)


def test_d3_a_full_server_pulls_nothing_until_there_is_room(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 5)
        lagging = await filled(world, 2, "second")
        disk, reserve = world.node("second").disk(), 48 * limits.MIB
        lagging = await world.again("second", reserve_bytes=reserve)
        await lagging.open()
        disk.capacity_bytes = disk.directory.used_bytes() + reserve + limits.MIB
        full = world.servers["second"]
        await lagging.open(stream=OTHER, slot=2)
        while not full.log.is_full:
            end = lagging.end
            lagging.send(build_frame(end, size=limits.MIB, stream=OTHER), slot=2)
            lagging.end += 1
            await lagging.acked(lagging.end, slot=2)
        command = CertifyCommand(1, world.certificate(leader.frames), (world.source("server"),))
        world.master.commands["second"] = [command]
        await asyncio.sleep(2.0)
        held = full.replica.find(STREAM, SEGMENT)
        assert held is not None
        assert held.end == FIRST + 2
        assert 1 not in world.master.confirmed
        disk.capacity_bytes = 1 << 40
        assert await completed(world, command) == leader.frames

    run(story)


def test_nobody_else_is_asked_once_a_peer_has_given_all(run: Run) -> None:
    async def story(world: World) -> None:
        leader = await filled(world, 5)
        await filled(world, 2, "second")
        peer = Peer([])
        await peer.listen(world)
        sealed = world.certificate(leader.frames)
        sources = (world.source("server"), peer.address)
        assert await completed(world, CertifyCommand(1, sealed, sources)) == leader.frames
        await asyncio.sleep(1.0)
        assert peer.asked == []

    run(story)
