"""A session from its first phase to its last: workloads that go well, hang, fail or are ended."""

import asyncio
import os
import signal

import pytest

from lunalog.cli import exits
from lunalog.cli.bench.command import code_of
from lunalog.cli.bench.ground import Ground
from lunalog.cli.bench.plan import Plan
from lunalog.cli.bench.recorder import Part, clock
from lunalog.cli.bench.result import Ended
from lunalog.cli.bench.session import Session, restarts
from lunalog.cli.bench.verify import Written
from lunalog.cli.bench.writing import Writing
from lunalog.cli.options import Settings
from lunalog.errors import NotLeaderError

FOR_EVER = Plan(size=64, events=10**9, window=4, stall_s=60)


class Watched(Ground):
    """A ground in memory that says what is left when it is closed."""

    def __init__(self, name):
        super().__init__(Settings(f"memory://{name}", given={"cluster"}), servers=3, directory=None)
        self.left = None

    async def close(self):
        self.left = [head.name async for head in self.control.list_streams()]
        await super().close()


class StandIn:
    """A workload that does what it is told."""

    name = "write"

    def __init__(self, work, written=()):
        self.parts = [Part("append", size=64)]
        self._work = work
        self._written = list(written)

    async def run(self, ground, plan, bodies):
        self.parts[0].start(clock())
        await self._work(ground, self.parts[0], bodies)

    def written(self):
        return self._written


async def run(workload, plan=FOR_EVER):
    """Run a session; returns it, its result, and the ground."""
    ground = Watched(f"session-{id(workload)}")
    session = Session(plan, workload, ground, 1)
    return session, await session.run(), ground


def told(session, result):
    """The exit code, or what it is raised for."""
    return code_of(session.signum, session.error, result)


async def test_a_run_that_ends_by_itself_is_verified_and_leaves_no_stream():
    session, result, ground = await run(Writing(), Plan(size=64, events=100, window=4))
    assert result.ended is Ended.FINISHED
    assert result.row()["verified"]["holds"] is True
    assert result.verdict.events == 100
    assert ground.left == []
    assert told(session, result) == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_measuring_and_what_was_measured_is_verified(signum):
    writing = Writing()

    async def strike():
        while not writing.parts or writing.parts[0].done < 50:
            await asyncio.sleep(0)
        os.kill(os.getpid(), signum)

    striking = asyncio.ensure_future(strike())
    session, result, ground = await run(writing)
    await striking
    assert result.ended is Ended.INTERRUPTED
    assert result.why == f"by {signal.Signals(signum).name}"
    row = result.row()
    assert row["verified"]["holds"] is True
    assert row["verified"]["events"] >= 50
    assert row["parts"][0]["done"] <= row["verified"]["events"]
    assert ground.left == []
    with pytest.raises(exits.TerminatedError) as raised:
        told(session, result)
    assert raised.value.signum == signum
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_second_signal_ends_what_does_not_want_to_end():
    """A workload that waits for a dead cluster while it is cancelled."""
    started = asyncio.Event()

    async def stubborn(ground, part, bodies):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    async def strike():
        await started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    striking = asyncio.ensure_future(strike())
    session, result, ground = await run(StandIn(stubborn))
    await striking
    assert result.ended is Ended.INTERRUPTED
    assert ground.left == []
    assert session.signum == signal.SIGINT


async def test_a_signal_before_anything_is_measured_gives_no_result():
    class Slow(Watched):
        async def open(self):
            await super().open()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    ground = Slow("slow")
    with pytest.raises(exits.TerminatedError):
        await Session(FOR_EVER, Writing(), ground, 1).run()
    assert ground.left == []


async def test_a_stall_ends_it_with_what_is_known():
    async def hang(ground, part, bodies):
        part.note(clock(), 5, 0.001)
        await asyncio.Event().wait()

    plan = Plan(size=64, stall_s=0.1)
    session, result, ground = await run(StandIn(hang), plan)
    assert (result.ended, result.parts[0].done) == (Ended.STALLED, 5)
    assert "for 0.1 s" in result.why
    assert ground.left == []
    with pytest.raises(exits.CommandError) as raised:
        told(session, result)
    assert raised.value.exit_code == exits.UNAVAILABLE


async def test_an_error_ends_it_and_is_raised_when_all_is_clean():
    async def fail(ground, part, bodies):
        await ground.create("x", Plan())
        raise NotLeaderError("another one leads")

    session, result, ground = await run(StandIn(fail))
    assert (result.ended, result.why) == (Ended.FAILED, "another one leads")
    assert ground.left == []
    with pytest.raises(NotLeaderError):
        told(session, result)


async def test_lost_events_are_worse_than_anything_else():
    async def lose(ground, part, bodies):
        stream = await ground.create("x", Plan())
        workload._written.append(Written(stream, bodies, 0, 3, 3))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    workload = StandIn(lose)
    session, result, _ = await run(workload)
    assert result.row()["verified"]["holds"] is False
    with pytest.raises(exits.CommandError, match="not what was written") as raised:
        told(session, result)
    assert raised.value.exit_code == exits.ERROR


async def test_what_cannot_be_read_back_is_no_success():
    async def nothing(ground, part, bodies):
        pass

    workload = StandIn(nothing)
    session, result, _ = await run(workload)
    result.verdict.is_over = False
    result.verdict.unknown = "its leader left it open"
    with pytest.raises(exits.CommandError, match="left it open") as raised:
        told(session, result)
    assert raised.value.exit_code == exits.UNAVAILABLE


async def test_streams_that_could_not_be_deleted_are_named():
    class Stuck(Watched):
        async def delete(self):
            return ["bench/1/write"]

    session = Session(Plan(size=64, events=3, window=1), Writing(), Stuck("stuck"), 1)
    result = await session.run()
    assert result.row()["streams_left"] == ["bench/1/write"]
    with pytest.raises(exits.CommandError, match="bench/1/write"):
        told(session, result)


def test_servers_that_died_meanwhile_are_told():
    before = {"s1": (1, 1), "s2": (1, 1), "s3": (1, 4)}
    assert restarts(before, {"s1": (1, 2), "s3": (1, 4)}) == [
        "server s1 was started again meanwhile",
        "server s2 went away meanwhile",
    ]
    assert restarts(before, before) == []
    assert restarts(before, {}) == []
