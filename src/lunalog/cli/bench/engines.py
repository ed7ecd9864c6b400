"""The candidates of a failover, and what they have told: tasks of this process, or processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from lunalog.cli import exits
from lunalog.cli.bench.chain import Bodies
from lunalog.cli.bench.engine import ACK, FAILED, LEADS, READY, lead_and_append
from lunalog.cli.bench.ground import Ground
from lunalog.cli.running import peer_name
from lunalog.errors import LunalogError
from lunalog.runtime import Tasks

T = TypeVar("T")
END_S: Final = 5.0
"""A process gets so long to resign before it is killed."""


class Engine:
    """What is known of one candidate."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_ready = False
        self.epoch = 0
        """That it led last."""
        self.last_ack: float | None = None
        self.is_over = False


class Handle(Protocol):
    """How a candidate is ended."""

    async def end(self) -> None:
        """In an orderly way: it resigns."""
        ...


class Engines:
    """All candidates of one stream; two at a time."""

    def __init__(self, ground: Ground, stream: str, bodies: Bodies, tasks: Tasks) -> None:
        self._ground = ground
        self._stream = stream
        self._bodies = bodies
        self._tasks = tasks
        self._handles: dict[Engine, Handle] = {}
        self._moved = asyncio.Event()
        self._number = 0
        self.engines: list[Engine] = []
        self.acknowledged = 0
        """Everything below was acknowledged to one of them."""
        self.last: tuple[float, Engine] | None = None
        """The last ack, and whose it was."""
        self.wrong: str | None = None
        """A sequence that was acknowledged twice, or out of order."""
        self.on_ack: Callable[[float], None] = lambda at: None

    async def start(self) -> Engine:
        """Start one more, and wait until it is connected."""
        self._number += 1
        role = f"bench-engine-{self._number}"
        engine = Engine(peer_name(role))
        self.engines.append(engine)
        if self._ground.is_embedded:
            journal = await self._ground.journal(role)
            work = lead_and_append(journal, self._stream, self._bodies, self._teller(engine))
            self._handles[engine] = TaskHandle(self._tasks.start(self._told(engine, work), role))
        else:
            process = await self._spawn(engine)
            handle = ProcessHandle(process)
            self._handles[engine] = handle
            handle.reading = self._tasks.start(self._listen(engine, process), role)
        await self.until(lambda: engine.is_ready)
        return engine

    async def _spawn(self, engine: Engine) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lunalog.cli.bench.engine"),
            *(self._ground.url, self._stream, engine.peer),
            *(str(self._bodies.seed), str(self._bodies.size)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    async def _told(self, engine: Engine, work: Awaitable[None]) -> None:
        """A task's error is told like that of a process."""
        try:
            await work
        except LunalogError as error:
            self.wrong = self.wrong or f"{engine.peer} ended: {error}"
        finally:
            engine.is_over = True
            self._moved.set()

    async def _listen(self, engine: Engine, process: asyncio.subprocess.Process) -> None:
        tell = self._teller(engine)
        if process.stdout is not None:
            async for line in process.stdout:
                words = line.split()
                if len(words) == 3:  # the last one of a killed process may be cut
                    tell(words[0].decode(), float(words[1]), int(words[2]))
        await process.wait()
        engine.is_over = True
        self._moved.set()

    def _teller(self, engine: Engine) -> Callable[[str, float, int], None]:
        def tell(what: str, when: float, number: int) -> None:
            if what == READY:
                engine.is_ready = True
            elif what == LEADS:
                engine.epoch = number
            elif what == ACK:
                self._acked(engine, when, number)
            elif what == FAILED:
                self.wrong = self.wrong or f"{engine.peer} failed"
            self._moved.set()

        return tell

    def _acked(self, engine: Engine, when: float, sequence: int) -> None:
        if sequence < self.acknowledged and engine.epoch == max(e.epoch for e in self.engines):
            self.wrong = f"{sequence} was acknowledged to {engine.peer} behind {self.acknowledged}"
        engine.last_ack = when
        self.acknowledged = max(self.acknowledged, sequence + 1)
        if self.last is None or when > self.last[0]:
            self.last = when, engine
        self.on_ack(when)

    @property
    def leader(self) -> Engine:
        """Who acknowledged last."""
        if self.last is None:
            raise exits.CommandError("nobody leads", exits.UNAVAILABLE)
        return self.last[1]

    @property
    def other(self) -> Engine:
        """Who stands beside the leader."""
        return next(e for e in self.engines if e is not self.leader and not e.is_over)

    async def until(self, holds: Callable[[], T]) -> T:
        """Wait for something that the engines tell; a stall is noticed elsewhere."""
        while not (found := holds()):
            if self.wrong is not None:
                raise exits.CommandError(self.wrong)
            self._moved.clear()
            await self._moved.wait()
        return found

    def signal(self, engine: Engine, signum: int) -> None:
        """Send a signal to an engine's process."""
        handle = self._handles[engine]
        if isinstance(handle, ProcessHandle):
            handle.send(signum)

    async def bury(self, engine: Engine) -> None:
        """Kill an engine and wait until it is gone."""
        self.signal(engine, signal.SIGKILL)
        await self.until(lambda: engine.is_over)

    async def end(self) -> None:
        """End all; each resigns if it leads."""
        async with asyncio.TaskGroup() as group:
            for engine in self.engines:
                if not engine.is_over and engine in self._handles:
                    group.create_task(self._handles[engine].end())

    def kill(self) -> None:
        """End all processes at once."""
        for engine in self.engines:
            if engine in self._handles:
                self.signal(engine, signal.SIGKILL)


class TaskHandle:
    """An engine in this process."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def end(self) -> None:
        """Cancel it; it resigns on its way out."""
        self._task.cancel()
        await asyncio.wait([self._task])


class ProcessHandle:
    """An engine that is a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.reading: asyncio.Task[None] | None = None

    def send(self, signum: int) -> None:
        """Signal it, if it runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)

    async def end(self) -> None:
        """SIGTERM: it resigns; SIGKILL when that takes too long or is cut short."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._process.wait()
        finally:
            self.send(signal.SIGKILL)
        await self._process.wait()
        if self.reading is not None:
            await asyncio.wait([self.reading])
