"""Slots and links: what is opened on a connection is opened again on the next, and refusals end it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lunalog.client import slots
from lunalog.client.servers import ServerLinks
from lunalog.client.slots import SegmentSlots
from lunalog.config import ClientConfig
from lunalog.core.replication import SegmentReplication
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.errors import (
    ClosedError,
    DiskFullError,
    LunalogError,
    NotLeaderError,
    SealedError,
    ServerUnavailableError,
)
from lunalog.runtime import Tasks
from lunalog.types import Member, OpenSegment, SegmentId, ServerAddress
from lunalog.wire import codec
from lunalog.wire.connection import Connection
from lunalog.wire.dialing import acceptor
from lunalog.wire.messages import AppendRefused, LeaderAnswer, LeaderAsked, Opened, OpenSlot

MEMBER = Member("s1", 1)
SEGMENT = OpenSegment(SegmentId(3, 0), 0, 0, (MEMBER,), 1)


class Wire:
    """A connection whose peer answers what the test wants."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.pushed: list[Any] = []
        self.sent: list[bytes] = []
        self.flushed: list[int] = []
        """How much had been sent at each flush."""

    async def request(self, message: Any, *, timeout: float) -> Any:
        assert isinstance(message, OpenSlot)
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, LunalogError):
            raise answer
        return answer

    def push(self, message: Any) -> None:
        self.pushed.append(message)

    def send(self, *buffers: Any) -> None:
        self.sent.append(b"".join(buffers))

    def send_now(self, buffer: Any) -> None:
        self.send(buffer)
        self.flush()

    def flush(self) -> None:
        self.flushed.append(len(self.sent))


class Links(ServerLinks):
    """Links whose connections the test hands out."""

    def __init__(self, runtime: MemoryRuntime, *wires: Wire) -> None:
        super().__init__(runtime, "c", "engine", b"i" * 16, ClientConfig(retry_ms_max=1))
        self.wires = list(wires)
        self.learn([ServerAddress(MEMBER, "h", 1)])

    async def connection_to(self, name: str) -> Connection:
        found: Any = self.wires.pop(0)
        link = self.link(name)
        assert link is not None
        link.connection = found
        return found  # type: ignore[no-any-return]


class Events:
    """Notes what the leadership would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.slot: Any = None
        self.error: LunalogError | None = None

    def slot_opened(self, slot: Any, opened: Opened) -> None:
        self.told.append("opened")
        self.slot = slot

    def slot_lost(self, slot: Any) -> None:
        self.told.append("lost")

    def slot_refused(self, slot: Any, error: LunalogError) -> None:
        self.told.append(error.code)
        self.error = error
        if isinstance(error, SealedError):
            slot.replica.failure = error

    def slot_acked(self, slot: Any, end: int) -> None:
        self.told.append(f"acked {end}")

    def slot_paused(self, slot: Any) -> None:
        self.told.append("paused")

    def slot_drained(self, slot: Any) -> None:
        self.told.append("drained")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "REFUSED_PAUSE_S", 0.0)


async def turns(count: int = 60) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def opening(*wires: Wire) -> tuple[Events, Links, SegmentSlots]:
    """Open the segment on its one member, over these connections in turn."""
    runtime, events = MemoryRuntime(), Events()
    links = Links(runtime, *wires)
    message = OpenSlot(7, b"s" * 16, SEGMENT.id, b"i" * 16, 0, 0, 0, 1)
    found = SegmentSlots(links, Tasks(runtime), events, SegmentReplication(SEGMENT), message)
    found.start()
    found.start()  # one attempt at a time
    await turns()
    assert runtime.error is None
    return events, links, found


def link_of(links: Links) -> Any:
    found = links.link("s1")
    assert found is not None
    return found


async def test_a_slot_that_was_refused_for_a_passing_reason_is_opened_again() -> None:
    events, links, found = await opening(Wire(DiskFullError("full")), Wire(Opened(0, 0)))
    assert events.told == ["disk_full", "opened"]
    assert link_of(links).slots == {7: found.members[0]}
    assert "3.0 at s1#1" in repr(found.members[0])


async def test_a_slot_that_was_refused_for_good_is_not_opened_again() -> None:
    events, links, _ = await opening(Wire(SealedError("sealed")), Wire(Opened(0, 0)))
    assert events.told == ["sealed"]
    assert link_of(links).slots == {}


async def test_a_connection_that_is_gone_again_is_no_use() -> None:
    class Gone(Links):
        async def connection_to(self, name: str) -> Any:
            wire = await super().connection_to(name)
            if len(self.wires) == 1:
                link_of(self).connection = None
            return wire

    runtime, events = MemoryRuntime(), Events()
    links = Gone(runtime, Wire(), Wire(Opened(0, 0)))
    message = OpenSlot(7, b"s" * 16, SEGMENT.id, b"i" * 16, 0, 0, 0, 1)
    SegmentSlots(links, Tasks(runtime), events, SegmentReplication(SEGMENT), message).start()
    async with asyncio.timeout(2):
        while "opened" not in events.told:
            await asyncio.sleep(0)
    assert events.told == ["server_unavailable", "opened"]


async def test_a_slot_that_is_lost_while_it_is_opened_is_opened_again() -> None:
    lost: list[Links] = []

    def lose() -> Opened:
        link_of(lost[0]).slots.clear()
        return Opened(0, 0)

    runtime, events = MemoryRuntime(), Events()
    links = Links(runtime, Wire(lose), Wire(Opened(0, 0)))
    lost.append(links)
    message = OpenSlot(7, b"s" * 16, SEGMENT.id, b"i" * 16, 0, 0, 0, 1)
    SegmentSlots(links, Tasks(runtime), events, SegmentReplication(SEGMENT), message).start()
    async with asyncio.timeout(2):
        while "opened" not in events.told:
            await asyncio.sleep(0)
    assert events.told == ["server_unavailable", "opened"]


async def test_acks_count_while_the_slot_is_open_and_a_lost_one_is_opened_again() -> None:
    wire = Wire(Opened(0, 0))
    events, links, found = await opening(wire, Wire(Opened(0, 0)))
    connection: Any = wire
    found.connections.append(connection)
    link = link_of(links)
    link.on_ack(connection, 7, 5)
    link.on_ack(connection, 8, 5)  # of a slot that was closed
    assert events.told[1:] == ["acked 5"]
    link.on_closed(Wire(), ServerUnavailableError("another one"))
    assert link.connection is wire
    link.on_closed(connection, ServerUnavailableError("gone"))
    found.members[0].on_ack(9)
    assert events.told[1:] == ["acked 5", "lost"]
    assert found.connections == []
    await turns()
    assert events.told[-1] == "opened"


async def test_a_frame_leaves_at_the_turns_end_or_at_once_if_it_is_alone_or_much_is_queued() -> (
    None
):
    wire, other = Wire(Opened(0, 0)), Wire()
    _, _, found = await opening(wire)
    small, large = bytearray(100), bytearray(slots.JOINED_BYTES_MAX + 1)
    assert not found.send(small, 5, at_once=True)  # to nobody
    assert found.told == 0
    connections: Any = [wire, other]
    found.connections += connections
    assert found.send(small, 5, at_once=False)
    assert (wire.flushed, found.told) == ([], 5)
    assert found.send(small, 6, at_once=True)
    assert found.send(large, 7, at_once=True)
    assert wire.flushed == [2, 3]
    while len(wire.flushed) < 3:
        assert found.send(large, 8, at_once=False)
    queued = len(wire.sent) - 3
    assert (queued - 1) * len(large) < slots.QUEUED_BYTES_MAX <= queued * len(large)
    assert (other.sent, other.flushed) == (wire.sent, wire.flushed)
    for sent, mark, frame in zip(wire.sent[:3], (5, 6, 7), (small, small, large), strict=True):
        assert sent == codec.append_head(7, mark, len(frame)) + frame


async def test_a_connection_that_has_enough_is_taken_out_while_it_is_sent_to() -> None:
    _, _, found = await opening(Wire(Opened(0, 0)))

    class Full(Wire):
        def flush(self) -> None:
            super().flush()
            connection: Any = self
            found.connections.remove(connection)

    wires: Any = [Full(), Wire(), Wire()]
    for size in (100, slots.QUEUED_BYTES_MAX):
        found.connections[:] = wires
        assert found.send(bytearray(size), 1, at_once=size == 100)
        assert found.connections == wires[1:]
    assert [len(wire.sent) for wire in wires] == [2, 2, 2]


async def test_a_slot_hears_when_its_connection_takes_no_more_and_when_it_does() -> None:
    wire = Wire(Opened(0, 0))
    events, links, found = await opening(wire)
    connection: Any = wire
    link = link_of(links)
    another: Any = Wire()  # the one before it
    for told in (connection, another):
        link.on_paused(told)
        link.on_drained(told)
    assert events.told == ["opened", "paused", "drained"]
    found.members[0].connection = None  # not open yet: there is nothing to hold back
    link.on_paused(connection)
    link.on_drained(connection)
    assert events.told == ["opened", "paused", "drained"]


async def test_n3_a_connection_that_takes_more_takes_it_from_another_slot_first_each_time() -> None:
    """What it takes may be enough for one only."""
    wire = Wire(Opened(0, 0))
    _, links, _ = await opening(wire)
    connection: Any = wire
    link, told = link_of(links), []
    for number in range(3):
        owner = type("Owner", (), {"on_drained": lambda self, n=number: told.append(n)})
        link.slots[number] = owner()
    del link.slots[7]
    for _ in range(4):
        link.on_drained(connection)
    assert told == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


async def test_a_refusal_while_open_is_told_and_opened_again_unless_it_is_final() -> None:
    for error, told in (
        (DiskFullError("full"), ["disk_full", "opened"]),
        (SealedError("s"), ["sealed"]),
    ):
        wire = Wire(Opened(0, 0), Opened(0, 0))
        events, links, _ = await opening(wire, wire)
        connection: Any = wire
        link = link_of(links)
        for _ in range(2):  # the second finds no slot
            link.on_push(connection, AppendRefused(7, codec.failure_of(error)))
        await turns()
        assert events.told[1:] == told


async def test_a_dropped_slot_is_closed_and_opened_no_more() -> None:
    wire = Wire(Opened(0, 0))
    events, links, found = await opening(wire)
    found.drop()
    assert [type(message).__name__ for message in wire.pushed] == ["CloseSlot"]
    found.members[0].on_lost(ServerUnavailableError("gone"))
    await turns()
    assert events.told == ["opened", "lost"]
    found.drop()
    assert link_of(links).slots == {}
    assert found.slot_of(found.members[0].replica) is found.members[0]


async def test_who_asks_for_a_leader_that_is_not_here_is_told_so() -> None:
    _, links, _ = await opening(Wire(Opened(0, 0)))
    wire: Any = Wire()
    link_of(links).on_push(wire, LeaderAsked(1, b"s" * 16, SEGMENT.id))
    (answer,) = wire.pushed
    assert isinstance(answer, LeaderAnswer)
    assert answer.failure is not None
    assert isinstance(codec.error_of(answer.failure), NotLeaderError)


async def test_links_say_why_there_is_no_connection() -> None:
    links = ServerLinks(MemoryRuntime(), "c", "engine", b"i" * 16, ClientConfig())
    assert links.pause_s("s1") == links.config.retry_ms_max / 1000
    assert links.address_of("s1") is None
    with pytest.raises(ServerUnavailableError, match="no address of server s1"):
        await links.connection_to("s1")
    nowhere = ServerAddress(MEMBER, "nowhere", 1)
    why = r"^server s1: cannot reach [^:]*:\d+: nothing listens there$"
    with pytest.raises(ServerUnavailableError, match=why):
        await links.connection(nowhere)
    link_of(links).retry_at = links.runtime.now() + 60.0
    with pytest.raises(ServerUnavailableError, match="a moment ago"):
        await links.connection(nowhere)
    assert links.pause_s("s1") > 0
    assert "not connected" in repr(links.link("s1"))
    links.learn([ServerAddress(Member("s1", 0), "older", 2)])
    assert links.address_of("s1") == nowhere
    links.learn([ServerAddress(MEMBER, "elsewhere", 2)])
    assert links.pause_s("s1") == 0.0, "at another address it is tried at once"
    await links.aclose()
    with pytest.raises(ClosedError):
        await links.connection_to("s1")


class HangingNetwork:
    """Nobody answers at `dead`, and nobody says so."""

    def __init__(self, network: Any, dead: str) -> None:
        self.network = network
        self.dead = dead
        self.dialled: list[str] = []
        self.given_up = 0

    async def connect(self, factory: Any, address: Any) -> None:
        self.dialled.append(address[0])
        if address[0] != self.dead:
            await self.network.connect(factory, address)
            return
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.given_up += 1


async def test_l1_a_dial_that_hangs_is_given_up_when_the_server_is_elsewhere(
    runtime: MemoryRuntime, servers: Any
) -> None:
    server = servers[1]
    await runtime.network.listen(acceptor(runtime, server.welcome), ("new", 1))
    network = runtime.network = HangingNetwork(runtime.network, "old")
    links = ServerLinks(runtime, "c1", "engine", b"i" * 16, ClientConfig())
    asked = asyncio.ensure_future(links.connection(ServerAddress(MEMBER, "old", 1)))
    while not network.dialled:
        await asyncio.sleep(0)
    links.learn([ServerAddress(MEMBER, "old", 1)])
    links.learn([ServerAddress(MEMBER, "new", 1)])
    found = await asked
    assert found is link_of(links).connection
    assert (network.dialled, network.given_up) == (["old", "new"], 1)
    assert link_of(links).dialling is None
    await links.aclose()


async def test_l2_who_waits_for_a_dial_that_had_not_begun_hears_of_the_end(
    runtime: MemoryRuntime,
) -> None:
    """A task that is cancelled before its first turn runs nothing of its body."""
    links = ServerLinks(runtime, "c1", "engine", b"i" * 16, ClientConfig())
    asked = asyncio.ensure_future(links.connection(ServerAddress(MEMBER, "nowhere", 1)))
    await asyncio.ensure_future(links.aclose())  # in the turn in which it is asked
    async with asyncio.timeout(1):
        with pytest.raises(ServerUnavailableError, match="closed"):
            await asked


async def test_r11_a_server_is_silent_that_has_acknowledged_nothing_of_any_slot() -> None:
    _, links, _ = await opening(Wire(Opened(0, 0)))
    links.learn([ServerAddress(Member("s2", 1), "h", 2)])  # nothing is asked of it
    link = link_of(links)
    assert links.take_silent() == {"s1"}
    link.on_ack(link.connection, 8, 5)
    assert links.take_silent() == set()
    assert links.take_silent() == {"s1"}
