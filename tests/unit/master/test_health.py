"""What people are told when they ask whether all is well."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from lunalog.core import streams
from lunalog.master.health import examine
from lunalog.master.table import Stream, Table
from lunalog.types import Member, OpenSegment, Peer, Policy, SealedSegment, SegmentId
from lunalog.wire.messages import Health

ONE, TWO, THREE = MEMBERS = tuple(Member(f"s{n}", 1) for n in (1, 2, 3))


class Servers:
    """Three that are alive and well, until the test says otherwise."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        for member in MEMBERS:
            self.add(member)

    def lose(self, *members: Member) -> None:
        for member in members:
            self.known[member.server].is_lost = True

    def names(self) -> list[str]:
        return sorted(self.known)

    def get(self, name: str) -> Any:
        return self.known.get(name)

    def status(self, name: str) -> Any:
        server = self.known[name]
        return SimpleNamespace(
            state="lost" if server.is_lost else "leaving" if server.is_leaving else "alive"
        )

    def is_placeable(self, name: str) -> bool:
        return not self.known[name].is_lost and not self.known[name].is_leaving

    def add(self, member: Member) -> None:
        self.known[member.server] = SimpleNamespace(
            member=member, is_lost=False, is_leaving=False, trouble=""
        )


class World:
    def __init__(self) -> None:
        self.servers = Servers()
        self.table = Table()
        self.unknown: dict[bytes, str] = {}
        self.overdue = 0
        self.wanted: int | None = None

    def stream(self, name: str, opened: tuple[Member, ...], *sealed: Member) -> Stream:
        """Add a led stream of three copies, two to acknowledge, with these members of its segments."""
        number = len(self.table).to_bytes(16, "big")
        head = streams.grant(
            streams.create(name, number, Policy(3, 2), 0), Peer("ann", b"a" * 16)
        ).head
        segment = OpenSegment(SegmentId(1, 1), 4, 4, opened, 2) if opened else None
        head = msgspec.structs.replace(head, open=segment)
        row = SealedSegment(SegmentId(1, 0), 0, 4, 4, sealed, 2, "ann", "size", 0)
        made = Stream(head, "ann", 1, (row,) if sealed else ())
        self.table.add(made)
        return made

    def look(self) -> Health:
        commands = SimpleNamespace(
            unknown_streams=self.unknown,
            count_overdue=lambda: self.overdue,
            count=lambda: self.overdue + 1,
        )
        metadata = SimpleNamespace(table=self.table)
        return examine(metadata, self.servers, commands, 2, self.wanted)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_said_of_what_is_well(world: World) -> None:
    world.stream("orders", MEMBERS, *MEMBERS)
    found = world.look()
    assert (found.errors, found.warnings) == ((), ())
    assert found.numbers == {
        "streams": 1, "led": 1, "segments_sealed": 1, "servers": 3, "servers_alive": 3,
        "servers_lost": 0, "servers_leaving": 0, "sessions": 2, "commands_pending": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "errors", "warning"),
    [
        ((ONE,), [], "fewer servers than their policy wants hold orders"),
        ((ONE, TWO), ["too few servers are there to recover the open segment of orders"], None),
    ],
)
def test_an_open_segment_is_as_well_as_its_servers_are_many(
    world: World, lost: tuple[Member, ...], errors: list[str], warning: str | None
) -> None:
    """I11: of three, with two to acknowledge, two must be there to recover it."""
    world.stream("orders", MEMBERS)
    world.servers.lose(*lost)
    found = world.look()
    assert list(found.errors) == errors
    assert set(found.warnings) == {f"server {m.server} is lost" for m in lost} | (
        {warning} if warning else set()
    )


def test_a_segment_that_can_be_recovered_and_not_appended_to_is_told_as_that(
    world: World,
) -> None:
    """All three must acknowledge: one is enough to recover, and two are too few to append."""
    stream = world.stream("orders", MEMBERS)
    opened = OpenSegment(SegmentId(1, 1), 4, 4, MEMBERS, 3)
    head = msgspec.structs.replace(stream.head, open=opened)
    world.table.update(stream, head, "ann", 2, ())
    world.servers.lose(ONE)
    assert world.look().errors == ("too few servers are there to append to orders",)


def test_a_stream_with_nothing_open_needs_an_ack_quorum_that_can_take_a_segment(
    world: World,
) -> None:
    world.stream("orders", ())
    world.servers.lose(ONE)
    assert world.look().errors == ()
    world.servers.lose(TWO)
    assert world.look().errors == ("too few servers are there to append to orders",)


def test_a_server_that_is_leaving_is_counted_apart_and_takes_no_segment(world: World) -> None:
    world.stream("orders", ())
    world.servers.known["s1"].is_leaving = True
    found = world.look()
    assert (found.errors, found.warnings) == ((), ())
    numbers = found.numbers
    assert (numbers["servers"], numbers["servers_alive"], numbers["servers_leaving"]) == (3, 2, 1)
    world.servers.known["s2"].is_leaving = True
    assert world.look().errors == ("too few servers are there to append to orders",)


def test_servers_that_are_wanted_and_have_not_come_are_told(world: World) -> None:
    """One that is lost is told as that; one that is leaving is none of them."""
    world.wanted = 3
    assert world.look().warnings == ()
    world.wanted = 4
    assert world.look().warnings == ("1 of 4 wanted servers is not there yet",)
    world.servers.known["s1"].is_leaving = True
    world.servers.lose(TWO)
    assert world.look().warnings == (
        "server s2 is lost",
        "2 of 4 wanted servers are not there yet",
    )


def test_r11_a_server_that_cannot_leave_is_told(world: World) -> None:
    """An open segment rolls off it only where as many as its policy wants can take the next one."""
    world.stream("orders", MEMBERS)
    world.servers.known["s1"].is_leaving = True
    found = world.look()
    assert found.errors == ()
    assert found.warnings == (
        "too few other servers are there to move orders off a server that is leaving",
    )
    world.servers.add(Member("s4", 1))
    assert world.look().warnings == ()


@pytest.mark.parametrize("is_wiped", [True, False])
def test_a_sealed_segment_that_no_server_has_is_an_error(world: World, is_wiped: bool) -> None:
    """R19: a server under another incarnation is not the member that held it."""
    world.stream("orders", (), TWO)
    assert world.look().errors == ()
    if is_wiped:
        world.servers.known["s2"].member = Member("s2", 2)
    else:
        del world.servers.known["s2"]
    assert world.look().errors == ("stream orders: no server of a sealed segment is there",)


def test_what_was_truncated_is_missed_by_nobody(world: World) -> None:
    stream = world.stream("orders", (), TWO)
    head = msgspec.structs.replace(stream.head, truncated_before=4)
    world.table.update(stream, head, "ann", 2, stream.rows)
    world.servers.lose(TWO)
    assert world.look().errors == ()


def test_r25_a_stream_that_is_read_only_is_told_with_its_reason(world: World) -> None:
    stream = world.stream("orders", MEMBERS)
    stream.lost = world.table.lost[stream.id] = "server s1: epoch 7 was promised"
    world.table.lost[b"?" * 16] = "of one that was deleted since"
    assert world.look().errors == (
        "stream orders is read-only (R25): server s1: epoch 7 was promised",
    )


def test_what_people_must_look_at_is_named(world: World) -> None:
    world.servers.known["s1"].trouble = "its disk is full"
    world.unknown[b"\1" * 16] = "s3"
    world.overdue = 4
    found = world.look()
    assert found.errors == (f"server s3 holds stream {'01' * 16}, which nobody knows",)
    assert found.warnings == (
        "server s1: its disk is full",
        "4 commands to servers are not confirmed yet",
    )


def test_of_many_streams_the_first_are_named_and_the_rest_counted(world: World) -> None:
    for number in range(9):
        world.stream(f"orders-{number}", MEMBERS)
    world.servers.lose(ONE)
    (_, thin) = world.look().warnings
    assert thin == (
        "fewer servers than their policy wants hold "
        "orders-0, orders-1, orders-2, orders-3, orders-4 and 4 more"
    )
