"""Frames to a replica that lacks some: in portions, as its connection takes them, then every new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lunalog.client import feeding
from lunalog.client.feeding import Feeding
from lunalog.client.slots import MemberSlot, SegmentSlots
from lunalog.core.leadership import LeaderMachine
from lunalog.core.outbox import Outbox
from lunalog.core.replication import SegmentReplication
from lunalog.types import Member, OpenSegment, SegmentId
from lunalog.wire import codec

SEGMENT = OpenSegment(SegmentId(3, 0), 0, 0, (Member("s1", 1), Member("s2", 1)), 2)
FRAME_BYTES = 100


class Wire:
    """A connection that notes what is sent on it."""

    def __init__(self) -> None:
        self.is_paused = False
        self.fed_bytes = 0
        self.sent: list[tuple[bytes, ...]] = []

    def send(self, *buffers: Any) -> None:
        self.sent.append(tuple(map(bytes, buffers)))
        asyncio.get_running_loop().call_soon(self.written)

    def written(self) -> None:
        self.fed_bytes = 0

    @property
    def firsts(self) -> list[int]:
        return [int(buffers[1]) for buffers in self.sent if len(buffers) == 2]

    @property
    def marks(self) -> list[tuple[bytes, ...]]:
        return [buffers for buffers in self.sent if len(buffers) == 1]


class Machine:
    """As much of a leader as feeding looks at: ten frames of one event."""

    def __init__(self, committed: int = 0) -> None:
        self.outbox = Outbox(0, 0, 1 << 20)
        self.current = SegmentReplication(SEGMENT)
        self.next: SegmentReplication | None = None
        self.committed = committed
        for first in range(10):
            self.add(first)

    def add(self, first: int) -> None:
        self.outbox.add(first, 1, first, b"%*d" % (FRAME_BYTES, first))

    tail = LeaderMachine.tail
    boundary = LeaderMachine.boundary
    sent = LeaderMachine.sent
    mark: Callable[..., int] = LeaderMachine.mark


class Fed:
    """One replica, what its connection got, and who was told what."""

    def __init__(self, machine: Machine) -> None:
        self.machine: Any = machine
        self.handed: list[int] = []
        self.overtaken: list[MemberSlot] = []
        self.failed: list[BaseException] = []
        self.feeding = Feeding(
            self.machine, self.handed.append, self.overtaken.append, self.failed.append
        )
        message: Any = type("Message", (), {"slot": 7})
        nobody: Any = None
        self.slots = SegmentSlots(nobody, nobody, nobody, machine.current, message)
        self.slot = self.slots.members[0]
        self.wire: Any = Wire()
        self.slot.connection = self.wire

    @property
    def is_fed(self) -> bool:
        """True while it gets every new frame as it is made."""
        return self.slots.connections == [self.wire]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PORTION_BYTES", 3 * FRAME_BYTES)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_a_replica_lacks_leaves_in_portions_a_turn_each_and_the_mark_behind() -> None:
    fed = Fed(Machine(committed=4))
    fed.feeding.begin(fed.slot, 2)
    assert fed.wire.firsts == [2, 3, 4]
    assert not fed.is_fed
    await asyncio.sleep(0)
    assert fed.wire.firsts == [2, 3, 4, 5, 6, 7]
    fed.machine.add(10)  # made meanwhile
    await turns()
    assert fed.wire.firsts == list(range(2, 11))
    assert fed.wire.marks == [(codec.mark(7, 4),)]
    assert fed.wire.sent[-1] == (codec.mark(7, 4),)
    assert fed.handed == list(range(3, 12))
    assert fed.is_fed
    assert fed.slot.lacks is None


async def test_who_lacks_nothing_gets_new_frames_at_once_and_no_mark_of_nothing() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 10)
    assert fed.is_fed
    assert fed.wire.sent == []


async def test_n3_a_connection_that_has_enough_gets_the_rest_when_it_takes_more() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 10)
    fed.wire.is_paused = True
    fed.feeding.paused(fed.slot)
    assert not fed.is_fed
    fed.feeding.paused(fed.slot)  # another stream on the same connection filled it again
    for first in (10, 11):
        fed.machine.add(first)
    fed.feeding.drained(fed.slot)  # and that was not enough
    await turns()
    assert fed.wire.sent == []
    fed.wire.is_paused = False
    fed.feeding.drained(fed.slot)
    assert fed.wire.firsts == [10, 11]
    assert fed.is_fed
    fed.feeding.drained(fed.slot)
    assert fed.slots.connections == [fed.wire], "once"


async def test_a_pause_between_two_portions_is_waited_for() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 0)
    fed.wire.is_paused = True
    fed.feeding.paused(fed.slot)
    await turns()
    assert fed.wire.firsts == [0, 1, 2]
    fed.wire.is_paused = False
    fed.feeding.drained(fed.slot)
    await turns()
    assert fed.wire.firsts == list(range(10))


async def test_r11_while_rolling_the_old_set_gets_what_lies_below_the_boundary() -> None:
    fed = Fed(Machine())
    ahead = OpenSegment(SegmentId(3, 1), 6, 0, SEGMENT.members, 2)
    fed.machine.next = SegmentReplication(ahead)
    fed.feeding.begin(fed.slot, 5)
    assert fed.wire.firsts == [5]
    assert fed.is_fed


async def test_r11_who_takes_too_little_for_what_is_kept_is_told_of() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 10)
    fed.feeding.paused(fed.slot)
    fed.slot.lacks = 3
    fed.machine.outbox.trim(5, 10)
    fed.feeding.drained(fed.slot)
    assert fed.overtaken == [fed.slot]
    assert fed.wire.sent == []
    assert not fed.is_fed
    assert fed.slot.lacks is None


async def test_r27_a_bug_in_a_later_portion_is_told() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 0)
    bug = RuntimeError("a bug")

    def broken(*_: object) -> int:
        raise bug

    fed.machine.mark = broken
    await turns()
    assert fed.failed == [bug]


async def test_a_slot_that_was_lost_between_two_portions_gets_no_more() -> None:
    fed = Fed(Machine())
    fed.feeding.begin(fed.slot, 0)
    fed.slot.connection = fed.slot.lacks = None
    fed.feeding.paused(fed.slot)
    await turns()
    assert fed.wire.firsts == [0, 1, 2]
    assert not fed.is_fed


async def test_z1_streams_that_share_a_connection_do_not_fill_it_in_one_turn() -> None:
    """All of them hear that it takes more, in the same turn."""
    fed = [Fed(Machine()) for _ in range(20)]
    wire = fed[0].wire
    for one in fed:
        one.slot.connection = wire
        one.feeding.begin(one.slot, 0)
    assert sum(len(buffers[1]) for buffers in wire.sent) <= 2 * feeding.PORTION_BYTES
    while not all(one.slot.slots.connections for one in fed):
        before = len(wire.firsts)
        await asyncio.sleep(0)
        assert len(wire.firsts) - before <= 6
    assert sorted(wire.firsts) == sorted([*range(10)] * 20)
