"""The demo: a real file becomes a replicated stream while its leader and a server are killed.

    make demo                  the source text of Python's standard library
    make demo FILE=/some/file  another file, one event a line

Starts a master, three journal servers and three engines (engine.py).  When a third of the lines is
acknowledged the leading engine is killed with -9, at two thirds a journal server that holds the open
segment.  In the end each engine has replayed the stream; their digests must be that of the file.

Exit code 0: the proof holds.  1: it does not.  2: there is no such file of lines, nothing was started.
Whatever ends this process ends all the others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from demo_engines import EngineProcess, Engines
from demo_screen import Screen
from lunalog import SingleWriteJournal, limits
from lunalog.cli.exits import TerminatedError
from lunalog.cli.options import Settings
from lunalog.cli.running import run
from lunalog.errors import AvailabilityError, LunalogError
from lunalog.orchestrator.dev import DevCluster
from lunalog.runtime import SystemRuntime

T = TypeVar("T")
STREAM = "lines"
SERVERS = 3
STALL_S = 60.0
"""Without any progress for this long the demo gives up."""


class DemoError(Exception):
    """The demo cannot go on."""


class BadFileError(DemoError):
    """The file cannot be replicated line by line."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"cannot replicate {name}: {why}; nothing was started; "
            "name a file of lines: make demo FILE=/some/file"
        )


@dataclass
class Source:
    """The file whose lines are appended."""

    path: Path
    title: str
    lines: int
    empty: int
    size: int
    sha256: str

    @staticmethod
    def of(path: Path, title: str) -> Source:
        """Look at a file; a last line without a newline counts as one with it."""
        digest, lines, empty, size = hashlib.sha256(), 0, 0, 0
        with path.open("rb") as file:
            for line in file:
                payload = line.removesuffix(b"\n")
                if len(payload) > limits.PAYLOAD_BYTES_MAX:
                    most = limits.PAYLOAD_BYTES_MAX >> 20
                    raise BadFileError(title, f"line {lines + 1} is longer than {most} MiB")
                digest.update(payload + b"\n")
                lines, empty, size = lines + 1, empty + (not payload), size + len(line)
        return Source(path, title, lines, empty, size, digest.hexdigest())


def choose_file(name: str, folder: Path) -> Source:
    """Return the file that was asked for, or the standard library's source text as one file."""
    if name:
        return given_file(name)
    library = Path(sysconfig.get_path("stdlib"))
    path = folder / "stdlib.txt"
    with path.open("wb") as text:
        for part in sorted(library.rglob("*.py")):
            if "site-packages" not in part.parts and "dist-packages" not in part.parts:
                content = part.read_bytes()
                text.write(content if not content or content.endswith(b"\n") else content + b"\n")
    return Source.of(path, f"{library}/**/*.py")


def given_file(name: str) -> Source:
    """Return the file that was asked for; raises `BadFileError`."""
    path = Path(name)
    if path.exists() and not path.is_file():  # the engines read it again: a pipe would not do
        raise BadFileError(name, "it is no regular file")
    try:
        source = Source.of(path, name)
    except OSError as error:
        raise BadFileError(name, (error.strerror or str(error)).lower()) from error
    if source.lines == 0:
        raise BadFileError(name, "it is empty")
    return source


def milliseconds(seconds: float) -> str:
    """Return a time as people read it."""
    return f"{seconds * 1000:.0f} ms"


def figure(name: str, value: float, text: str) -> str:
    """Return a line of the result."""
    return f"{name:20} {text if value else 'not measured: the file is too short'}"


class Demo:
    """One run."""

    def __init__(self, source: Source, folder: Path, screen: Screen) -> None:
        self.source = source
        self.screen = screen
        self.cluster = DevCluster(SystemRuntime(), folder / "cluster", servers=SERVERS)
        self.engines = Engines(source.path, STREAM)
        self._killed = ("", 0)
        """The journal server that was killed, and its process."""

    async def run(self) -> bool:
        """Play it all; returns whether the proof holds."""
        say, source = self.screen.say, self.source
        say(
            f"{source.lines:,} lines ({source.empty:,} of them empty, {source.size / 1e6:.1f} MB) "
            f"of {source.title}"
        )
        await self.cluster.start()
        try:
            async with self._journal() as journal:
                await self._begin(journal)
                self.screen.start(source.lines, self.engines)
                await self._kill_leader()
                await self._kill_server(journal)
                await self._finish(journal)
                return await self._prove(journal)
        finally:
            self.screen.stop()
            await asyncio.shield(self._end())

    async def _end(self) -> None:
        self.engines.kill()
        await self.cluster.stop()

    @contextlib.asynccontextmanager
    async def _journal(self) -> AsyncIterator[SingleWriteJournal]:
        """Connect as soon as the master answers."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STALL_S
        while not await self._answers():
            if self.cluster.failed is not None or loop.time() > deadline:
                raise DemoError(f"the cluster does not start: {self.cluster.failed or 'no answer'}")
            await asyncio.sleep(0.05)
        self.cluster.note_up()
        async with SingleWriteJournal.connect(self.cluster.url, peer="demo") as journal:
            yield journal

    async def _answers(self) -> bool:
        try:
            async with SingleWriteJournal.connect(self.cluster.url, peer="demo-0", timeout=2.0):
                return True
        except AvailabilityError:
            return False

    # ------------------------------------------------------------------ the acts

    async def _begin(self, journal: SingleWriteJournal) -> None:
        """Wait for the servers, then start the engines and wait for a leader."""
        while await self._alive(journal) < SERVERS:
            await asyncio.sleep(0.05)
        self.screen.say(f"a master and {SERVERS} journal servers are up at {self.cluster.url}")
        await journal.create_stream(STREAM, replicas=3, ack_quorum=2)
        for name in ("engine-1", "engine-2", "engine-3"):
            await self.engines.start(name, self.cluster)
        leader = await self.until(lambda: self.engines.leader)
        self.screen.say(f"{leader.name} leads epoch {leader.epoch}, the others follow")

    async def _alive(self, journal: SingleWriteJournal) -> int:
        listed = await journal.servers()
        return sum(1 for server in listed.servers if server.state == "alive")

    async def _kill_leader(self) -> None:
        engines = self.engines
        await self.until(lambda: engines.acknowledged >= max(1, self.source.lines // 3))
        old = await self.until(lambda: engines.leader)
        old.kill()
        self.screen.say(
            f"{engines.acknowledged:,} lines are acknowledged: kill -9 of the leader {old.name} "
            f"(process {old.pid})"
        )
        leader = await self.until(self._who_goes_on)
        says = f"{leader.name} leads epoch {leader.epoch} and goes on at line {leader.goes_on_at:,}"
        if leader.first_ack and old.last_ack:
            engines.failover_s = leader.first_ack - old.last_ack
            says += f"; first new ack {milliseconds(engines.failover_s)} after the last one"
        else:
            says += ": there is nothing left to append, the file is too short for more"
        self.screen.say(says)
        await engines.start(old.name, self.cluster)
        self.screen.say(f"{old.name} is back as a follower, and replays from 0")

    def _who_goes_on(self) -> EngineProcess | None:
        """Who leads now, once it has appended or knows that nothing is left."""
        leader = self.engines.leader
        if leader and (leader.first_ack or leader.goes_on_at == self.source.lines):
            return leader
        return None

    async def _kill_server(self, journal: SingleWriteJournal) -> None:
        engines = self.engines
        await self.until(lambda: engines.acknowledged >= self.source.lines * 2 // 3)
        found = await journal.describe(STREAM)
        segment = found.head.open or found.rows[-1]
        name = segment.members[0].server
        engines.watch_gap()
        pid = self.cluster.directory.kill(name)
        self._killed = name, pid
        self.screen.say(
            f"{engines.acknowledged:,} lines are acknowledged: kill -9 of journal server {name} "
            f"(process {pid}), a replica of the last segment {segment.id}"
        )

    async def _finish(self, journal: SingleWriteJournal) -> None:
        """Wait for the last ack, and until the orchestrator has three servers again."""
        engines = self.engines
        await self.until(lambda: engines.acknowledged >= self.source.lines)
        gap = engines.longest_gap_s
        pause = (
            f"; longest pause between two acks since that kill: {milliseconds(gap)}" if gap else ""
        )
        self.screen.say(f"all {self.source.lines:,} lines are acknowledged{pause}")
        name, pid = self._killed
        while self.cluster.directory.members().get(name, pid) == pid:
            await asyncio.sleep(0.05)
        while await self._alive(journal) < SERVERS:
            await asyncio.sleep(0.05)
        self.screen.say(
            f"{name} is back on its own data: {SERVERS} journal servers are alive again"
        )
        await self.until(lambda: all(e.sha256 for e in engines.running()))

    async def _prove(self, journal: SingleWriteJournal) -> bool:
        """Show the figures and compare the digests."""
        self.screen.stop()
        source, engines = self.source, self.engines
        committed = await journal.committed(STREAM)
        rate = engines.throughput()
        failover, gap = engines.failover_s, engines.longest_gap_s
        rows = [
            figure(
                "throughput",
                rate,
                f"{rate:,.0f} lines/s, {rate * source.size / source.lines / 1e6:.1f} MB/s while a "
                "leader appended, each fsynced on 2 of 3 servers before its ack",
            ),
            figure(
                "fail-over of leader",
                failover,
                f"{milliseconds(failover)} from last ack to first new ack",
            ),
            figure("death of a server", gap, f"{milliseconds(gap)} longest pause between acks"),
            f"{'file':9} {source.lines:>11,} lines   sha256 {source.sha256}",
        ]
        holds = committed == source.lines
        if not holds:
            rows.append(f"the stream ends at {committed:,} and not at {source.lines:,}")
        for engine in engines.running():
            equal = engine.sha256 == source.sha256 and engine.applied == source.lines
            holds = holds and equal
            verdict = "equal" if equal else "DIFFERENT"
            rows.append(
                f"{engine.name:9} {engine.applied:>11,} events  sha256 {engine.sha256}  "
                f"{verdict} ({engine.role})"
            )
        holds = holds and len(engines.running()) == 3
        rows.append(
            "every acknowledged line is there exactly once, in order, on every engine"
            if holds
            else "THE PROOF DOES NOT HOLD"
        )
        self.screen.result(rows)
        return holds

    async def until(self, found: Callable[[], T | None]) -> T:
        """Wait for something the engines report; gives up when nothing moves any more."""
        loop = asyncio.get_running_loop()
        moved_at, last = loop.time(), -1
        while not (value := found()):
            applied = sum(engine.applied for engine in self.engines.running())
            if applied != last:
                moved_at, last = loop.time(), applied
            if loop.time() - moved_at > STALL_S:
                raise DemoError(f"nothing has moved for {STALL_S:.0f} s")
            if self.cluster.failed is not None:
                raise DemoError(f"the cluster is gone: {self.cluster.failed}")
            dead = self.engines.died()
            if dead is not None:
                raise DemoError(f"{dead.name} ended by itself:\n{dead.last_words()}")
            await self.engines.changed()
        return value


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for the run."""
    with tempfile.TemporaryDirectory(prefix="lunalog-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def play(name: str) -> int:
    """Run the demo in a directory of its own."""
    with folder() as where:
        screen = Screen()
        try:
            source = choose_file(name, where)
            return 0 if await Demo(source, where, screen).run() else 1
        except (DemoError, LunalogError, OSError) as error:
            screen.stop()
            print(f"error: {error}", file=sys.stderr)
            return 2 if isinstance(error, BadFileError) else 1


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Replicate a file, kill its leader, prove it.")
    parser.add_argument("file", nargs="?", default=os.environ.get("FILE", ""))
    options = parser.parse_args()
    try:
        return run(Settings(), play(options.file))
    except KeyboardInterrupt:
        return 130
    except TerminatedError as error:
        return 128 + error.signum


if __name__ == "__main__":
    sys.exit(main())
