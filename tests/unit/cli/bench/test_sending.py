"""How events are sent and their latencies counted, on a clock that stands still unless it is moved."""

import asyncio
import itertools

import pytest

from lunalog.cli.bench import sending as module
from lunalog.cli.bench.chain import Bodies, Check
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.sending import Sending
from lunalog.errors import NotLeaderError, OutcomeUnknownError, OverloadedError

BODIES = Bodies(1, 32)


class World:
    """Time, and a writer that acknowledges `ack_s` after an append, never while it is stalled."""

    def __init__(self, *, ack_s=0.001, stalled=(0, 0), room=10**9, dies_at=None):
        self.now = 100.0
        self.tail = self.committed = 50
        self.payloads = []
        self.waiting = []
        self.ack_s, self.room, self.dies_at = ack_s, room, dies_at
        self.stall_from, self.stall_to = (100.0 + s for s in stalled)

    def clock(self):
        return self.now

    async def pause(self, seconds):
        """Let time pass, and acks come at their moments."""
        for _ in range(3):  # who was started or woken before runs first
            await asyncio.sleep(0)
        end = self.now + seconds
        while self.waiting and self.waiting[0][0] <= end:
            await self.step()
        self.now = max(self.now, end)
        await asyncio.sleep(0)

    async def step(self):
        """On to the next ack."""
        self.now = max(self.now, self.waiting[0][0])
        while self.waiting and self.waiting[0][0] <= self.now:
            _, count, future = self.waiting.pop(0)
            if self.dies_at is not None and self.committed - 50 >= self.dies_at:
                future.set_exception(OutcomeUnknownError("fenced"))
                continue
            self.committed += count
            if not future.done():
                future.set_result(self.committed - 1)
        await asyncio.sleep(0)

    def _queue(self, payloads):
        at = self.now + self.ack_s
        if self.stall_from <= at < self.stall_to:
            at = self.stall_to
        future = asyncio.get_running_loop().create_future()
        self.payloads += payloads
        self.tail += len(payloads)
        self.waiting.append((at, len(payloads), future))
        return future

    def append_soon(self, payload):
        if len(self.waiting) >= self.room:
            raise OverloadedError("full")
        return self._queue([payload])

    async def append(self, payload):
        future = self._queue([payload])
        await self.step()
        return await future

    async def append_many(self, payloads):
        return await self._queue(payloads)

    async def drain(self):
        while len(self.waiting) >= self.room:
            await self.step()


async def send(monkeypatch, plan, world, part=None, **hooks):
    """Run to the end; whoever waits with nothing else to do lets time pass."""
    monkeypatch.setattr(module, "clock", world.clock)
    monkeypatch.setattr(module, "pause", world.pause)
    part = part or Part("append", size=32)
    found = Sending(world, "s", BODIES, part, plan, **hooks)
    running = asyncio.ensure_future(found.run())
    try:
        while not running.done():
            for _ in range(5):
                await asyncio.sleep(0)
            if world.waiting and not running.done():
                await world.step()
        await running
    finally:
        running.cancel()
        part.stop(world.now)
        part.settle(found.acknowledged)
    return part, found


def right(world):
    check = Check(BODIES, 50)
    check.take(list(range(50, 50 + len(world.payloads))), world.payloads)
    return check.count


@pytest.mark.parametrize(
    "plan",
    [
        Plan(size=32, events=500, window=1),
        Plan(size=32, events=500, window=64),
        Plan(size=32, events=500, window=4, batch=30),
        Plan(size=32, events=500, rate=1000),
        Plan(size=32, events=500, rate=1000, batch=30),
    ],
    ids=["lone", "window", "frames", "open", "open frames"],
)
async def test_every_way_sends_the_whole_chain_once_and_counts_each_event(monkeypatch, plan):
    world = World(room=40)
    part, found = await send(monkeypatch, plan, world)
    assert right(world) == 500
    assert (part.sent, part.done, part.unanswered) == (500, 500, 0)
    assert part.latencies.count == 500
    written = found.written()
    assert (written.first, written.acknowledged, written.sent) == (50, 500, 500)
    assert part.is_closed_loop == (plan.rate is None)


@pytest.mark.parametrize("batch", [1, 10])
async def test_in_an_open_loop_a_stall_is_felt_by_all_that_were_due(monkeypatch, batch):
    """1000 a second for 2 s; for half a second no ack comes: a quarter of all have waited for it."""
    world = World(stalled=(0.5, 1.0))
    plan = Plan(size=32, rate=1000, seconds=2, batch=batch)
    part, _ = await send(monkeypatch, plan, world)
    assert part.done == 2000
    assert part.latencies.percentile_us(50) == pytest.approx(1000, rel=0.01)
    assert part.latencies.percentile_us(80) == pytest.approx(100_000, rel=0.15)
    assert part.latencies.percentile_us(90) == pytest.approx(300_000, rel=0.1)
    assert part.latencies.percentile_us(100) == pytest.approx(500_000, rel=0.03)


async def test_it_is_felt_too_by_those_that_could_not_leave(monkeypatch):
    """The same with room for five: the others leave late, and count from when they were due."""
    world = World(stalled=(0.5, 1.0), room=5)
    part, _ = await send(monkeypatch, Plan(size=32, rate=1000, seconds=2), world)
    assert part.done == 2000
    assert part.latencies.percentile_us(80) >= 100_000 * 0.9
    assert part.latencies.percentile_us(100) == pytest.approx(500_000, rel=0.05)
    assert part.late.percentile_us(100) == pytest.approx(495_000, rel=0.05)


async def test_frames_that_are_due_at_once_send_no_more_than_is_wanted(monkeypatch):
    world, looks = World(), itertools.count()
    world.clock = lambda: world.now + next(looks) * 1e-6  # ten frames later at each look
    part, _ = await send(monkeypatch, Plan(size=32, events=150, rate=1e9, batch=100), world)
    assert (part.sent, part.done, right(world)) == (150, 150, 150)


async def test_a_closed_loop_hides_the_same_stall_and_its_correction_tells_it(monkeypatch):
    world = World(stalled=(0.5, 1.0))
    part, _ = await send(monkeypatch, Plan(size=32, seconds=2, window=1), world)
    assert part.latencies.percentile_us(99) == pytest.approx(1000, rel=0.01)
    row = part.row(world.now)
    assert row["corrected_us"]["p90"] == pytest.approx(300_000, rel=0.1)


async def test_what_was_due_and_never_left_counts_with_its_wait(monkeypatch):
    """A cluster that takes 100 a second is asked for 1000."""
    world = World(ack_s=0.01, room=1)
    part, _ = await send(monkeypatch, Plan(size=32, rate=1000, seconds=1), world)
    assert part.sent == part.done
    assert part.sent == pytest.approx(100, abs=2)
    assert part.extra["unsent"] == part.unanswered
    assert part.sent + part.unanswered == pytest.approx(1000, abs=2)
    assert part.latencies.count == part.done + part.unanswered
    assert part.latencies.percentile_us(50) > 400_000


async def test_of_a_last_short_frame_only_what_is_in_it_was_due(monkeypatch):
    world = World(stalled=(0, 9))
    plan = Plan(size=32, events=3003, rate=1e6, seconds=1, batch=10)
    part, _ = await send(monkeypatch, plan, world)
    assert part.extra["unsent"] == part.unanswered > 3
    assert part.sent + part.unanswered == 3003


async def test_what_left_late_or_never_is_told_of_all_streams_together(monkeypatch):
    part = Part("append", size=32)
    for _ in range(2):
        world = World(ack_s=0.01, room=1)
        await send(monkeypatch, Plan(size=32, rate=1000, seconds=1), world, part)
    assert part.late.count == part.sent
    assert part.extra["unsent"] == part.unanswered
    assert part.sent + part.unanswered == pytest.approx(2000, abs=4)


@pytest.mark.parametrize("plan", [Plan(size=32, window=10), Plan(size=32, window=2, batch=5)])
async def test_a_lost_epoch_ends_it_with_what_is_known(monkeypatch, plan):
    world = World(dies_at=100)
    with pytest.raises(OutcomeUnknownError):
        await send(monkeypatch, plan, world)
    monkeypatch.undo()
    world = World(dies_at=100)
    part = Part("append", size=32)
    monkeypatch.setattr(module, "clock", world.clock)
    found = Sending(world, "s", BODIES, part, plan)
    running = asyncio.ensure_future(found.run())
    while not running.done():
        for _ in range(5):
            await asyncio.sleep(0)
        if world.waiting and not running.done():
            await world.step()
    assert isinstance(running.exception(), OutcomeUnknownError)
    assert found.acknowledged == part.done == 100
    assert part.sent == part.done + part.unanswered
    assert part.latencies.count == part.sent


async def test_a_refused_append_is_raised_and_not_counted_as_sent(monkeypatch):
    world = World()

    def refuse(payload):
        raise NotLeaderError("another one leads")

    monkeypatch.setattr(world, "append_soon", refuse)
    part = Part("append", size=32)
    found = Sending(world, "s", BODIES, part, Plan(size=32, window=10))
    with pytest.raises(NotLeaderError):
        await found.run()
    assert (found.sent, part.sent, part.unanswered) == (0, 0, 0)


async def test_who_is_cancelled_counts_what_is_in_flight(monkeypatch):
    world = World()
    monkeypatch.setattr(module, "clock", world.clock)
    part = Part("append", size=32)
    found = Sending(world, "s", BODIES, part, Plan(size=32, window=10))
    running = asyncio.ensure_future(found.run())
    await asyncio.sleep(0)
    world.now += 3.0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (part.sent, part.done, part.unanswered) == (10, 0, 10)
    assert part.latencies.percentile_us(50) == pytest.approx(3_000_000, rel=0.001)
    assert found.written().acknowledged == 0


async def test_one_at_a_time_waits_for_what_it_is_told_to(monkeypatch):
    world, seen = World(), []

    async def after(sequence):
        seen.append((sequence, len(world.payloads)))

    await send(monkeypatch, Plan(size=32, events=3, window=1), world, after_each=after)
    assert seen == [(50, 1), (51, 2), (52, 3)]


async def test_who_follows_is_told_when_each_event_was_meant_to_leave(monkeypatch):
    told = []
    plan = Plan(size=32, events=5, rate=10)
    await send(monkeypatch, plan, World(), on_sent=lambda at, count: told.append((at, count)))
    assert [count for _, count in told] == [1] * 5
    assert [at for at, _ in told] == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])


async def test_a_stream_begins_in_its_turn_and_counts_from_there(monkeypatch):
    left, world = [], World()
    plan = Plan(size=32, rate=10, seconds=1)
    part, found = await send(
        monkeypatch, plan, world, phase_s=0.05, on_sent=lambda at, count: left.append((at, count))
    )
    assert left == [(pytest.approx(100.05 + n / 10), 1) for n in range(10)]
    assert (part.done, found.sent) == (10, 10)
