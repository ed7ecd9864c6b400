"""The three engine processes of the demo, and what they report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lunalog.orchestrator.dev import DevCluster

WINDOW_S = 2.0
"""How long after a server's death pauses between acks are counted."""


@dataclass
class EngineProcess:
    """One engine: its process and its last report."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    role: str = "follower"
    epoch: int = 0
    applied: int = 0
    sha256: str = ""
    goes_on_at: int = 0
    first_ack: float | None = None
    last_ack: float = 0.0
    appending: list[tuple[float, int]] = field(default_factory=list)
    """Time and line of each acknowledged block."""
    is_killed: bool = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def kill(self) -> None:
        """Kill -9."""
        self.is_killed = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def take(self, row: dict[str, Any]) -> None:
        """Note a report."""
        self.role, self.epoch, self.applied = row["role"], row["epoch"], row["applied"]
        self.sha256 = row.get("sha256", self.sha256)
        if "goes_on_at" in row:
            self.goes_on_at = row["goes_on_at"]
            self.appending.append((row["t"], self.applied))
        elif self.role == "leader" and "sha256" not in row:
            self.first_ack = self.first_ack or row["t"]
            self.last_ack = row["t"]
            self.appending.append((row["t"], self.applied))

    def last_words(self) -> str:
        """Return the end of its stderr."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])


class Engines:
    """All engines that were ever started."""

    def __init__(self, file: Path, stream: str) -> None:
        self._file = file
        self._stream = stream
        self._all: list[EngineProcess] = []
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.acknowledged = 0
        self.failover_s = 0.0
        self._gap_from: float | None = None
        self.longest_gap_s = 0.0
        self._last_ack = 0.0

    async def start(self, name: str, cluster: DevCluster) -> None:
        """Start an engine that ends when the cluster's lifeline closes."""
        log = self._file.parent / f"{name}.log" if self._file.name == "stdlib.txt" else None
        log = log or cluster.directory.path / f"{name}.log"
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(Path(__file__).with_name("engine.py"))),
                *(name, self._stream, str(self._file)),
                *("--cluster", cluster.url, "--lifeline", str(cluster.lifeline)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=(cluster.lifeline,),
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        engine = EngineProcess(name, process, log)
        self._all.append(engine)
        task = asyncio.create_task(self._listen(engine), name=name)
        self._tasks.add(task)

    async def _listen(self, engine: EngineProcess) -> None:
        if engine.process.stdout is None:
            return
        async for line in engine.process.stdout:
            engine.take(json.loads(line))
            if engine.role == "leader":
                self._acknowledged(engine)
            self._moved.set()
        await engine.process.wait()
        self._moved.set()

    def _acknowledged(self, engine: EngineProcess) -> None:
        if engine.last_ack > self._last_ack:
            since = self._gap_from
            if since is not None and self._last_ack <= since + WINDOW_S:
                self.longest_gap_s = max(self.longest_gap_s, engine.last_ack - self._last_ack)
            self._last_ack = engine.last_ack
        self.acknowledged = max(self.acknowledged, engine.applied)

    def watch_gap(self) -> None:
        """Measure pauses between acks from now on, for a while."""
        self._gap_from = self._last_ack

    async def changed(self) -> None:
        """Wait until something is reported, or a moment."""
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):  # `wait_for` may lose a Ctrl-C (Python 3.11)
                await self._moved.wait()

    @property
    def leader(self) -> EngineProcess | None:
        """Who leads, as far as is known."""
        leaders = [e for e in self.running() if e.role == "leader"]
        return max(leaders, key=lambda e: e.epoch, default=None)

    def running(self) -> list[EngineProcess]:
        """Engines that were not killed, by name."""
        return sorted((e for e in self._all if not e.is_killed), key=lambda e: e.name)

    def died(self) -> EngineProcess | None:
        """Return an engine that nobody killed and that runs no more."""
        return next((e for e in self.running() if e.process.returncode is not None), None)

    def throughput(self) -> float:
        """Lines a second over the time in which somebody led and appended."""
        seconds = sum(e.appending[-1][0] - e.appending[0][0] for e in self._all if e.appending)
        lines = sum(e.appending[-1][1] - e.appending[0][1] for e in self._all if e.appending)
        return lines / seconds if seconds else 0.0

    def kill(self) -> None:
        """End them all."""
        for engine in self._all:
            if engine.process.returncode is None:
                engine.kill()
        for task in self._tasks:
            task.cancel()
