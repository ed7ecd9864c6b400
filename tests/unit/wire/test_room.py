"""Room for large messages: few at a time, in order, and not for ever (Z1, H7)."""

from __future__ import annotations

import asyncio

from tests.unit.wire.peers import Raw, World, play

from lunalog import limits
from lunalog.errors import OverloadedError
from lunalog.wire import codec
from lunalog.wire.codec import ENVELOPE_BYTES, Kind
from lunalog.wire.connection import BUFFER_BYTES_MAX
from lunalog.wire.room import HOLD_S, HOLD_S_MAX, PLACES, Room

LARGE = 4 * limits.MIB


def message(slot: int, size: int = LARGE) -> bytes:
    return codec.append_head(slot, 0, size) + bytes([slot]) * size


class Visitor:
    """Counts when it is told something."""

    def __init__(self) -> None:
        self.got = self.ended = self.received_bytes = 0

    def has_room(self) -> None:
        self.got += 1

    def held_room_too_long(self) -> None:
        self.ended += 1


def buffers(world: World) -> list[int]:
    return [len(connection._buffer) for connection in world.accepted]


async def crowd(world: World, count: int) -> list[Raw]:
    await world.listen()
    return [await world.dial_raw(is_open=True) for _ in range(count)]


def test_few_large_buffers_at_a_time_whoever_begins_a_message() -> None:
    async def story(world: World) -> None:
        raws = await crowd(world, 6)
        for slot, raw in enumerate(raws):
            raw.transport.write(message(slot)[:-1])
        await asyncio.sleep(1)
        assert sum(size > BUFFER_BYTES_MAX for size in buffers(world)) == PLACES
        assert sum(buffers(world)) < PLACES * limits.MESSAGE_BYTES_MAX + 6 * BUFFER_BYTES_MAX
        assert not world.theirs.of("append")

    play(story)


def test_all_are_served_in_turn_and_buffers_shrink_again() -> None:
    async def story(world: World) -> None:
        raws = await crowd(world, 6)
        for slot, raw in enumerate(raws):
            raw.transport.write(message(slot) + message(slot, 10) + message(slot))
        await asyncio.sleep(HOLD_S - 1)
        seen = [(slot, len(frame)) for _, slot, _, frame in world.theirs.of("append")]
        assert len(seen) == 18
        for slot in range(6):
            assert [size for s, size in seen if s == slot] == [LARGE, 10, LARGE]
        assert max(buffers(world)) <= BUFFER_BYTES_MAX

    play(story)


def test_one_that_is_not_ended_loses_its_connection_and_the_next_is_served() -> None:
    async def story(world: World) -> None:
        raws = await crowd(world, PLACES + 1)
        for slot, raw in enumerate(raws[:PLACES]):
            raw.transport.write(message(slot)[:-1])
        await asyncio.sleep(1)
        raws[PLACES].transport.write(message(PLACES))
        await asyncio.sleep(2 * HOLD_S)  # it moved until the first look
        assert [slot for _, slot, _, _ in world.theirs.of("append")] == [PLACES]
        assert [raw.is_lost for raw in raws] == [True] + [False] * PLACES  # nobody waits any more
        ((kind, _, failure),) = raws[0].messages()
        assert (kind, type(codec.error_of(failure))) == (Kind.ERROR, OverloadedError)

    play(story)


def test_one_that_sends_large_messages_without_end_keeps_its_connection() -> None:
    """Each one has its own time."""

    async def story(world: World) -> None:
        (raw,) = await crowd(world, 1)
        data = message(1)
        half = len(data) // 2
        raw.transport.write(data[:half])
        for _ in range(12):  # the next one has always begun when one ends
            await asyncio.sleep(HOLD_S / 5)
            raw.transport.write(data[half:] + data[:half])
        await asyncio.sleep(1)
        assert len(world.theirs.of("append")) == 12
        assert not raw.is_lost

    play(story)


class Slow:
    """Sends one large message on a slow link, and dials again when it is cut off."""

    def __init__(self, room: Room, rate: int, ended: list[Slow]) -> None:
        self.room, self.rate, self.ended = room, rate, ended
        self.received_bytes = self.cuts = 0
        self.task: asyncio.Task[None] | None = None

    def dial(self) -> None:
        if self.room.take(self):
            self.has_room()

    def has_room(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.send())

    async def send(self) -> None:
        for _ in range(0, LARGE, self.rate):
            await asyncio.sleep(1)
            self.received_bytes += self.rate
        self.room.give_back(self)
        self.ended.append(self)

    def held_room_too_long(self) -> None:
        assert self.task is not None
        self.task.cancel()
        self.cuts += 1
        self.room.give_back(self)
        asyncio.get_running_loop().call_later(0.05, self.dial)


def test_on_slow_links_all_come_to_their_end_and_who_hardly_moves_is_cut() -> None:
    """L2, N3: each takes longer than one look, and others wait all the while."""

    async def story(world: World) -> None:
        room, ended = Room(), []  # type: ignore[var-annotated]
        slow = [Slow(room, int(LARGE / (1.6 * HOLD_S)), ended) for _ in range(2 * PLACES + 1)]
        stuck = Slow(room, 1000, ended)
        for sender in (*slow[:1], stuck, *slow[1:]):
            sender.dial()
        await asyncio.sleep(12 * HOLD_S)
        assert len(ended) == len(slow)
        assert [sender.cuts for sender in slow] == [0] * len(slow)
        assert stuck.cuts > 0

    play(story)


def test_who_never_ends_is_cut_in_the_end_however_it_moves() -> None:
    async def story(world: World) -> None:
        room = Room(places=1)
        endless, other = Visitor(), Visitor()
        assert room.take(endless)
        assert not room.take(other)
        for _ in range(int(HOLD_S_MAX / HOLD_S) - 1):
            endless.received_bytes += LARGE
            await asyncio.sleep(HOLD_S)
            assert endless.ended == 0
        await asyncio.sleep(2 * HOLD_S)
        assert endless.ended == 1

    play(story)


def test_who_waits_and_goes_away_leaves_the_queue() -> None:
    async def story(world: World) -> None:
        room = Room(places=1)
        first, second, third = Visitor(), Visitor(), Visitor()
        assert room.take(first)
        assert not room.take(second)
        assert not room.take(third)
        room.give_back(second)
        assert room.take(first, may_wait=False)
        assert not room.take(first)  # others first
        assert (first.got, second.got, third.got) == (0, 0, 1)
        room.give_back(third)
        assert first.got == 1
        await asyncio.sleep(3 * HOLD_S)
        assert first.ended == 0  # nobody else wants the place
        assert not room.take(second)
        await asyncio.sleep(HOLD_S)
        assert (first.ended, second.ended, third.ended) == (1, 0, 0)
        room.give_back(second)
        room.give_back(first)
        room.give_back(first)
        assert room.take(second)

    play(story)


def test_what_is_paused_for_want_of_room_is_not_resumed_by_others() -> None:
    """A server that has caught up with its disk reads on: not where there is no room to read into."""

    async def story(world: World) -> None:
        raws = await crowd(world, PLACES + 1)
        for slot, raw in enumerate(raws):
            raw.transport.write(message(slot)[: ENVELOPE_BYTES + 100_000])
            await asyncio.sleep(0.1)
        waiting = world.accepted[PLACES]
        waiting.resume_reading()
        raws[PLACES].transport.write(message(PLACES)[ENVELOPE_BYTES + 100_000 :])
        await asyncio.sleep(1)
        assert len(waiting._buffer) <= BUFFER_BYTES_MAX
        assert waiting.closed_by is None

    play(story)
