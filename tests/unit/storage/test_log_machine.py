"""A log through any life: puts, waits, clean restarts, kills and power cuts, in any order (I9).

The model is what its owner was told, and what it had asked for: all that was told is there afterwards,
nothing is there that was not asked for, and every frame is the bytes that it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from tests.unit.machines import machine_settings
from tests.unit.storage.conftest import CONFIG, OTHER, STREAM, LogWorld, Owner, essence
from tests.unit.storage.workload import Workload

from lunalog.core.held import SegmentReplica
from lunalog.testing.simulation import Simulation

TINY = replace(CONFIG, extent_bytes=6 << 10)
Job = Callable[[Owner], Coroutine[Any, Any, Any]]

streams = st.sampled_from([STREAM, STREAM, OTHER])


class LogMachine(RuleBasedStateMachine):
    """Rules put records; what became of them is looked at after every start."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(1)
        self.simulation.__enter__()
        self.world = LogWorld(self.simulation, TINY)
        self.jobs: list[Job] = []
        self.is_leaving = False
        self.start()

    def teardown(self) -> None:
        try:
            self.crash(power=True)
        finally:
            self.simulation.__exit__(None, None, None)

    # ------------------------------------------------------------ lives

    def start(self) -> None:
        self.jobs.clear()
        self.is_leaving = False
        self.world.begin(self._serve)
        self.do(lambda owner: owner.check())
        assert not self.world.owner.log.may_have_lost
        assert self.world.owner.log.damage == []

    async def _serve(self, owner: Owner) -> None:
        while not self.is_leaving:
            while self.jobs:
                await self.jobs[0](owner)
                del self.jobs[0]
            await asyncio.sleep(0.001)

    def do(self, job: Job) -> None:
        """Have the log's owner do something; a crash meanwhile is followed by the next start."""
        self.jobs.append(job)
        node = self.world.node

        async def wait() -> None:
            while self.jobs and node.is_running:
                await asyncio.sleep(0.001)

        self.simulation.run(wait(), timeout_s=600)
        if not node.is_running:
            self.world.disk.faults.heal()
            self.start()

    def now(self, act: Callable[[Owner], Any]) -> None:
        async def job(owner: Owner) -> None:
            act(owner)

        self.do(job)

    def held(self, stream: bytes) -> SegmentReplica | None:
        return Workload(self.world.owner, 0, 0)._open(stream)

    def is_deleted(self, stream: bytes) -> bool:
        state = self.world.owner.replica.streams.get(stream)
        return state is not None and state.is_deleted

    # ------------------------------------------------------------ puts

    @rule(stream=streams)
    def begin(self, stream: bytes) -> None:
        if not self.is_deleted(stream):
            self.now(lambda owner: Workload(owner, 0, 0)._begin(stream))

    @rule(stream=streams, frames=st.integers(1, 4))
    def append(self, stream: bytes, frames: int) -> None:
        def act(owner: Owner) -> None:
            held = self.held(stream)
            for _ in range(frames if held else 0):
                assert held is not None
                place = held.end * 7 % 5  # what is sent again is what was sent before
                size = (0, 30, 700, 90, 3000)[place]
                owner.append(held, stream, count=1 + place % 2, size=size)

        if self.held(stream) is None:
            self.begin(stream)
        self.now(act)

    @rule(stream=streams, back=st.integers(0, 3))
    def mark(self, stream: bytes, back: int) -> None:
        held = self.held(stream)
        if held is not None:
            self.now(lambda owner: owner.mark(held, max(held.first, held.end - back), stream))

    @rule(stream=streams)
    def promise(self, stream: bytes) -> None:
        if stream in self.world.owner.replica.streams and not self.is_deleted(stream):
            epoch = self.world.owner.replica.streams[stream].promise.epoch + 1
            self.now(lambda owner: owner.promise(stream, epoch))

    @rule(stream=streams)
    def seal(self, stream: bytes) -> None:
        held = self.held(stream)
        if held is not None and held.end > held.first:
            self.now(lambda owner: owner.certify(held, stream=stream))

    @rule(stream=streams, pick=st.integers(0, 3))
    def trim(self, stream: bytes, pick: int) -> None:
        state = self.world.owner.replica.streams.get(stream)
        held = [] if state is None or state.is_deleted else list(state.segments.values())
        ends = sorted(h.certificate.row.end for h in held if h.certificate)
        if ends:
            self.now(lambda owner: owner.trim(ends[pick % len(ends)], stream))

    @rule(stream=streams, pick=st.integers(0, 3))
    def drop(self, stream: bytes, pick: int) -> None:
        state = self.world.owner.replica.streams.get(stream)
        held = [] if state is None or state.is_deleted else list(state.segments.values())
        sealed = sorted(h.id for h in held if h.certificate)
        if sealed:
            self.now(lambda owner: owner.drop(sealed[pick % len(sealed)], stream, version=2))

    @precondition(lambda self: OTHER in self.world.owner.replica.streams)
    @rule(sure=st.integers(0, 9))
    def delete(self, sure: int) -> None:
        if sure == 0 and not self.is_deleted(OTHER):
            self.now(lambda owner: owner.delete(OTHER))

    # ------------------------------------------------------------ time, ends and beginnings

    @rule()
    def flush(self) -> None:
        self.do(lambda owner: owner.log.flush())

    @rule(seconds=st.sampled_from([0.001, 0.03, 1.2]))
    def rest(self, seconds: float) -> None:
        self.do(lambda owner: asyncio.sleep(seconds))

    @rule()
    def checkpoint(self) -> None:
        self.do(lambda owner: owner.log.checkpoint())

    @rule()
    def look(self) -> None:
        async def job(owner: Owner) -> None:
            await owner.log.flush()
            await owner.check()

        self.do(job)

    @rule()
    def restart(self) -> None:
        """A clean end: nothing that was put is lost, told or not."""
        self.is_leaving = True
        before = self.world.owner
        self.world.end()
        self.start()
        now = essence(self.world.owner.replica)
        was = essence(before.replica)
        assert now.keys() == was.keys()

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        self.world.node.crash(power=power)
        self.start()

    @rule(call=st.integers(1, 30), power=st.booleans())
    def crash_later(self, call: int, power: bool) -> None:
        """A crash behind the n-th call to the disk from here, wherever that comes."""
        node = self.world.node
        self.world.disk.faults.trap(call, lambda: node.crash(power=power))


LogMachine.TestCase.settings = machine_settings(40, 30)
TestLogMachine = LogMachine.TestCase
