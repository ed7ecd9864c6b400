"""What servers are told to do: duties that came again, were overtaken, or made void meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from lunalog.core import streams
from lunalog.embedded.runtime import MemoryRuntime
from lunalog.master import commands, records
from lunalog.master.commands import Commands
from lunalog.master.locks import StreamLocks
from lunalog.master.memory import MemoryStore
from lunalog.master.metadata import Metadata
from lunalog.master.table import Stream
from lunalog.runtime import Tasks
from lunalog.types import Member, OpenSegment, Peer, Policy, Promise, SealedSegment, SegmentId
from lunalog.wire.messages import (
    CertifyCommand,
    DropSegment,
    DropStream,
    SegmentFact,
    TrimCommand,
)

STREAM = b"s" * 16
ONE, TWO, THREE = (Member(f"s{n}", 1) for n in (1, 2, 3))
FIRST, SECOND, THIRD = (SegmentId(1, n) for n in range(3))


def row(segment: SegmentId, first: int, end: int, *members: Member) -> SealedSegment:
    return SealedSegment(segment, first, end, end, members, 1, "ann", "size", 0)


class Servers:
    """The names that are known here."""

    def __init__(self) -> None:
        self.names = {"s1", "s2", "s3"}

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def addresses(self, names: Any) -> tuple[str, ...]:
        return tuple(names)


class Desk:
    """The commands of one master, its stream (sealed 0..4 and 4..8 at s1 and s2), and a clock."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runtime = MemoryRuntime()
        self.tasks = Tasks(self.runtime)
        self.metadata = Metadata(self.runtime, self.store)
        self.servers = Servers()
        self.locks = StreamLocks()
        self.told: list[SealedSegment] = []
        self.time = 100.0
        self.commands: Commands
        self.stream: Stream

    async def start(self) -> Desk:
        await self.metadata.load()
        stream = await self.metadata.create(streams.create("orders", STREAM, Policy(2, 2), 0))
        assert stream is not None
        self.stream = stream
        granted = streams.grant(stream.head, Peer("ann", b"a" * 16)).head
        await self.change(granted, row(FIRST, 0, 4, ONE, TWO))
        await self.change(self.stream.head, row(SECOND, 4, 8, ONE, TWO))
        self.commands = Commands(
            runtime=self.runtime,
            metadata=self.metadata,
            servers=self.servers,  # type: ignore[arg-type]
            publisher=SimpleNamespace(changed=lambda _, rows: self.told.extend(rows)),  # type: ignore[arg-type]
            locks=self.locks,
            tasks=self.tasks,
            now=lambda: self.time,
        )
        return self

    async def change(self, head: Any, added: SealedSegment | None = None, **fields: Any) -> None:
        """Write a newer head, as an election, a roll or a trim does."""
        newer = msgspec.structs.replace(head, version=head.version + 1, **fields)
        if added is not None:
            newer = msgspec.structs.replace(newer, next=added.end, chain=added.chain)
        assert await self.metadata.change(self.stream, newer, "ann", added)

    async def trim(self, before: int) -> None:
        await self.change(self.stream.head, truncated_before=before)
        self.commands.head_changed(self.stream, None, None)

    async def settle(self) -> None:
        """Let all that was begun beside the beats come to its end."""
        for _ in range(50):
            await asyncio.sleep(0)
        assert self.runtime.error is None

    def due(self, member: Member) -> tuple[Any, ...]:
        return self.commands.due(server(member))

    def told_of(self, member: Member, segment: SegmentId, state: str = "open", **more: Any) -> None:
        fields: dict[str, Any] = {
            "generation": 1, "first": 0, "end": 0, "committed": 0, "promise_epoch": 1
        }  # fmt: skip
        stream = more.pop("stream", STREAM)
        fact = SegmentFact(stream=stream, segment=segment, state=state, **(fields | more))
        self.commands.facts(server(member), [fact])

    async def bury(self, *holders: str) -> None:
        """Delete the stream."""
        assert await self.metadata.delete(self.stream, self.stream.head, holders)
        self.commands.stream_gone(self.stream, holders)


def server(member: Member, *, has_adopted: bool = True) -> Any:
    return SimpleNamespace(member=member, has_adopted=has_adopted)


@pytest.fixture
async def desk() -> Any:
    made = await Desk().start()
    yield made
    await made.tasks.cancel()


def kinds(found: tuple[Any, ...]) -> list[type]:
    return [type(command) for command in found]


# ------------------------------------------------------------------ certificates


async def test_r19_every_member_of_a_row_is_told_of_it_until_it_confirms(desk: Desk) -> None:
    one, two = desk.due(ONE)
    assert kinds((one, two)) == [CertifyCommand] * 2
    assert (one.certificate.row.id, one.sources) == (FIRST, ("s2",))
    assert desk.due(THREE) == ()
    desk.commands.confirmed(server(ONE), [one.id, 999])
    assert [command.id for command in desk.due(ONE)] == [two.id]


async def test_a_row_that_does_not_list_the_server_any_more_is_no_duty(desk: Desk) -> None:
    moved = msgspec.structs.replace(row(FIRST, 0, 4, THREE, TWO), version=2)
    assert await desk.metadata.change_row(desk.stream, moved)
    assert [command.certificate.row.id for command in desk.due(ONE)] == [SECOND]
    assert desk.commands.count() == 3, "s1 has one left, s2 both"


async def test_r30_a_row_in_a_newer_version_is_told_under_a_number_of_its_own(desk: Desk) -> None:
    (old, _) = desk.due(ONE)
    newer = msgspec.structs.replace(row(FIRST, 0, 4, ONE, TWO), version=2)
    assert await desk.metadata.change_row(desk.stream, newer)
    (new, *_) = (c for c in desk.due(ONE) if c.certificate.row.id == FIRST)
    assert (new.id != old.id, new.certificate.row.version) == (True, 2)
    desk.commands.confirmed(server(ONE), [old.id])
    assert new.id in [command.id for command in desk.due(ONE)], "only the newer one counts"


async def test_commands_that_nobody_confirms_are_overdue_after_a_while(desk: Desk) -> None:
    desk.due(ONE)
    desk.time += commands.OVERDUE_S
    assert desk.commands.count_overdue() == 0
    desk.time += 1
    assert desk.commands.count_overdue() == 2


async def test_r19_who_was_wiped_and_is_complete_is_listed_once_under_its_new_incarnation(
    desk: Desk,
) -> None:
    again = Member("s1", 2)
    for _ in range(2):
        desk.told_of(again, FIRST, "complete", end=4, committed=4)
    await desk.settle()
    assert desk.stream.rows[0].members == (again, TWO)
    assert [found.version for found in desk.told] == [2]


async def test_r19_who_was_wiped_is_told_again_of_what_it_had_confirmed(desk: Desk) -> None:
    """It holds nothing, so that no fact says what it lacks."""
    desk.commands.confirmed(server(ONE), [command.id for command in desk.due(ONE)])
    assert desk.due(ONE) == ()
    again = Member("s1", 2)
    desk.commands.registered(server(again, has_adopted=False), [])
    told = desk.due(again)
    assert [command.certificate.row.id for command in told] == [FIRST, SECOND]
    desk.commands.confirmed(server(again), [command.id for command in told])
    await desk.settle()
    assert [found.members for found in desk.stream.rows] == [(again, TWO)] * 2
    assert desk.due(again) == ()
    desk.commands.registered(server(again), [])
    assert desk.due(again) == (), "a start on the same disk"


async def test_r19_no_row_names_an_incarnation_before_its_server_has_it_on_disk(
    desk: Desk,
) -> None:
    """It is told with the registration that gives it; who dies there comes back without it."""
    again = Member("s1", 2)
    fact = SegmentFact(STREAM, FIRST, 1, 0, 4, 4, "complete", 1)
    desk.commands.registered(server(again, has_adopted=False), [fact])
    await desk.settle()
    assert desk.stream.rows[0].members == (ONE, TWO)
    (command,) = (c for c in desk.due(again) if c.certificate.row.id == FIRST)
    desk.commands.confirmed(server(again), [command.id])
    await desk.settle()
    assert desk.stream.rows[0].members == (again, TWO)


async def test_a_listing_that_was_overtaken_by_a_deletion_changes_nothing(desk: Desk) -> None:
    async with desk.locks.hold(STREAM):
        desk.told_of(Member("s1", 2), FIRST, "complete", end=4, committed=4)
        await desk.bury("s1")
    await desk.settle()
    assert desk.told == []
    assert await desk.store.get(records.row_key(STREAM, FIRST)) is None


async def test_a_listing_on_a_head_that_moved_is_not_told_and_found_again(desk: Desk) -> None:
    key = records.head_key(STREAM)
    found = await desk.store.get(key)
    assert found is not None
    await desk.store.transact({}, {key: found.value})
    again = Member("s1", 2)
    desk.told_of(again, FIRST, "complete", end=4, committed=4)
    await desk.settle()
    assert desk.told == []
    desk.told_of(again, FIRST, "complete", end=4, committed=4)
    await desk.settle()
    assert [found.members for found in desk.told] == [(again, TWO)]


# ------------------------------------------------------------------ trims


async def test_r22_what_is_told_of_a_trimmed_segment_makes_a_trim_due(desk: Desk) -> None:
    await desk.trim(4)
    assert kinds(desk.due(THREE)) == []
    desk.told_of(THREE, FIRST, end=4)
    desk.told_of(THREE, SegmentId(1, 9), first=0, end=3)
    (trim,) = desk.due(THREE)
    assert (trim.before, trim.version) == (4, desk.stream.head.version)


async def test_r22_a_trim_that_went_on_meanwhile_is_due_again(desk: Desk) -> None:
    await desk.trim(4)
    (trim,) = (c for c in desk.due(ONE) if isinstance(c, TrimCommand))
    await desk.trim(6)
    desk.commands.confirmed(server(ONE), [trim.id])
    (again,) = (c for c in desk.due(ONE) if isinstance(c, TrimCommand))
    assert (again.before, again.id != trim.id) == (6, True)


async def test_r22_a_row_is_forgotten_when_who_listed_it_has_trimmed_or_is_retired(
    desk: Desk,
) -> None:
    await desk.trim(4)
    (trim,) = (c for c in desk.due(ONE) if isinstance(c, TrimCommand))
    desk.commands.confirmed(server(ONE), [trim.id])
    await desk.settle()
    assert [found.id for found in desk.stream.rows] == [FIRST, SECOND]
    desk.servers.names.remove("s2")
    desk.commands.forget_server("s2")
    await desk.settle()
    assert [found.id for found in desk.stream.rows] == [SECOND]
    assert await desk.store.get(records.row_key(STREAM, FIRST)) is None


async def test_rows_of_a_stream_that_was_deleted_meanwhile_are_left_to_the_deletion(
    desk: Desk,
) -> None:
    await desk.trim(4)
    desk.servers.names.clear()
    async with desk.locks.hold(STREAM):
        desk.commands.forget_server("s1")
        await desk.bury("s1")
    await desk.settle()
    assert desk.metadata.table.get(STREAM) is None
    assert await desk.store.get(records.head_key(STREAM)) is None


# ------------------------------------------------------------------ copies that nobody lists


async def suspected(desk: Desk, segment: SegmentId = THIRD) -> None:
    """A copy of the first epoch that nobody lists, told of while the second is led."""
    granted = streams.grant(desk.stream.head, Peer("bob", b"b" * 16)).head
    await desk.change(granted)
    desk.told_of(THREE, segment, first=8, end=9)


async def test_r10_a_copy_that_nobody_lists_is_dropped_after_its_quarantine(desk: Desk) -> None:
    await suspected(desk)
    assert desk.commands.holders(desk.stream) == ["s1", "s2", "s3"]
    desk.time += commands.QUARANTINE_S - 1
    assert desk.due(THREE) == ()
    desk.time += 1
    (drop,) = desk.due(THREE)
    assert isinstance(drop, DropSegment)
    assert (drop.segment, drop.promise) == (THIRD, desk.stream.head.promise)
    desk.told_of(THREE, THIRD, "dropped")
    assert desk.due(THREE) == ()
    assert desk.commands.holders(desk.stream) == ["s1", "s2"]


async def test_r10_a_copy_whose_segment_is_listed_is_never_garbage(desk: Desk) -> None:
    """A server that a row does not list may hold a copy that some repair will want."""
    await suspected(desk, FIRST)
    desk.time += commands.QUARANTINE_S
    assert desk.due(THREE) == ()


async def test_r10_what_was_listed_after_it_was_condemned_is_not_dropped(desk: Desk) -> None:
    await suspected(desk)
    desk.time += commands.QUARANTINE_S
    assert kinds(desk.due(THREE)) == [DropSegment]
    await desk.change(desk.stream.head, row(THIRD, 8, 9, THREE))
    assert desk.due(THREE) == ()


async def test_r10_of_a_deleted_stream_no_single_copy_is_condemned(desk: Desk) -> None:
    await suspected(desk)
    await desk.bury("s1")
    desk.time += commands.QUARANTINE_S
    assert desk.due(THREE) == ()
    assert kinds(desk.due(ONE)) == [DropStream]


async def test_r8_the_members_of_an_empty_segment_that_left_no_row_are_suspects(
    desk: Desk,
) -> None:
    opened = OpenSegment(THIRD, 8, 8, (THREE,), 1)
    await desk.change(desk.stream.head, open=None)
    desk.commands.head_changed(desk.stream, opened, None)
    assert desk.commands.holders(desk.stream) == ["s1", "s2", "s3"]


# ------------------------------------------------------------------ deleted streams


async def test_r22_who_turns_up_with_a_deleted_stream_is_told_to_drop_it(desk: Desk) -> None:
    """Also when nobody knew that it held any: it counts as a holder until it confirms."""
    await desk.bury("s1")
    desk.told_of(THREE, FIRST, end=4)
    desk.told_of(TWO, FIRST, "dropped")
    await desk.settle()
    (drop,) = desk.due(THREE)
    assert (type(drop), drop.stream) == (DropStream, STREAM)
    assert desk.due(TWO) == ()
    assert desk.metadata.tombstones[STREAM].holders == ("s1", "s3")
    for member in (THREE, ONE):
        (drop,) = desk.due(member)
        desk.commands.confirmed(server(member), [drop.id])
    await desk.settle()
    assert STREAM not in desk.metadata.tombstones


async def test_a_stream_that_nobody_ever_knew_is_told_to_people_and_kept(desk: Desk) -> None:
    unknown = b"?" * 16
    desk.told_of(ONE, FIRST, "dropped", stream=unknown)
    await desk.settle()
    assert desk.commands.unknown_streams == {}
    desk.told_of(ONE, FIRST, stream=unknown)
    await desk.settle()
    assert desk.commands.unknown_streams == {unknown: "s1"}
    assert DropStream not in kinds(desk.due(ONE))


async def test_a_stream_that_was_made_while_it_was_looked_for_is_no_unknown_one(
    desk: Desk,
) -> None:
    other = b"o" * 16
    async with desk.locks.hold(other):
        desk.told_of(ONE, FIRST, stream=other)
        assert await desk.metadata.create(streams.create("more", other, Policy(2, 2), 0))
    await desk.settle()
    assert desk.commands.unknown_streams == {}


async def test_r22_a_server_that_is_retired_holds_up_no_deletion(desk: Desk) -> None:
    await desk.bury("s1", "s2")
    desk.commands.forget_server("s2")
    desk.commands.forget_server("s2")
    await desk.settle()
    assert desk.metadata.tombstones[STREAM].holders == ("s1",)


async def test_r22_a_confirmation_that_the_store_did_not_take_is_asked_for_again(
    desk: Desk,
) -> None:
    await desk.bury("s1")
    key = records.gone_key(STREAM)
    found = await desk.store.get(key)
    assert found is not None
    await desk.store.transact({}, {key: found.value})
    (drop,) = desk.due(ONE)
    desk.commands.confirmed(server(ONE), [drop.id])
    await desk.settle()
    (again,) = desk.due(ONE)
    assert (again.stream, again.id != drop.id) == (STREAM, True)


# ------------------------------------------------------------------ metadata that went back (R25)


async def proven(desk: Desk, meanwhile: Any) -> None:
    """Tell a fact that proves a loss, and let something happen before it is looked into."""
    async with desk.locks.hold(STREAM):
        desk.told_of(ONE, FIRST, promise_epoch=7)
        await meanwhile()
    await desk.settle()


async def test_r25_a_proof_is_looked_into_on_what_the_store_has_then(desk: Desk) -> None:
    """The head that another wrote explains the fact: nothing was lost."""

    async def granted() -> None:
        key = records.head_key(STREAM)
        newer = msgspec.structs.replace(desk.stream.head, epoch=7)
        await desk.store.transact({}, {key: records.encode(records.HeadRecord(newer))})

    await proven(desk, granted)
    assert desk.stream.lost == ""
    assert desk.stream.head.promise == Promise(7, b"a" * 16)


@pytest.mark.parametrize("is_known", [True, False])
async def test_r25_of_a_stream_that_is_gone_nothing_is_proven(desk: Desk, is_known: bool) -> None:
    async def gone() -> None:
        if is_known:
            await desk.bury("s1")
        else:
            await desk.store.transact({}, {}, [records.head_key(STREAM)])

    await proven(desk, gone)
    assert desk.metadata.table.get(STREAM) is None
    assert await desk.store.get(records.lost_key(STREAM)) is None


async def test_r25_a_stream_that_lost_something_is_told_nothing_any_more(desk: Desk) -> None:
    async def nothing() -> None: ...

    await suspected(desk)
    await proven(desk, nothing)
    assert "epoch 7 was promised" in desk.stream.lost
    desk.time += commands.QUARANTINE_S
    assert desk.due(ONE) == desk.due(THREE) == ()
